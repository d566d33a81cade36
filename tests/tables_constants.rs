//! Numbers that C and Rust both spell out: the C headers are read and compared with what the crate says. Rootless.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podwire::abi::{
    CT_REMOVE_KEYS, CT_WAYS, CtDir, CtEntry, DropNotify, IpCacheKey, Lb4SrcRangeKey, Lb6SrcRangeKey, PolicyEntry,
    PolicyKey, PolicyVerdictNotify, RemoteEndpointInfo, TraceNotify,
};
use podwire::tables::{
    Algorithm, BackendState, CtDirection, CtState, DropReason, EndpointFlags, MAGLEV_SLOTS, MetricsDirection,
    PolicyDirection, Scope, ServiceFlags, SourceFile,
};

/// Every `NAME = number` and `#define NAME number` of a header under `bpf/`.
fn constants(header: &str) -> BTreeMap<String, u64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf").join(header);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .filter_map(|line| {
            let line = line.split("/*").next().unwrap_or_default().trim().trim_end_matches(',');
            let (name, value) = match line.strip_prefix("#define ") {
                Some(define) => define.split_once(' ')?,
                None => line.split_once(" = ")?,
            };
            Some((name.to_owned(), number(value.trim())?))
        })
        .collect()
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn assert_all(header: &str, prefix: &str, expected: &[(&str, u64)]) {
    let found: Vec<_> = constants(header).into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    let mut expected: Vec<_> = expected.iter().map(|(name, value)| (format!("{prefix}{name}"), *value)).collect();
    expected.sort();
    assert_eq!(found, expected, "{header}, {prefix}*");
}

#[test]
fn drop_reasons_and_source_files_of_the_programs_are_known() {
    let all = constants("lib/common.h");
    let reasons: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("REASON_")).collect();
    let files: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("FILE_")).collect();
    assert!(reasons.len() >= 10 && files.len() >= 5, "the enums were not found");
    for (name, value) in reasons {
        let reason = u8::try_from(*value).ok().and_then(DropReason::from_number);
        assert!(reason.is_some(), "{name} = {value} has no text");
    }
    for (name, value) in files {
        let file = SourceFile::new(u8::try_from(*value).expect("one byte"));
        let expected = name.trim_start_matches("FILE_").to_lowercase();
        let actual = file.name().unwrap_or_else(|| panic!("{name} = {value} has no name"));
        assert_eq!(actual.split('.').next(), Some(expected.as_str()), "{name} = {value}");
    }
}

#[test]
fn endpoint_and_metrics_numbers() {
    assert_all("abi.h", "ENDPOINT_IPV", &[("4", 1), ("6", 2)]);
    let flag = |flag: EndpointFlags| u64::from(flag.bits());
    assert_all(
        "abi.h",
        "ENDPOINT_F_",
        &[
            ("HOST", flag(EndpointFlags::HOST)),
            ("AT_HOST_NS", flag(EndpointFlags::AT_HOST_NS)),
            ("NO_SNAT_V4", flag(EndpointFlags::NO_SNAT_V4)),
            ("NO_SNAT_V6", flag(EndpointFlags::NO_SNAT_V6)),
            ("AUDIT", flag(EndpointFlags::AUDIT)),
        ],
    );
    let bits = |direction: MetricsDirection| u64::from(direction.bits());
    assert_all(
        "abi.h",
        "METRICS_",
        &[
            ("INGRESS", bits(MetricsDirection::Ingress)),
            ("EGRESS", bits(MetricsDirection::Egress)),
            ("SERVICE", bits(MetricsDirection::Service)),
        ],
    );
}

#[test]
fn event_numbers() {
    let all = constants("abi/events.h");
    assert_eq!(all["NOTIFY_DROP"], u64::from(DropNotify::TYPE));
    assert_eq!(all["NOTIFY_TRACE"], u64::from(TraceNotify::TYPE));
    assert_eq!(all["NOTIFY_POLICY_VERDICT"], u64::from(PolicyVerdictNotify::TYPE));
    assert_eq!(all["NOTIFY_DROP_VERSION"], u64::from(DropNotify::VERSION));
    assert_eq!(all["NOTIFY_TRACE_VERSION"], u64::from(TraceNotify::VERSION));
    assert_eq!(all["NOTIFY_POLICY_VERDICT_VERSION"], u64::from(PolicyVerdictNotify::VERSION));
    assert_all(
        "abi/events.h",
        "VERDICT_",
        &[
            ("DIR_MASK", PolicyVerdictNotify::DIR_MASK.into()),
            ("F_IPV6", PolicyVerdictNotify::IPV6.into()),
            ("MATCH_MASK", PolicyVerdictNotify::MATCH_MASK.into()),
            ("MATCH_SHIFT", PolicyVerdictNotify::MATCH_SHIFT.into()),
            ("F_AUDITED", PolicyVerdictNotify::AUDITED.into()),
            ("F_L3", PolicyVerdictNotify::L3.into()),
            ("BY_REPLY", PolicyVerdictNotify::BY_REPLY.into()),
            ("BY_ERROR", PolicyVerdictNotify::BY_ERROR.into()),
        ],
    );
}

