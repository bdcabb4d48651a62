//! One restore's progress: takes the engine's events, publishes what they come to.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::findings::KeptFindings;
use super::item_log::ItemLog;
use super::log_spool::{LogReader, LogSpool, LogStream};
use super::observed::Told;
use super::subscription::Subscription;
use super::table::ItemPage;
use super::tracker::{STALL, Tracker};
use crate::engine::events::{Event, Events, LogLevel};
use crate::model::{Finding, ItemFilter, ItemId, ItemState, Messages, Phase, Progress, Results, Severity, Stage};

/// How progress is published and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Namespace of the Restore, for its log lines.
    pub namespace: String,
    /// Nothing moved for so long: say what is waited for.
    pub stall: Duration,
    /// Values are published at most this often; ten a second look fluent.
    pub publish_every: Duration,
    /// While a restore runs, a value is published at least this often, as time passes too.
    pub refresh_every: Duration,
    /// So many items a reader may fall behind, or come back for: 4,096 are four seconds at 1,000 items/s.
    pub item_log: usize,
    /// Lines below this level are not logged.
    pub log_level: LogLevel,
    /// Longest log of one restore, in bytes; 1 GiB is about five million lines.
    pub log_limit: u64,
    /// Where the log's temporary file comes; absent for where temporary files go.
    pub spool_folder: Option<PathBuf>,
    /// How many restores that have ended are kept.
    pub keep_finished: usize,
    /// How many items those have together at most, about 30 MB; the latest one is kept whatever its size.
    pub keep_finished_items: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "velero".to_owned(),
            stall: STALL,
            publish_every: Duration::from_millis(100),
            refresh_every: Duration::from_secs(1),
            item_log: 4_096,
            log_level: LogLevel::Info,
            log_limit: 1 << 30,
            spool_folder: None,
            keep_finished: 64,
            keep_finished_items: 250_000,
        }
    }
}

/// Wall-clock time that never goes back: read once, then counted by the runtime's clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    began: Timestamp,
    at: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { began: Timestamp::now(), at: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

/// What subscribers see: the newest value, and the item log that belongs to it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) progress: Arc<Progress>,
    pub(super) items: ItemLog,
}

/// The progress of one restore: the engine's [`Events`], and all that doors can ask of it.
///
/// # Guarantees
/// [`Events::emit`] takes a lock for as long as the state needs to change, and wakes at most one task; its cost
/// does not depend on how many subscribers there are. The terminal value is published before [`Self::finish`] returns.
#[derive(Debug)]
pub struct RestoreProgress {
    name: Arc<str>,
    options: Options,
    clock: Clock,
    tracker: Mutex<Tracker>,
    log: Arc<LogSpool>,
    /// Something happened since the last publication.
    dirty: AtomicBool,
    wake: Notify,
    /// Held while publishing, so that values come in order; never held while an event is taken.
    publishing: Mutex<()>,
    published: watch::Sender<Published>,
    shutdown: CancellationToken,
    deleted: CancellationToken,
    gaps: AtomicU64,
}

impl RestoreProgress {
    /// A restore in phase `New`. Streams end with [`super::Update::ShuttingDown`] when `shutdown` is cancelled.
    ///
    /// Values are published by [`Self::publish_until_done`], which [`super::Hub::create`] runs; without it only
    /// [`Self::set_phase`], [`Self::close`] and [`Self::finish`] publish.
    #[must_use]
    pub fn new(name: &str, options: Options, shutdown: CancellationToken) -> Arc<Self> {
        let restore = format!("{}/{name}", options.namespace);
        let tracker = Tracker::new(options.stall);
        let clock = Clock::start();
        let published =
            Published { progress: Arc::new(tracker.snapshot(clock.now())), items: ItemLog::new(options.item_log) };
        Arc::new(Self {
            name: Arc::from(name),
            clock,
            tracker: Mutex::new(tracker),
            log: Arc::new(LogSpool::new(restore, options.spool_folder.clone(), options.log_limit)),
            dirty: AtomicBool::new(false),
            wake: Notify::new(),
            publishing: Mutex::new(()),
            published: watch::Sender::new(published),
            shutdown,
            deleted: CancellationToken::new(),
            gaps: AtomicU64::new(0),
            options,
        })
    }

