//! Rules as one writes them: sections that allow or deny, for the endpoints that a selector selects.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

use super::{Entity, L4Match, L4Ports, Operator, Peer, Peers, Requirement, Selector};
use crate::tables::{PolicyDirection, Protocol};
use crate::{Error, Label, Labels, Result};

/// The longest name of a port.
const PORT_NAME_MAX: usize = 15;
/// The longest description, in bytes: it is kept with each section, and told in tables and errors.
pub(super) const DESCRIPTION_MAX: usize = 4096;

/// Which of a rule's four lists a section is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// Allows traffic to the endpoint.
    Ingress,
    /// Denies traffic to the endpoint.
    IngressDeny,
    /// Allows traffic from the endpoint.
    Egress,
    /// Denies traffic from the endpoint.
    EgressDeny,
}

impl SectionKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::IngressDeny, Self::Egress, Self::EgressDeny];

    /// The list's name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::IngressDeny => "ingressDeny",
            Self::Egress => "egress",
            Self::EgressDeny => "egressDeny",
        }
    }

    /// The direction, seen from the endpoint.
    pub const fn direction(self) -> PolicyDirection {
        match self {
            Self::Ingress | Self::IngressDeny => PolicyDirection::Ingress,
            Self::Egress | Self::EgressDeny => PolicyDirection::Egress,
        }
    }

    /// Whether its sections deny.
    pub const fn denies(self) -> bool {
        matches!(self, Self::IngressDeny | Self::EgressDeny)
    }
}

/// What is allowed or denied: traffic with one of the peers **and** by one of the protocols and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// The other side.
    pub peers: Peers,
    /// Protocols and destination ports; empty for all.
    pub l4: Vec<L4Match>,
}

impl Section {
    /// Any peer.
    pub fn any() -> Self {
        Self { peers: Peers::Any, l4: Vec::new() }
    }

    /// One of these peers; nobody if there is none, which is how one turns a direction's enforcement on and allows nothing.
    pub fn peers(peers: impl IntoIterator<Item = Peer>) -> Self {
        Self { peers: Peers::Some(peers.into_iter().collect()), l4: Vec::new() }
    }

    /// Also by this protocol and destination port.
    pub fn port(self, protocol: Protocol, port: u16) -> Self {
        self.l4(L4Match { protocol, ports: L4Ports::single(port) })
    }

    /// Also by this protocol and these destination ports; `0..=65535` for all of them.
    pub fn ports(self, protocol: Protocol, ports: RangeInclusive<u16>) -> Self {
        self.l4(L4Match { protocol, ports: L4Ports::Range(ports) })
    }

    /// Also by this protocol and the port to which the endpoint has given this name. Ingress only.
    pub fn named_port(self, protocol: Protocol, name: &str) -> Self {
        self.l4(L4Match { protocol, ports: L4Ports::Named(name.to_ascii_lowercase()) })
    }

    /// Also ICMP (IPv4) of this type.
    pub fn icmp(self, icmp_type: u8) -> Self {
        self.port(Protocol::ICMP, icmp_type.into())
    }

    /// Also ICMPv6 of this type.
    pub fn icmpv6(self, icmp_type: u8) -> Self {
        self.port(Protocol::ICMPV6, icmp_type.into())
    }

    /// Also by this.
    pub fn l4(mut self, l4: L4Match) -> Self {
        self.l4.push(l4);
        self
    }

