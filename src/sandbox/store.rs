//! Objects, their global revision, and the history watches are served from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::registry::TableId;

/// Changes a watcher may lag behind before it is cut off.
const WATCHER_BACKLOG: usize = 8192;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) change: Change,
    /// The object before the change, so that a selector can tell what left its view.
    pub(super) old: Option<Arc<Value>>,
    /// The object after it; of a deleted one, its last state at the revision of the deletion.
    pub(super) new: Arc<Value>,
}

/// All objects of one resource, by `namespace/name`.
#[derive(Debug, Default)]
pub(super) struct Table {
    objects: BTreeMap<String, Arc<Value>>,
    history: VecDeque<Arc<Event>>,
    /// Revision of the newest event that is no longer in the history.
    forgotten: u64,
    watchers: Vec<mpsc::Sender<Arc<Event>>>,
}

/// The events a watch has missed, and where the following ones arrive.
pub(super) type Subscription = (Vec<Arc<Event>>, mpsc::Receiver<Arc<Event>>);

/// The key of an object; cluster-scoped ones have no namespace.
pub(super) fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

impl Table {
    /// One object.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a namespace, or all of them, after `after`, in the order of their keys.
    pub(super) fn range<'a>(
        &'a self,
        namespace: Option<&str>,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a String, &'a Arc<Value>)> + use<'a> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        // '0' follows '/', so this is the first key behind those of the namespace.
        let end = namespace.map_or(Unbounded, |namespace| Excluded(format!("{namespace}0")));
        let start = match (after, namespace) {
            (Some(after), _) => Excluded(after.to_owned()),
            (None, Some(namespace)) => Included(format!("{namespace}/")),
            (None, None) => Unbounded,
        };
        let sound = !matches!((&start, &end), (Excluded(start), Excluded(end)) if start >= end);
        sound.then(|| self.objects.range((start, end))).into_iter().flatten()
    }

    /// The events after `revision` and what follows them; `Err` tells the oldest revision a watch may start from.
    pub(super) fn watch(&mut self, revision: u64) -> Result<Subscription, u64> {
        if revision < self.forgotten {
            return Err(self.forgotten);
        }
        let from = self.history.partition_point(|event| event.revision <= revision);
        let missed = self.history.range(from..).cloned().collect();
        let (sender, receiver) = mpsc::channel(WATCHER_BACKLOG);
        self.watchers.retain(|watcher| !watcher.is_closed());
        self.watchers.push(sender);
        Ok((missed, receiver))
    }

    fn record(&mut self, event: Event, keep: usize) {
        let event = Arc::new(event);
        // A watcher that is gone or too far behind is dropped: its stream ends and the client starts a new watch.
        self.watchers.retain(|watcher| watcher.try_send(Arc::clone(&event)).is_ok());
        self.history.push_back(event);
        while self.history.len() > keep {
            if let Some(gone) = self.history.pop_front() {
                self.forgotten = gone.revision;
            }
        }
    }
}

/// All tables under one revision counter.
#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    tables: HashMap<TableId, Table>,
    history: usize,
}

fn stamp(object: &mut Value, revision: u64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::from(revision.to_string()));
    }
}

impl Store {
    /// An empty store that keeps `history` events of each resource.
    pub(super) fn new(history: usize) -> Self {
        Self { revision: 1, tables: HashMap::new(), history }
    }

    /// The newest revision.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A resource's table.
    pub(super) fn table(&mut self, id: TableId) -> &mut Table {
        self.tables.entry(id).or_default()
    }

    /// One object.
    pub(super) fn get(&self, id: TableId, key: &str) -> Option<Arc<Value>> {
        self.tables.get(&id).and_then(|table| table.get(key)).cloned()
    }

    /// Creates or replaces an object and returns it with its new revision.
    pub(super) fn put(&mut self, id: TableId, key: String, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        stamp(&mut object, self.revision);
        let (revision, keep) = (self.revision, self.history);
        let table = self.table(id);
        let new = Arc::new(object);
        let old = table.objects.insert(key, Arc::clone(&new));
        let change = if old.is_some() { Change::Modified } else { Change::Added };
        table.record(Event { revision, change, old, new: Arc::clone(&new) }, keep);
        new
    }

    /// Removes an object and returns its last state.
    pub(super) fn remove(&mut self, id: TableId, key: &str) -> Option<Arc<Value>> {
        let (revision, keep) = (self.revision + 1, self.history);
        let table = self.table(id);
        let old = table.objects.remove(key)?;
        let mut last = (*old).clone();
        stamp(&mut last, revision);
        let last = Arc::new(last);
        table.record(Event { revision, change: Change::Deleted, old: Some(old), new: Arc::clone(&last) }, keep);
        self.revision = revision;
        Some(last)
    }

    /// The keys of a table in a namespace (or all).
    pub(super) fn keys(&self, id: TableId, namespace: Option<&str>) -> Vec<String> {
        self.tables
            .get(&id)
            .map_or_else(Vec::new, |table| table.range(namespace, None).map(|(key, _)| key.clone()).collect())
    }

    /// Whether a namespace (or the whole table) holds nothing of this resource.
    pub(super) fn is_empty(&self, id: TableId, namespace: Option<&str>) -> bool {
        self.tables.get(&id).is_none_or(|table| table.range(namespace, None).next().is_none())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn object(name: &str) -> Value {
        json!({ "metadata": { "name": name } })
    }

    #[test]
    fn a_namespace_is_a_range_of_its_own() {
        let mut store = Store::new(10);
        for (namespace, name) in [("a", "x"), ("a", "y"), ("a-b", "x"), ("ab", "x")] {
            store.put(1, key(Some(namespace), name), object(name));
        }
        let keys = |after| store.tables[&1].range(Some("a"), after).map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(None), ["a/x", "a/y"]);
        assert_eq!(keys(Some("a/x")), ["a/y"]);
        assert!(keys(Some("b/x")).is_empty());
        assert_eq!(store.keys(1, None).len(), 4);
    }

    #[test]
    fn a_watch_from_before_the_kept_history_is_refused() {
        let mut store = Store::new(2);
        let start = store.revision();
        for name in ["a", "b", "c"] {
            store.put(1, key(None, name), object(name));
        }
        assert_eq!(store.table(1).watch(start).unwrap_err(), start + 1);
        let (missed, _) = store.table(1).watch(start + 1).unwrap();
        assert_eq!(missed.iter().map(|event| event.revision).collect::<Vec<_>>(), [start + 2, start + 3]);
    }

    #[test]
    fn a_lagging_watcher_is_cut_off_and_does_not_hold_up_writes() {
        let mut store = Store::new(2);
        let (_, mut receiver) = store.table(1).watch(1).unwrap();
        for at in 0..=WATCHER_BACKLOG {
            store.put(1, key(None, &at.to_string()), object("x"));
        }
        let mut seen = 0;
        while receiver.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, WATCHER_BACKLOG);
        assert!(receiver.is_closed());
    }
}
