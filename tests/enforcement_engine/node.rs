//! An engine on maps of its own: a node's, and what its programs would find in them.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podwire::enforcement::{Admission, Enforcement, EnforcementConfig, PolicyWriter};
use podwire::identity::{IdentityConfig, LocalIdentities, World};
use podwire::ipcache::IpCacheManager;
use podwire::policy::{NamedPorts, Policy, PolicyOptions, WorldIdentities};
use podwire::tables::{
    IpCache, PolicyAction, PolicyDirection, PolicyL4, PolicyMap, PolicyMaps, PolicyMatch, PolicyVerdict, Protocol,
    Switches,
};
use podwire::{EndpointId, Labels, SecurityId};
use tempfile::TempDir;

use crate::common::bpf::BpfRoot;

/// Maps, and a folder for what is on disk: what outlives a process.
pub(crate) struct Node {
    pub(crate) root: BpfRoot,
    pub(crate) state: TempDir,
    pub(crate) switches: Arc<Switches>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let root = BpfRoot::new();
        let maps = root.maps();
        fs::create_dir_all(&maps).expect("a folder on a bpffs");
        let policies = PolicyMaps::create().expect("maps");
        policies.map().pin(maps.join("podwire_policy")).expect("pinned");
        policies.outlines().map().pin(maps.join("podwire_policy_outlines")).expect("pinned");
        IpCache::create(10_000).expect("a map").map().pin(maps.join("cilium_ipcache_v2")).expect("pinned");
        let switches = Arc::new(Switches::create().expect("a map"));
        Self { root, state: tempfile::tempdir().expect("a folder"), switches }
    }

    pub(crate) fn start(&self) -> Engine<'_> {
        self.start_with(PolicyOptions::default())
    }

    pub(crate) fn start_with(&self, options: PolicyOptions) -> Engine<'_> {
        self.start_keeping(Duration::ZERO, options)
    }

    /// With identities that are kept for a while when nobody uses them.
    pub(crate) fn start_keeping(&self, delay: Duration, options: PolicyOptions) -> Engine<'_> {
        let maps = self.root.maps();
        let config = IdentityConfig::new(World::BothFamilies).release_delay(delay);
        let identities = Arc::new(LocalIdentities::open(self.state.path().join("identities"), config).expect("opens"));
        let table = IpCache::open_pinned(&maps).expect("pinned");
        let ipcache = Arc::new(IpCacheManager::open(table, World::BothFamilies).expect("opens"));
        let outer = PolicyMaps::open_pinned(&maps).expect("pinned");
        let writer = PolicyWriter::open(outer, self.switches.clone(), &maps).expect("opens");
        let config = EnforcementConfig::new(WorldIdentities::of_node(true, true))
            .file(self.state.path().join("policy.json"))
            .options(options);
        let engine = Enforcement::open(config, identities, ipcache, writer).expect("opens");
        Engine { node: self, engine }
    }

    pub(crate) fn outer(&self) -> PolicyMaps {
        PolicyMaps::open_pinned(self.root.maps()).expect("pinned")
    }

    pub(crate) fn ipcache(&self) -> IpCache {
        IpCache::open_pinned(self.root.maps()).expect("pinned")
    }

    pub(crate) fn map_id(&self, endpoint: u16) -> Option<u32> {
        self.outer().policy_id(id(endpoint)).expect("readable")
    }
}

pub(crate) struct Engine<'a> {
    node: &'a Node,
    engine: Enforcement,
}

impl std::ops::Deref for Engine<'_> {
    type Target = Enforcement;

    fn deref(&self) -> &Enforcement {
        &self.engine
    }
}

impl Engine<'_> {
    /// An endpoint, and its address.
    pub(crate) fn add(&self, number: u16, label: &str) -> SecurityId {
        let identity = self.admit(admission(number, label)).expect("admitted");
        self.map_endpoint([address(number)].into_iter(), identity).expect("mapped");
        identity
    }

    pub(crate) fn judge(&self, endpoint: u16, direction: PolicyDirection, peer: IpAddr, port: u16) -> Verdict {
        judge(&self.node.outer(), &self.node.ipcache(), endpoint, direction, peer, port)
    }

    pub(crate) fn allows(&self, endpoint: u16, direction: PolicyDirection, peer: IpAddr, port: u16) -> bool {
        self.judge(endpoint, direction, peer, port).is_some_and(|verdict| verdict.action != PolicyAction::Deny)
    }
}

pub(crate) type Verdict = Option<PolicyVerdict>;

/// What the programs would find for a TCP packet.
pub(crate) fn judge(
    outer: &PolicyMaps,
    ipcache: &IpCache,
    endpoint: u16,
    direction: PolicyDirection,
    peer: IpAddr,
    port: u16,
) -> Verdict {
    let world = if peer.is_ipv4() { SecurityId::WORLD_IPV4 } else { SecurityId::WORLD_IPV6 };
    let identity = ipcache.lookup(peer).expect("readable").map_or(world, |entry| entry.identity);
    let policy = loop {
        let map = outer.policy_id(id(endpoint)).expect("readable")?;
        // Replaced between the two calls, it is gone.
        if let Ok(policy) = PolicyMap::from_id(map, id(endpoint)) {
            break policy;
        }
    };
    let find = |identity| {
        let matched = PolicyMatch { direction, identity, l4: PolicyL4::port(Protocol::TCP, port) };
        policy.lookup(&matched).expect("readable")
    };
    match (find(identity), find(SecurityId::UNKNOWN)) {
        (Some(own), Some(any)) => {
            let any_wins =
                any.precedence > own.precedence || any.precedence == own.precedence && any.action == PolicyAction::Deny;
            Some(if any_wins { any } else { own })
        }
        (own, any) => own.or(any),
    }
}

pub(crate) fn id(number: u16) -> EndpointId {
    EndpointId::new(number).expect("not 0")
}

pub(crate) fn address(number: u16) -> IpAddr {
    format!("10.200.0.{number}").parse().expect("an address")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn labels(label: &str) -> Labels {
    Labels::parse([label].into_iter().filter(|label| !label.is_empty())).expect("labels")
}

pub(crate) fn admission(number: u16, label: &str) -> Admission {
    Admission { endpoint: id(number), labels: labels(label), named_ports: NamedPorts::new() }
}

/// A policy of one rule about `app=web`.
pub(crate) fn policy(name: &str, rest: &str) -> Policy {
    let text = format!(r#"{{"endpointSelector": {{"matchLabels": {{"app": "web"}}}}, {rest}}}"#);
    let mut policies = Policy::from_json(&text).expect("a policy");
    Policy { name: name.to_owned(), ..policies.remove(0) }
}

pub(crate) fn from_app(app: &str) -> String {
    format!(r#""ingress": [{{"fromEndpoints": [{{"matchLabels": {{"app": "{app}"}}}}]}}]"#)
}
