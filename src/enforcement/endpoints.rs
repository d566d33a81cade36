//! Endpoints that come, go and change their labels.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use log::warn;

use super::engine::{Enforcement, mapped};
use super::state::State;
use crate::ipcache::{Change, Source};
use crate::policy::{NamedPorts, Subject};
use crate::{EndpointId, Error, Labels, Result, SecurityId};

/// An endpoint as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its number.
    pub endpoint: EndpointId,
    /// Its labels, by which its identity is found.
    pub labels: Labels,
    /// The names it has given to its ports.
    pub named_ports: NamedPorts,
}

impl Enforcement {
    /// Gives an endpoint its identity and brings its policy into force, and that of everyone whose rules speak of the identity.
    /// The endpoint's addresses may become known, and its device may come up, when this has returned.
    ///
    /// It does not wait for programs under way: none of them can be about a packet of an endpoint whose device is down, or
    /// of an identity that no address is mapped to yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for labels that no endpoint may have, `Exhausted` where identities are used up or a policy would grow too
    /// large. The endpoint has neither identity nor policy then.
    pub fn admit(&self, admission: Admission) -> Result<SecurityId> {
        let Admission { endpoint, labels, named_ports } = admission;
        let identity = self.acquire(&labels)?;
        let mut state = self.lock();
        let entered = self.enter(&mut state, Subject { endpoint, identity, named_ports });
        match &entered {
            Ok(()) => state.warn_of_unnamed([endpoint]),
            Err(_) => {
                state.endpoints.remove(&endpoint);
                state.pending.remove(&endpoint);
                self.release(&[identity]);
            }
        }
        entered.map(|()| identity)
    }

    /// The same for endpoints that were there before this process, all at once, and then maps the prefixes of policies. What is
    /// in force for them already is left as it is. One whose labels are refused has [`SecurityId::INIT`]. One whose policy would
    /// grow too large keeps what is in force for it, with an [error](super::RealizedPolicy::error), until the policy fits.
    pub fn restore(&self, endpoints: Vec<Admission>) -> Result<Vec<SecurityId>> {
        let mut identities = Vec::with_capacity(endpoints.len());
        let mut state = self.lock();
        for admission in &endpoints {
            identities.push(self.acquire(&admission.labels).unwrap_or_else(|error| {
                warn!("endpoint {}: {error}", admission.endpoint);
                SecurityId::INIT
            }));
        }
        let mut failed = self.learn(&mut state);
        self.compiling(|| {
            for (Admission { endpoint, named_ports, .. }, identity) in endpoints.into_iter().zip(&identities) {
                let subject = Subject { endpoint, identity: *identity, named_ports };
                if let Err(error) = state.enter(subject.clone()) {
                    state.keep(subject, &error);
                    warn!("endpoint {endpoint}: {}", self.left_in_force(endpoint, &error.to_string()));
                    failed = Err(error);
                }
            }
        });
        // Addresses may be mapped to any identity since the process before this one.
        state.unmapped.clear();
        let swap = self.flush(&mut state)?;
        state.warn_of_unnamed(state.endpoints.keys().copied());
        let prefixes: Vec<_> = state.cidrs.iter().map(|(prefix, identity)| mapped(*prefix, *identity)).collect();
        self.map_prefixes(&prefixes)?;
        drop(state);
        swap.wait()?;
        if let Err(error) = failed {
            warn!("some policies are not what they should be: {error}");
        }
        Ok(identities)
    }

    /// Gives an endpoint the identity of other labels, and brings the policies into force that follow. Returns the identity
    /// that it had, which is to be [released](Self::release_identity) when no address is mapped to it any more.
    ///
    /// # Errors
    ///
    /// As for [`admit`](Self::admit); identity and policy are the old ones then. `NotFound` for an endpoint that was not admitted.
    pub fn relabel(&self, endpoint: EndpointId, labels: &Labels) -> Result<Relabelled> {
        let identity = self.acquire(labels)?;
        let mut state = self.lock();
        let known = self.learn_besides(&mut state, Some(endpoint));
        let known = known.and_then(|()| state.check_known(identity, Some(endpoint)));
        let changed =
            known.and_then(|()| self.change_subject(&mut state, endpoint, |subject| subject.identity = identity));
        drop(state);
        match changed {
            Ok((before, swap)) => {
                swap.wait()?;
                Ok(Relabelled { identity, before })
            }
            Err(error) => {
                self.release(&[identity]);
                Err(error)
            }
        }
    }

