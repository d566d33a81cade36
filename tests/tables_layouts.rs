//! The shared structs against the published layouts of Cilium 1.19.4: name, size, and offset of every field. `src/abi` is
//! asserted against the C declarations at compile time; this table keeps the two from drifting together.

use std::collections::BTreeMap;

use podwire::abi::{self, Field, Shared};

/// Struct, size, and per field: Cilium's name (the first one of a union's or a byte's members), ours, offset.
type Published = (&'static str, usize, &'static [(&'static str, &'static str, usize)]);

#[rustfmt::skip]
const PUBLISHED: &[Published] = &[
    ("drop_notify", 48, &[("type", "type", 0), ("subtype", "subtype", 1), ("source", "source", 2), ("hash", "hash", 4), ("len_orig", "len_orig", 8), ("len_cap", "len_cap", 12), ("version", "version", 14), ("ext_version", "ext_version", 15), ("src_label", "src_label", 16), ("dst_label", "dst_label", 20), ("dst_id", "dst_id", 24), ("line", "line", 28), ("file", "file", 30), ("ext_error", "ext_error", 31), ("ifindex", "ifindex", 32), ("flags", "flags", 36), ("pad2", "pad2", 37), ("ip_trace_id", "ip_trace_id", 40)]),
    ("trace_notify", 56, &[("type", "type", 0), ("subtype", "subtype", 1), ("source", "source", 2), ("hash", "hash", 4), ("len_orig", "len_orig", 8), ("len_cap", "len_cap", 12), ("version", "version", 14), ("ext_version", "ext_version", 15), ("src_label", "src_label", 16), ("dst_label", "dst_label", 20), ("dst_id", "dst_id", 24), ("reason", "reason", 26), ("flags", "flags", 27), ("ifindex", "ifindex", 28), ("orig_ip4", "orig_ip", 32), ("ip_trace_id", "ip_trace_id", 48)]),
    ("policy_verdict_notify", 40, &[("type", "type", 0), ("subtype", "subtype", 1), ("source", "source", 2), ("hash", "hash", 4), ("len_orig", "len_orig", 8), ("len_cap", "len_cap", 12), ("version", "version", 14), ("ext_version", "ext_version", 15), ("remote_label", "remote_label", 16), ("verdict", "verdict", 20), ("dst_port", "dst_port", 24), ("proto", "proto", 26), ("dir", "flags", 27), ("auth_type", "auth_type", 28), ("pad1", "raised_by", 29), ("cookie", "cookie", 32), ("pad2", "pad2", 36)]),
    ("endpoint_key", 20, &[("ip4", "ip", 0), ("family", "family", 16), ("key", "key", 17), ("cluster_id", "cluster_id", 18)]),
    ("endpoint_info", 48, &[("ifindex", "ifindex", 0), ("unused", "unused", 4), ("lxc_id", "lxc_id", 6), ("flags", "flags", 8), ("mac", "mac", 16), ("node_mac", "node_mac", 24), ("sec_id", "sec_id", 32), ("parent_ifindex", "parent_ifindex", 36), ("pad", "pad", 40)]),
    ("metrics_key", 8, &[("reason", "reason", 0), ("dir", "dir", 1), ("line", "line", 2), ("file", "file", 4), ("reserved", "reserved", 5)]),
    ("metrics_value", 16, &[("count", "count", 0), ("bytes", "bytes", 8)]),
    ("ipcache_key", 24, &[("lpm_key", "prefixlen", 0), ("cluster_id", "cluster_id", 4), ("pad1", "pad1", 6), ("family", "family", 7), ("ip4", "ip", 8)]),
    ("remote_endpoint_info", 24, &[("sec_identity", "sec_identity", 0), ("ip4", "tunnel_endpoint", 4), ("pad", "pad", 20), ("key", "key", 22), ("flag_skip_tunnel", "flags", 23)]),
    ("policy_key", 12, &[("lpm_key", "prefixlen", 0), ("sec_label", "sec_label", 4), ("egress", "egress", 8), ("protocol", "protocol", 9), ("dport", "dport_be", 10)]),
    ("policy_entry", 12, &[("proxy_port", "proxy_port_be", 0), ("deny", "flags", 2), ("auth_type", "auth", 3), ("precedence", "precedence", 4), ("cookie", "cookie", 8)]),
    ("policy_stats_key", 12, &[("endpoint_id", "endpoint_id", 0), ("pad1", "pad1", 2), ("prefix_len", "prefix_len", 3), ("sec_label", "sec_label", 4), ("egress", "egress", 8), ("protocol", "protocol", 9), ("dport", "dport_be", 10)]),
    ("policy_stats_value", 16, &[("packets", "packets", 0), ("bytes", "bytes", 8)]),
    ("lb4_key", 12, &[("address", "address", 0), ("dport", "dport_be", 4), ("backend_slot", "backend_slot", 6), ("proto", "proto", 8), ("scope", "scope", 9), ("pad", "pad", 10)]),
    ("lb6_key", 24, &[("address", "address", 0), ("dport", "dport_be", 16), ("backend_slot", "backend_slot", 18), ("proto", "proto", 20), ("scope", "scope", 21), ("pad", "pad", 22)]),
    ("lb4_service", 12, &[("backend_id", "word", 0), ("count", "count", 4), ("rev_nat_index", "rev_nat_index_be", 6), ("flags", "flags", 8), ("flags2", "flags2", 9), ("qcount", "qcount", 10)]),
    ("lb6_service", 12, &[("backend_id", "word", 0), ("count", "count", 4), ("rev_nat_index", "rev_nat_index_be", 6), ("flags", "flags", 8), ("flags2", "flags2", 9), ("qcount", "qcount", 10)]),
    ("lb4_backend", 12, &[("address", "address", 0), ("port", "port_be", 4), ("proto", "proto", 6), ("flags", "flags", 7), ("cluster_id", "cluster_id", 8), ("zone", "zone", 10), ("pad", "pad", 11)]),
    ("lb6_backend", 24, &[("address", "address", 0), ("port", "port_be", 16), ("proto", "proto", 18), ("flags", "flags", 19), ("cluster_id", "cluster_id", 20), ("zone", "zone", 22), ("pad", "pad", 23)]),
    ("lb4_reverse_nat", 6, &[("address", "address", 0), ("port", "port_be", 4)]),
    ("lb6_reverse_nat", 18, &[("address", "address", 0), ("port", "port_be", 16)]),
    ("lb4_affinity_key", 16, &[("client_id", "client_id", 0), ("rev_nat_id", "rev_nat_id_be", 8), ("netns_cookie", "flags", 10), ("pad1", "pad1", 11), ("pad2", "pad2", 12)]),
    ("lb6_affinity_key", 24, &[("client_id", "client_id", 0), ("rev_nat_id", "rev_nat_id_be", 16), ("netns_cookie", "flags", 18), ("pad1", "pad1", 19), ("pad2", "pad2", 20)]),
    ("lb_affinity_val", 16, &[("last_used", "last_used", 0), ("backend_id", "backend_id", 8), ("pad", "pad", 12)]),
    ("lb_affinity_match", 8, &[("backend_id", "backend_id", 0), ("rev_nat_id", "rev_nat_id_be", 4), ("pad", "pad", 6)]),
    ("lb4_src_range_key", 12, &[("lpm_key", "prefixlen", 0), ("rev_nat_id", "rev_nat_id_be", 4), ("pad", "pad", 6), ("addr", "addr", 8)]),
    ("lb6_src_range_key", 24, &[("lpm_key", "prefixlen", 0), ("rev_nat_id", "rev_nat_id_be", 4), ("pad", "pad", 6), ("addr", "addr", 8)]),
    ("node_key", 20, &[("pad1", "pad1", 0), ("pad2", "pad2", 2), ("family", "family", 3), ("ip4", "ip", 4)]),
    ("node_value", 4, &[("id", "id", 0), ("spi", "spi", 2), ("pad", "pad", 3)]),
];

