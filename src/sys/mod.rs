//! The only place with unsafe code: thin, safe wrappers around system calls that no dependency wraps.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod bpf_batch;
pub(crate) mod mmap;
pub(crate) mod net;
pub(crate) mod object;
pub(crate) mod prog;
pub(crate) mod ringbuf;
pub(crate) mod tcx;
