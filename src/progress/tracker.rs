//! The progress of one restore as a pure state machine: an event in, a new value out.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::findings::{Findings, KeptFindings};
use super::observed::{Observed, Told};
use super::rate::Rate;
use super::table::{ItemPage, Table};
use crate::engine::events::{Event, Finished, KnownItem, VeleroCount};
use crate::model::{Counts, ItemFilter, ItemId, ItemState, Outcome, Phase, Progress, Reason, Results, Stage, Waiting};

/// Nothing moved for so long: then [`Progress::waiting_for`] says what is waited for. Half a minute is longer than a
/// webhook may take (30 s at most, 10 s by default) and shorter than the patience of whoever looks.
pub const STALL: Duration = Duration::from_secs(30);

/// How many waits one value tells, the longest first; with more, the first ones say enough.
const MAX_WAITS: usize = 10;

/// What an item says that was being worked on when the restore ended.
const INTERRUPTED: &str = "the restore ended while this item was being worked on";

/// The state of one restore, changed by events.
///
/// # Guarantees
/// - The outcomes sum to the number of known items at every moment; that number never falls.
/// - Counts of outcomes other than `pending`, `items_restored` and the sequence number never fall.
/// - A terminal phase is final: whatever comes later changes nothing.
/// - Time that goes back is taken as standing still.
/// - An event that cannot be (an unknown item, a second outcome) is ignored and counted in [`Tracker::anomalies`].
///
/// # The two numbers of Velero
/// `totalItems` is the sum over the collected resources, and what joins later adjusts it:
/// `actual = restored.len() + (totalItems - i)` (restore-semantics 6.1: `R + (T - P)`). Here every item is counted
/// once, CustomResourceDefinitions too: `items_restored` is `R`; `total_items` is `R` plus the items that were not
/// visited yet plus the planned ones that were passed over, until [`Tracker::close`] makes both `R`.
#[derive(Debug)]
pub struct Tracker {
    stall: Duration,
    /// The latest time that was seen.
    clock: Timestamp,
    phase: Phase,
    stage: Stage,
    /// The stages it was in, this one included.
    entered: Vec<Stage>,
    table: Table,
    stages: BTreeMap<Stage, Counts>,
    added: u64,
    restored: u64,
    passed_over: u64,
    closed: bool,
    failures: BTreeMap<Reason, u64>,
    findings: Findings,
    /// What is known instead of items, where somebody else executes the restore.
    observed: Option<Observed>,
    rate: Rate,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    last_progress_at: Option<Timestamp>,
    /// Items being worked on, and since when.
    in_flight: BTreeMap<ItemId, Timestamp>,
    /// Waits that are going on, the oldest first, with how many wait for the same object.
    waits: Vec<(Waiting, u32)>,
    failure_reason: Option<String>,
    sequence: u64,
    /// Items whose outcome became known and that nobody has fetched; their numbers in the log end at `sequence`.
    fresh: Vec<ItemId>,
    anomalies: u64,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(STALL)
    }
}

impl Tracker {
    /// A restore of which nothing is known yet, in phase `New`.
    #[must_use]
    pub fn new(stall: Duration) -> Self {
        Self {
            stall,
            clock: Timestamp::MIN,
            phase: Phase::New,
            stage: Stage::Queued,
            entered: Vec::new(),
            table: Table::default(),
            stages: BTreeMap::new(),
            added: 0,
            restored: 0,
            passed_over: 0,
            closed: false,
            failures: BTreeMap::new(),
            findings: Findings::default(),
            observed: None,
            rate: Rate::default(),
            started_at: None,
            ended_at: None,
            last_progress_at: None,
            in_flight: BTreeMap::new(),
            waits: Vec::new(),
            failure_reason: None,
            sequence: 0,
            fresh: Vec::new(),
            anomalies: 0,
        }
    }

