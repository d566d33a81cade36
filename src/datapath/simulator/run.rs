//! One run: setting the scene, asking the program, reading what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::packet::Packet;
use super::parse::Parsed;
use super::places::{Start, TO_CONTAINER};
use super::shadow::{InForce, Scene};
use super::{Device, Dropped, Judgement, Relation, Side, Simulator, Verdict, Way};
use crate::enforcement::Trial;
use crate::events::{Event, PolicyVerdictEvent, RaisedBy, TracePoint};
use crate::identity::Identity;
use crate::policy::{CompiledPolicy, RuleNumber, RuleSource};
use crate::tables::{Connection, FlowTuple, IpCacheEntry, LxcEntry};
use crate::{EndpointId, Error, ErrorKind, IfIndex, Result, SecurityId};

/// TC_ACT_SHOT
const SHOT: i32 = 2;
/// TC_ACT_REDIRECT
const REDIRECT: i32 = 7;

/// What is asked instead of what is in force.
struct Instead<'a> {
    trial: &'a Trial,
    policies: BTreeMap<EndpointId, CompiledPolicy>,
    /// Of addresses in prefixes that only the policies tried out name.
    identities: BTreeMap<IpAddr, Identity>,
}

pub(super) fn simulate(simulator: &mut Simulator<'_>, packet: &Packet, trial: Option<&Trial>) -> Result<Verdict> {
    let start = simulator.start(packet, trial)?;
    check_length(&start.frame)?;
    let parsed = Parsed::of(&start.frame);
    let addresses: Vec<IpAddr> = parsed.all_addresses().collect();
    let connections: Vec<FlowTuple> = parsed.connections().copied().collect();
    let endpoints = simulator.endpoints(&addresses)?;
    let instead = trial.map(|trial| simulator.instead(trial, &endpoints, &addresses)).transpose()?;
    let invented = instead.iter().flat_map(|instead| &instead.identities);
    let scene = Scene {
        policies: simulator.policies(instead.as_ref(), &endpoints)?,
        identities: invented.map(|(address, identity)| (*address, IpCacheEntry::direct(identity.id()))).collect(),
        addresses: addresses.clone(),
        device: Some(start.device),
        connections: connections.clone(),
    };
    let found = simulator.shadow.set(&simulator.live, scene);
    let verdict = found.and_then(|found| simulator.judge(&start, &parsed, &found, instead.as_ref()));
    let cleared = simulator.shadow.clear(&addresses, Some(start.device), &connections);
    let verdict = verdict?;
    cleared.map(|()| verdict)
}

