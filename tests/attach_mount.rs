//! The bpffs, and what a process needs to use it.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process;

use common::bpf::{BpfRoot, PROBE, kernel_at_least};
use podwire::ErrorKind;
use podwire::program::bpffs::{self, Mounted};
use podwire::program::{Loader, features};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

#[test]
fn a_bpffs_is_mounted_where_there_is_none() {
    let directory = Directory::new("new");
    let root = directory.0.join("bpf");
    assert_eq!(bpffs::ensure_mounted(&root).expect("mount"), Mounted::Now);
    assert!(bpffs::is_bpffs(&root).expect("inspect"));
    assert_eq!(bpffs::ensure_mounted(&root).expect("mounted already"), Mounted::Before);
    assert_eq!(bpffs::ensure_mounted(&root.join("inner")).expect("a directory in it"), Mounted::Before);
    Loader::new(root.join("tc/globals")).object(PROBE).load().expect("it holds pins");
    assert!(root.join("tc/globals/probe_shared").exists());
    unmount(&root, UnmountFlags::empty()).expect("unmount");
}

#[test]
fn a_directory_with_content_is_left_alone() {
    let directory = Directory::new("used");
    fs::write(directory.0.join("precious"), "data").expect("a file");
    let error = bpffs::ensure_mounted(&directory.0).expect_err("it would be hidden");
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("precious") || error.to_string().contains("content"), "{error}");
    assert!(directory.0.join("precious").exists());
}

#[test]
fn pins_outside_a_bpffs_are_refused_before_anything_is_made() {
    let directory = Directory::new("plain");
    let pins = directory.0.join("tc/globals");
    let error = Loader::new(&pins).object(PROBE).load().expect_err("no bpffs");
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    assert!(!directory.0.join("tc").exists());
}

#[test]
fn without_privileges_the_error_says_what_is_missing() {
    let directory = Directory::new("unprivileged");
    let root = BpfRoot::new();
    features::check_privileges().expect("tests run as root");
    without_capabilities(|| {
        let error = features::check_privileges().expect_err("none is left");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.contains("CAP_BPF") && text.contains("CAP_NET_ADMIN"), "{text}");

        let mount = directory.0.join("bpf");
        let error = bpffs::ensure_mounted(&mount).expect_err("no CAP_SYS_ADMIN");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(&format!("mount -t bpf bpf {}", mount.display())), "{error}");
        assert!(!mount.exists(), "undone");

        let error = Loader::new(root.maps()).object(PROBE).load().expect_err("no CAP_BPF");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
    });
}

#[test]
fn tcx_is_there_since_linux_6_6() {
    assert_eq!(features::has_tcx().expect("query"), kernel_at_least(6, 6));
}

/// Capabilities belong to a thread: only the one made for `work` loses them.
fn without_capabilities(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .expect("drop capabilities");
            work();
        });
        thread.join().expect("the thread without capabilities");
    });
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("podwire-test-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}
