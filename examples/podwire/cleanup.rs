//! `podwire cleanup`.
