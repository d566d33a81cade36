//! The CNI specification's types and verbs.