struct Ours {
    size: usize,
    fields: &'static [Field],
}

fn describe<T: Shared>(all: &mut BTreeMap<&'static str, Ours>) {
    let before = all.insert(T::NAME, Ours { size: size_of::<T>(), fields: T::FIELDS });
    assert!(before.is_none(), "{} is listed twice", T::NAME);
}

macro_rules! ours {
    ($($name:ident),+ $(,)?) => {{
        let mut all = BTreeMap::new();
        $(describe::<abi::$name>(&mut all);)+
        all
    }};
}

/// Every struct of the published layouts that the crate has.
fn cilium_structs() -> BTreeMap<&'static str, Ours> {
    ours![
        DropNotify,
        TraceNotify,
        PolicyVerdictNotify,
        EndpointKey,
        EndpointInfo,
        MetricsKey,
        MetricsValue,
        IpCacheKey,
        RemoteEndpointInfo,
        PolicyKey,
        PolicyEntry,
        PolicyStatsKey,
        PolicyStatsValue,
        Lb4Key,
        Lb6Key,
        Lb4Service,
        Lb6Service,
        Lb4Backend,
        Lb6Backend,
        Lb4ReverseNat,
        Lb6ReverseNat,
        Lb4AffinityKey,
        Lb6AffinityKey,
        LbAffinityVal,
        LbAffinityMatch,
        Lb4SrcRangeKey,
        Lb6SrcRangeKey,
        NodeKey,
        NodeValue,
    ]
}

