//! Policy: rules, endpoints, identities, and how long it takes to bring it into force.

use std::fmt;

use podwire::Datapath;
use podwire::enforcement::RealizedPolicy;

use super::out::{Labels, Out};

pub(super) fn encode(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let policy = datapath.policy();
    out.gauges("cilium_policy", "Rules in force", [(vec![], policy.rules() as f64)])?;
    let revision = policy.revision() as f64;
    out.gauges("cilium_policy_max_revision", "Highest revision of the policies", [(vec![], revision)])?;
    endpoints(datapath, out)?;
    selectors(datapath, out)?;
    identities(datapath, out)?;
    times(datapath, out)
}

/// In which directions policy is enforced, by the names of Cilium's metric.
fn enforcement(policy: &RealizedPolicy) -> &'static str {
    match (policy.ingress, policy.egress) {
        (false, false) => "none",
        (true, false) => "ingress",
        (false, true) => "egress",
        (true, true) => "both",
    }
}

fn endpoints(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let realized = datapath.policy().realized_all();
    let count = |wanted| realized.iter().filter(|policy| enforcement(policy) == wanted).count() as f64;
    let rows = ["none", "ingress", "egress", "both"].map(|name| (label("enforcement", name), count(name)));
    let help = "Endpoints by the directions in which policy is enforced";
    out.gauges("cilium_policy_endpoint_enforcement_status", help, rows)?;
    let behind = realized.iter().filter(|policy| policy.error.is_some()).count() as f64;
    let help = "Endpoints whose policy in force is not what it should be";
    out.gauges("podwire_policy_endpoints_failing", help, [(vec![], behind)])?;
    let entries = realized.iter().map(|policy| policy.entries).sum::<usize>() as f64;
    out.gauges("podwire_policy_entries", "Entries of all endpoints' policy maps", [(vec![], entries)])?;
    let most = realized.iter().map(|policy| policy.entries).max().unwrap_or_default() as f64;
    out.gauges("podwire_policy_entries_max", "Entries of the largest policy map", [(vec![], most)])
}

fn selectors(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let policy = datapath.policy();
    let rows = [("peer", policy.selectors()), ("subject", policy.subject_selectors())];
    let counts = rows.iter().map(|(kind, selectors)| (label("type", kind), selectors.len() as f64));
    out.gauges("cilium_policy_selector_cache_selectors", "Selectors of rules in force", counts)?;
    let most = rows.iter().map(|(kind, selectors)| {
        let most = selectors.iter().map(|selector| selector.identities.len()).max().unwrap_or_default();
        (label("type", kind), most as f64)
    });
    out.gauges("cilium_policy_selector_match_count_max", "Identities of the selector that selects most", most)
}

/// Those of label sets are the node's own here, but Cilium's dashboards look for them under this name.
fn identities(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let (mut reserved, mut cidrs, mut labels) = (0, 0, 0);
    for identity in datapath.identities().list() {
        match identity.id() {
            id if id.is_reserved() => reserved += 1,
            id if id.is_cidr() => cidrs += 1,
            _ => labels += 1,
        }
    }
    let rows = [("reserved", reserved), ("node_local", cidrs), ("cluster_local", labels)];
    let rows = rows.map(|(kind, count)| (label("type", kind), f64::from(count)));
    out.gauges("cilium_identity", "Identities by type", rows)
}

fn times(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let (compile, swap) = datapath.policy().timings();
    let scopes = [("compile", compile), ("fill", swap.fill), ("swap", swap.swap), ("wait", swap.wait)];
    let rows = scopes.map(|(scope, span)| (label("scope", scope), span));
    out.histograms("podwire_policy_regeneration_seconds", "Time of each stage of bringing policy into force", rows)?;
    let rows = [("changed", swap.policies), ("unchanged", swap.unchanged)];
    let rows = rows.map(|(outcome, count)| (label("outcome", outcome), count));
    out.counters("podwire_policy_swaps", "Policies of endpoints brought into force", rows)?;
    let help = "Calls to bring policy into force that were refused or failed";
    out.counters("podwire_policy_swap_failures", help, [(vec![], swap.failed)])?;
    out.counters("podwire_policy_entries_written", "Entries written to policy maps", [(vec![], swap.entries)])
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}
