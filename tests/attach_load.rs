//! Loading: constants, shared maps, generations, the verifier's log.

mod common;

use std::fs;
use std::path::Path;

use common::bpf::{BpfRoot, PROBE, raw_map, read_u64};
use libbpf_rs::{MapCore, MapFlags};
use podwire::program::{Constants, Loader, Program, ProgramSet, SkBuff, test_run};
use podwire::{Error, ErrorKind};

const INGRESS: &str = "probe_from_the_device";
const EGRESS: &str = "probe_to_the_device";
const PACKET: [u8; 60] = [0; 60];

#[test]
fn constants_reach_the_program_and_are_read_back() {
    let root = BpfRoot::new();
    let mut constants = Constants::new();
    constants.set("cfg_verdict", 7u32).set("cfg_address", [9u8; 16]);
    let set = loader(&root).constants(constants).load().expect("the probe loads");

    let program = set.program(INGRESS).expect("the object has it");
    let run = test_run(program, &PACKET, &SkBuff::default(), 1).expect("a test run");
    assert_eq!(run.retval, 7);

    let loaded = Constants::of(program).expect("the constants of a loaded program");
    assert_eq!(loaded.bytes("cfg_verdict"), Some(&7u32.to_ne_bytes()[..]));
    assert_eq!(loaded.bytes("cfg_address"), Some(&[9u8; 16][..]));
    assert_eq!(loaded.bytes("cfg_reject"), Some(&[0u8; 4][..]), "left as it is in C");
    assert_eq!(loaded.iter().count(), 3);
}

#[test]
fn an_unknown_constant_is_named() {
    let root = BpfRoot::new();
    let mut constants = Constants::new();
    constants.set("cfg_verdict", 7u32).set("cfg_verdikt", 7u32);
    let error = loader(&root).constants(constants).load().expect_err("no such variable");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("cfg_verdikt") && error.to_string().contains("probe"), "{error}");
    assert!(!root.maps().exists(), "nothing was pinned");
}

#[test]
fn a_constant_of_another_size_is_refused() {
    let root = BpfRoot::new();
    let mut constants = Constants::new();
    constants.set("cfg_verdict", 7u64);
    let error = loader(&root).constants(constants).load().expect_err("the variable has four bytes");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("cfg_verdict") && text.contains("8 bytes given, the variable has 4"), "{text}");
}

#[test]
fn a_size_for_an_unknown_map_is_refused() {
    let root = BpfRoot::new();
    let error = loader(&root).max_entries("cilium_lcx", 4).load().expect_err("no such map");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("cilium_lcx"), "{error}");
}

#[test]
fn the_verifiers_reason_is_in_the_error_and_nothing_stays() {
    let root = BpfRoot::new();
    let mut constants = Constants::new();
    constants.set("cfg_reject", 1u32);
    let error = loader(&root).constants(constants).load().expect_err("an unchecked pointer");
    assert_eq!(error.kind(), ErrorKind::Verifier);
    assert_eq!(error.errno(), Some(13), "{error}");
    let Error::Verifier { program, log, .. } = &error else { panic!("{error:?}") };
    assert_eq!(program, "probe_from_the_device of object probe");
    assert!(log.contains("invalid mem access 'map_value_or_null'"), "{log}");
    assert!(log.lines().count() <= 40);
    assert!(pins(&root.maps()).is_empty());
}

#[test]
fn shared_maps_are_pinned_once_and_then_shared() {
    let root = BpfRoot::new();
    let first = loader(&root).max_entries("probe_shared", 64).load().expect("the first load");
    assert_eq!(pins(&root.maps()), ["probe_shared"]);
    let second = loader(&root).max_entries("probe_shared", 64).load().expect("the second load");

    write_shared(&first, 5, 40);
    let context = SkBuff { mark: 5, ..SkBuff::default() };
    let program = second.program(INGRESS).expect("the object has it");
    test_run(program, &PACKET, &context, 2).expect("a test run");
    assert_eq!(read_u64(&first, "probe_shared", 5), 42, "both sets use the same map");
}

#[test]
fn every_difference_of_a_pinned_map_is_listed() {
    let root = BpfRoot::new();
    fs::create_dir_all(root.maps()).expect("a directory on the bpffs");
    let path = root.maps().join("probe_shared");
    let mut map = libbpf_rs::MapHandle::create(
        libbpf_rs::MapType::LruHash,
        Some("probe_shared"),
        8,
        12,
        32,
        &libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        },
    )
    .expect("create a map");
    map.pin(&path).expect("pin it");

    let error = loader(&root).load().expect_err("another layout");
    let Error::LayoutMismatch { object, differences } = &error else { panic!("{error:?}") };
    assert_eq!(object, &path.display().to_string());
    let text = differences.join("\n");
    for what in [
        "type: ",
        "key size: expected 4, found 8",
        "value size: expected 8, found 12",
        "max_entries: expected 16, found 32",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
    assert!(path.exists(), "never silently replaced");
}

