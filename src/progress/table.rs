//! Every item of a restore, stored small: what repeats is a number, what is final is written once.
//!
//! A slot has 64 bytes; beside it stands only the item's own name. 100,000 items stay near 100 bytes each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::events::{Finished, KnownItem};
use crate::model::{Counts, GroupResource, ItemFilter, ItemId, ItemKey, ItemState, Origin, Outcome, Reason, Stage};

/// How many numbers may be missing below a new item's: concurrent work announces its items out of order, but not
/// by more than are in flight. A number far beyond is a fault and must not make the table grow without bound.
const MAX_AHEAD: usize = 65_536;

/// Messages of items that are kept; later ones are counted. At 200 bytes each this is 2 MB.
const MAX_MESSAGES: usize = 10_000;

/// Longest message that is kept of one item, in bytes; the results have the whole of it.
const MAX_MESSAGE: usize = 4_096;

/// One page of items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemPage {
    /// The items, in the order of their numbers.
    pub items: Vec<ItemState>,
    /// Where the next page begins: after this number; absent behind the last page.
    pub next: Option<ItemId>,
    /// How many items match in all.
    pub matching: u64,
}

/// Values that are told apart by a number.
#[derive(Debug)]
struct Names<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    fn number(&mut self, value: &T) -> u32 {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        // There are fewer different names than items, and items are numbered by u32.
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.numbers.insert(value.clone(), number);
        self.values.push(value.clone());
        number
    }

    fn value(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)
    }
}

/// What is stored of one item.
#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    message: Option<Box<str>>,
    microseconds: u64,
    group_resource: u32,
    kind: u32,
    namespace: u32,
    attempts: u32,
    stage: Stage,
    origin: Origin,
    outcome: Outcome,
    reason: Option<Reason>,
    added: bool,
}

/// What a change of outcome needs to know of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brief {
    /// The stage it is restored in.
    pub(super) stage: Stage,
    /// Whether it joined after planning.
    pub(super) added: bool,
}

/// The items of one restore, and their counts by outcome.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Slot>>,
    resources: Names<GroupResource>,
    kinds: Names<Arc<str>>,
    namespaces: Names<Arc<str>>,
    counts: Counts,
    by_resource: Vec<Counts>,
    by_namespace: Vec<Counts>,
    messages: usize,
    messages_left_out: u64,
}

impl Table {
    /// Takes a new item, pending. `false` when its number is taken already or out of all proportion.
    pub(super) fn insert(&mut self, item: &KnownItem, added: bool) -> bool {
        let index = item.id.0 as usize;
        if index > self.slots.len() + MAX_AHEAD {
            return false;
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.is_none()) else {
            return false;
        };
        let stored = Slot {
            name: Arc::clone(&item.key.name),
            message: None,
            microseconds: 0,
            group_resource: self.resources.number(&item.group_resource),
            kind: self.kinds.number(&item.key.api_version_kind),
            namespace: self.namespaces.number(&item.key.namespace),
            attempts: 0,
            stage: item.stage,
            origin: item.origin,
            outcome: Outcome::Pending,
            reason: None,
            added,
        };
        self.by_resource.resize(self.resources.values.len(), Counts::default());
        self.by_namespace.resize(self.namespaces.values.len(), Counts::default());
        self.counts.pending += 1;
        if let Some(counts) = self.by_resource.get_mut(stored.group_resource as usize) {
            counts.pending += 1;
        }
        if let Some(counts) = self.by_namespace.get_mut(stored.namespace as usize) {
            counts.pending += 1;
        }
        *slot = Some(stored);
        true
    }

