//! A policy's verdict on a connection.

use std::fmt;

use super::decode::captured;
use super::packet::PacketSummary;
use crate::abi::PolicyVerdictNotify;
use crate::tables::{DropReason, PolicyDirection, Protocol};
use crate::{EndpointId, SecurityId};

/// What an endpoint's policy says of a connection in one direction: when it is opened, when it is judged anew because
/// something changed, and for each packet that is denied without opening one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyVerdictEvent {
    /// The endpoint whose policy judged.
    pub endpoint: u16,
    /// Whether the connection goes into or out of the endpoint.
    pub direction: PolicyDirection,
    /// Identity of the other side.
    pub remote_identity: SecurityId,
    /// What becomes of the packet.
    pub action: VerdictAction,
    /// The verdict as a number: 0 allowed, a negative drop reason, a positive proxy port.
    pub verdict: i32,
    /// Which parts of the policy's entry the packet matched.
    pub matched: VerdictMatch,
    /// Number of the rule that decided; 0 for none. It is a rule's as long as that rule is in force.
    pub rule: u32,
    /// That rule's name, for who knows it to fill in: no event comes with it.
    pub rule_name: Option<String>,
    /// The type of authentication that the entry asks for; 0 for none.
    pub auth_type: u8,
    /// The connection's protocol.
    pub protocol: Protocol,
    /// Its destination port in host order; for ICMP its type.
    pub destination_port: u16,
    /// Whether it is an IPv6 packet.
    pub ipv6: bool,
    /// Which packet it was that raised the event. Endpoint, direction, identity, protocol and port are the connection's as it was
    /// opened, whichever it was.
    pub raised_by: RaisedBy,
    /// The kernel's hash of the flow; 0 where it had none.
    pub hash: u32,
    /// The packet's length in bytes.
    pub length: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// What a verdict does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerdictAction {
    /// It is let through.
    Allow,
    /// It is dropped.
    Deny,
    /// It goes through a proxy.
    Redirect,
    /// It would have been dropped, but the endpoint's policy is only audited.
    Audit,
}

impl VerdictAction {
    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Redirect => "redirect",
            Self::Audit => "audit",
        }
    }

    const fn of(verdict: i32, audited: bool) -> Self {
        match verdict {
            _ if audited => Self::Audit,
            0 => Self::Allow,
            ..0 => Self::Deny,
            1.. => Self::Redirect,
        }
    }
}

impl fmt::Display for VerdictAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which parts of a policy's entry named the packet. The numbers and names are Cilium's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerdictMatch {
    /// No entry matched.
    None,
    /// The identity; any protocol and port.
    L3Only,
    /// Identity, protocol and port.
    L3L4,
    /// Protocol and port; any identity.
    L4Only,
    /// An entry for everything.
    All,
    /// Identity and protocol; any port.
    L3Proto,
    /// The protocol alone.
    ProtoOnly,
    /// A number that this build does not know.
    Other(u8),
}

impl VerdictMatch {
    /// The match with a number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::L3Only,
            2 => Self::L3L4,
            3 => Self::L4Only,
            4 => Self::All,
            5 => Self::L3Proto,
            6 => Self::ProtoOnly,
            other => Self::Other(other),
        }
    }

    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L3Only => "L3-Only",
            Self::L3L4 => "L3-L4",
            Self::L4Only => "L4-Only",
            Self::All => "all",
            Self::L3Proto => "L3-Proto",
            Self::ProtoOnly => "Proto-Only",
            Self::Other(_) => "unknown",
        }
    }
}

impl fmt::Display for VerdictMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which packet raised a verdict's event. A connection that is open is judged anew when something has changed, by whichever of its
/// packets comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RaisedBy {
    /// One of the side that opens the connection, or opened it.
    Opener,
    /// A reply to the opener.
    Reply,
    /// An ICMP error about a packet of the connection.
    Error {
        /// Whether that packet is a reply.
        about_reply: bool,
    },
}

impl RaisedBy {
    const fn of(number: u8) -> Self {
        let is_reply = number & PolicyVerdictNotify::BY_REPLY != 0;
        match (number & PolicyVerdictNotify::BY_ERROR != 0, is_reply) {
            (true, about_reply) => Self::Error { about_reply },
            (false, true) => Self::Reply,
            (false, false) => Self::Opener,
        }
    }
}

