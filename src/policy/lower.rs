//! From rules as one writes them to rules as they are compiled.

use super::rule::masked;
use super::{FlatRule, Peer, Peers, Rule, RuleNumber, Section, SectionKind};

impl Rule {
    /// The rule in the compiler's form, one flat rule a section. Their numbers come from `number`, which is asked once for each, with
    /// the section's list and its place there; for what a rule says without a section (that a direction is denied by
    /// default) it is asked with the place `None`.
    ///
    /// Nothing is checked here; see [`Rule::check`].
    pub fn lower(&self, mut number: impl FnMut(SectionKind, Option<usize>) -> RuleNumber) -> Vec<FlatRule> {
        let mut rules = Vec::new();
        for kind in SectionKind::ALL {
            let default_deny = self.is_default_deny(kind.direction());
            for (index, section) in self.sections(kind).iter().enumerate() {
                rules.push(self.flat(section, kind, default_deny, number(kind, Some(index))));
            }
        }
        for kind in [SectionKind::Ingress, SectionKind::Egress] {
            let direction = kind.direction();
            if self.is_default_deny(direction) && !rules.iter().any(|rule| rule.direction == direction) {
                rules.push(self.flat(&Section::peers([]), kind, true, number(kind, None)));
            }
        }
        rules
    }

    fn flat(&self, section: &Section, kind: SectionKind, default_deny: bool, rule: RuleNumber) -> FlatRule {
        FlatRule {
            subject: self.subject.clone(),
            direction: kind.direction(),
            peers: match &section.peers {
                Peers::Any => Peers::Any,
                Peers::Some(peers) => Peers::Some(peers.iter().map(without_host_bits).collect()),
            },
            l4: section.l4.clone(),
            deny: kind.denies(),
            default_deny,
            rule,
        }
    }
}

fn without_host_bits(peer: &Peer) -> Peer {
    match peer {
        Peer::Cidr { net, except } => {
            Peer::Cidr { net: masked(*net), except: except.iter().copied().map(masked).collect() }
        }
        other => other.clone(),
    }
}
