//! `podwire_runtime`: what user space switches while the programs run, the generation of all that they
//! remember, and the keys of their hashes.

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::abi::Runtime;
use crate::maps::{MapSpec, MmapArray};
use crate::{Error, Result};

/// The secret multipliers of the programs' hashes: who does not know them can't choose what collides.
pub type HashKeys = [u64; 5];

/// The switches of a node, in memory that the programs read: no change needs a system call, each is seen by the next packet.
#[derive(Debug)]
pub struct Switches {
    map: MmapArray<Runtime>,
}

impl Switches {
    /// The map as the programs declare it.
    pub const fn spec() -> MapSpec {
        MapSpec::mmap_array::<Runtime>("podwire_runtime", 1).value_layout::<Runtime>()
    }

    /// A map of one's own, unpinned.
    pub fn create() -> Result<Self> {
        Self::started(MmapArray::create(&Self::spec())?)
    }

    /// The map pinned in a folder under its name.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let spec = Self::spec();
        Self::started(MmapArray::open_pinned(folder.as_ref().join(spec.name()), &spec)?)
    }

    /// A new map is zero, and the generation is never 0.
    fn started(map: MmapArray<Runtime>) -> Result<Self> {
        let switches = Self { map };
        let first = switches.word(offset_of!(Runtime, generation))?;
        let _ = first.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
        switches.choose_hash_keys()?;
        Ok(switches)
    }

    /// Fills in the hash keys that are missing. Of several processes that do so at once each finds, when it is through, the
    /// same keys: a word is only ever changed from 0.
    fn choose_hash_keys(&self) -> Result<()> {
        if !self.hash_keys()?.contains(&0) {
            return Ok(());
        }
        let mut bytes = [0; size_of::<HashKeys>()];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::system("read", "the kernel's random numbers", std::io::Error::from(error)))?;
        for (index, key) in bytemuck::cast::<_, HashKeys>(bytes).into_iter().enumerate() {
            // Odd multipliers lose no bit of what they multiply.
            let _ = self.hash_key(index)?.compare_exchange(0, key | 1, Ordering::AcqRel, Ordering::Acquire);
        }
        Ok(())
    }

    /// The multipliers of the programs' hashes. They were chosen when the map was made and stay: what stands in `podwire_ct`
    /// is found by them.
    pub fn hash_keys(&self) -> Result<HashKeys> {
        let mut keys = HashKeys::default();
        for (index, key) in keys.iter_mut().enumerate() {
            *key = self.hash_key(index)?.load(Ordering::Acquire);
        }
        Ok(keys)
    }

    /// The map below.
    pub const fn map(&self) -> &MmapArray<Runtime> {
        &self.map
    }

    /// The generation of policy, identities and endpoints.
    pub fn generation(&self) -> Result<u32> {
        Ok(self.word(offset_of!(Runtime, generation))?.load(Ordering::Acquire))
    }

    /// Moves the generation: the next packet of every connection is judged anew. To be called when what the programs read has
    /// been changed, not before: a verdict that is remembered under the new generation must come from the new content.
    /// Returns the new generation.
    pub fn advance(&self) -> Result<u32> {
        let word = self.word(offset_of!(Runtime, generation))?;
        let next = |generation: u32| generation.checked_add(1).unwrap_or(1);
        let before = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |generation| Some(next(generation)));
        Ok(before.map_or(0, next))
    }

    /// Switches trace events on or off.
    pub fn set_tracing(&self, on: bool) -> Result<()> {
        self.set(offset_of!(Runtime, trace), on.into())
    }

    /// Whether trace events are on.
    pub fn tracing(&self) -> Result<bool> {
        Ok(self.word(offset_of!(Runtime, trace))?.load(Ordering::Acquire) != 0)
    }

    /// Switches events of policy verdicts on or off.
    pub fn set_verdict_events(&self, on: bool) -> Result<()> {
        self.set(offset_of!(Runtime, verdict_events), on.into())
    }

    /// Whether verdicts emit events.
    pub fn verdict_events(&self) -> Result<bool> {
        Ok(self.word(offset_of!(Runtime, verdict_events))?.load(Ordering::Acquire) != 0)
    }

    /// Allows `count` drop events per CPU and window of 256 ticks; 0 for none.
    pub fn set_drop_limit(&self, count: u32) -> Result<()> {
        self.set(offset_of!(Runtime, drop_events_per_window), count)
    }

    fn set(&self, offset: usize, value: u32) -> Result<()> {
        self.word(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    fn hash_key(&self, index: usize) -> Result<&AtomicU64> {
        self.map.word(0, offset_of!(Runtime, hash_keys) + index * size_of::<u64>())
    }

    fn word(&self, offset: usize) -> Result<&AtomicU32> {
        self.map.half_word(0, offset)
    }
}
