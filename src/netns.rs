//! A handle on a network namespace.
