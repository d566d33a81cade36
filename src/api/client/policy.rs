//! Requests about policies.

use ureq::http::Method;

use super::Client;
use crate::Result;
use crate::api::{NumberedRule, Policy, PolicyTrace, PolicyTraceRequest, SelectorIdentityMapping};

const POLICY: &str = "/v1/policy";

impl Client {
    /// The rules in force that have these labels, all without any.
    ///
    /// # Errors
    ///
    /// `NotFound` if no rule has the labels.
    pub fn policy(&self, labels: &[String]) -> Result<Policy> {
        if labels.is_empty() { self.fetch(Method::GET, POLICY) } else { self.submit(Method::GET, POLICY, &labels) }
    }

    /// Puts the policies of a document (YAML or JSON) in the place of those with their names, or beside them. They are in force
    /// when this returns.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with the paths of the fields that are wrong, `WrongState` if rules without a policy's name would take the
    /// place of others without one; nothing of the document is applied then.
    pub fn import_policy(&self, document: &str) -> Result<Policy> {
        self.put_policy(POLICY, document)
    }

    /// The same, also where rules without a policy's name take the place of others without one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with the paths of the fields that are wrong; nothing of the document is applied then.
    pub fn replace_policy(&self, document: &str) -> Result<Policy> {
        self.put_policy("/v1/policy?replace=true", document)
    }

    fn put_policy(&self, path: &str, document: &str) -> Result<Policy> {
        let answer =
            self.send(Method::PUT, path, &[("content-type", "application/yaml")], Some(document.as_bytes()))?;
        self.read(&Method::PUT, path, answer)
    }

    /// Removes every rule that has these labels, all without any. Returns what is left.
    ///
    /// # Errors
    ///
    /// `NotFound` if no rule has the labels.
    pub fn delete_policy(&self, labels: &[String]) -> Result<Policy> {
        self.submit(Method::DELETE, POLICY, &labels)
    }

    /// The rules in force by number. A path of our own.
    pub fn policy_rules(&self) -> Result<Vec<NumberedRule>> {
        self.fetch(Method::GET, "/v1/policy/rules")
    }

    /// What would become of a packet, also with policies that are not in force. Nothing changes.
    ///
    /// # Errors
    ///
    /// `NotFound` for an endpoint that there is not; `InvalidInput` for what is no packet, or no policy.
    pub fn trace_policy(&self, request: &PolicyTraceRequest) -> Result<PolicyTrace> {
        self.submit(Method::POST, "/v1/policy/trace", request)
    }

    /// The selectors of peers in use.
    pub fn policy_selectors(&self) -> Result<Vec<SelectorIdentityMapping>> {
        self.fetch(Method::GET, "/v1/policy/selectors")
    }

    /// The selectors of the endpoints that rules are about.
    pub fn policy_subject_selectors(&self) -> Result<Vec<SelectorIdentityMapping>> {
        self.fetch(Method::GET, "/v1/policy/subject-selectors")
    }
}
