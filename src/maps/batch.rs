//! Buffers for batches, made once and used for any number of reads.

use bytemuck::{Pod, Zeroable};

use super::read::Buffers;
use crate::{Error, Result};

/// Room for a batch of entries.
///
/// A hash bucket that holds more entries than fit makes it grow, and so does a trie, which is better read in larger pieces;
/// it keeps that size.
#[derive(Clone, Debug)]
pub struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// Room for `entries` at a time; from some hundreds on, the system call no longer matters.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for 0.
    pub fn new(entries: usize) -> Result<Self> {
        if entries == 0 {
            return Err(Error::invalid("batch size", "0", "must be at least 1"));
        }
        Ok(Self { keys: vec![K::zeroed(); entries], values: vec![V::zeroed(); entries] })
    }

    pub(crate) fn entry(&self, index: usize) -> (&K, &V) {
        (&self.keys[index], &self.values[index])
    }

    pub(crate) fn entries(&self, filled: usize) -> impl Iterator<Item = (&K, &V)> {
        self.keys[..filled].iter().zip(&self.values[..filled])
    }
}

impl<K: Pod, V: Pod> Buffers for Batch<K, V> {
    fn bytes(&mut self) -> (&mut [u8], &mut [u8]) {
        (bytemuck::cast_slice_mut(&mut self.keys), bytemuck::cast_slice_mut(&mut self.values))
    }

    fn grow(&mut self) {
        let entries = self.keys.len() * 2;
        self.keys.resize(entries, Zeroable::zeroed());
        self.values.resize(entries, Zeroable::zeroed());
    }

    fn capacity(&self) -> usize {
        self.keys.len()
    }
}