    /// Writes an item's outcome. `None` when there is no such item, its outcome is known already, or the new one is
    /// none.
    pub(super) fn finish(&mut self, finished: &Finished) -> Option<Brief> {
        let slot = self.slots.get_mut(finished.id.0 as usize)?.as_mut()?;
        if slot.outcome != Outcome::Pending || finished.outcome == Outcome::Pending {
            return None;
        }
        slot.outcome = finished.outcome;
        slot.reason = finished.reason;
        slot.attempts = finished.attempts;
        slot.microseconds = u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(message) = finished.message.as_deref() {
            if self.messages < MAX_MESSAGES {
                self.messages += 1;
                slot.message = Some(shortened(message));
            } else {
                self.messages_left_out += 1;
            }
        }
        let change = |counts: &mut Counts| {
            counts.pending -= 1;
            *counts.get_mut(finished.outcome) += 1;
        };
        change(&mut self.counts);
        if let Some(counts) = self.by_resource.get_mut(slot.group_resource as usize) {
            change(counts);
        }
        if let Some(counts) = self.by_namespace.get_mut(slot.namespace as usize) {
            change(counts);
        }
        Some(Brief { stage: slot.stage, added: slot.added })
    }

    /// Whether this item is known and has no outcome yet.
    pub(super) fn is_pending(&self, id: ItemId) -> bool {
        self.slot(id).is_some_and(|slot| slot.outcome == Outcome::Pending)
    }

    /// The items without an outcome.
    pub(super) fn pending(&self) -> Vec<ItemId> {
        self.numbered().filter(|(_, slot)| slot.outcome == Outcome::Pending).map(|(id, _)| id).collect()
    }

    /// Counts of all items.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts by group-resource.
    pub(super) fn resources(&self) -> impl Iterator<Item = (&GroupResource, Counts)> {
        self.resources.values.iter().zip(self.by_resource.iter().copied())
    }

    /// Counts by target namespace.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.namespaces.values.iter().map(|name| &**name).zip(self.by_namespace.iter().copied())
    }

    /// How many messages of items were not kept.
    pub(super) fn messages_left_out(&self) -> u64 {
        self.messages_left_out
    }

    /// Kind, namespace and name of an item.
    pub(super) fn key(&self, id: ItemId) -> Option<ItemKey> {
        self.key_of(self.slot(id)?)
    }

    /// All that is known of an item.
    pub(super) fn state(&self, id: ItemId) -> Option<ItemState> {
        self.state_of(id, self.slot(id)?)
    }

    /// Items that match, from the first one behind `after`.
    pub(super) fn query(&self, filter: &ItemFilter, after: Option<ItemId>, limit: usize) -> ItemPage {
        let mut page = ItemPage::default();
        let group_resource = filter.group_resource.as_ref().map(|wanted| self.resources.numbers.get(wanted).copied());
        let namespace = filter.namespace.as_deref().map(|wanted| self.namespaces.numbers.get(wanted).copied());
        // A name that no item has.
        if group_resource == Some(None) || namespace == Some(None) {
            return page;
        }
        let (group_resource, namespace) = (group_resource.flatten(), namespace.flatten());
        for (id, slot) in self.numbered() {
            let matches = group_resource.is_none_or(|wanted| wanted == slot.group_resource)
                && namespace.is_none_or(|wanted| wanted == slot.namespace)
                && (filter.outcomes.is_empty() || filter.outcomes.contains(&slot.outcome));
            if !matches {
                continue;
            }
            page.matching += 1;
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            if page.items.len() < limit {
                page.items.extend(self.state_of(id, slot));
            } else if page.next.is_none() {
                page.next = page.items.last().map(|item| item.id);
            }
        }
        page
    }

    fn slot(&self, id: ItemId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn numbered(&self) -> impl Iterator<Item = (ItemId, &Slot)> {
        (0_u32..).zip(&self.slots).filter_map(|(number, slot)| Some((ItemId(number), slot.as_ref()?)))
    }

    fn key_of(&self, slot: &Slot) -> Option<ItemKey> {
        Some(ItemKey {
            api_version_kind: Arc::clone(self.kinds.value(slot.kind)?),
            namespace: Arc::clone(self.namespaces.value(slot.namespace)?),
            name: Arc::clone(&slot.name),
        })
    }

    fn state_of(&self, id: ItemId, slot: &Slot) -> Option<ItemState> {
        Some(ItemState {
            id,
            group_resource: self.resources.value(slot.group_resource)?.clone(),
            key: self.key_of(slot)?,
            origin: slot.origin,
            outcome: slot.outcome,
            reason: slot.reason,
            message: slot.message.as_deref().map(str::to_owned),
            attempts: slot.attempts,
            duration: Duration::from_micros(slot.microseconds),
        })
    }
}

