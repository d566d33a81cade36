//! Network policy: rules as users write them, who they select, and what becomes of them.
//!
//! ```text
//!  YAML, JSON ──> Policy, Rule, Section ──> Repository ──> FlatRule
//!  Policy::from_yaml     typed, checked       numbers, sources   what is compiled
//! ```
//!
//! The language and its meaning are described in `docs/policy.md`.

mod compile;
mod document;
mod entity;
mod flat;
mod in_force;
mod lower;
mod repository;
mod rule;
mod selector;
mod selectors;

pub use compile::{
    ALLOW_PRECEDENCE, CompiledPolicy, DENY_PRECEDENCE, EnforcementMode, NamedPorts, Origin, PolicyDelta, PolicyOptions,
    Shadow, Subject,
};
pub use entity::Entity;
pub use flat::{FlatRule, L4Match, L4Ports, Peer, Peers, RuleNumber};
pub use in_force::RulesInForce;
pub use repository::{Repository, RepositorySnapshot, RuleChanges, RuleSource};
pub use rule::{Policy, Rule, Section, SectionKind};
pub use selector::{Operator, Requirement, Selector, SelectorKey};
pub use selectors::{CachedSelector, SelectorCache, SelectorChange, SelectorChanges, SelectorId, WorldIdentities};
