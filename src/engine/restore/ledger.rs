//! Which items were restored: each exactly once, however many want it at the same time.
//!
//! An item is claimed by a *chain*: one planned item together with the additional items that are restored on its
//! behalf, one after the other. Who wants an item that another chain is at work on waits for it, unless that would
//! close a circle of chains that wait for each other; then it goes on at once, as Velero does for an item that is
//! being restored further up (restore-semantics 5.3 step 5).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::archive::EntryId;
use crate::model::{ItemKey, Outcome};

/// One planned item and the additional items restored on its behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chain(pub(super) u32);

/// The items that were restored in this run: Velero's "restored items" map.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<ItemKey, Record>,
    /// What each waiting chain waits for. A chain works on one thing at a time.
    waiting: HashMap<Chain, ItemKey>,
}

#[derive(Debug)]
struct Record {
    owner: Chain,
    entry: Option<EntryId>,
    outcome: Outcome,
    name: Option<String>,
    done: watch::Sender<bool>,
}

/// What became of the wish to restore an item.
pub(super) enum Claim {
    /// It is the caller's to restore.
    Mine(Guard),
    /// It was restored already, from this entry of the archive.
    Done(Option<EntryId>),
    /// It is being restored by a chain that waits for this one.
    Circle,
}

/// The right, and the duty, to finish an item. Dropped without, the item counts as failed and waiters go on.
pub(super) struct Guard {
    ledger: Arc<Ledger>,
    key: ItemKey,
    finished: bool,
}

impl Guard {
    /// Records what became of the item; `name` is the one the API server gave, where that differs.
    pub(super) fn finish(mut self, outcome: Outcome, name: Option<String>) {
        self.finished = true;
        self.ledger.finish(&self.key, outcome, name);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished {
            self.ledger.finish(&self.key, Outcome::Failed, None);
        }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held cannot leave the maps half written: each step is one insert or remove.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims an item for a chain, waiting for another chain that is at work on it.
    pub(super) async fn claim(self: &Arc<Self>, key: &ItemKey, entry: Option<EntryId>, chain: Chain) -> Claim {
        let mut done = {
            let mut inner = self.lock();
            let Some(record) = inner.records.get(key) else {
                let done = watch::Sender::new(false);
                inner
                    .records
                    .insert(key.clone(), Record { owner: chain, entry, outcome: Outcome::Pending, name: None, done });
                return Claim::Mine(Guard { ledger: Arc::clone(self), key: key.clone(), finished: false });
            };
            if *record.done.borrow() {
                return Claim::Done(record.entry);
            }
            let (owner, done) = (record.owner, record.done.subscribe());
            if inner.leads_to(owner, chain) {
                return Claim::Circle;
            }
            inner.waiting.insert(chain, key.clone());
            done
        };
        let _waiting = Waiting { ledger: self, chain };
        // The sender lives in the map as long as the ledger, so this ends by the value only.
        let _ = done.wait_for(|done| *done).await;
        Claim::Done(self.lock().records.get(key).and_then(|record| record.entry))
    }

    /// Records something that was created without being claimed, such as a namespace made on demand.
    pub(super) fn record(&self, key: ItemKey, outcome: Outcome) {
        let record =
            Record { owner: Chain(u32::MAX), entry: None, outcome, name: None, done: watch::Sender::new(true) };
        self.lock().records.entry(key).or_insert(record);
    }

    fn finish(&self, key: &ItemKey, outcome: Outcome, name: Option<String>) {
        if let Some(record) = self.lock().records.get_mut(key) {
            record.outcome = outcome;
            record.name = name;
            record.done.send_replace(true);
        }
    }

    /// How many items were restored, with whatever outcome: `R` of restore-semantics 6.1.
    pub(super) fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Whether anything was created or updated so far.
    pub(super) fn changed_anything(&self) -> bool {
        self.lock().records.values().any(|record| matches!(record.outcome, Outcome::Created | Outcome::Updated))
    }

    /// The resource list: `apiVersion/Kind` to sorted `namespace/name(action)` (restore-semantics 6.5).
    pub(super) fn resource_list(&self) -> BTreeMap<String, Vec<String>> {
        let inner = self.lock();
        let mut list: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, record) in &inner.records {
            let name = record.name.as_deref().unwrap_or(&key.name);
            let action = record.outcome.velero_action();
            let entry = match &*key.namespace {
                "" => format!("{name}({action})"),
                namespace => format!("{namespace}/{name}({action})"),
            };
            list.entry(key.api_version_kind.to_string()).or_default().push(entry);
        }
        list.values_mut().for_each(|entries| entries.sort());
        list
    }
}

impl Inner {
    /// Whether `from` is `to`, or waits (through any number of chains) for something `to` is at work on.
    fn leads_to(&self, from: Chain, to: Chain) -> bool {
        let mut at = from;
        // Each chain waits for one item, and no circle was ever closed: the walk ends.
        loop {
            if at == to {
                return true;
            }
            match self.waiting.get(&at).and_then(|key| self.records.get(key)) {
                Some(record) if !*record.done.borrow() => at = record.owner,
                _ => return false,
            }
        }
    }
}

/// Takes the chain off the list of waiting ones, also when the wait is cancelled.
struct Waiting<'a> {
    ledger: &'a Ledger,
    chain: Chain,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ledger.lock().waiting.remove(&self.chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ItemKey {
        ItemKey::new("v1", "ConfigMap", "ns", name)
    }

    /// restore-semantics 5.3 step 5
    #[tokio::test]
    async fn an_item_is_restored_once_and_the_others_wait_for_it() {
        let ledger = Arc::new(Ledger::default());
        let Claim::Mine(guard) = ledger.claim(&key("a"), None, Chain(1)).await else {
            panic!("the first claim is granted")
        };
        let waiter = {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { matches!(ledger.claim(&key("a"), None, Chain(2)).await, Claim::Done(None)) })
        };
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "the second waits");
        guard.finish(Outcome::Created, None);
        assert!(waiter.await.is_ok_and(|done| done));
        assert_eq!(ledger.resource_list()["v1/ConfigMap"], ["ns/a(created)"]);
    }

    #[tokio::test]
    async fn a_circle_of_three_chains_does_not_deadlock() {
        let ledger = Arc::new(Ledger::default());
        let mut guards = Vec::new();
        for (chain, name) in [(1, "a"), (2, "b"), (3, "c")] {
            if let Claim::Mine(guard) = ledger.claim(&key(name), None, Chain(chain)).await {
                guards.push(guard);
            }
        }
        let wait = |name: &'static str, chain| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { matches!(ledger.claim(&key(name), None, Chain(chain)).await, Claim::Done(_)) })
        };
        let (first, second) = (wait("b", 1), wait("c", 2));
        tokio::task::yield_now().await;
        assert!(matches!(ledger.claim(&key("a"), None, Chain(3)).await, Claim::Circle));
        drop(guards);
        assert!(first.await.is_ok_and(|done| done) && second.await.is_ok_and(|done| done));
        assert_eq!(ledger.resource_list()["v1/ConfigMap"][0], "ns/a(failed)", "an unfinished item is a failed one");
    }

    /// restore-semantics 5.3 step 5
    #[tokio::test]
    async fn an_item_that_wants_itself_goes_on() {
        let ledger = Arc::new(Ledger::default());
        let _guard = ledger.claim(&key("a"), None, Chain(1)).await;
        assert!(matches!(ledger.claim(&key("a"), None, Chain(1)).await, Claim::Circle));
        assert_eq!(ledger.len(), 1);
    }
}
