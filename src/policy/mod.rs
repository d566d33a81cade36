//! Network policy: rules as users write them, who they select, and what becomes of them.

mod entity;
mod selector;

pub use entity::Entity;
pub use selector::{Operator, Requirement, Selector, SelectorKey};
