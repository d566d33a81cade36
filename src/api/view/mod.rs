//! The library's own types as the API shows them, and the API's requests as the library takes them.

mod endpoint;
mod ipam;
mod node;
mod policy;
mod request;
mod status;
mod trace;