    /// What makes no sense, by the path of the field within the section.
    fn check(&self, kind: SectionKind) -> Result<()> {
        if let Peers::Some(peers) = &self.peers {
            for (index, peer) in peers.iter().enumerate() {
                let Peer::Cidr { net, except } = peer else { continue };
                if is_mapped(*net) {
                    return Err(Error::invalid(format!("peers[{index}].net"), net.to_string(), MAPPED));
                }
                if let Some(outside) = except.iter().find(|except| !within(**except, *net)) {
                    let reason = format!("an exception has to lie within {net}");
                    return Err(Error::invalid(format!("peers[{index}].except"), outside.to_string(), reason));
                }
            }
        }
        for (index, l4) in self.l4.iter().enumerate() {
            let (value, reason) = match &l4.ports {
                _ if !PROTOCOLS.contains(&l4.protocol) => (l4.protocol.to_string(), PROTOCOL),
                L4Ports::Named(name) if kind.direction() == PolicyDirection::Egress => (name.clone(), EGRESS_NAME),
                L4Ports::Named(name) if is_icmp(l4.protocol) => (name.clone(), ICMP_NAME),
                L4Ports::Named(name) if !is_port_name(name) => (name.clone(), PORT_NAME),
                L4Ports::Range(range) if !is_range(l4.protocol, range) => {
                    (format!("{}-{}", range.start(), range.end()), RANGE)
                }
                _ => continue,
            };
            return Err(Error::invalid(format!("l4[{index}].ports"), value, reason));
        }
        Ok(())
    }
}

/// Why a rule can't be about the host, the world or another that has a reserved identity.
pub(super) const NO_ENDPOINT: &str = "no endpoint has this label, so that the rule would have no effect; podwire enforces policy at endpoints, not at the host";

/// The protocols that rules can name.
const PROTOCOLS: [Protocol; 6] =
    [Protocol::ANY, Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6];
/// Why another is refused.
const PROTOCOL: &str = "not one of ANY, TCP, UDP, SCTP, ICMP, ICMPv6";
/// Why a name is refused at egress.
pub(super) const EGRESS_NAME: &str = "named ports are known of the endpoint that a rule selects, so for ingress only";
/// Why a name is refused for ICMP.
pub(super) const ICMP_NAME: &str = "ICMP has types, and their names stand in icmps";
/// What a port's name is.
pub(super) const PORT_NAME: &str =
    "a name has 1 to 15 letters, digits and single dashes inside, with a letter among them";
/// What a range of ports is.
const RANGE: &str = "neither all (0-65535) nor a range that ascends within 1-65535, or for ICMP within 0-255";

/// Whether it has types in the place of ports.
pub(super) fn is_icmp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::ICMP | Protocol::ICMPV6)
}

fn is_range(protocol: Protocol, range: &RangeInclusive<u16>) -> bool {
    let all = *range == (0..=u16::MAX);
    let (least, most) = match protocol {
        Protocol::ICMP | Protocol::ICMPV6 => (0, u16::from(u8::MAX)),
        _ => (1, u16::MAX),
    };
    all || (!range.is_empty() && *range.start() >= least && *range.end() <= most)
}

/// Why a prefix of mapped addresses is refused.
pub(super) const MAPPED: &str =
    "addresses in ::ffff:0:0/96 stand for IPv4's, and packets of IPv4 come as IPv4: write the prefix as one of IPv4";

/// Whether this is IPv4 written as IPv6 (RFC 4291, 2.5.5.2), which no packet has.
pub(super) fn is_mapped(net: IpNetwork) -> bool {
    match net.network() {
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some() && net.prefix() >= 96,
        IpAddr::V4(_) => false,
    }
}

/// Whether this is a service name by RFC 6335, section 5.1, in any case.
pub(super) fn is_port_name(name: &str) -> bool {
    let letters = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let dashes = name.starts_with('-') || name.ends_with('-') || name.contains("--");
    name.len() <= PORT_NAME_MAX && letters && legal && !dashes
}

/// Whether `inner` lies within `outer`.
pub(super) fn within(inner: IpNetwork, outer: IpNetwork) -> bool {
    inner.is_ipv4() == outer.is_ipv4() && inner.prefix() >= outer.prefix() && outer.contains(inner.network())
}

impl Peer {
    /// Addresses outside the cluster within this prefix; bits behind the prefix count as 0.
    pub fn cidr(net: IpNetwork) -> Self {
        Self::Cidr { net: masked(net), except: Vec::new() }
    }

    /// The same without these prefixes, which have to lie within it.
    pub fn cidr_except(net: IpNetwork, except: impl IntoIterator<Item = IpNetwork>) -> Self {
        Self::Cidr { net: masked(net), except: except.into_iter().map(masked).collect() }
    }
}