impl PolicyVerdictEvent {
    pub(super) fn of(notify: &PolicyVerdictNotify, rest: &[u8]) -> Self {
        let flags = notify.flags;
        let audited = flags & PolicyVerdictNotify::AUDITED != 0;
        Self {
            endpoint: notify.source,
            direction: match flags & PolicyVerdictNotify::DIR_MASK {
                1 => PolicyDirection::Ingress,
                _ => PolicyDirection::Egress,
            },
            remote_identity: SecurityId::new(notify.remote_label),
            action: VerdictAction::of(notify.verdict, audited),
            verdict: notify.verdict,
            matched: VerdictMatch::from_number(
                (flags & PolicyVerdictNotify::MATCH_MASK) >> PolicyVerdictNotify::MATCH_SHIFT,
            ),
            rule: notify.cookie,
            rule_name: None,
            auth_type: notify.auth_type,
            protocol: Protocol::new(notify.proto),
            destination_port: notify.dst_port,
            ipv6: flags & PolicyVerdictNotify::IPV6 != 0,
            raised_by: RaisedBy::of(notify.raised_by),
            hash: notify.hash,
            length: notify.len_orig,
            head: captured(rest, notify.len_cap),
        }
    }

    /// The packet in the direction in which the connection was opened: a reply turned, of an error the packet that it is about,
    /// as it was sent or turned. `None` where too little of that was captured.
    pub fn connection(&self) -> Option<PacketSummary> {
        match self.raised_by {
            RaisedBy::Opener => Some(PacketSummary::of(&self.head)),
            RaisedBy::Reply => Some(PacketSummary::of(&self.head).turned()),
            RaisedBy::Error { about_reply: false } => PacketSummary::borne_by(&self.head),
            RaisedBy::Error { about_reply: true } => PacketSummary::borne_by(&self.head).map(PacketSummary::turned),
        }
    }

    /// Why the packet was dropped, or would have been; `None` where the verdict names no reason.
    pub fn reason(&self) -> Option<DropReason> {
        let number = self.verdict.checked_neg().and_then(|number| u8::try_from(number).ok())?;
        DropReason::from_number(number)
    }

    /// The endpoint whose policy judged, as an id.
    pub fn endpoint_id(&self) -> Option<EndpointId> {
        EndpointId::new(self.endpoint)
    }

