//! `podwire bpf`.
