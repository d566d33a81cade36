//! Requests about identities.

use ureq::http::Method;

use super::Client;
use crate::api::{Identity, IdentityEndpoints};
use crate::{Result, SecurityId};

impl Client {
    /// All identities.
    pub fn identities(&self) -> Result<Vec<Identity>> {
        self.fetch(Method::GET, "/v1/identity")
    }

    /// All identities that have these labels, each as `source:key=value`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none.
    pub fn identities_with(&self, labels: &[String]) -> Result<Vec<Identity>> {
        self.submit(Method::GET, "/v1/identity", &labels)
    }

    /// One identity.
    pub fn identity(&self, id: SecurityId) -> Result<Identity> {
        self.fetch(Method::GET, &format!("/v1/identity/{id}"))
    }

    /// The identities of the node's endpoints, and how many endpoints have them.
    pub fn identities_of_endpoints(&self) -> Result<Vec<IdentityEndpoints>> {
        self.fetch(Method::GET, "/v1/identity/endpoints")
    }
}
