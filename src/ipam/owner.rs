//! Who an address belongs to.

use crate::{Error, Result};

/// The owner of the router's own addresses. Nobody else can have this name.
pub const ROUTER: &str = "router";

/// The longest owner's name, in bytes: room for a namespace, a name and an interface.
pub const MAX_OWNER_LEN: usize = 512;

pub(super) fn check_owner(owner: &str) -> Result<()> {
    let refuse = |reason: &'static str| {
        let shown: String = owner.chars().take(64).collect();
        Err(Error::invalid("owner", shown, reason))
    };
    if owner.is_empty() {
        return refuse("expected a name, such as namespace/pod");
    }
    if owner.len() > MAX_OWNER_LEN {
        return refuse("longer than 512 bytes");
    }
    if owner.chars().any(char::is_control) || owner.trim() != owner {
        return refuse("expected printable characters without blanks at either end");
    }
    if owner == ROUTER {
        return refuse("this name is reserved for the router's own addresses");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["default/web", "a", "pod with blank", "größe", &"x".repeat(MAX_OWNER_LEN)] {
            check_owner(good).expect(good);
        }
        for bad in ["", " a", "a ", "a\nb", "a\0", "\u{7f}", ROUTER, &"x".repeat(MAX_OWNER_LEN + 1)] {
            assert!(check_owner(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