#[test]
fn fields_that_differ_are_named() {
    use podwire::abi::{DropNotify, EndpointKey};
    use podwire::maps::{HashMap, MapSpec, MapType};
    use podwire::program::embedded::LXC;

    let root = BpfRoot::new();
    fs::create_dir_all(root.maps()).expect("a directory on the bpffs");
    // As large as a struct endpoint_info, and something else.
    let spec = MapSpec::new("cilium_lxc", MapType::HASH, 20, 48, 500).layouts::<EndpointKey, DropNotify>();
    let map = HashMap::<[u8; 20], [u8; 48]>::create(&spec).expect("create a map");
    map.pin(root.maps().join("cilium_lxc")).expect("pin it");

    let loader = Loader::new(root.maps()).object(LXC).max_entries("cilium_lxc", 500);
    let error = loader.load().expect_err("another layout");
    let Error::LayoutMismatch { differences, .. } = &error else { panic!("{error:?}") };
    let text = differences.join("\n");
    for what in [
        "value struct: expected endpoint_info, found drop_notify",
        "value field mac: expected 8 bytes at offset 16, found none",
        "value field len_orig: expected none, found 4 bytes at offset 8",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
    assert!(!text.contains("key"), "the key is the same: {text}");
}

#[test]
fn a_complete_generation_is_adopted() {
    let root = BpfRoot::new();
    let load = || loader(&root).load_or_adopt(&root.programs()).expect("load or adopt");
    let first = load();
    assert!(!first.adopted());
    let ids = ids(&first);
    let names: Vec<String> = first.map_names().map(str::to_owned).collect();
    drop(first);

    let second = load();
    assert!(second.adopted());
    assert_eq!(self::ids(&second), ids, "the very same programs");
    assert_eq!(second.program(EGRESS).expect("adopted").name(), EGRESS, "the whole name");
    assert_eq!(second.map_names().collect::<Vec<_>>(), names);
    second.map_fd("probe.bss").expect("the generation's own maps are adopted, too");
    assert_eq!(pins(&root.programs()), [second.generation().as_str()]);
}

#[test]
fn other_constants_and_incomplete_pins_make_a_new_load() {
    let root = BpfRoot::new();
    let first = loader(&root).load_or_adopt(&root.programs()).expect("the first load");
    let mut constants = Constants::new();
    constants.set("cfg_verdict", 3u32);
    let second = loader(&root).constants(constants).load_or_adopt(&root.programs()).expect("the second load");
    assert!(!second.adopted());
    assert_ne!(first.generation(), second.generation());

    fs::remove_file(root.programs().join(first.generation().as_str()).join(EGRESS)).expect("take a pin away");
    let third = loader(&root).load_or_adopt(&root.programs()).expect("the third load");
    assert!(!third.adopted(), "a generation that lacks a program is loaded anew");
    assert_eq!(third.generation(), first.generation());
    assert_ne!(ids(&third), ids(&first));

    fs::create_dir_all(root.programs().join("unfinished_1/maps")).expect("what a process that died left");
    let removed = third.generation().remove_others(&root.programs()).expect("remove other generations");
    assert_eq!(removed, [second.generation().as_str(), "unfinished_1"]);
    assert_eq!(pins(&root.programs()), [third.generation().as_str()]);
    test_run(second.program(INGRESS).expect("held"), &PACKET, &SkBuff::default(), 1).expect("a handle keeps it loaded");
}

#[test]
fn a_map_made_anew_makes_a_new_generation() {
    let root = BpfRoot::new();
    let first = loader(&root).load_or_adopt(&root.programs()).expect("the first load");
    fs::remove_file(root.maps().join("probe_shared")).expect("remove the pin of the map");
    let second = loader(&root).load_or_adopt(&root.programs()).expect("the second load");
    assert!(!second.adopted(), "programs over the old map would not see the new one");
    assert_ne!(first.generation(), second.generation());
}

#[test]
fn test_runs_refuse_what_the_kernel_would() {
    let root = BpfRoot::new();
    let set = loader(&root).load().expect("the probe loads");
    let program = set.program(EGRESS).expect("the object has it");
    let context = SkBuff::default();
    for (packet, repeat) in [(&PACKET[..13], 1), (&PACKET[..], 0), (&PACKET[..], u32::MAX)] {
        let error = test_run(program, packet, &context, repeat).expect_err("malformed input");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let hashed = SkBuff { hash: 1, ..context };
    assert_eq!(test_run(program, &PACKET, &hashed, 1).expect_err("not an input").kind(), ErrorKind::InvalidInput);
    let run = test_run(program, &PACKET, &context, 1000).expect("a test run");
    assert_eq!(run.data, PACKET);
}

fn loader(root: &BpfRoot) -> Loader<'static> {
    Loader::new(root.maps()).object(PROBE)
}

fn ids(set: &ProgramSet) -> Vec<u32> {
    set.programs().map(Program::id).collect()
}

fn pins(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn write_shared(set: &ProgramSet, key: u32, value: u64) {
    let map = raw_map(set, "probe_shared");
    map.update(&key.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY).expect("write the shared map");
}

#[test]
fn the_embedded_objects_load_together_and_are_adopted() {
    use podwire::program::embedded::{HOST, LXC, MAPS, NETDEV};
    let root = BpfRoot::new();
    let load = || {
        let loader = Loader::new(root.maps()).object(MAPS).object(LXC).object(HOST).object(NETDEV);
        loader.max_entries("cilium_lxc", 1000).load_or_adopt(&root.programs()).expect("the node's objects load")
    };
    let first = load();
    let names: Vec<&str> = first.programs().map(Program::name).collect();
    for name in
        ["cil_from_container", "cil_from_host", "cil_from_netdev", "cil_to_container", "cil_to_host", "cil_to_netdev"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let second = load();
    assert!(second.adopted());
    assert_eq!(ids(&second), ids(&first));
}
