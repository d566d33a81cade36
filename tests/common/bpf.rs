//! A directory of pins for one test, and the objects to load.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use podwire::program::ObjectImage;

/// tests/bpf/probe.bpf.c
pub(crate) static PROBE: ObjectImage<'static> =
    ObjectImage::new("probe", include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));

/// A bpf root of its own, removed with every pin in it when the test ends.
pub(crate) struct BpfRoot(PathBuf);

impl BpfRoot {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/sys/fs/bpf/podwire_test_{}_{number}", process::id()));
        fs::create_dir(&path).expect("tests run as root with a bpffs at /sys/fs/bpf");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.0.join("tc/globals")
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.0.join("podwire/programs")
    }
}

impl Drop for BpfRoot {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}
