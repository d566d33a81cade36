//! Sets of numbers kept as ranges.

use std::collections::BTreeMap;

/// A set of 128-bit numbers as disjoint ranges that do not touch: first to last, both included.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(BTreeMap<u128, u128>);

impl Ranges {
    pub(super) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    pub(super) fn insert(&mut self, mut first: u128, mut last: u128) {
        // every range that overlaps or touches is swallowed; each was inserted once, so this is O(log n) on average
        while let Some((&begin, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            self.0.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }

    pub(super) fn remove(&mut self, number: u128) {
        let Some((begin, end)) = self.around(number) else { return };
        self.0.remove(&begin);
        if begin < number {
            self.0.insert(begin, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
    }

    /// The lowest number from `first` to `last` that is not in the set.
    pub(super) fn first_gap(&self, first: u128, last: u128) -> Option<u128> {
        let gap = match self.around(first) {
            Some((_, end)) => end.checked_add(1)?,
            None => first,
        };
        (gap <= last).then_some(gap)
    }

    /// How many numbers are in the set, which must not be all of them.
    pub(super) fn count(&self) -> u128 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (&begin, &end) = self.0.range(..=number).next_back()?;
        (number <= end).then_some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_number_line() {
        let mut ranges = Ranges::default();
        ranges.insert(u128::MAX - 1, u128::MAX);
        ranges.insert(0, 0);
        assert_eq!(ranges.first_gap(0, u128::MAX), Some(1));
        assert_eq!(ranges.first_gap(u128::MAX - 1, u128::MAX), None);
        ranges.insert(1, u128::MAX - 2);
        assert_eq!(ranges.first_gap(0, u128::MAX), None);
        assert_eq!(ranges.0.len(), 1);
        ranges.remove(0);
        ranges.remove(u128::MAX);
        assert_eq!(ranges.count(), u128::MAX - 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0_u128..60, 0_u128..8), 0..80)) {
            let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
            for (insert, first, more) in steps {
                if insert {
                    ranges.insert(first, first + more);
                    plain.extend(first..=first + more);
                } else {
                    ranges.remove(first);
                    plain.remove(&first);
                }
                for number in 0..70 {
                    prop_assert_eq!(ranges.contains(number), plain.contains(&number));
                    let gap = (number..=65).find(|number| !plain.contains(number));
                    prop_assert_eq!(ranges.first_gap(number, 65), gap);
                }
                prop_assert_eq!(ranges.count(), plain.len() as u128);
                let touching = ranges.0.iter().zip(ranges.0.keys().skip(1)).any(|((_, end), next)| end + 1 >= *next);
                prop_assert!(!touching, "ranges touch: {:?}", ranges);
            }
        }
    }
}
