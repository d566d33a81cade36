//! Network policy: rules as users write them, who they select, and what becomes of them.

mod entity;
mod flat;
mod selector;

pub use entity::Entity;
pub use flat::{FlatRule, L4Match, L4Ports, Peer, Peers, RuleNumber};
pub use selector::{Operator, Requirement, Selector, SelectorKey};