impl Simulator<'_> {
    /// The endpoints that have these addresses.
    fn endpoints(&self, addresses: &[IpAddr]) -> Result<BTreeSet<EndpointId>> {
        let mut endpoints = BTreeSet::new();
        for address in addresses {
            if let Some(LxcEntry::Endpoint(endpoint)) = self.live.lxc.lookup(*address)? {
                endpoints.insert(endpoint.id);
            }
        }
        Ok(endpoints)
    }

    fn instead<'t>(
        &self,
        trial: &'t Trial,
        endpoints: &BTreeSet<EndpointId>,
        addresses: &[IpAddr],
    ) -> Result<Instead<'t>> {
        let mut policies = BTreeMap::new();
        for endpoint in endpoints {
            match trial.compile(*endpoint) {
                // It came after the trial was made, or has no policy: it keeps what it has.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                compiled => drop(policies.insert(*endpoint, compiled?)),
            }
        }
        let invented = addresses.iter().filter_map(|address| {
            let (prefix, identity) = trial.prefix_of(*address)?;
            let live = self.datapath.ipcache().longest_match(*address);
            let is_narrower = live.is_none_or(|live| live.prefix.prefix() < prefix.prefix());
            is_narrower.then(|| (*address, identity.clone()))
        });
        Ok(Instead { trial, policies, identities: invented.collect() })
    }

    /// The policies that are to judge: those tried out, or those in force.
    fn policies(
        &self,
        instead: Option<&Instead<'_>>,
        endpoints: &BTreeSet<EndpointId>,
    ) -> Result<BTreeMap<EndpointId, Option<InForce>>> {
        let mut policies = BTreeMap::new();
        for endpoint in endpoints {
            let policy = match instead.and_then(|instead| instead.policies.get(endpoint)) {
                Some(compiled) => Some(InForce::Own(compiled.entries().collect())),
                None => self.live.policies.policy_id(*endpoint)?.map(InForce::Live),
            };
            policies.insert(*endpoint, policy);
        }
        Ok(policies)
    }

    fn judge(
        &mut self,
        start: &Start,
        parsed: &Parsed,
        found: &[Connection],
        instead: Option<&Instead<'_>>,
    ) -> Result<Verdict> {
        let now = self.shadow.now()?;
        let living = |tuple: &FlowTuple| {
            let connection = found.iter().find(|connection| is_of(connection, tuple));
            connection.filter(|connection| connection.expires().wrapping_sub(now) as i64 > 0).copied()
        };
        let before = parsed.tuple.as_ref().and_then(living);
        let related = parsed.inner.as_ref().and_then(living);

        let (run, events) = self.shadow.run(start.program, &start.frame, start.device)?;
        let after =
            parsed.tuple.as_ref().map(|tuple| self.shadow.tables.connections.lookup(tuple)).transpose()?.flatten();
        let drop = events.iter().rev().find_map(dropped);
        let action = run.retval as i32;
        let allowed = drop.is_none() && action != SHOT;
        let judgements = events.iter().filter_map(|event| match event {
            Event::PolicyVerdict(event) => self.judgement(event, instead),
            _ => None,
        });
        Ok(Verdict {
            allowed,
            drop,
            program: start.program,
            source: self.side(parsed.addresses.map(|(source, _)| source), instead)?,
            destination: self.side(parsed.addresses.map(|(_, destination)| destination), instead)?,
            policies: judgements.collect(),
            relation: relation(parsed, before, related, after, &events),
            connection_before: before.or(related),
            connection_after: after.or(related),
            way: if allowed { self.way(start, action, &events, parsed)? } else { Way::Dropped },
            before: start.frame.clone(),
            after: run.data,
        })
    }

    fn judgement(&self, event: &PolicyVerdictEvent, instead: Option<&Instead<'_>>) -> Option<Judgement> {
        let endpoint = event.endpoint_id()?;
        let number = RuleNumber::new(event.rule);
        let source: Option<RuleSource> = match instead {
            Some(instead) => instead.trial.source(number).cloned(),
            None => self.datapath.policy().source(number),
        };
        let compiled = instead.and_then(|instead| instead.policies.get(&endpoint));
        let enforced = match (compiled, event.direction) {
            (Some(policy), direction) => policy.is_enforced(direction),
            (None, direction) => {
                let realized = self.datapath.policy().realized(endpoint);
                realized.is_some_and(|realized| realized.is_enforced(direction))
            }
        };
        Judgement::of(event, enforced, source)
    }

    /// Whom an address stands for, as the programs find it out.
    fn side(&self, address: Option<IpAddr>, instead: Option<&Instead<'_>>) -> Result<Option<Side>> {
        let Some(address) = address else { return Ok(None) };
        let local = self.live.lxc.lookup(address)?;
        let invented = instead.and_then(|instead| instead.identities.get(&address));
        let identity = match (local, invented) {
            (Some(LxcEntry::Host), _) => SecurityId::HOST,
            (Some(LxcEntry::Endpoint(local)), _) => local.identity,
            (_, Some(identity)) => identity.id(),
            (_, None) => self.identity_elsewhere(address)?,
        };
        let known = invented.filter(|known| known.id() == identity).cloned();
        let known = known.or_else(|| self.datapath.identities().get(identity));
        let endpoint = match local {
            Some(LxcEntry::Endpoint(local)) => {
                Some((local.id, self.record(local.id).map(|record| record.name).unwrap_or_default()))
            }
            _ => None,
        };
        let labels = known.map(|identity| identity.labels().clone()).unwrap_or_default();
        Ok(Some(Side { address, identity, labels, endpoint }))
    }

    pub(super) fn identity_elsewhere(&self, address: IpAddr) -> Result<SecurityId> {
        Ok(match self.live.ipcache.lookup(address)? {
            Some(entry) => entry.identity,
            None if address.is_ipv4() => self.world.0,
            None => self.world.1,
        })
    }

    /// How a packet goes on that is let through.
    fn way(&self, start: &Start, action: i32, events: &[Event], parsed: &Parsed) -> Result<Way> {
        let point = events.iter().rev().find_map(|event| match event {
            Event::Trace(trace) if [TracePoint::ToEndpoint, TracePoint::ToStack].contains(&trace.point) => {
                Some(trace.point)
            }
            _ => None,
        });
        let receiver = match parsed.addresses {
            Some((_, destination)) => self.shadow.tables.lxc.lookup(destination)?,
            None => None,
        };
        Ok(match (point, receiver) {
            (Some(TracePoint::ToEndpoint), Some(LxcEntry::Endpoint(local))) => {
                Way::Endpoint(self.device(local.ifindex))
            }
            (Some(TracePoint::ToStack), _) => Way::Stack(self.device(self.datapath.node().host.ifindex)),
            _ if action == REDIRECT => Way::Back(self.device(start.device)),
            _ if start.program == TO_CONTAINER => Way::Endpoint(self.device(start.device)),
            _ => Way::Stack(self.device(start.device)),
        })
    }

    fn device(&self, ifindex: IfIndex) -> Device {
        Device { ifindex, name: self.socket.link_by_index(ifindex).map(|link| link.name).unwrap_or_default() }
    }
}

fn dropped(event: &Event) -> Option<Dropped> {
    match event {
        Event::Drop(drop) => Some(Dropped { number: drop.reason, file: drop.file, line: drop.line }),
        _ => None,
    }
}

/// A packet's part in the connections there were and are.
fn relation(
    parsed: &Parsed,
    before: Option<Connection>,
    related: Option<Connection>,
    after: Option<Connection>,
    events: &[Event],
) -> Relation {
    // Where the opener may no longer, what comes from the other side is judged for itself.
    let alone =
        events.iter().any(|event| matches!(event, Event::PolicyVerdict(event) if event.raised_by == RaisedBy::Opener));
    match (before, parsed.tuple) {
        _ if related.is_some() => Relation::Related,
        (Some(before), Some(tuple)) if before.opener == tuple => Relation::Established,
        (Some(_), Some(_)) if !parsed.opens && !alone => Relation::Reply,
        (Some(_), Some(tuple)) if !parsed.opens && after.is_none_or(|after| after.opener != tuple) => Relation::None,
        _ if after.is_some() => Relation::New,
        _ => Relation::None,
    }
}

/// The kernel runs no program on a frame that ends within the header that its type announces.
fn check_length(frame: &[u8]) -> Result<()> {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 14,
    };
    if frame.len() >= least {
        return Ok(());
    }
    let reason = format!("the kernel runs no program on fewer than {least} of this type");
    Err(Error::invalid("frame", format!("{} bytes", frame.len()), reason))
}

/// Whether packets of a tuple belong to a connection.
fn is_of(connection: &Connection, tuple: &FlowTuple) -> bool {
    connection.opener == *tuple || connection.opener == tuple.reverse()
}