/// The message, or its begin and how much was cut.
fn shortened(message: &str) -> Box<str> {
    if message.len() <= MAX_MESSAGE {
        return Box::from(message);
    }
    let cut = message.floor_char_boundary(MAX_MESSAGE);
    format!("{} … ({} bytes more)", &message[..cut], message.len() - cut).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::engine::events::VeleroCount;

    fn item(id: u32, resource: &str, namespace: &str) -> KnownItem {
        KnownItem {
            id: ItemId(id),
            group_resource: resource.into(),
            key: ItemKey::new("v1", "Thing", namespace, &format!("thing-{id}")),
            stage: Stage::Items,
            origin: Origin::Planned,
        }
    }

    fn failed(id: u32, message: &str) -> Finished {
        Finished {
            id: ItemId(id),
            outcome: Outcome::Failed,
            reason: Some(Reason::Quota),
            message: Some(message.to_owned()),
            attempts: 2,
            duration: Duration::from_micros(1_500),
            velero: VeleroCount::Restored,
        }
    }

    #[test]
    fn a_slot_stays_within_64_bytes() {
        assert!(size_of::<Option<Slot>>() <= 64, "{}", size_of::<Option<Slot>>());
    }

    #[test]
    fn pages_follow_the_numbers_and_tell_how_many_match() {
        let mut table = Table::default();
        for id in 0..10 {
            assert!(table.insert(&item(id, if id % 2 == 0 { "pods" } else { "secrets" }, "shop"), false));
        }
        table.finish(&failed(4, "exceeded quota")).unwrap();
        let pods = ItemFilter { group_resource: Some("pods".into()), ..ItemFilter::default() };
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = table.query(&pods, after, 2);
            assert_eq!(page.matching, 5);
            seen.extend(page.items.iter().map(|item| item.id.0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, [0, 2, 4, 6, 8]);
        let failed = ItemFilter { outcomes: vec![Outcome::Failed], ..ItemFilter::default() };
        let page = table.query(&failed, None, 100);
        assert_eq!((page.matching, page.items.len(), page.next), (1, 1, None));
        assert_eq!(page.items[0].message.as_deref(), Some("exceeded quota"));
        assert_eq!(page.items[0].duration, Duration::from_micros(1_500));
        let elsewhere = ItemFilter { namespace: Some("nowhere".to_owned()), ..ItemFilter::default() };
        assert_eq!(table.query(&elsewhere, None, 100), ItemPage::default());
    }

    #[test]
    fn items_may_come_out_of_order_but_only_once_and_within_reason() {
        let mut table = Table::default();
        assert!(table.insert(&item(3, "pods", ""), true));
        assert!(table.insert(&item(1, "pods", ""), true));
        assert!(!table.insert(&item(3, "pods", ""), true));
        assert!(!table.insert(&item(u32::MAX, "pods", ""), true));
        assert_eq!(table.counts().total(), 2);
        assert!(table.state(ItemId(2)).is_none());
        assert_eq!(table.pending(), [ItemId(1), ItemId(3)]);
    }

    #[test]
    fn long_and_many_messages_are_bounded_and_counted() {
        let mut table = Table::default();
        for id in 0..10_002 {
            table.insert(&item(id, "pods", "shop"), false);
            table.finish(&failed(id, &"ä".repeat(3_000))).unwrap();
        }
        assert_eq!(table.messages_left_out(), 2);
        let message = table.state(ItemId(0)).unwrap().message.unwrap();
        assert!(message.len() < MAX_MESSAGE + 40 && message.ends_with("… (1904 bytes more)"), "{message}");
        assert_eq!(table.state(ItemId(10_001)).unwrap().message, None);
    }
}
