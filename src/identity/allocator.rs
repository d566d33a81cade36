//! What an allocator does.

use std::fmt;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::changes::{Changes, Version};
use super::types::Identity;
use crate::{Error, Labels, Result, SecurityId};

/// Gives label sets and prefixes their identities, and keeps count of who uses them.
///
/// Each acquisition is to be released once. As long as one is not, the identity's number stands for the same labels, and the
/// same labels get the same number. Reserved identities are always there; acquiring and releasing them changes nothing.
///
/// Changes are seen by asking: [`changes_since`](Self::changes_since) what was seen last. An identity that was acquired
/// is among the changes before the call that acquired it returns.
pub trait IdentityAllocator: fmt::Debug + Send + Sync {
    /// The identity of each label set, in their order, with one reference more: of all of them or, on failure, of none.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a set that can't have one (see the [module](super)); `Exhausted` when no number is left; what
    /// the store says where it can't be written.
    fn acquire_all(&self, sets: &[Labels]) -> Result<Vec<Identity>>;

    /// The same for prefixes.
    ///
    /// # Errors
    ///
    /// As for [`acquire_all`](Self::acquire_all); `InvalidInput` for a prefix with bits set behind its length.
    fn acquire_cidrs(&self, prefixes: &[IpNetwork]) -> Result<Vec<Identity>>;

    /// Gives back one reference for each number, all of them or, on failure, none. A number may come several times.
    ///
    /// Whoever gives back the last one of a prefix's sees to it before that no program has found an address with it: policies forget it.
    ///
    /// # Errors
    ///
    /// `NotFound` for a number that nobody holds, or fewer times than it is given.
    fn release_all(&self, ids: &[SecurityId]) -> Result<()>;

    /// The identity of a label set, with one reference more; see [`acquire_all`](Self::acquire_all).
    fn acquire(&self, labels: &Labels) -> Result<Identity> {
        single(self.acquire_all(std::slice::from_ref(labels))?, labels)
    }

    /// The identity of a prefix, with one reference more; see [`acquire_cidrs`](Self::acquire_cidrs).
    fn acquire_cidr(&self, prefix: IpNetwork) -> Result<Identity> {
        single(self.acquire_cidrs(&[prefix])?, &prefix)
    }

    /// Gives back a reference; see [`release_all`](Self::release_all).
    fn release(&self, id: SecurityId) -> Result<()> {
        self.release_all(&[id])
    }

    /// The identity with this number.
    fn get(&self, id: SecurityId) -> Option<Identity>;

    /// The identity of these labels, if it exists.
    fn find(&self, labels: &Labels) -> Option<Identity>;

    /// Every identity, by number, the reserved ones included.
    fn list(&self) -> Vec<Identity>;

    /// Moves on with every change.
    fn version(&self) -> Version;

    /// What has come and gone since `seen`, which is [`Version::NONE`] for whoever has seen nothing. The identity of a prefix has gone
    /// with its last user, and comes again with the next: nobody is to make room for what no address has.
    fn changes_since(&self, seen: Version) -> Changes;

    /// Removes what has had no user for long enough, and says what. To be called from time to time.
    ///
    /// # Errors
    ///
    /// What the store says; nothing is removed then.
    fn expire(&self) -> Result<Vec<Identity>>;

    /// When [`expire`](Self::expire) will have something to do.
    fn next_deadline(&self) -> Option<Instant>;
}

fn single(mut identities: Vec<Identity>, of: &impl fmt::Display) -> Result<Identity> {
    identities.pop().ok_or_else(|| Error::not_found("identity of", of.to_string()))
}
