//! The maps that `bpf/maps.bpf.c` declares are the ones of the catalog, and the tables open them. Needs root and a bpffs.

#[path = "common/bpf.rs"]
mod bpf;

use std::collections::BTreeSet;

use bpf::BpfRoot;
use podwire::EndpointId;
use podwire::maps::{MapInfo, MapType};
use podwire::program::{Loader, embedded};
use podwire::tables::{
    CtMap, IpCache, LbMap, LxcMap, MaglevTables, MetricsMap, NodeMap, PolicyMap, PolicyMaps, PolicyStats, RevNatId,
    Switches, catalog,
};

#[test]
fn the_compiled_maps_are_those_of_the_catalog() {
    let root = BpfRoot::new();
    let set = Loader::new(root.maps()).object(embedded::MAPS).load().expect("the maps load");
    let compiled: BTreeSet<_> = set.map_names().map(str::to_owned).collect();
    let listed: BTreeSet<_> = catalog().iter().map(|entry| entry.spec.name().to_owned()).collect();
    assert_eq!(compiled, listed);

    for entry in catalog() {
        let spec = entry.spec;
        let info = MapInfo::of_pin(root.maps().join(spec.name())).expect("pinned under its name");
        assert_eq!(info.map_type, spec.map_type(), "type of {}", spec.name());
        assert_eq!(info.key_size, spec.key_size(), "key of {}", spec.name());
        assert_eq!(info.value_size, spec.value_size(), "value of {}", spec.name());
        assert_eq!(info.max_entries, spec.max_entries(), "size of {}", spec.name());
        assert_eq!(info.flags, spec.map_flags(), "flags of {}", spec.name());
        let outer = [MapType::HASH_OF_MAPS, MapType::ARRAY_OF_MAPS].contains(&info.map_type);
        assert_eq!(entry.inner.is_some(), outer, "inner maps of {}", spec.name());
    }
}

#[test]
fn tables_open_what_the_object_made() {
    let root = BpfRoot::new();
    let directory = root.maps();
    Loader::new(&directory).object(embedded::MAPS).load().expect("the maps load");
    // Opening compares key and value with the type information that clang wrote, field by field.
    LxcMap::open_pinned(&directory).expect("cilium_lxc");
    IpCache::open_pinned(&directory).expect("cilium_ipcache_v2");
    MetricsMap::open_pinned(&directory).expect("cilium_metrics");
    NodeMap::open_pinned(directory.join("cilium_node_map_v2")).expect("cilium_node_map_v2, by its own path");
    PolicyStats::open_pinned(&directory).expect("cilium_policystats");
    CtMap::open_pinned(&directory).expect("podwire_ct");
    LbMap::open_pinned(&directory).expect("cilium_lb*");

    Switches::open_pinned(&directory).expect("podwire_runtime");
    let policies = PolicyMaps::open_pinned(&directory).expect("podwire_policy");
    let endpoint = EndpointId::new(7).expect("not 0");
    let policy = PolicyMap::create(endpoint, 3).expect("an inner map of another size");
    policies.replace(&[(endpoint, &policy)]).expect("an inner map that fits");
    assert!(policies.policy_id(endpoint).expect("readable").is_some());

    // The outer maps that C declares take the inner maps that Rust makes.
    let tables = <MaglevTables>::open_pinned(&directory).expect("cilium_lb*_maglev");
    let frontend = "10.0.0.1".parse().expect("valid");
    let rev_nat = RevNatId::new(20).expect("not 0");
    let backend = podwire::tables::BackendId::new(12).expect("not 0");
    tables.write(frontend, rev_nat, &vec![backend; podwire::tables::MAGLEV_SLOTS]).expect("an inner map that fits");
    assert_eq!(tables.services(frontend).expect("readable"), [rev_nat]);
}

#[test]
fn a_pin_of_another_layout_is_named_field_by_field() {
    let root = BpfRoot::new();
    std::fs::create_dir_all(root.maps()).expect("in the bpffs");
    let other = NodeMap::create(16).expect("a map");
    other.map().pin(root.maps().join("cilium_lxc")).expect("nothing is there yet");
    let error = LxcMap::open_pinned(root.maps()).expect_err("a node map is no endpoint map");
    assert_eq!(error.kind(), podwire::ErrorKind::LayoutMismatch);
    let text = error.to_string();
    assert!(text.contains("value size") && text.contains("48") && text.contains("endpoint_key"), "{text}");
}