    /// Name of the Restore.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The value that was published last: shared, and at most some hundred milliseconds old.
    #[must_use]
    pub fn latest(&self) -> Arc<Progress> {
        Arc::clone(&self.published.borrow().progress)
    }

    /// The value as of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Progress {
        self.tracker().snapshot(self.clock.now())
    }

    /// Items that match, in the order of their numbers, from the first one behind `after`.
    #[must_use]
    pub fn items(&self, filter: &ItemFilter, after: Option<ItemId>, limit: usize) -> ItemPage {
        self.tracker().items(filter, after, limit)
    }

    /// One item.
    #[must_use]
    pub fn item(&self, id: ItemId) -> Option<ItemState> {
        self.tracker().item(id)
    }

    /// The warnings and errors for the results file.
    #[must_use]
    pub fn results(&self) -> Results {
        self.tracker().results()
    }

    /// The first warnings and errors with their typed reasons.
    #[must_use]
    pub fn findings(&self) -> KeptFindings {
        self.tracker().findings()
    }

    /// Whether the restore is in a terminal phase.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.tracker().phase().is_terminal()
    }

    /// The stages that were entered, in order, also those that no value was published in.
    #[must_use]
    pub fn stages_entered(&self) -> Vec<Stage> {
        self.tracker().stages_entered().to_vec()
    }

    /// How many items are known.
    #[must_use]
    pub fn known_items(&self) -> u64 {
        self.tracker().known_items()
    }

    /// Events that could not be and were ignored; a fault of whoever sent them.
    #[must_use]
    pub fn anomalies(&self) -> u64 {
        self.tracker().anomalies()
    }

    /// How many subscriptions there are now.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.published.receiver_count()
    }

    /// How often a reader was told of a gap.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Moves to a phase, and publishes it. See [`Tracker::set_phase`].
    pub fn set_phase(&self, phase: Phase) {
        if phase.is_terminal() {
            self.finish(phase, None);
            return;
        }
        self.tracker().set_phase(phase, self.clock.now());
        self.publish();
        self.wake.notify_one();
    }

    /// Something came along that is no event, such as a piece of the backup: this is no stall. It costs a lock.
    pub fn moved(&self) {
        self.tracker().moved(self.clock.now());
    }

    /// When the run began, where the Restore says so.
    pub fn set_started_at(&self, started_at: Timestamp) {
        self.tracker().set_started_at(started_at);
        self.changed();
    }

    /// What the Restore object of somebody else's restore tells, published as one value. See [`Tracker::tell`].
    pub fn tell(&self, told: &Told) {
        if self.tracker().tell(told, self.clock.now()) {
            self.seal_log();
        }
        self.publish();
        self.wake.notify_one();
    }

    /// The engine's run is over: `totalItems` and `itemsRestored` are equal from here on. See [`Tracker::close`].
    pub fn close(&self) {
        self.tracker().close();
        self.publish();
    }

    /// Ends the restore, once, seals its log and publishes the last value. See [`Tracker::finish`].
    pub fn finish(&self, phase: Phase, failure_reason: Option<String>) -> bool {
        if !self.tracker().finish(phase, failure_reason, self.clock.now()) {
            return false;
        }
        self.seal_log();
        self.publish();
        self.wake.notify_one();
        let anomalies = self.anomalies();
        if anomalies > 0 {
            tracing::warn!(restore = %self.name, anomalies, "progress ignored events that could not be");
        }
        true
    }

    /// A line for the restore's log; `source` says which part of the program has written it.
    pub fn log(&self, level: LogLevel, source: &str, message: &str) {
        if level >= self.options.log_level {
            if self.log.is_sealed() {
                // Such as the output of exec hooks: the file is written, so the service's log is the place for it.
                tracing::info!(restore = %self.name, source, level = ?level, "{message}");
            }
            self.log.append(self.clock.now(), level, source, message);
            self.changed();
        }
    }

    /// Ends the log, before it is uploaded: appends a line for each warning and error, as Velero does
    /// (restore-semantics 9.1). Later lines are left out; a second call does nothing.
    pub fn seal_log(&self) {
        let results = self.tracker().results();
        if self.log.is_sealed() {
            return;
        }
        let now = self.clock.now();
        let each = |messages: &Messages, level, what: &str| {
            for message in &messages.velero {
                self.log.append(now, level, "progress", &format!("Velero restore {what}: {message}"));
            }
            for message in &messages.cluster {
                self.log.append(now, level, "progress", &format!("Cluster resource restore {what}: {message}"));
            }
            for (namespace, messages) in &messages.namespaces {
                for message in messages {
                    let line = format!("Namespace {namespace}, resource restore {what}: {message}");
                    self.log.append(now, level, "progress", &line);
                }
            }
        };
        each(&results.warnings, LogLevel::Warning, "warning");
        each(&results.errors, LogLevel::Error, "error");
        self.log.seal();
    }

    /// The log from its begin to where it ends now; blocking, for compression and upload.
    #[must_use]
    pub fn log_reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.log))
    }

    /// The lines of the log, and when following those that come, until it is sealed.
    #[must_use]
    pub fn log_lines(&self, follow: bool) -> LogStream {
        LogStream::new(Arc::clone(&self.log), self.shutdown.clone(), follow)
    }

    /// Lines that came after the log was sealed, and are in no file.
    #[must_use]
    pub fn late_log_lines(&self) -> u64 {
        self.log.late_lines()
    }

    /// A snapshot, then items and progress, then the end. With `after`, items behind that number come again.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, after: Option<u64>) -> Subscription {
        Subscription::new(Arc::clone(self), self.published.subscribe(), after, true)
    }

    /// A snapshot, then progress, then the end; no items.
    #[must_use]
    pub fn subscribe_counts(self: &Arc<Self>) -> Subscription {
        Subscription::new(Arc::clone(self), self.published.subscribe(), None, false)
    }

    /// Publishes until the restore has ended, is deleted, or the service goes down.
    ///
    /// Sleeps while nothing happens, except that a running restore is published each second for the sake of its
    /// times. May be cancelled at any await: nothing is lost but later publications.
    pub async fn publish_until_done(&self) {
        while !self.has_ended() {
            self.publish();
            let refresh = Instant::now() + self.options.refresh_every;
            tokio::select! {
                () = tokio::time::sleep(self.options.publish_every) => {}
                () = self.shutdown.cancelled() => return self.flush(),
                () = self.deleted.cancelled() => return,
            }
            while !self.dirty.load(Ordering::Acquire) && !self.has_ended() {
                let running = self.tracker().is_running();
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(refresh), if running => break,
                    () = self.shutdown.cancelled() => return self.flush(),
                    () = self.deleted.cancelled() => return,
                }
            }
        }
    }

    /// The Restore was deleted: streams say so and end.
    pub(super) fn delete(&self) {
        self.deleted.cancel();
    }

    /// Frees the item log of a restore that ended a while ago; its items are still there by pages.
    pub(super) fn forget_item_log(&self) {
        self.published.send_if_modified(|published| {
            published.items.clear();
            false
        });
    }

    /// Publishes what is not yet published.
    pub(super) fn flush(&self) {
        if self.dirty.load(Ordering::Acquire) {
            self.publish();
        }
    }

    pub(super) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub(super) fn deleted(&self) -> &CancellationToken {
        &self.deleted
    }

    fn publish(&self) {
        let _turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the state is read: what comes later is published later.
        self.dirty.store(false, Ordering::Release);
        let (progress, items) = {
            let mut tracker = self.tracker();
            let fresh = tracker.take_fresh();
            // More than the log holds would be thrown away at once.
            let newest = &fresh[fresh.len().saturating_sub(self.options.item_log.max(1))..];
            let items: Vec<_> = newest.iter().filter_map(|id| tracker.item(*id)).map(Arc::new).collect();
            (tracker.snapshot(self.clock.now()), items)
        };
        self.published.send_modify(|published| {
            published.items.push(items, progress.sequence);
            published.progress = Arc::new(progress);
        });
        self.log.announce();
    }

    /// Wakes the publisher, once for any number of events.
    fn changed(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for RestoreProgress {
    fn emit(&self, event: Event) {
        if let Event::Log(level, message) = &event {
            self.log(*level, "engine", message);
            return;
        }
        let now = self.clock.now();
        let kept = self.tracker().apply(&event, now);
        // What the results have no room for stands in the log at least.
        if let (false, Event::Finding(finding, reason)) = (kept, &event) {
            let Finding { severity, bucket, message } = finding;
            let level = if *severity == Severity::Error { LogLevel::Error } else { LogLevel::Warning };
            let line = format!("{message} ({}, {bucket:?})", reason.as_str());
            self.log.append(now, level, "progress", &line);
        }
        self.changed();
    }
}
