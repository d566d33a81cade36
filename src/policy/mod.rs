//! Network policy: rules as users write them, who they select, and what becomes of them.

mod compile;
mod entity;
mod flat;
mod in_force;
mod selector;
mod selectors;

pub use compile::{
    ALLOW_PRECEDENCE, CompiledPolicy, DENY_PRECEDENCE, EnforcementMode, NamedPorts, Origin, PolicyDelta, PolicyOptions,
    Shadow, Subject,
};
pub use entity::Entity;
pub use flat::{FlatRule, L4Match, L4Ports, Peer, Peers, RuleNumber};
pub use in_force::RulesInForce;
pub use selector::{Operator, Requirement, Selector, SelectorKey};
pub use selectors::{CachedSelector, SelectorCache, SelectorChange, SelectorChanges, SelectorId, WorldIdentities};
