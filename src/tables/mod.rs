//! The node's maps, with addresses and domain types in and out.