#[test]
fn ipcache_and_policy_numbers() {
    assert_all(
        "abi/ipcache.h",
        "IPCACHE_",
        &[
            ("F_SKIP_TUNNEL", RemoteEndpointInfo::SKIP_TUNNEL.into()),
            ("F_HAS_TUNNEL", RemoteEndpointInfo::HAS_TUNNEL.into()),
            ("F_TUNNEL_IPV6", RemoteEndpointInfo::TUNNEL_IPV6.into()),
            ("F_REMOTE_CLUSTER", RemoteEndpointInfo::REMOTE_CLUSTER.into()),
            ("STATIC_BITS", IpCacheKey::STATIC_BITS.into()),
        ],
    );
    assert_all(
        "abi/policy.h",
        "POLICY_",
        &[
            ("STATIC_BITS", PolicyKey::STATIC_BITS.into()),
            ("INGRESS", PolicyDirection::Ingress as u64),
            ("EGRESS", PolicyDirection::Egress as u64),
            ("F_DENY", PolicyEntry::DENY.into()),
            ("PREFIX_SHIFT", PolicyEntry::PREFIX_SHIFT.into()),
            ("AUTH_TYPE_MASK", PolicyEntry::AUTH_TYPE_MASK.into()),
            ("AUTH_F_EXPLICIT", PolicyEntry::AUTH_EXPLICIT.into()),
        ],
    );
}

#[test]
fn load_balancing_numbers() {
    let low = |flag: ServiceFlags| u64::from(flag.bits());
    assert_all(
        "abi/lb.h",
        "LB_F_",
        &[
            ("EXTERNAL_IP", low(ServiceFlags::EXTERNAL_IP)),
            ("NODE_PORT", low(ServiceFlags::NODE_PORT)),
            ("EXT_LOCAL", low(ServiceFlags::EXTERNAL_LOCAL)),
            ("HOST_PORT", low(ServiceFlags::HOST_PORT)),
            ("AFFINITY", low(ServiceFlags::AFFINITY)),
            ("LOAD_BALANCER", low(ServiceFlags::LOAD_BALANCER)),
            ("ROUTABLE", low(ServiceFlags::ROUTABLE)),
            ("SOURCE_RANGE", low(ServiceFlags::SOURCE_RANGE)),
        ],
    );
    let high = |flag: ServiceFlags| u64::from(flag.bits() >> 8);
    assert_all(
        "abi/lb.h",
        "LB_F2_",
        &[
            ("LOCAL_REDIRECT", high(ServiceFlags::LOCAL_REDIRECT)),
            ("NAT_46X64", high(ServiceFlags::NAT_46X64)),
            ("L7", high(ServiceFlags::L7)),
            ("LOOPBACK", high(ServiceFlags::LOOPBACK)),
            ("INT_LOCAL", high(ServiceFlags::INTERNAL_LOCAL)),
            ("TWO_SCOPES", high(ServiceFlags::TWO_SCOPES)),
            ("SOURCE_RANGE_DENY", high(ServiceFlags::SOURCE_RANGE_DENY)),
            ("DSR", high(ServiceFlags::DSR)),
        ],
    );
    assert_all(
        "abi/lb.h",
        "LB_BACKEND_",
        &[
            ("ACTIVE", BackendState::Active as u64),
            ("TERMINATING", BackendState::Terminating as u64),
            ("QUARANTINED", BackendState::Quarantined as u64),
            ("MAINTENANCE", BackendState::Maintenance as u64),
        ],
    );
    let all = constants("abi/lb.h");
    assert_eq!(all["LB_RANDOM"], Algorithm::Random as u64);
    assert_eq!(all["LB_MAGLEV"], Algorithm::Maglev as u64);
    assert_eq!((all["LB_SCOPE_EXTERNAL"], all["LB_SCOPE_INTERNAL"]), (Scope::External as u64, Scope::Internal as u64));
    assert_eq!(all["LB_SRC_RANGE_STATIC_BITS"], u64::from(Lb4SrcRangeKey::STATIC_BITS));
    assert_eq!(all["LB_SRC_RANGE_STATIC_BITS"], u64::from(Lb6SrcRangeKey::STATIC_BITS));
    assert_eq!(constants("lib/lb.h")["MAGLEV_SIZE"], MAGLEV_SLOTS as u64);
}

#[test]
fn conntrack_numbers() {
    assert_all(
        "abi/conntrack.h",
        "CT_DIR_F_",
        &[
            ("JUDGED", CtDir::JUDGED.into()),
            ("ALLOWED", CtDir::ALLOWED.into()),
            ("REDIRECT_PEER", CtDir::REDIRECT_PEER.into()),
            ("TO_STACK", CtDir::TO_STACK.into()),
            ("AUDITED", CtDir::AUDITED.into()),
            ("MOVING", CtDir::MOVING.into()),
        ],
    );
    assert_all(
        "abi/conntrack.h",
        "CT_F_",
        &[("SEEN_NON_SYN", CtEntry::SEEN_NON_SYN.into()), ("RST", CtEntry::RST.into())],
    );
    let all = constants("abi/conntrack.h");
    for (name, value) in [
        ("CT_NEW", CtState::New as u64),
        ("CT_ESTABLISHED", CtState::Established as u64),
        ("CT_CLOSING", CtState::Closing as u64),
        ("CT_CLOSED", CtState::Closed as u64),
        ("CT_FROM_LO", CtDirection::FromLo as u64),
        ("CT_FROM_HI", CtDirection::FromHi as u64),
        ("CT_WAYS", CT_WAYS as u64),
        ("CT_REMOVE_KEYS", CT_REMOVE_KEYS as u64),
    ] {
        assert_eq!(all[name], value, "{name}");
    }
}
