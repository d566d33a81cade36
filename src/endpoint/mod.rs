//! Endpoints: their states, creation, restoration and removal.

pub mod veth;