    /// Makes these the names of an endpoint's ports, and brings the policy into force that follows.
    ///
    /// # Errors
    ///
    /// `Exhausted` where its policy would grow too large; the names are the old ones then. `NotFound` for an endpoint that was not
    /// admitted.
    pub fn name_ports(&self, endpoint: EndpointId, named_ports: NamedPorts) -> Result<()> {
        let mut state = self.lock();
        self.learn_besides(&mut state, Some(endpoint))?;
        let (_, swap) = self.change_subject(&mut state, endpoint, |subject| subject.named_ports = named_ports)?;
        drop(state);
        swap.wait().map(drop)
    }

    /// Takes an endpoint's policy out of force and releases its identity. Its addresses are mapped to the identity no more.
    pub fn dismiss(&self, endpoint: EndpointId) -> Result<()> {
        let mut state = self.lock();
        state.pending.remove(&endpoint);
        let gone = state.endpoints.remove(&endpoint);
        let removed = self.writer.remove([endpoint]);
        drop(state);
        if let Some(local) = gone {
            self.release(&[local.subject().identity]);
        }
        removed.map(drop)
    }

    /// Gives back an identity that an endpoint had.
    pub fn release_identity(&self, identity: SecurityId) {
        self.release(&[identity]);
    }

    /// Maps an endpoint's addresses to its identity, and moves the generation.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the ipcache is full.
    pub fn map_endpoint(&self, addresses: impl Iterator<Item = IpAddr>, identity: SecurityId) -> Result<()> {
        let changes: Vec<_> = addresses.map(|address| mapped(IpNetwork::from(address), identity)).collect();
        let applied = self.ipcache.apply(Source::Endpoint, &changes)?;
        self.advance()?;
        applied.into_result()
    }

    /// Maps an endpoint's addresses no more, and moves the generation.
    pub fn unmap_endpoint(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
        let changes: Vec<_> = addresses.map(|address| Change::Withdraw(IpNetwork::from(address))).collect();
        let applied = self.ipcache.apply(Source::Endpoint, &changes)?;
        self.advance()?;
        applied.into_result()
    }

    /// The identity of an endpoint's labels. Nobody becomes the host or the world by a label.
    fn acquire(&self, labels: &Labels) -> Result<SecurityId> {
        let identity = self.identities.acquire(labels)?.id();
        if identity == SecurityId::INIT || !(identity.is_reserved() || identity.is_cidr()) {
            return Ok(identity);
        }
        self.release(&[identity]);
        Err(Error::invalid(
            "labels",
            labels.to_string(),
            "are those of a reserved identity or a prefix, not of an endpoint",
        ))
    }

    fn enter(&self, state: &mut State, subject: Subject) -> Result<()> {
        self.learn(state)?;
        state.check_known(subject.identity, None)?;
        self.compiling(|| state.enter(subject))?;
        self.flush(state).map(drop)
    }

    /// Brings into force what follows from a change of an endpoint, and says which identity it had.
    fn change_subject(
        &self,
        state: &mut State,
        endpoint: EndpointId,
        change: impl FnOnce(&mut Subject),
    ) -> Result<(SecurityId, super::Swap)> {
        let local =
            state.endpoints.remove(&endpoint).ok_or_else(|| Error::not_found("endpoint", endpoint.to_string()))?;
        let before = local.subject().identity;
        let mut subject = local.subject().clone();
        change(&mut subject);
        let entered = self.compiling(|| state.enter(subject)).and_then(|()| self.flush(state));
        match entered {
            Ok(swap) => {
                state.warn_of_unnamed([endpoint]);
                Ok((before, swap))
            }
            Err(error) => {
                state.endpoints.insert(endpoint, local);
                Err(error)
            }
        }
    }
}

/// What a change of labels did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relabelled {
    /// The identity now.
    pub identity: SecurityId,
    /// The one before; the same where the labels stand for the same.
    pub before: SecurityId,
}
