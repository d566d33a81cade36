//! The secret multipliers of the programs' hashes.

use std::path::Path;

use crate::state::{load_document, save_document};
use crate::{Error, Result};

/// The version of the file.
const VERSION: u32 = 1;

/// As in `bpf/lib/config.h`.
pub(super) type HashKeys = [u64; 5];

/// The keys of a node, chosen at random when there are none yet. They are kept, because another set of keys would mean other
/// programs, and what those remember under the old ones would be lost.
pub(super) fn load_or_choose(path: &Path) -> Result<HashKeys> {
    if let Some(keys) = load_document(path, VERSION)? {
        return Ok(keys);
    }
    let mut bytes = [0; size_of::<HashKeys>()];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::system("read", "the kernel's random numbers", std::io::Error::from(error)))?;
    // Odd multipliers lose no bit of what they multiply.
    let keys = bytemuck::cast::<_, HashKeys>(bytes).map(|key| key | 1);
    save_document(path, VERSION, &keys)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = load_or_choose(&folder.path().join("a")).expect("writable");
        assert_eq!(load_or_choose(&folder.path().join("a")).expect("readable"), keys);
        assert_ne!(load_or_choose(&folder.path().join("b")).expect("writable"), keys);
        assert!(keys.iter().all(|key| key % 2 == 1));
    }
}