impl From<Selector> for Peer {
    fn from(selector: Selector) -> Self {
        Self::Labels(selector)
    }
}

impl From<Entity> for Peer {
    fn from(entity: Entity) -> Self {
        Self::Entity(entity)
    }
}

/// The prefix without its host bits.
pub(super) fn masked(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

/// What some endpoints may and may not do.
///
/// ```
/// use podwire::policy::{Entity, Peer, Rule, Section, Selector};
/// use podwire::tables::Protocol;
///
/// let client = Peer::Labels(Selector::new().label("k8s:app=client")?);
/// let rule = Rule::new(Selector::new().label("k8s:app=web")?)
///     .ingress(Section::peers([client, Entity::Host.into()]).port(Protocol::TCP, 8080))
///     .ingress(Section::any().icmp(8).icmpv6(128))
///     .egress_deny(Section::peers([Peer::cidr("203.0.113.0/24".parse().expect("a prefix"))]));
/// rule.check()?;
/// # Ok::<(), podwire::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rule {
    /// The endpoints it is about.
    pub subject: Selector,
    /// Traffic to them that is allowed.
    pub ingress: Vec<Section>,
    /// Traffic to them that is denied, whatever else allows it.
    pub ingress_deny: Vec<Section>,
    /// Traffic from them that is allowed.
    pub egress: Vec<Section>,
    /// Traffic from them that is denied, whatever else allows it.
    pub egress_deny: Vec<Section>,
    /// Whether the rule denies at ingress what no rule allows; by default if it has a section for ingress.
    pub ingress_default_deny: Option<bool>,
    /// The same at egress.
    pub egress_default_deny: Option<bool>,
    /// Labels of the rule itself, for finding it.
    pub labels: Labels,
    /// For people.
    pub description: String,
}

impl Rule {
    /// A rule about these endpoints, without sections.
    pub fn new(subject: Selector) -> Self {
        Self {
            subject,
            ingress: Vec::new(),
            ingress_deny: Vec::new(),
            egress: Vec::new(),
            egress_deny: Vec::new(),
            ingress_default_deny: None,
            egress_default_deny: None,
            labels: Labels::new(),
            description: String::new(),
        }
    }

    /// Allows traffic to them.
    pub fn ingress(mut self, section: Section) -> Self {
        self.ingress.push(section);
        self
    }

    /// Denies traffic to them.
    pub fn ingress_deny(mut self, section: Section) -> Self {
        self.ingress_deny.push(section);
        self
    }

    /// Allows traffic from them.
    pub fn egress(mut self, section: Section) -> Self {
        self.egress.push(section);
        self
    }

    /// Denies traffic from them.
    pub fn egress_deny(mut self, section: Section) -> Self {
        self.egress_deny.push(section);
        self
    }

    /// Sets whether the rule denies in this direction what no rule allows.
    pub fn default_deny(mut self, direction: PolicyDirection, deny: bool) -> Self {
        match direction {
            PolicyDirection::Ingress => self.ingress_default_deny = Some(deny),
            PolicyDirection::Egress => self.egress_default_deny = Some(deny),
        }
        self
    }

    /// Adds a label. Fails above 128.
    pub fn label(mut self, label: Label) -> Result<Self> {
        self.labels.insert(label)?;
        Ok(self)
    }

    /// Says what it is for.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// One of its four lists.
    pub fn sections(&self, kind: SectionKind) -> &[Section] {
        match kind {
            SectionKind::Ingress => &self.ingress,
            SectionKind::IngressDeny => &self.ingress_deny,
            SectionKind::Egress => &self.egress,
            SectionKind::EgressDeny => &self.egress_deny,
        }
    }

    pub(super) fn sections_mut(&mut self, kind: SectionKind) -> &mut Vec<Section> {
        match kind {
            SectionKind::Ingress => &mut self.ingress,
            SectionKind::IngressDeny => &mut self.ingress_deny,
            SectionKind::Egress => &mut self.egress,
            SectionKind::EgressDeny => &mut self.egress_deny,
        }
    }

