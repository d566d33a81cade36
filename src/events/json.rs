//! An event as JSON, with the keys of Cilium's monitor.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::decode::{DropEvent, Event, TraceEvent};
use super::packet::{Layer4, PacketSummary};
use super::text::{direction, icmp_name};
use super::verdict::{PolicyVerdictEvent, RaisedBy};

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let packet = match self {
            Self::Drop(drop) => drop_fields(&mut map, drop).map(|()| self.packet())?,
            Self::Trace(trace) => trace_fields(&mut map, trace).map(|()| self.packet())?,
            Self::PolicyVerdict(verdict) => {
                verdict_fields(&mut map, verdict)?;
                verdict.connection().unwrap_or_default()
            }
        };
        map.serialize_entry("summary", &summary(&packet))?;
        map.end()
    }
}

fn drop_fields<M: SerializeMap>(map: &mut M, drop: &DropEvent) -> Result<(), M::Error> {
    map.serialize_entry("type", "drop")?;
    map.serialize_entry("mark", &format!("{:#x}", drop.hash))?;
    map.serialize_entry("reason", &drop.reason_text())?;
    map.serialize_entry("source", &drop.source)?;
    map.serialize_entry("bytes", &drop.length)?;
    map.serialize_entry("srcLabel", &drop.source_identity)?;
    map.serialize_entry("dstLabel", &drop.destination_identity)?;
    map.serialize_entry("dstID", &drop.destination)?;
    map.serialize_entry("Line", &drop.line)?;
    map.serialize_entry("File", &drop.file.number())?;
    map.serialize_entry("Ifindex", &drop.ifindex)
}

fn trace_fields<M: SerializeMap>(map: &mut M, trace: &TraceEvent) -> Result<(), M::Error> {
    map.serialize_entry("type", "trace")?;
    map.serialize_entry("mark", &format!("{:#x}", trace.hash))?;
    map.serialize_entry("ifindex", &trace.ifindex)?;
    map.serialize_entry("observationPoint", trace.point.name())?;
    map.serialize_entry("source", &trace.source)?;
    map.serialize_entry("bytes", &trace.length)?;
    map.serialize_entry("srcLabel", &trace.source_identity)?;
    map.serialize_entry("dstLabel", &trace.destination_identity)?;
    map.serialize_entry("dstID", &trace.destination)
}

/// Cilium's monitor has no JSON for verdicts: the keys are named like those of the other events.
fn verdict_fields<M: SerializeMap>(map: &mut M, verdict: &PolicyVerdictEvent) -> Result<(), M::Error> {
    map.serialize_entry("type", "policy-verdict")?;
    map.serialize_entry("mark", &format!("{:#x}", verdict.hash))?;
    map.serialize_entry("source", &verdict.endpoint)?;
    map.serialize_entry("remoteLabel", &verdict.remote_identity)?;
    map.serialize_entry("direction", direction(verdict.direction))?;
    map.serialize_entry("action", verdict.action.name())?;
    map.serialize_entry("verdict", &verdict.verdict)?;
    if let Some(reason) = verdict.reason() {
        map.serialize_entry("reason", reason.text())?;
    }
    map.serialize_entry("match", verdict.matched.name())?;
    map.serialize_entry("proto", &verdict.protocol.number())?;
    map.serialize_entry("dstPort", &verdict.destination_port)?;
    map.serialize_entry("authType", &verdict.auth_type)?;
    map.serialize_entry("rule", &verdict.rule)?;
    if let Some(name) = &verdict.rule_name {
        map.serialize_entry("ruleName", name)?;
    }
    match verdict.raised_by {
        RaisedBy::Opener => {}
        RaisedBy::Reply => map.serialize_entry("raisedBy", "reply")?,
        RaisedBy::Error { .. } => {
            map.serialize_entry("raisedBy", "error")?;
            map.serialize_entry("error", &summary(&PacketSummary::of(&verdict.head)))?;
        }
    }
    map.serialize_entry("bytes", &verdict.length)
}

/// The packet's layers, those that are there.
fn summary(packet: &PacketSummary) -> Value {
    let mut layers = serde_json::Map::new();
    if let Some((source, destination)) = packet.macs {
        layers.insert("l2".into(), json!({"src": source, "dst": destination}));
    }
    if let Some((source, destination)) = packet.addresses {
        layers.insert("l3".into(), json!({"src": source, "dst": destination}));
    }
    match &packet.layer4 {
        Some(Layer4::Tcp { source, destination, flags }) => {
            layers.insert("l4".into(), json!({"src": source.to_string(), "dst": destination.to_string()}));
            layers.insert("tcp".into(), json!(flags.join(", ")));
        }
        Some(Layer4::Udp { source, destination }) => {
            layers.insert("l4".into(), json!({"src": source.to_string(), "dst": destination.to_string()}));
            layers.insert("udp".into(), json!(""));
        }
        Some(Layer4::Icmp { kind, code, v6 }) => {
            layers.insert(if *v6 { "icmpv6" } else { "icmpv4" }.into(), json!(icmp_name(*kind, *code, *v6)));
        }
        None => {}
    }
    Value::Object(layers)
}
