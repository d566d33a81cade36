//! The facade: a node's datapath, opened or restored.
