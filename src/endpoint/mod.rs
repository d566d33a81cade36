//! Endpoints: their states, creation, restoration and removal.
