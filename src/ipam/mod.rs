//! Addresses: pools, owners, expiry.
