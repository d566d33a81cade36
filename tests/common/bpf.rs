//! A directory of pins for one test, and the objects to load.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapInfo};
use podwire::program::{ObjectImage, ProgramSet};

/// tests/bpf/probe.bpf.c
pub static PROBE: ObjectImage<'static> =
    ObjectImage::new("probe", include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));

/// An object that is under test: as it was built, or the one from the folder `PODWIRE_TEST_OBJECTS`, where scripts/mutations.sh puts
/// those that are wrong on purpose.
pub fn object(name: &'static str, own: ObjectImage<'static>) -> ObjectImage<'static> {
    let Some(folder) = env::var_os("PODWIRE_TEST_OBJECTS") else { return own };
    let path = Path::new(&folder).join(format!("{name}.bpf.o"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    ObjectImage::new(name, bytes.leak())
}

/// A bpf root of its own, removed with every pin in it when the test ends.
pub struct BpfRoot(PathBuf);

impl BpfRoot {
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/sys/fs/bpf/podwire_test_{}_{number}", process::id()));
        fs::create_dir(&path).expect("tests run as root with a bpffs at /sys/fs/bpf");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn maps(&self) -> PathBuf {
        self.0.join("tc/globals")
    }

    pub fn programs(&self) -> PathBuf {
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

/// A map of a set, opened anew through libbpf-rs, so that no code of the crate's stands between.
pub fn raw_map(set: &ProgramSet, name: &str) -> MapHandle {
    let fd = set.map_fd(name).expect("the set has the map");
    let id = MapInfo::new(fd).expect("its info").info.id;
    MapHandle::from_map_id(id).expect("open it by its id")
}

/// The first eight bytes of a value.
pub fn read_u64(set: &ProgramSet, map: &str, key: u32) -> u64 {
    let value = raw_map(set, map).lookup(&key.to_ne_bytes(), MapFlags::ANY).expect("read").expect("present");
    u64::from_ne_bytes(*value.first_chunk().expect("eight bytes"))
}

/// Whether the kernel is at least this version.
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().expect("a major version"), numbers.next().expect("a minor version")) >= (major, minor)
}

/// Whether the kernel is one with tcx hooks; where it is not, says on standard error what is left out.
pub fn tcx_or_skip() -> bool {
    let has_tcx = kernel_at_least(6, 6);
    if !has_tcx {
        let test = thread::current().name().unwrap_or_default().to_owned();
        // Past the harness, which shows no output of a test that passes.
        writeln!(stderr().lock(), "skipped: {test}: tcx needs Linux 6.6").expect("write");
    }
    has_tcx
}
