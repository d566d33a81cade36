//! Opening, pinning and what is said about a map of another layout.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use podwire::abi::{EndpointInfo, EndpointKey, Field, MetricsKey, MetricsValue, Shared};
use podwire::maps::{Array, HashMap, LpmTrie, MapInfo, MapSpec, MapType, PerCpuHashMap, Update};
use podwire::{Error, ErrorKind};

type Lxc = HashMap<EndpointKey, EndpointInfo>;

fn lxc_spec() -> MapSpec {
    MapSpec::hash::<EndpointKey, EndpointInfo>("t_lxc", 128).layouts::<EndpointKey, EndpointInfo>()
}

/// A pin's path, whose file goes when the test ends, however it ends.
struct Pin(PathBuf);

impl Pin {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/sys/fs/bpf/podwire-test-open-{}-{number}", std::process::id())))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // Most tests have removed it themselves.
        let _ = fs::remove_file(&self.0);
    }
}

fn differences(error: Error) -> Vec<String> {
    match error {
        Error::LayoutMismatch { differences, .. } => differences,
        other => panic!("expected a layout mismatch, got: {other}"),
    }
}

#[test]
fn a_pinned_map_is_found_again() {
    let pin = Pin::new();
    let map = Lxc::create(&lxc_spec()).expect("created");
    map.pin(&pin.0).expect("pinned");
    assert_eq!(map.pin(&pin.0).expect_err("taken").kind(), ErrorKind::AlreadyExists);
    let key = EndpointKey { family: 1, ..Default::default() };
    map.insert(&key, &EndpointInfo { lxc_id: 7, ..Default::default() }, Update::Any).expect("room");

    let again = Lxc::open_pinned(&pin.0, &lxc_spec()).expect("the same layout");
    assert_eq!(again.info(), map.info());
    assert_eq!(again.lookup(&key).expect("readable").map(|info| info.lxc_id), Some(7));
    let info = MapInfo::of_pin(&pin.0).expect("readable");
    assert_eq!((info.map_type, info.name.as_str(), info.max_entries), (MapType::HASH, "t_lxc", 128));

    assert!(again.unpin(&pin.0).expect("removable"));
    assert!(!again.unpin(&pin.0).expect("nothing there"));
    assert_eq!(Lxc::open_pinned(&pin.0, &lxc_spec()).expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn another_maps_pin_is_left_alone() {
    let pin = Pin::new();
    let (mine, other) = (Lxc::create(&lxc_spec()).expect("created"), Lxc::create(&lxc_spec()).expect("created"));
    other.pin(&pin.0).expect("pinned");
    assert_eq!(mine.unpin(&pin.0).expect_err("is another's").kind(), ErrorKind::Foreign);
    assert!(pin.0.exists());
}

#[test]
fn every_difference_of_type_sizes_and_flags_is_named() {
    let pin = Pin::new();
    let found = LpmTrie::<[u8; 8], u32>::create(&MapSpec::lpm::<[u8; 8], u32>("t_found", 10)).expect("created");
    found.pin(&pin.0).expect("pinned");
    let error = Lxc::open_pinned(&pin.0, &lxc_spec()).expect_err("another map");
    assert!(error.to_string().contains(&format!("map t_lxc ({})", pin.0.display())), "{error}");
    assert_eq!(
        differences(error),
        [
            "type: expected hash, found lpm_trie",
            "key size: expected 20, found 8",
            "value size: expected 48, found 4",
            "max_entries: expected 128, found 10",
            "flags: expected 0x0, found 0x1",
        ]
    );
}

#[test]
fn another_size_can_be_accepted() {
    let small = Lxc::create(&lxc_spec().with_max_entries(16)).expect("created");
    let fd = || small.as_fd().try_clone_to_owned().expect("descriptors are left");
    let error = Lxc::from_fd(fd(), &lxc_spec()).expect_err("another size");
    assert_eq!(differences(error), ["max_entries: expected 128, found 16"]);
    let map = Lxc::from_fd(fd(), &lxc_spec().any_max_entries()).expect("accepted");
    assert_eq!(map.max_entries(), 16);
}

/// metrics_key with `line` moved, `file` renamed and `reserved` shorter.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Moved {
    reason: u8,
    dir: u8,
    origin: u8,
    gap: u8,
    line: u16,
    reserved: [u8; 2],
}

impl Shared for Moved {
    const NAME: &'static str = "metrics_key";
    const FIELDS: &'static [Field] = &[
        Field { name: "reason", offset: 0, size: 1 },
        Field { name: "dir", offset: 1, size: 1 },
        Field { name: "origin", offset: 2, size: 1 },
        Field { name: "line", offset: 4, size: 2 },
        Field { name: "reserved", offset: 6, size: 2 },
    ];
}

