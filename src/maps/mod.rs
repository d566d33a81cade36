//! Generic typed maps: no domain knowledge.
