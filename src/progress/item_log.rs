//! The numbered log of items whose outcome became known: bounded, in batches that readers share.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::ItemState;

/// Items that were published together; the first has number `first`.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Number of the first item.
    pub(super) first: u64,
    /// The items.
    pub(super) items: Arc<[Arc<ItemState>]>,
}

impl Batch {
    /// Number of the last item.
    pub(super) fn last(&self) -> u64 {
        self.first + self.items.len() as u64 - 1
    }

    /// The item of this number.
    pub(super) fn get(&self, number: u64) -> Option<&Arc<ItemState>> {
        self.items.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

/// What a reader finds behind its position.
#[derive(Clone, Debug)]
pub(super) enum Read {
    /// Nothing new.
    Nothing,
    /// The batch that holds the next number.
    Batch(Batch),
    /// The next number is no longer there; the log begins behind this one.
    GoneUpTo(u64),
}

/// The newest batches, with at least `capacity` items while there were so many.
#[derive(Debug)]
pub(super) struct ItemLog {
    capacity: usize,
    batches: VecDeque<Batch>,
    items: usize,
    last: u64,
}

impl ItemLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), batches: VecDeque::new(), items: 0, last: 0 }
    }

    /// Appends items that end at number `last`; numbers in between, if any, are gone at once.
    pub(super) fn push(&mut self, items: Vec<Arc<ItemState>>, last: u64) {
        self.last = last;
        if items.is_empty() {
            return;
        }
        let first = (last + 1).saturating_sub(items.len() as u64);
        if self.batches.back().is_some_and(|batch| batch.last() + 1 != first) {
            self.batches.clear();
            self.items = 0;
        }
        self.items += items.len();
        self.batches.push_back(Batch { first, items: items.into() });
        while let Some(oldest) = self.batches.front()
            && self.items - oldest.items.len() >= self.capacity
        {
            self.items -= oldest.items.len();
            self.batches.pop_front();
        }
    }

    /// Forgets all items; their numbers stay taken.
    pub(super) fn clear(&mut self) {
        self.batches = VecDeque::new();
        self.items = 0;
    }

    /// What follows on `position`, the last number that a reader has.
    pub(super) fn read(&self, position: u64) -> Read {
        if position >= self.last {
            return Read::Nothing;
        }
        let index = self.batches.partition_point(|batch| batch.last() <= position);
        match self.batches.get(index) {
            Some(batch) if batch.first <= position + 1 => Read::Batch(batch.clone()),
            Some(batch) => Read::GoneUpTo(batch.first - 1),
            None => Read::GoneUpTo(self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;
    use crate::model::{ItemId, ItemKey, Origin, Outcome};

    fn items(ids: std::ops::RangeInclusive<u32>) -> Vec<Arc<ItemState>> {
        ids.map(|id| {
            Arc::new(ItemState {
                id: ItemId(id),
                group_resource: "pods".into(),
                key: ItemKey::new("v1", "Pod", "shop", "web"),
                origin: Origin::Planned,
                outcome: Outcome::Created,
                reason: None,
                message: None,
                attempts: 1,
                duration: Duration::ZERO,
            })
        })
        .collect()
    }

    #[test]
    fn a_reader_continues_in_the_middle_of_a_batch() {
        let mut log = ItemLog::new(100);
        log.push(items(1..=5), 5);
        log.push(items(6..=9), 9);
        let Read::Batch(batch) = log.read(3) else { panic!("no batch") };
        assert_eq!((batch.get(4).unwrap().id, batch.get(6)), (ItemId(4), None));
        let Read::Batch(batch) = log.read(5) else { panic!("no batch") };
        assert_eq!((batch.first, batch.last()), (6, 9));
        assert!(matches!(log.read(9), Read::Nothing));
        assert!(matches!(log.read(99), Read::Nothing));
    }

    #[test]
    fn old_batches_go_and_at_least_the_capacity_stays() {
        let mut log = ItemLog::new(10);
        for batch in 0..10_u32 {
            log.push(items(batch * 4 + 1..=batch * 4 + 4), u64::from(batch) * 4 + 4);
        }
        assert!(matches!(log.read(0), Read::GoneUpTo(28)));
        assert!(matches!(log.read(28), Read::Batch(batch) if batch.first == 29));
        assert!(log.items >= 10 && log.items < 14);
    }

    #[test]
    fn a_burst_beyond_the_capacity_leaves_a_gap() {
        let mut log = ItemLog::new(4);
        log.push(items(1..=2), 2);
        log.push(items(97..=100), 100);
        assert!(matches!(log.read(2), Read::GoneUpTo(96)));
        assert!(matches!(log.read(0), Read::GoneUpTo(96)));
    }
}
