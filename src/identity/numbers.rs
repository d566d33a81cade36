//! Which number comes next.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::RangeInclusive;

use crate::SecurityId;

/// The numbers of one kind of identity: in use, never used, or resting until all others were used.
#[derive(Debug)]
pub(super) struct Numbers {
    range: RangeInclusive<u32>,
    /// The lowest that was never used; beyond the range when there is none.
    next: u32,
    /// Used before, the one released first in front.
    resting: VecDeque<u32>,
}

impl Numbers {
    /// All of them free. The range must end below the highest number there is.
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        Self { next: *range.start(), range, resting: VecDeque::new() }
    }

    pub(super) fn contains(&self, id: SecurityId) -> bool {
        self.range.contains(&id.get())
    }

    /// How many there are, in use or not.
    pub(super) fn len(&self) -> usize {
        self.range.clone().count()
    }

    /// The free ones, in the order in which they are to be taken.
    pub(super) fn free(&self) -> impl Iterator<Item = SecurityId> {
        (self.next..=*self.range.end()).chain(self.resting()).map(SecurityId::new)
    }

    pub(super) fn resting(&self) -> impl ExactSizeIterator<Item = u32> {
        self.resting.iter().copied()
    }

    /// Takes a number out of the free ones. Those that it leaves out below itself are not free either until they are
    /// [put back](Self::put_back) or [found](Self::find_lost), which is how a journal is read.
    pub(super) fn take(&mut self, id: SecurityId) {
        let id = id.get();
        if id >= self.next {
            self.next = id + 1;
        } else if let Some(at) = self.resting.iter().position(|resting| *resting == id) {
            // nearly always in front
            self.resting.remove(at);
        }
    }

    /// Makes a number the last to be used again.
    pub(super) fn put_back(&mut self, id: SecurityId) {
        let id = id.get();
        self.next = self.next.max(id + 1);
        self.resting.push_back(id);
    }
}

impl Numbers {
    /// Makes free numbers the last to be used, and so all that were never used up to the highest of them.
    pub(super) fn avoid(&mut self, free: &BTreeSet<u32>) {
        if let Some(last) = free.last().filter(|last| **last >= self.next) {
            self.resting.extend(self.next..=*last);
            self.next = last + 1;
        }
        let (later, sooner) = self.resting().partition::<VecDeque<_>, _>(|id| free.contains(id));
        self.resting = sooner;
        self.resting.extend(later);
    }

    /// Frees what was left out below a number taken and is not in use.
    pub(super) fn find_lost(&mut self, in_use: impl Fn(SecurityId) -> bool) {
        let resting: HashSet<_> = self.resting().collect();
        let lost = (*self.range.start()..self.next).filter(|id| !resting.contains(id) && !in_use(SecurityId::new(*id)));
        self.resting.extend(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(numbers: &mut Numbers) -> Option<u32> {
        let id = numbers.free().next()?;
        numbers.take(id);
        Some(id.get())
    }

    #[test]
    fn a_number_is_used_again_last() {
        let mut numbers = Numbers::new(256..=259);
        assert_eq!((numbers.len(), take(&mut numbers), take(&mut numbers)), (4, Some(256), Some(257)));
        numbers.put_back(SecurityId::new(257));
        numbers.put_back(SecurityId::new(256));
        let order: Vec<_> = std::iter::from_fn(|| take(&mut numbers)).collect();
        assert_eq!(order, [258, 259, 257, 256]);
        assert_eq!(numbers.free().next(), None);
    }

    #[test]
    fn avoided_numbers_come_last() {
        let mut numbers = Numbers::new(256..=263);
        let free = |numbers: &Numbers| numbers.free().map(SecurityId::get).collect::<Vec<_>>();
        assert_eq!(take(&mut numbers), Some(256));
        numbers.avoid(&BTreeSet::from([257, 260]));
        assert_eq!(free(&numbers), [261, 262, 263, 258, 259, 257, 260]);
        numbers.avoid(&BTreeSet::from([258]));
        assert_eq!(free(&numbers), [261, 262, 263, 259, 257, 260, 258]);
        numbers.avoid(&BTreeSet::new());
        assert_eq!(free(&numbers).len(), 7);
    }

    #[test]
    fn numbers_left_out_are_found() {
        let mut numbers = Numbers::new(256..=263);
        numbers.take(SecurityId::new(260));
        numbers.put_back(SecurityId::new(258));
        numbers.find_lost(|id| id.get() == 260);
        assert_eq!(numbers.free().map(SecurityId::get).collect::<Vec<_>>(), [261, 262, 263, 258, 256, 257, 259]);
    }

    #[test]
    fn numbers_left_out_are_not_free() {
        let mut numbers = Numbers::new(256..=260);
        numbers.take(SecurityId::new(258));
        numbers.put_back(SecurityId::new(257));
        assert_eq!(numbers.free().map(SecurityId::get).collect::<Vec<_>>(), [259, 260, 257]);
        numbers.put_back(SecurityId::new(260));
        assert_eq!(numbers.free().map(SecurityId::get).collect::<Vec<_>>(), [257, 260]);
    }
}