    /// Takes an event of the engine. Log lines are none of the tracker's business.
    ///
    /// `false` when a finding was only counted, because there are too many to keep.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        let now = self.observe(now);
        if matches!(event, Event::Log(..) | Event::Foreseen(..)) {
            return true;
        }
        if self.phase.is_terminal() {
            self.anomalies += 1;
            return true;
        }
        match event {
            Event::Stage(stage) => self.enter(*stage, now),
            Event::Planned(items) => items.iter().for_each(|item| self.add(item, false)),
            Event::Added(item) => self.add(item, true),
            Event::Started(id) => self.begin(*id, now),
            Event::Finished(finished) => self.end(finished, now),
            Event::Wait(waiting) => self.wait(waiting),
            Event::WaitOver(object) => self.wait_over(object),
            Event::Counts(stage, counts) => self.count(*stage, *counts, now),
            Event::Finding(finding, reason) => return self.findings.add(finding, *reason),
            // A preview has no tracker.
            Event::Log(..) | Event::Foreseen(..) => {}
        }
        true
    }

    /// Moves to a phase; phases do not go back. `InProgress` starts the clock; a terminal phase is [`Self::finish`].
    pub fn set_phase(&mut self, phase: Phase, now: Timestamp) {
        if phase.is_terminal() {
            self.finish(phase, None, now);
            return;
        }
        let now = self.observe(now);
        if rank(phase) < rank(self.phase) {
            self.anomalies += 1;
            return;
        }
        self.phase = phase;
        if phase == Phase::InProgress {
            self.started_at.get_or_insert(now);
        }
    }

    /// Something came along that is no event, such as a piece of the backup.
    pub fn moved(&mut self, now: Timestamp) {
        let now = self.observe(now);
        if !self.phase.is_terminal() {
            self.last_progress_at = Some(now);
        }
    }

    /// When the run began, where the Restore says so: a run that goes on after a restart of the process.
    pub fn set_started_at(&mut self, started_at: Timestamp) {
        self.started_at = Some(started_at);
    }

    /// Takes what the Restore object of somebody else's restore tells; there are no items then, only numbers. `true` when
    /// the restore has ended by this.
    ///
    /// What would lead back (an earlier phase or stage) is left aside: it is no fault of ours.
    pub fn tell(&mut self, told: &Told, now: Timestamp) -> bool {
        let now = self.observe(now);
        if self.phase.is_terminal() {
            return false;
        }
        self.started_at = told.started_at.or(self.started_at);
        if !told.phase.is_terminal() && rank(told.phase) >= rank(self.phase) {
            self.set_phase(told.phase, now);
        }
        if told.stage > self.stage {
            self.enter(told.stage, now);
        }
        if let Some(observed) = &mut self.observed {
            let change = observed.tell(told.numbers, now);
            if change.moved {
                self.last_progress_at = Some(now);
            }
            self.rate.add_many(now.as_millisecond(), change.items);
        } else {
            self.observed = Some(Observed::new(told.numbers, now));
            // It got on before somebody looked, and nobody knows when.
            self.last_progress_at = None;
        }
        let ended = told.phase.is_terminal() && self.finish(told.phase, told.failure_reason.clone(), now);
        if ended {
            self.ended_at = told.ended_at.or(self.ended_at);
        }
        ended
    }

    /// The engine's run is over: from here on `totalItems` and `itemsRestored` are equal, whatever was left
    /// (restore-semantics 6.2).
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Ends the restore, once: `false` when it has ended before, or the phase is not terminal.
    ///
    /// Items without an outcome get one, as nothing will be done any more: those being worked on are `failed`, the
    /// others `skipped`, both with reason `cancelled`.
    pub fn finish(&mut self, phase: Phase, failure_reason: Option<String>, now: Timestamp) -> bool {
        let now = self.observe(now);
        if self.phase.is_terminal() || !phase.is_terminal() {
            self.anomalies += 1;
            return false;
        }
        for id in self.table.pending() {
            let interrupted = self.in_flight.contains_key(&id);
            self.end(&abandoned(id, interrupted), now);
        }
        self.closed = true;
        self.phase = phase;
        self.stage = Stage::Done;
        self.failure_reason = failure_reason.filter(|_| phase == Phase::Failed);
        self.ended_at = Some(now);
        self.in_flight.clear();
        self.waits.clear();
        true
    }

    /// The value as of now.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Progress {
        let now = self.ended_at.unwrap_or(now.max(self.clock));
        let outcomes = self.table.counts();
        let running = self.started_at.is_some() && self.ended_at.is_none();
        let observed = self.observed.as_ref();
        let moved = observed.map(Observed::moved_at).max(self.last_progress_at).or(self.started_at);
        let still = moved.map_or(Duration::ZERO, |last| between(last, now));
        let stalled = running && still >= self.stall;
        let restoring = matches!(self.stage, Stage::CustomResourceDefinitions | Stage::Items);
        let milliseconds = now.as_millisecond();
        Progress {
            sequence: self.sequence,
            phase: self.phase,
            stage: self.stage,
            total_items: observed.map_or_else(|| self.total_items(), Observed::total_items),
            items_restored: observed.map_or(self.restored, Observed::items_restored),
            outcomes,
            added: self.added,
            stages: self.stages.clone(),
            resources: self.table.resources().map(|(name, counts)| (name.clone(), counts)).collect(),
            namespaces: self.table.namespaces().map(|(name, counts)| (name.to_owned(), counts)).collect(),
            failures: self.failures.clone(),
            warnings: observed.map_or_else(|| self.findings.warnings(), Observed::warnings),
            errors: observed.map_or_else(|| self.findings.errors(), Observed::errors),
            items_per_second: self.rate.recent(milliseconds).filter(|_| running && restoring),
            started_at: self.started_at,
            elapsed_seconds: self.started_at.map_or(0.0, |started| between(started, now).as_secs_f64()),
            last_progress_at: self.last_progress_at,
            time_left: (running && !stalled && self.stage == Stage::Items)
                .then(|| self.rate.time_left(observed.map_or(outcomes.pending, Observed::remaining), milliseconds))
                .flatten(),
            waiting_for: match observed {
                _ if !stalled => Vec::new(),
                Some(observed) => vec![observed.waiting(self.stage, still)],
                None => self.waiting_for(),
            },
            failure_reason: self.failure_reason.clone(),
        }
    }

    /// Items that match, in the order of their numbers, from the first one behind `after`.
    #[must_use]
    pub fn items(&self, filter: &ItemFilter, after: Option<ItemId>, limit: usize) -> ItemPage {
        self.table.query(filter, after, limit)
    }

    /// One item.
    #[must_use]
    pub fn item(&self, id: ItemId) -> Option<ItemState> {
        self.table.state(id)
    }

    /// The items whose outcome became known since the last call; their log numbers end at the sequence number.
    pub fn take_fresh(&mut self) -> Vec<ItemId> {
        std::mem::take(&mut self.fresh)
    }

    /// Number of the last event of the item log; 0 before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The stages that were entered, in order, also those that no value was published in.
    #[must_use]
    pub fn stages_entered(&self) -> &[Stage] {
        &self.entered
    }

    /// Whether the run has begun and not ended, so that time passes for it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.started_at.is_some() && self.ended_at.is_none()
    }

    /// How many items are known.
    #[must_use]
    pub fn known_items(&self) -> u64 {
        self.table.counts().total()
    }

    /// The warnings and errors as they stand in the results file.
    #[must_use]
    pub fn results(&self) -> Results {
        self.findings.results()
    }

    /// The first warnings and errors with their typed reasons.
    #[must_use]
    pub fn findings(&self) -> KeptFindings {
        self.findings.typed()
    }

    /// Events that could not be and were ignored. Anything but 0 is a fault of the engine or of its caller.
    #[must_use]
    pub fn anomalies(&self) -> u64 {
        self.anomalies
    }

    /// Messages of items that were not kept, as there were too many.
    #[must_use]
    pub fn messages_left_out(&self) -> u64 {
        self.table.messages_left_out()
    }

    /// The time, never earlier than what was seen before.
    fn observe(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn total_items(&self) -> u64 {
        if self.closed { self.restored } else { self.restored + self.table.counts().pending + self.passed_over }
    }

    fn enter(&mut self, stage: Stage, now: Timestamp) {
        // Only the end of the restore makes it done; an engine that says so means its own run.
        if stage == Stage::Done || stage == self.stage {
            return;
        }
        if stage < self.stage {
            self.anomalies += 1;
            return;
        }
        self.stage = stage;
        self.entered.push(stage);
        self.last_progress_at = Some(now);
        if matches!(stage, Stage::CustomResourceDefinitions | Stage::Items) {
            self.rate.restart(now.as_millisecond());
        }
    }

    /// Takes the counts of a stage whose work is no items; those of items are counted here.
    fn count(&mut self, stage: Stage, counts: Counts, now: Timestamp) {
        if stage <= Stage::Items {
            self.anomalies += 1;
            return;
        }
        let known = self.stages.insert(stage, counts);
        if known.is_none_or(|known| known.done() < counts.done()) {
            self.last_progress_at = Some(now);
        }
    }

    fn add(&mut self, item: &KnownItem, added: bool) {
        if !self.table.insert(item, added) {
            self.anomalies += 1;
            return;
        }
        self.stages.entry(item.stage).or_default().pending += 1;
        self.added += u64::from(added);
    }

    fn begin(&mut self, id: ItemId, now: Timestamp) {
        if self.table.is_pending(id) {
            self.in_flight.entry(id).or_insert(now);
        } else {
            self.anomalies += 1;
        }
    }

    fn end(&mut self, finished: &Finished, now: Timestamp) {
        let Some(item) = self.table.finish(finished) else {
            self.anomalies += 1;
            return;
        };
        self.in_flight.remove(&finished.id);
        let counts = self.stages.entry(item.stage).or_default();
        counts.pending = counts.pending.saturating_sub(1);
        *counts.get_mut(finished.outcome) += 1;
        match finished.velero {
            VeleroCount::Restored => self.restored += 1,
            // Velero's T never held what joined later.
            VeleroCount::PassedOver => self.passed_over += u64::from(!item.added),
            VeleroCount::Dropped => {}
        }
        if finished.outcome == Outcome::Failed {
            *self.failures.entry(finished.reason.unwrap_or(Reason::Other)).or_default() += 1;
        }
        self.rate.add(now.as_millisecond());
        self.last_progress_at = Some(now);
        self.sequence += 1;
        self.fresh.push(finished.id);
    }

    fn wait(&mut self, waiting: &Waiting) {
        match self.waits.iter_mut().find(|(known, _)| known.object == waiting.object) {
            Some((known, count)) => {
                known.clone_from(waiting);
                *count += 1;
            }
            None => self.waits.push((waiting.clone(), 1)),
        }
    }

    fn wait_over(&mut self, object: &str) {
        let Some(index) = self.waits.iter().position(|(known, _)| known.object == object) else {
            self.anomalies += 1;
            return;
        };
        let count = &mut self.waits[index].1;
        *count -= 1;
        if *count == 0 {
            self.waits.remove(index);
        }
    }

    /// The waits that were announced; without any, the items being worked on, the oldest first; without these, what the
    /// stage is about, so that no stall goes without a name.
    fn waiting_for(&self) -> Vec<Waiting> {
        if !self.waits.is_empty() {
            return self.waits.iter().take(MAX_WAITS).map(|(waiting, _)| waiting.clone()).collect();
        }
        let mut items: Vec<_> = self.in_flight.iter().map(|(id, since)| (*since, *id)).collect();
        items.sort_unstable();
        let waiting = |(_, id)| {
            let object = self.table.key(id)?.to_string();
            Some(Waiting { object, request: "restore".to_owned(), reason: None })
        };
        let items: Vec<Waiting> = items.into_iter().filter_map(waiting).take(MAX_WAITS).collect();
        if items.is_empty() { vec![nameless(self.stage)] } else { items }
    }
}

