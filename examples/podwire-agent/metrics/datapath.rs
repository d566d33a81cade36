//! What is read from the datapath when somebody asks.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use podwire::Datapath;
use podwire::ipam::Family as AddressFamily;
use podwire::tables::{Counter, DropReason, MetricsDirection, PolicyDirection, PolicyMap, Reason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::out::{Labels, Out};
use super::{connections, policy};
use crate::monitor::LossCounters;

/// Reads the datapath each time it is asked.
pub(super) struct FromDatapath {
    datapath: Arc<Datapath>,
    losses: Arc<LossCounters>,
}

impl Debug for FromDatapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromDatapath").finish_non_exhaustive()
    }
}

impl Collector for FromDatapath {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.endpoints(&mut out)?;
        self.packets(&mut out)?;
        self.maps(&mut out)?;
        self.addresses(&mut out)?;
        policy::encode(&self.datapath, &mut out)?;
        connections::encode(&self.datapath, &mut out)?;
        let lost = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = [
            (vec![("reason", "limited".to_owned())], lost(&self.losses.limited)),
            (vec![("reason", "buffer_full".to_owned())], lost(&self.losses.lost)),
        ];
        out.counters("podwire_events_lost", "Events that no monitor got", rows)
    }
}

impl FromDatapath {
    pub(super) fn new(datapath: Arc<Datapath>, losses: Arc<LossCounters>) -> Self {
        Self { datapath, losses }
    }

    fn endpoints(&self, out: &mut Out<'_>) -> fmt::Result {
        let states = podwire::endpoint::EndpointState::ALL;
        let endpoints = self.datapath.endpoints().list();
        out.gauges("cilium_endpoint", "Endpoints of this node", [(vec![], endpoints.len() as f64)])?;
        let rows = states.iter().map(|state| {
            let count = endpoints.iter().filter(|endpoint| endpoint.state == *state).count();
            (vec![("endpoint_state", state.name().to_owned())], count as f64)
        });
        out.gauges("cilium_endpoint_state", "Endpoints by state", rows)
    }

    fn packets(&self, out: &mut Out<'_>) -> fmt::Result {
        let metrics = self.datapath.metrics();
        let copied = self.datapath.forwards().copy_to(metrics);
        let counters = copied.and_then(|()| metrics.counters()).unwrap_or_else(|error| {
            log::warn!("packet counters can't be read: {error}");
            Vec::new()
        });
        let mut drops: Vec<(Labels, u64, u64)> = Vec::new();
        let mut forwards: Vec<(Labels, u64, u64)> = Vec::new();
        for counter in &counters {
            let (reason, direction) = (counter.counted.reason, counter.counted.direction);
            let direction = ("direction", direction.to_string());
            let (rows, labels) = match reason {
                Reason::Forwarded => (&mut forwards, vec![direction]),
                reason if reason.is_drop() => (&mut drops, vec![("reason", reason.to_string()), direction]),
                _ => continue,
            };
            // Several places in the programs count for the same reason.
            match rows.iter_mut().find(|(known, ..)| *known == labels) {
                Some((_, packets, bytes)) => {
                    *packets += counter.packets;
                    *bytes += counter.bytes;
                }
                None => rows.push((labels, counter.packets, counter.bytes)),
            }
        }
        for (name, help, rows) in [("cilium_drop", "dropped", &drops), ("cilium_forward", "forwarded", &forwards)] {
            let packets = rows.iter().map(|(labels, packets, _)| (labels.clone(), *packets));
            out.counters(&format!("{name}_count"), &format!("Packets {help}"), packets)?;
            let bytes = rows.iter().map(|(labels, _, bytes)| (labels.clone(), *bytes));
            out.counters(&format!("{name}_bytes"), &format!("Bytes {help}"), bytes)?;
        }
        self.verdicts(out, &counters)
    }