/// As large as metrics_key, under another name.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Bytes {
    all: [u8; 8],
}

impl Shared for Bytes {
    const NAME: &'static str = "bytes";
    const FIELDS: &'static [Field] = &[Field { name: "all", offset: 0, size: 8 }];
}

#[test]
fn structs_of_the_same_size_are_compared_field_by_field() {
    let found = MapSpec::per_cpu_hash::<Moved, MetricsKey>("t_found", 4).layouts::<Moved, MetricsKey>();
    let map = PerCpuHashMap::<Moved, MetricsKey>::create(&found).expect("created");
    let wanted = MapSpec::per_cpu_hash::<MetricsKey, Bytes>("t_wanted", 4).layouts::<MetricsKey, Bytes>();
    let fd = map.as_fd().try_clone_to_owned().expect("descriptors are left");
    let error = PerCpuHashMap::<MetricsKey, Bytes>::from_fd(fd, &wanted).expect_err("other fields");
    assert_eq!(error.kind(), ErrorKind::LayoutMismatch);
    assert_eq!(
        differences(error),
        [
            "key field line: expected 2 bytes at offset 2, found 2 bytes at offset 4",
            "key field file: expected 1 bytes at offset 4, found none",
            "key field reserved: expected 3 bytes at offset 5, found 2 bytes at offset 6",
            "key field origin: expected none, found 1 bytes at offset 2",
            "value struct: expected bytes, found metrics_key",
            "value field all: expected 8 bytes at offset 0, found none",
            "value field reason: expected none, found 1 bytes at offset 0",
            "value field dir: expected none, found 1 bytes at offset 1",
            "value field line: expected none, found 2 bytes at offset 2",
            "value field file: expected none, found 1 bytes at offset 4",
            "value field reserved: expected none, found 3 bytes at offset 5",
        ]
    );
}

#[test]
fn a_value_that_is_no_struct_is_named() {
    // Only the key has a layout, so the value's type is an integer.
    let found = MapSpec::hash::<MetricsKey, u64>("t_int", 4).key_layout::<MetricsKey>();
    let map = HashMap::<MetricsKey, u64>::create(&found).expect("created");
    let wanted = found.value_layout::<MetricsKey>();
    let fd = map.as_fd().try_clone_to_owned().expect("descriptors are left");
    let error = HashMap::<MetricsKey, u64>::from_fd(fd, &wanted).expect_err("an integer");
    assert_eq!(differences(error), ["value type: expected struct metrics_key, found __u64"]);
}

#[test]
fn flags_that_only_say_how_a_map_was_opened_do_not_count() {
    let spec = lxc_spec().flags(libbpf_sys::BPF_F_RDONLY);
    let map = Lxc::create(&spec).expect("created");
    let fd = map.as_fd().try_clone_to_owned().expect("descriptors are left");
    let map = Lxc::from_fd(fd, &lxc_spec()).expect("the same map");
    let error = map.insert(&EndpointKey::default(), &EndpointInfo::default(), Update::Any).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn an_lru_with_a_list_per_cpu_may_be_rounded_up() {
    use podwire::maps::LruHashMap;
    let spec = MapSpec::lru_hash::<u32, u32>("t_round", 1001).flags(libbpf_sys::BPF_F_NO_COMMON_LRU);
    let map = LruHashMap::<u32, u32>::create(&spec).expect("created");
    let fd = map.as_fd().try_clone_to_owned().expect("descriptors are left");
    LruHashMap::<u32, u32>::from_fd(fd, &spec).expect("the kernel's rounding is no difference");
}

#[test]
fn a_specification_of_other_rust_types_is_refused() {
    let error = HashMap::<u32, u32>::create(&lxc_spec()).expect_err("other sizes");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("key size: expected 4, found 20; value size: expected 4, found 48"), "{text}");
    let error = Array::<MetricsValue>::create(&MapSpec::hash::<u32, MetricsValue>("t_kind", 1)).expect_err("a hash");
    assert!(error.to_string().contains("type: expected array, found hash"), "{error}");
}

#[test]
fn what_is_no_map_or_no_bpffs_is_said() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let error = Lxc::open_pinned(file.path(), &lxc_spec()).expect_err("a plain file");
    assert!(error.to_string().contains("is not on a bpf file system"), "{error}");
    let map = Lxc::create(&lxc_spec()).expect("created");
    let error = map.pin(file.path().with_extension("pin")).expect_err("not a bpffs");
    assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    let error = map.pin("/sys/fs/bpf/podwire-test-absent/deeper/pin").expect_err("no such directory");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let fd = file.as_file().try_clone().expect("descriptors are left").into();
    assert_eq!(Lxc::from_fd(fd, &lxc_spec()).expect_err("a plain file").kind(), ErrorKind::InvalidInput);
}