#[test]
fn layouts_are_as_published() {
    let ours = cilium_structs();
    let published: BTreeMap<_, _> = PUBLISHED.iter().map(|(name, size, fields)| (*name, (*size, *fields))).collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), published.keys().collect::<Vec<_>>());
    for (name, ours) in &ours {
        let (size, fields) = published[name];
        assert_eq!(ours.size, size, "size of {name}");
        for (theirs, field, offset) in fields {
            let found = ours.fields.iter().find(|candidate| candidate.name == *field);
            let found = found.unwrap_or_else(|| panic!("{name}.{field} (published as {theirs}) is missing"));
            assert_eq!(found.offset, *offset, "offset of {name}.{field}");
        }
        for field in ours.fields.iter().filter(|field| !fields.iter().any(|(_, name, _)| *name == field.name)) {
            assert!(field.name.starts_with("pad"), "{name}.{} is not in the published layout", field.name);
        }
    }
}

#[test]
fn every_byte_belongs_to_a_field() {
    let mut all = cilium_structs();
    all.extend(ours![
        CtKey,
        CtDir,
        CtEntry,
        CtBucket,
        CtPool,
        CtCollect,
        CtRemove,
        CtInsert,
        Ipv4FragId,
        Ipv6FragId,
        FragPorts,
        VerdictRow,
        PartyRow,
        PolicyOutline
    ]);
    for (name, ours) in all {
        let mut end = 0;
        for field in ours.fields {
            assert_eq!(field.offset, end, "hole or overlap before {name}.{}", field.name);
            end = field.offset + field.size;
        }
        assert_eq!(end, ours.size, "hole at the end of {name}");
    }
}

#[test]
fn directions_of_a_connection_take_a_cache_line_each() {
    assert_eq!(size_of::<abi::CtKey>(), 40);
    assert_eq!(size_of::<abi::CtDir>(), 64);
    assert_eq!(size_of::<abi::CtEntry>(), 3 * 64);
    // What tells where to look is one line as well, and so is what everybody writes to who opens or ends a connection.
    assert_eq!((size_of::<abi::CtBucket>(), size_of::<abi::CtPool>()), (64, 64));
}