/// What a stage waits for where nobody announced anything.
fn nameless(stage: Stage) -> Waiting {
    let (object, request) = match stage {
        Stage::Queued => ("queue", "have its turn"),
        Stage::Collecting => ("backup", "read it from its location"),
        Stage::CustomResourceDefinitions | Stage::Items => ("items", "begin the next ones"),
        Stage::Volumes => ("volumes", "fill them"),
        Stage::PluginOperations => ("operations", "ask how far they are"),
        Stage::Hooks => ("hooks", "run them"),
        Stage::Finalizing | Stage::Done => ("restore", "wrap it up"),
    };
    Waiting { object: object.to_owned(), request: request.to_owned(), reason: None }
}

/// Phases in the order they follow each other; some stand side by side.
const fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::New => 0,
        Phase::InProgress => 1,
        Phase::WaitingForPluginOperations | Phase::WaitingForPluginOperationsPartiallyFailed => 2,
        Phase::Finalizing | Phase::FinalizingPartiallyFailed => 3,
        Phase::FailedValidation | Phase::Completed | Phase::PartiallyFailed | Phase::Failed => 4,
    }
}

fn abandoned(id: ItemId, interrupted: bool) -> Finished {
    Finished {
        id,
        outcome: if interrupted { Outcome::Failed } else { Outcome::Skipped },
        reason: Some(Reason::Cancelled),
        message: interrupted.then(|| INTERRUPTED.to_owned()),
        attempts: 0,
        duration: Duration::ZERO,
        velero: VeleroCount::Dropped,
    }
}

/// The time between two moments; none when they come in the wrong order.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
