//! All restores this process knows the progress of, by name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::stream::{BoxStream, SelectAll, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Error;
use super::restore::{Options, RestoreProgress};
use super::subscription::Update;
use crate::model::RestoreName;

/// Restores that have ended and keep their item log, for readers that were cut off just before the end. A log is up to
/// 1 MB; an older one is answered with a gap.
const KEEP_LOGS: usize = 4;

/// An update of one of several restores.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedUpdate {
    /// The restore; absent only with [`Update::ShuttingDown`], which is about all.
    pub name: Option<Arc<str>>,
    /// What is told.
    pub update: Update,
}

/// Knows the running restores, and the last of those that have ended. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    shutdown: CancellationToken,
    publishers: TaskTracker,
    registry: Mutex<Registry>,
    /// Grows when a restore is added.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Registry {
    restores: BTreeMap<Arc<str>, Arc<RestoreProgress>>,
    /// Those that have ended, the oldest first.
    finished: VecDeque<Arc<RestoreProgress>>,
}

impl Hub {
    /// An empty hub, whose streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(options: Options, shutdown: CancellationToken) -> Self {
        let shared = Shared {
            options,
            shutdown,
            publishers: TaskTracker::new(),
            registry: Mutex::default(),
            version: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins to follow a restore; must be called within a tokio runtime, as it starts the restore's publisher.
    ///
    /// One of the same name that has ended is replaced.
    ///
    /// # Errors
    /// When a restore of this name has not ended.
    pub fn create(&self, name: &RestoreName) -> Result<Arc<RestoreProgress>, Error> {
        let mut registry = self.shared.registry();
        if registry.restores.get(name.as_str()).is_some_and(|known| !known.has_ended()) {
            return Err(Error::Running(name.to_string()));
        }
        let progress =
            RestoreProgress::new(name.as_str(), self.shared.options.clone(), self.shared.shutdown.child_token());
        if let Some(replaced) = registry.restores.insert(Arc::clone(progress.name()), Arc::clone(&progress)) {
            registry.finished.retain(|known| !Arc::ptr_eq(known, &replaced));
        }
        drop(registry);
        self.shared.version.send_modify(|version| *version += 1);
        let (shared, published) = (Arc::downgrade(&self.shared), Arc::clone(&progress));
        self.shared.publishers.spawn(async move {
            published.publish_until_done().await;
            if published.has_ended()
                && let Some(shared) = Weak::upgrade(&shared)
            {
                shared.registry().keep_finished(published, &shared.options);
            }
        });
        Ok(progress)
    }

    /// The restore of this name, running or among the last that have ended.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<RestoreProgress>> {
        self.shared.registry().restores.get(name).cloned()
    }

    /// All that are known, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<RestoreProgress>> {
        self.shared.registry().restores.values().cloned().collect()
    }

    /// Forgets a restore because its object was deleted; its streams say so and end.
    pub fn remove(&self, name: &str) -> Option<Arc<RestoreProgress>> {
        let mut registry = self.shared.registry();
        let removed = registry.restores.remove(name)?;
        registry.finished.retain(|known| !Arc::ptr_eq(known, &removed));
        drop(registry);
        removed.delete();
        Some(removed)
    }

    /// A snapshot of every restore that is known, then changes of any of them and of those that come; ends only with
    /// [`Update::ShuttingDown`]. Items are told where they are wanted.
    #[must_use]
    pub fn watch_all(&self, with_items: bool) -> BoxStream<'static, NamedUpdate> {
        let watch = WatchAll {
            version: self.shared.version.subscribe(),
            hub: self.clone(),
            with_items,
            known: HashMap::new(),
            streams: SelectAll::new(),
            fresh: true,
            over: false,
        };
        futures::stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) }).boxed()
    }

    /// Waits until all publishers have ended; they end with the shutdown token, or with their restores.
    pub async fn closed(&self) {
        self.shared.publishers.close();
        self.shared.publishers.wait().await;
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Notes that a restore has ended, and drops the oldest ones beyond the bounds.
    fn keep_finished(&mut self, ended: Arc<RestoreProgress>, options: &Options) {
        // It may have been removed or replaced meanwhile.
        if !self.restores.get(ended.name()).is_some_and(|known| Arc::ptr_eq(known, &ended)) {
            return;
        }
        self.finished.push_back(ended);
        if let Some(older) = self.finished.iter().rev().nth(KEEP_LOGS) {
            older.forget_item_log();
        }
        let mut items: u64 = self.finished.iter().map(|known| known.known_items()).sum();
        while self.finished.len() > 1
            && (self.finished.len() > options.keep_finished || items > options.keep_finished_items)
            && let Some(oldest) = self.finished.pop_front()
        {
            items = items.saturating_sub(oldest.known_items());
            self.restores.remove(oldest.name());
        }
    }
}

struct WatchAll {
    hub: Hub,
    version: watch::Receiver<u64>,
    with_items: bool,
    /// What was subscribed to, so that a new restore of an old name is told apart.
    known: HashMap<Arc<str>, Weak<RestoreProgress>>,
    streams: SelectAll<BoxStream<'static, NamedUpdate>>,
    fresh: bool,
    over: bool,
}

impl WatchAll {
    async fn next(&mut self) -> Option<NamedUpdate> {
        if self.over {
            return None;
        }
        let shutdown = self.hub.shared.shutdown.clone();
        loop {
            if self.fresh {
                self.fresh = false;
                self.subscribe();
            }
            tokio::select! {
                biased;
                changed = self.version.changed() => self.fresh = changed.is_ok(),
                update = self.streams.next(), if !self.streams.is_empty() => match update {
                    // Each stream would say so; it is said once, for all, after the last of them.
                    Some(NamedUpdate { update: Update::ShuttingDown, .. }) => {}
                    Some(update) => return Some(update),
                    // The last one has ended: look again at what there is to wait for.
                    None => {}
                },
                () = shutdown.cancelled(), if self.streams.is_empty() => {
                    self.over = true;
                    return Some(NamedUpdate { name: None, update: Update::ShuttingDown });
                }
            }
        }
    }

    fn subscribe(&mut self) {
        self.version.borrow_and_update();
        self.known.retain(|_, known| known.strong_count() > 0);
        for progress in self.hub.all() {
            let name = Arc::clone(progress.name());
            if self.known.get(&name).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&progress))) {
                continue;
            }
            self.known.insert(Arc::clone(&name), Arc::downgrade(&progress));
            let latest = progress.latest();
            if latest.phase.is_terminal() {
                let snapshot = NamedUpdate { name: Some(name), update: Update::Snapshot(latest) };
                self.streams.push(futures::stream::iter([snapshot]).boxed());
                continue;
            }
            let reader = if self.with_items { progress.subscribe(None) } else { progress.subscribe_counts() };
            let named = move |update| NamedUpdate { name: Some(Arc::clone(&name)), update };
            self.streams.push(reader.into_stream().map(named).boxed());
        }
    }
}