    /// Whether it denies in this direction what no rule allows.
    pub fn is_default_deny(&self, direction: PolicyDirection) -> bool {
        let (said, allowing, denying) = match direction {
            PolicyDirection::Ingress => (self.ingress_default_deny, &self.ingress, &self.ingress_deny),
            PolicyDirection::Egress => (self.egress_default_deny, &self.egress, &self.egress_deny),
        };
        said.unwrap_or(!allowing.is_empty() || !denying.is_empty())
    }

    /// Fails for what documents could not say either: a rule without any effect or about no endpoint, ranges that descend,
    /// exceptions outside their prefix, impossible names of ports, a description of more than 4096 bytes. The error names the field by its path.
    pub fn check(&self) -> Result<()> {
        let directions = [PolicyDirection::Ingress, PolicyDirection::Egress];
        let empty = SectionKind::ALL.iter().all(|kind| self.sections(*kind).is_empty());
        if empty && !directions.iter().any(|direction| self.is_default_deny(*direction)) {
            let reason = "has no section and denies nothing by default, so it would have no effect";
            return Err(Error::invalid("rule", self.subject.to_string(), reason));
        }
        if self.description.len() > DESCRIPTION_MAX {
            let reason = format!("has {} bytes, at most {DESCRIPTION_MAX} are allowed", self.description.len());
            return Err(Error::invalid("description", self.description.as_str(), reason));
        }
        if let Some(requirement) = self.subject.requirements().iter().find(|asked| asked.asks_for_no_endpoint()) {
            return Err(Error::invalid("endpointSelector", requirement.to_string(), NO_ENDPOINT));
        }
        for kind in SectionKind::ALL {
            for (index, section) in self.sections(kind).iter().enumerate() {
                section.check(kind).map_err(|error| match error {
                    Error::InvalidInput { field, value, reason } => {
                        Error::invalid(format!("{}[{index}].{field}", kind.name()), value, reason)
                    }
                    other => other,
                })?;
            }
        }
        Ok(())
    }
}

/// The label with the cluster of a pod, which nobody here gives to pods.
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";

impl Rule {
    /// Whether a selector asks for the label of a cluster, by which Cilium finds pods.
    fn asks_for_cluster(&self) -> bool {
        let sections = SectionKind::ALL.into_iter().flat_map(|kind| self.sections(kind));
        let listed = sections.filter_map(|section| match &section.peers {
            Peers::Some(peers) => Some(peers),
            Peers::Any => None,
        });
        let selectors = listed.flatten().filter_map(|peer| match peer {
            Peer::Labels(selector) => Some(selector),
            _ => None,
        });
        let is_asked = |asked: &Requirement| {
            asked.key().key() == CLUSTER && matches!(asked.operator(), Operator::In | Operator::Exists)
        };
        std::iter::once(&self.subject).chain(selectors).any(|selector| selector.requirements().iter().any(is_asked))
    }
}

/// Rules under one name, which come and go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name: `namespace/name` for a CiliumNetworkPolicy, `name` for a clusterwide one, empty for bare rules.
    pub name: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// A policy of this name, without rules.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), rules: Vec::new() }
    }

    /// Adds a rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// What is no mistake by itself and yet does not do here what it does with Cilium, in words.
    pub fn warnings(&self) -> Vec<String> {
        let asking = self.rules.iter().enumerate().filter(|(_, rule)| rule.asks_for_cluster());
        let warning = |(index, _)| {
            let name = &self.name;
            format!("{name}[{index}]: pods don't get the label {CLUSTER}: a selector that asks for it may find nobody")
        };
        asking.map(warning).collect()
    }

    /// Checks every rule; the error's path begins with the rule's place.
    pub fn check(&self) -> Result<()> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|error| match error {
                Error::InvalidInput { field, value, reason } => {
                    Error::invalid(format!("{}[{index}].{field}", self.name), value, reason)
                }
                other => other,
            })?;
        }
        Ok(())
    }
}
