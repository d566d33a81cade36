//! Every map of a node: what is created when a node starts, and what an operator can list.

use crate::abi::{EventBudget, PartyRow, VerdictRow};
use crate::maps::MapSpec;
use crate::tables::{
    CtErrors, CtMap, EndpointRows, ForwardsMap, IpCache, LbMap, LxcMap, MaglevTables, MetricsMap, NodeMap, PolicyMap,
    PolicyMaps, PolicyOutlines, PolicyStats, Switches, VerdictCounts, fragment_specs,
};

/// As in `bpf/lib/verdict_rows.h`.
const VERDICT_ROWS: u32 = 2048;
/// As in `bpf/lib/party_rows.h`.
const PARTY_ROWS: u32 = 1024;

/// A map of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The map at its default size; the pin has its name.
    pub spec: MapSpec,
    /// For a map of maps: what its inner maps look like.
    pub inner: Option<MapSpec>,
    /// What it holds, in a few words.
    pub purpose: &'static str,
}

/// Every map that exists once on a node, in the order of the names. `bpf/maps.bpf.c` declares the same ones.
///
/// The policies themselves, one for each endpoint, come and go with the endpoints and are not among them.
pub fn catalog() -> Vec<CatalogEntry> {
    let mut entries = vec![
        plain(LxcMap::spec(), "local endpoints by address"),
        plain(IpCache::spec(), "identities and tunnels by prefix"),
        plain(MetricsMap::spec(), "packets and bytes by reason and direction"),
        plain(NodeMap::spec(), "nodes by address"),
        plain(PolicyStats::spec(), "packets and bytes by policy entry"),
        plain(CtMap::spec(), "connections"),
        plain(CtMap::index_spec(), "where connections are"),
        plain(CtMap::pool_spec(), "room for connections"),
        plain(EndpointRows::spec(), "local endpoints by device"),
        plain(CtErrors::spec(), "packets that could not be noted, by errno"),
        plain(Switches::spec(), "switches of the programs"),
        plain(
            MapSpec::per_cpu_array::<VerdictRow>("podwire_verdicts", VERDICT_ROWS).value_layout::<VerdictRow>(),
            "verdicts that a CPU gave lately",
        ),
        plain(
            MapSpec::per_cpu_array::<PartyRow>("podwire_parties", PARTY_ROWS).value_layout::<PartyRow>(),
            "whom a CPU found behind addresses lately",
        ),
        plain(VerdictCounts::spec(), "connections that policies let pass"),
        CatalogEntry {
            spec: PolicyMaps::spec(),
            inner: Some(PolicyMap::inner_spec()),
            purpose: "policies in force by endpoint",
        },
        plain(PolicyOutlines::spec(), "what policies can match at the most"),
        plain(ForwardsMap::spec(), "forwarded packets and bytes by way"),
        plain(MapSpec::ring_buffer("podwire_events", 1 << 20), "drops and traces on their way to user space"),
        plain(
            MapSpec::per_cpu_array::<EventBudget>("podwire_event_budget", 1).value_layout::<EventBudget>(),
            "limits and losses of events",
        ),
    ];
    entries.extend(LbMap::specs().into_iter().map(|spec| {
        let purpose = load_balancing_purpose(spec.name());
        plain(spec, purpose)
    }));
    entries.extend(<MaglevTables>::specs().map(|spec| CatalogEntry {
        spec,
        inner: Some(<MaglevTables>::inner_spec()),
        purpose: "Maglev tables by reverse-NAT number",
    }));
    entries.extend(fragment_specs().map(|spec| plain(spec, "ports of fragmented packets")));
    entries.sort_by(|a, b| a.spec.name().cmp(b.spec.name()));
    entries
}

const fn plain(spec: MapSpec, purpose: &'static str) -> CatalogEntry {
    CatalogEntry { spec, inner: None, purpose }
}

fn load_balancing_purpose(name: &str) -> &'static str {
    match name.split_once("cilium_lb").map(|(_, rest)| rest.trim_start_matches(['4', '6', '_'])) {
        Some("services_v2") => "services and their slots",
        Some("backends_v3") => "backends by number",
        Some("reverse_nat") => "frontends by reverse-NAT number",
        Some("affinity") => "backends that clients keep",
        Some("affinity_match") => "backends of services with affinity",
        _ => "source ranges of services",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted() {
        let entries = catalog();
        let names: Vec<_> = entries.iter().map(|entry| entry.spec.name().to_owned()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("cilium_") || name.starts_with("podwire_")));
        let purposes: Vec<_> = entries.iter().map(|entry| entry.purpose).collect();
        assert_eq!(purposes.iter().filter(|purpose| **purpose == "source ranges of services").count(), 2);
    }
}
