//! The agent's HTTP API: models and a client.