    /// What policies let pass is counted by connections, what they deny by packets.
    fn verdicts(&self, out: &mut Out<'_>, counters: &[Counter]) -> fmt::Result {
        let labels =
            |direction: &str, action: &str| vec![("direction", direction.to_owned()), ("action", action.to_owned())];
        let counts = self.datapath.verdicts().counts().map_err(|error| {
            log::warn!("counts of verdicts can't be read: {error}");
        });
        let passed = counts.iter().flatten().map(|count| {
            let direction = if count.direction == PolicyDirection::Ingress { "ingress" } else { "egress" };
            (labels(direction, if count.audited { "audit" } else { "allow" }), count.connections)
        });
        let denied =
            [("egress", MetricsDirection::Egress), ("ingress", MetricsDirection::Ingress)].map(|(name, direction)| {
                let denials = [Reason::Drop(DropReason::PolicyDenied), Reason::Drop(DropReason::PolicyDenyRule)];
                let counted = counters.iter().map(|counter| (counter.counted, counter.packets));
                let counted = counted.filter(|(of, _)| of.direction == direction && denials.contains(&of.reason));
                (labels(name, "deny"), counted.map(|(_, packets)| packets).sum())
            });
        let help = "Connections that policies let pass or audited, packets that they denied";
        out.counters("podwire_policy_verdicts", help, passed.chain(denied))
    }

    fn maps(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut maps = self.datapath.maps().unwrap_or_else(|error| {
            log::warn!("maps can't be read: {error}");
            Vec::new()
        });
        // There are as many as endpoints, and each is as large as its content.
        maps.retain(|map| !map.name.starts_with(PolicyMap::NAME_PREFIX));
        let named = |name: &str| vec![("map_name", name.to_owned())];
        let capacity = maps.iter().map(|map| (named(&map.name), f64::from(map.max_entries)));
        out.gauges("cilium_bpf_map_capacity", "Entries that a map can hold", capacity)?;
        let policy = self.datapath.policy().realized_all().iter().map(|policy| policy.entries).max();
        let policy = policy.unwrap_or_default() as f64 / f64::from(PolicyMap::MAX_ENTRIES);
        let pressure = maps.iter().filter_map(|map| Some((named(&map.name), map.pressure?)));
        let pressure = pressure.chain([(named("cilium_policy_v2"), policy)]);
        out.gauges("cilium_bpf_map_pressure", "How full a map is, from 0 to 1", pressure)?;
        let errors = maps.iter().filter(|map| map.cached).map(|map| (named(&map.name), map.errors as f64));
        out.gauges("podwire_bpf_map_errors", "Entries that are not as they should be", errors)?;
        let operations = maps.iter().flat_map(|map| {
            let counted = map.operations.iter().flat_map(|operations| operations.labelled());
            counted.map(|(operation, outcome, count)| {
                let mut labels = named(&map.name);
                labels.extend([("operation", operation.to_owned()), ("outcome", outcome.to_owned())]);
                (labels, count)
            })
        });
        out.counters("cilium_bpf_map_ops", "Operations on a map", operations.collect::<Vec<_>>())
    }

    fn addresses(&self, out: &mut Out<'_>) -> fmt::Result {
        let ipam = self.datapath.ipam();
        let usage = [(AddressFamily::Ipv4, "ipv4"), (AddressFamily::Ipv6, "ipv6")];
        let usage: Vec<_> = usage
            .into_iter()
            .filter_map(|(family, name)| Some((vec![("family", name.to_owned())], ipam.usage(family)?)))
            .collect();
        let allocated = usage.iter().map(|(labels, usage)| (labels.clone(), usage.allocated as f64));
        out.gauges("cilium_ip_addresses", "Addresses in use", allocated)?;
        let capacity = usage.iter().map(|(labels, usage)| (labels.clone(), usage.capacity as f64));
        out.gauges("cilium_ipam_capacity", "Addresses that can be in use", capacity)
    }
}