    /// The rule that decided, as users read it: `rule default/web (#7)`, `rule #7`; `None` where none did.
    pub fn rule_text(&self) -> Option<String> {
        match (self.rule, &self.rule_name) {
            (0, _) => None,
            (number, Some(name)) => Some(format!("rule {name} (#{number})")),
            (number, None) => Some(format!("rule #{number}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::events::Event;

    fn syn() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 1, 252], [10, 0, 1, 4], 64)
            .tcp(51_622, 8080, 1, 1024)
            .syn()
            .write(&mut bytes, &[])
            .expect("into memory");
        bytes
    }

    fn notify() -> PolicyVerdictNotify {
        PolicyVerdictNotify {
            r#type: PolicyVerdictNotify::TYPE,
            source: 1135,
            hash: 0xa81f_574c,
            len_orig: 74,
            remote_label: 42_491,
            dst_port: 8080,
            proto: 6,
            flags: 1 | 2 << PolicyVerdictNotify::MATCH_SHIFT,
            ..Default::default()
        }
    }

    fn event(notify: PolicyVerdictNotify) -> PolicyVerdictEvent {
        let head = syn();
        let notify = PolicyVerdictNotify { len_cap: head.len() as u16, ..notify };
        match Event::decode(&[bytemuck::bytes_of(&notify), &head].concat()).expect("whole") {
            Event::PolicyVerdict(event) => event,
            other => panic!("not a verdict: {other:?}"),
        }
    }

    /// Where the error bears too little of the packet, nothing is said of the connection.
    #[test]
    fn a_head_without_the_packet_that_an_error_is_about() {
        let mut verdict = event(PolicyVerdictNotify { raised_by: 2, ..notify() });
        assert_eq!((verdict.raised_by, verdict.connection()), (RaisedBy::Error { about_reply: false }, None));
        let line = Event::PolicyVerdict(verdict.clone()).to_string();
        let end = ", match L3-L4, raised by an error: 10.0.1.252:51622 -> 10.0.1.4:8080 tcp SYN";
        assert!(line.ends_with(end), "{line}");
        let json = serde_json::to_value(Event::PolicyVerdict(verdict.clone())).expect("json");
        assert_eq!(json["summary"], serde_json::json!({}));
        for length in (0..verdict.head.len()).rev() {
            verdict.head.truncate(length);
            assert_eq!(verdict.connection(), None);
        }
    }

    /// The lines are recorded ones of `cilium-dbg monitor --type policy-verdict`.
    #[test]
    fn lines_are_those_of_cilium_s_monitor() {
        let cases = [
            (
                notify(),
                "Policy verdict log: flow 0xa81f574c local EP ID 1135, remote ID 42491, proto 6, ingress, action allow, \
                 auth: disabled, match L3-L4, 10.0.1.252:51622 -> 10.0.1.4:8080 tcp SYN",
            ),
            (
                PolicyVerdictNotify { source: 463, hash: 0, remote_label: 10, verdict: -133, flags: 2, ..notify() },
                "Policy verdict log: flow 0x0 local EP ID 463, remote ID world-ipv6, proto 6, egress, action deny, \
                 auth: disabled, match none, 10.0.1.252:51622 -> 10.0.1.4:8080 tcp SYN",
            ),
            (
                PolicyVerdictNotify {
                    remote_label: 1,
                    flags: notify().flags | PolicyVerdictNotify::AUDITED,
                    ..notify()
                },
                "Policy verdict log: flow 0xa81f574c local EP ID 1135, remote ID host, proto 6, ingress, action audit, \
                 auth: disabled, match L3-L4, 10.0.1.252:51622 -> 10.0.1.4:8080 tcp SYN",
            ),
        ];
        for (notify, line) in cases {
            assert_eq!(Event::PolicyVerdict(event(notify)).to_string(), line);
        }
    }

    #[test]
    fn a_rule_is_named_by_number_and_by_name() {
        let mut verdict = event(PolicyVerdictNotify { cookie: 7, verdict: 10_080, ..notify() });
        assert_eq!(verdict.rule_text().as_deref(), Some("rule #7"));
        verdict.rule_name = Some("default/web".to_owned());
        let line = Event::PolicyVerdict(verdict.clone()).to_string();
        assert!(line.contains("action redirect, auth: disabled, match L3-L4, rule default/web (#7), 10.0"), "{line}");
        assert_eq!(event(notify()).rule_text(), None);
    }

    #[test]
    fn json_has_what_the_line_has() {
        let mut verdict = event(PolicyVerdictNotify { cookie: 7, verdict: -181, flags: 2 | 8, ..notify() });
        verdict.rule_name = Some("default/web".to_owned());
        let json = serde_json::to_value(Event::PolicyVerdict(verdict)).expect("json");
        let expected = serde_json::json!({
            "type": "policy-verdict", "mark": "0xa81f574c", "source": 1135, "remoteLabel": 42491, "direction": "egress",
            "action": "deny", "verdict": -181, "reason": "Policy denied by denylist", "match": "L3-Only", "proto": 6,
            "dstPort": 8080, "authType": 0, "rule": 7, "ruleName": "default/web", "bytes": 74,
            "summary": {
                "l2": {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"},
                "l3": {"src": "10.0.1.252", "dst": "10.0.1.4"}, "l4": {"src": "51622", "dst": "8080"}, "tcp": "SYN",
            },
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn actions_reasons_and_matches_of_every_number() {
        let actions = [(0, "allow", None), (-133, "deny", Some(DropReason::PolicyDenied)), (1, "redirect", None)];
        for (verdict, action, reason) in actions {
            let event = event(PolicyVerdictNotify { verdict, ..notify() });
            assert_eq!((event.action.name(), event.reason()), (action, reason), "{verdict}");
        }
        assert_eq!(event(PolicyVerdictNotify { verdict: i32::MIN, ..notify() }).reason(), None);
        let names = ["none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only", "unknown"];
        for (number, name) in (0..).zip(names) {
            let flags = 1 | number << PolicyVerdictNotify::MATCH_SHIFT;
            assert_eq!(event(PolicyVerdictNotify { flags, ..notify() }).matched.name(), name);
        }
    }

    /// An event belongs to the endpoint that judged, at the end at which it stands.
    #[test]
    fn the_judging_endpoint_is_the_end_of_its_direction() {
        let ends = |flags| {
            let event = Event::PolicyVerdict(event(PolicyVerdictNotify { flags, ..notify() }));
            (event.source(), event.destination())
        };
        assert_eq!((ends(1), ends(2)), ((0, 1135), (1135, 0)));
    }
}
