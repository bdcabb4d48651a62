//! The state machine: properties over random histories, and the cases that matter one by one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::engine::events::{Event, LogLevel};
use crate::model::{Bucket, Counts, Finding, ItemFilter, Phase, Progress, Severity, Waiting};
use crate::progress::Tracker;

/// What may befall a tracker, sensible or not.
#[derive(Clone, Debug)]
enum Step {
    Plan(u32),
    Add(Origin),
    /// An item that has a number already, or one far beyond.
    AddWrong(u32),
    Start(u32),
    Finish(u32, Outcome, VeleroCount),
    Stage(Stage),
    Phase(Phase),
    End(Phase),
    Close,
    Wait(u8),
    WaitOver(u8),
    Finding(Severity),
    Log,
    /// Time goes on, or back.
    Time(i64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    proptest::sample::select(Outcome::ALL.to_vec())
}

fn velero() -> impl Strategy<Value = VeleroCount> {
    proptest::sample::select(vec![VeleroCount::Restored, VeleroCount::Dropped, VeleroCount::PassedOver])
}

fn step() -> impl Strategy<Value = Step> {
    let phases: Vec<_> = Phase::ALL.to_vec();
    let running: Vec<_> = Phase::ALL.into_iter().filter(|phase| !phase.is_terminal()).collect();
    prop_oneof![
        2 => (0..20_u32).prop_map(Step::Plan),
        4 => prop_oneof![Just(Origin::Additional), Just(Origin::Namespace)].prop_map(Step::Add),
        1 => prop_oneof![0..50_u32, Just(u32::MAX)].prop_map(Step::AddWrong),
        4 => (0..80_u32).prop_map(Step::Start),
        20 => (0..80_u32, outcome(), velero()).prop_map(|(id, outcome, velero)| Step::Finish(id, outcome, velero)),
        2 => proptest::sample::select(Stage::ALL.to_vec()).prop_map(Step::Stage),
        2 => proptest::sample::select(running).prop_map(Step::Phase),
        1 => proptest::sample::select(phases).prop_map(Step::End),
        1 => Just(Step::Close),
        2 => (0..3_u8).prop_map(Step::Wait),
        2 => (0..3_u8).prop_map(Step::WaitOver),
        2 => prop_oneof![Just(Severity::Warning), Just(Severity::Error)].prop_map(Step::Finding),
        1 => Just(Step::Log),
        4 => (-5_000..60_000_i64).prop_map(Step::Time),
    ]
}

/// Velero's formula, as restore-semantics 6.1 has it, over the items one by one.
#[derive(Debug, Default)]
struct Naive {
    /// By number: whether it was planned, and how it ended.
    items: BTreeMap<u32, (bool, Option<(Outcome, VeleroCount)>)>,
    closed: bool,
}

impl Naive {
    /// `T`: the collected items, each once.
    fn collected(&self) -> u64 {
        self.items.values().filter(|(planned, _)| *planned).count() as u64
    }

    /// `P`: collected items that went through restoreItem.
    fn processed(&self) -> u64 {
        let through = |end: &(bool, Option<(Outcome, VeleroCount)>)| {
            end.0 && end.1.is_some_and(|(_, velero)| velero != VeleroCount::PassedOver)
        };
        self.items.values().filter(|end| through(end)).count() as u64
    }

    /// `R`: the map of restored items.
    fn restored(&self) -> u64 {
        self.items.values().filter(|(_, end)| end.is_some_and(|(_, velero)| velero == VeleroCount::Restored)).count()
            as u64
    }

    /// Items that joined and are not done: Velero learns of them only when they are.
    fn joining(&self) -> u64 {
        self.items.values().filter(|(planned, end)| !planned && end.is_none()).count() as u64
    }

    fn total(&self) -> u64 {
        if self.closed { self.restored() } else { self.restored() + (self.collected() - self.processed()) }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, end) in self.items.values() {
            *counts.get_mut(end.map_or(Outcome::Pending, |(outcome, _)| outcome)) += 1;
        }
        counts
    }
}

/// A tracker, the naive model beside it, and the time.
struct Both {
    tracker: Tracker,
    naive: Naive,
    next: u32,
    now: Timestamp,
}

impl Both {
    fn new() -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { tracker: Tracker::default(), naive: Naive::default(), next: 0, now }
    }

    fn emit(&mut self, event: &Event) {
        self.tracker.apply(event, self.now);
    }

    fn take(&mut self, step: &Step) {
        let over = self.tracker.phase().is_terminal();
        match step {
            Step::Plan(count) => {
                let items = planned(self.next..self.next + count);
                self.emit(&Event::Planned(items));
                if !over {
                    self.naive.items.extend((self.next..self.next + count).map(|id| (id, (true, None))));
                    self.next += count;
                }
            }
            Step::Add(origin) => {
                let id = self.next;
                self.emit(&Event::Added(known(id, *origin)));
                if !over {
                    self.naive.items.insert(id, (false, None));
                    self.next += 1;
                }
            }
            Step::AddWrong(id) => {
                if self.naive.items.contains_key(id) || *id == u32::MAX {
                    self.emit(&Event::Added(known(*id, Origin::Additional)));
                }
            }
            Step::Start(id) => self.emit(&Event::Started(ItemId(*id))),
            Step::Finish(id, outcome, velero) => {
                self.emit(&Event::Finished(ended(*id, *outcome, *velero)));
                if let Some((_, end @ None)) = self.naive.items.get_mut(id)
                    && !over
                    && *outcome != Outcome::Pending
                {
                    *end = Some((*outcome, *velero));
                }
            }
            Step::Stage(stage) => self.emit(&Event::Stage(*stage)),
            Step::Phase(phase) => self.tracker.set_phase(*phase, self.now),
            Step::End(phase) => {
                let began = self.tracker.finish(*phase, Some("why".to_owned()), self.now);
                assert_eq!(began, phase.is_terminal() && !over);
                if began {
                    self.naive.closed = true;
                    for id in 0..self.next {
                        let outcome = self.tracker.item(ItemId(id)).unwrap().outcome;
                        self.naive.items.get_mut(&id).unwrap().1.get_or_insert((outcome, VeleroCount::Dropped));
                    }
                }
            }
            Step::Close => {
                self.tracker.close();
                self.naive.closed = true;
            }
            Step::Wait(object) => {
                let object = format!("namespace ns-{object}");
                self.emit(&Event::Wait(Waiting { object, request: "wait until it is gone".to_owned(), reason: None }));
            }
            Step::WaitOver(object) => self.emit(&Event::WaitOver(format!("namespace ns-{object}"))),
            Step::Finding(severity) => {
                let finding = Finding { severity: *severity, bucket: Bucket::of("ns-1"), message: "no".to_owned() };
                self.emit(&Event::Finding(finding, Reason::Other));
            }
            Step::Log => self.emit(&Event::Log(LogLevel::Info, "line".to_owned())),
            Step::Time(milliseconds) => {
                self.now = self.now.checked_add(SignedDuration::from_millis(*milliseconds)).unwrap();
            }
        }
    }

    fn progress(&self) -> Progress {
        self.tracker.snapshot(self.now)
    }
}

fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Counts {
    let mut sum = Counts::default();
    for counts in all {
        for outcome in Outcome::ALL {
            *sum.get_mut(outcome) += counts.get(outcome);
        }
    }
    sum
}

fn check_value(progress: &Progress, naive: &Naive) {
    assert_eq!(progress.outcomes, naive.counts());
    assert_eq!(progress.outcomes.total(), naive.items.len() as u64);
    assert_eq!(sum(progress.stages.values()), progress.outcomes);
    assert_eq!(sum(progress.resources.values()), progress.outcomes);
    assert_eq!(sum(progress.namespaces.values()), progress.outcomes);
    assert_eq!(progress.failures.values().sum::<u64>(), progress.outcomes.failed);
    assert_eq!(progress.sequence, progress.outcomes.done());
    assert_eq!(progress.added, naive.items.len() as u64 - naive.collected());

    assert_eq!(progress.items_restored, naive.restored());
    let joining = if naive.closed { 0 } else { naive.joining() };
    assert_eq!(progress.total_items, naive.total() + joining);
    assert!(progress.items_restored <= progress.total_items);

    assert_eq!(progress.percent() == 100, progress.phase.is_terminal());
    assert_eq!(progress.stage == Stage::Done, progress.phase.is_terminal());
    if let Some(left) = progress.time_left {
        assert!(left.low_seconds <= left.high_seconds && progress.outcomes.pending > 0);
    }
    assert!(progress.items_per_second.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
    assert!(progress.elapsed_seconds >= 0.0);
    if progress.phase.is_terminal() {
        assert_eq!(progress.outcomes.pending, 0);
        assert_eq!(progress.total_items, progress.items_restored);
        assert!(progress.waiting_for.is_empty() && progress.time_left.is_none() && progress.items_per_second.is_none());
    }
    assert_eq!(progress.failure_reason.is_some(), progress.phase == Phase::Failed && naive.closed);
}

fn check_change(before: &Progress, after: &Progress) {
    if before.phase.is_terminal() {
        assert_eq!(before, after, "a terminal state is final");
    }
    assert!(after.outcomes.total() >= before.outcomes.total());
    for outcome in Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Pending) {
        assert!(after.outcomes.get(outcome) >= before.outcomes.get(outcome), "{outcome:?} fell");
    }
    assert!(after.items_restored >= before.items_restored);
    assert!(after.sequence >= before.sequence);
    assert!(after.stage >= before.stage);
    assert!(after.added >= before.added && after.warnings >= before.warnings && after.errors >= before.errors);
    assert!(after.last_progress_at >= before.last_progress_at);
    assert!(after.started_at == before.started_at || before.started_at.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_counts_are_true_and_nothing_goes_back(steps in prop::collection::vec(step(), 0..160)) {
        let mut both = Both::new();
        let mut before = both.progress();
        for step in &steps {
            both.take(step);
            let after = both.progress();
            check_value(&after, &both.naive);
            check_change(&before, &after);
            before = after;
        }
        let all = both.tracker.items(&ItemFilter::default(), None, usize::MAX);
        prop_assert_eq!(all.matching, both.naive.items.len() as u64);
        for item in all.items {
            let end = both.naive.items[&item.id.0].1;
            prop_assert_eq!(item.outcome, end.map_or(Outcome::Pending, |(outcome, _)| outcome));
        }
        prop_assert_eq!(both.tracker.take_fresh().len() as u64, before.sequence);
    }

    #[test]
    fn a_whole_run_in_any_order_has_no_anomaly_and_ends_with_both_numbers_equal(
        count in 0..60_u32,
        order in Just((0..80_u32).collect::<Vec<_>>()).prop_shuffle(),
        ends in prop::collection::vec((outcome(), velero()), 80),
    ) {
        let mut both = Both::new();
        both.take(&Step::Phase(Phase::InProgress));
        both.take(&Step::Stage(Stage::Collecting));
        both.take(&Step::Plan(count));
        both.take(&Step::Stage(Stage::Items));
        for _ in 0..20 {
            both.take(&Step::Add(Origin::Additional));
        }
        for id in order.into_iter().filter(|id| *id < count + 20) {
            let (outcome, velero) = ends[id as usize];
            let outcome = if outcome == Outcome::Pending { Outcome::Created } else { outcome };
            both.take(&Step::Start(id));
            both.take(&Step::Time(7));
            both.take(&Step::Finish(id, outcome, velero));
        }
        // Before the end the numbers differ by what was passed over only (restore-semantics 6.3).
        let progress = both.progress();
        prop_assert_eq!(progress.total_items, both.naive.total());
        both.take(&Step::Close);
        both.take(&Step::Phase(Phase::Finalizing));
        both.take(&Step::End(Phase::Completed));
        let progress = both.progress();
        prop_assert_eq!(progress.total_items, progress.items_restored);
        prop_assert_eq!(both.tracker.anomalies(), 0);
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn running(items: u32) -> Tracker {
    let mut tracker = Tracker::default();
    tracker.set_phase(Phase::InProgress, at(0));
    tracker.apply(&Event::Stage(Stage::Collecting), at(0));
    tracker.apply(&Event::Planned(planned(0..items)), at(1));
    tracker.apply(&Event::Stage(Stage::Items), at(1));
    tracker
}

#[test]
fn velero_s_numbers_follow_restored_dropped_and_passed_over() {
    let numbers = |tracker: &Tracker| {
        let progress = tracker.snapshot(at(2));
        (progress.total_items, progress.items_restored)
    };
    let mut tracker = running(4);
    assert_eq!(numbers(&tracker), (4, 0));
    tracker.apply(&Event::Finished(created(0)), at(2));
    assert_eq!(numbers(&tracker), (4, 1));
    // A completed pod: visited, in no map.
    tracker.apply(&Event::Finished(ended(1, Outcome::Skipped, VeleroCount::Dropped)), at(2));
    assert_eq!(numbers(&tracker), (3, 1));
    // Its namespace could not be ensured: the total keeps it until the end.
    tracker.apply(&Event::Finished(ended(2, Outcome::Failed, VeleroCount::PassedOver)), at(2));
    assert_eq!(numbers(&tracker), (3, 1));
    // A namespace created on demand is one more.
    tracker.apply(&Event::Added(known(4, Origin::Namespace)), at(2));
    tracker.apply(&Event::Finished(created(4)), at(2));
    assert_eq!(numbers(&tracker), (4, 2));
    tracker.apply(&Event::Finished(created(3)), at(2));
    assert_eq!(numbers(&tracker), (4, 3));
    tracker.close();
    assert_eq!(numbers(&tracker), (3, 3));
    assert_eq!(tracker.snapshot(at(2)).outcomes.total(), 5);
}

#[test]
fn one_hundred_percent_is_for_the_end() {
    let mut tracker = running(1);
    assert_eq!(tracker.snapshot(at(1)).percent(), 0);
    tracker.apply(&Event::Finished(created(0)), at(2));
    tracker.close();
    assert_eq!(tracker.snapshot(at(2)).percent(), 99);
    assert!(tracker.finish(Phase::Completed, None, at(3)));
    let end = tracker.snapshot(at(500));
    assert_eq!((end.percent(), end.elapsed_seconds), (100, 3.0));
}

#[test]
fn what_is_waited_for_is_told_only_when_nothing_moves() {
    let mut tracker = running(3);
    let wait = Waiting {
        object: "namespace shop".to_owned(),
        request: "wait until it is gone".to_owned(),
        reason: Some("terminating".to_owned()),
    };
    tracker.apply(&Event::Wait(wait.clone()), at(2));
    tracker.apply(&Event::Wait(wait.clone()), at(2));
    tracker.apply(&Event::Finished(created(0)), at(10));
    assert_eq!(tracker.snapshot(at(39)).waiting_for, []);
    assert_eq!(tracker.snapshot(at(40)).waiting_for, std::slice::from_ref(&wait));
    // Two wait for it: one of them is over.
    tracker.apply(&Event::WaitOver(wait.object.clone()), at(41));
    assert_eq!(tracker.snapshot(at(41)).waiting_for, std::slice::from_ref(&wait));
    tracker.apply(&Event::Finished(created(1)), at(42));
    assert_eq!(tracker.snapshot(at(42)).waiting_for, []);
    // Without an announced wait, the items in work are named.
    tracker.apply(&Event::WaitOver(wait.object), at(42));
    tracker.apply(&Event::Started(ItemId(2)), at(43));
    let waiting = tracker.snapshot(at(90)).waiting_for;
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].object.as_str(), waiting[0].request.as_str()), ("v1/CRD item-2", "restore"));
    assert_eq!(tracker.anomalies(), 0);
}

#[test]
fn operations_have_counts_of_their_own_and_are_no_items() {
    let mut tracker = running(1);
    tracker.apply(&Event::Finished(created(0)), at(2));
    tracker.apply(&Event::Stage(Stage::PluginOperations), at(3));
    let counts = |pending, created| Counts { pending, created, ..Counts::default() };
    tracker.apply(&Event::Counts(Stage::PluginOperations, counts(2, 0)), at(4));
    tracker.apply(&Event::Counts(Stage::PluginOperations, counts(2, 0)), at(9));
    assert_eq!(tracker.snapshot(at(9)).last_progress_at, Some(at(4)), "nothing has moved");
    tracker.apply(&Event::Counts(Stage::PluginOperations, counts(1, 1)), at(10));
    let progress = tracker.snapshot(at(10));
    assert_eq!(progress.stages[&Stage::PluginOperations], counts(1, 1));
    assert_eq!((progress.last_progress_at, progress.outcomes), (Some(at(10)), counts(0, 1)));
    assert_eq!(tracker.anomalies(), 0);
    tracker.apply(&Event::Counts(Stage::Items, counts(9, 9)), at(11));
    assert_eq!((tracker.anomalies(), tracker.snapshot(at(11)).stages[&Stage::Items]), (1, counts(0, 1)));
}

#[test]
fn an_end_before_time_leaves_no_item_pending() {
    let mut tracker = running(3);
    tracker.apply(&Event::Finished(created(0)), at(2));
    tracker.apply(&Event::Started(ItemId(1)), at(2));
    assert!(tracker.finish(Phase::Failed, Some("storage is gone".to_owned()), at(3)));
    let state = |id| {
        let item = tracker.item(ItemId(id)).unwrap();
        (item.outcome, item.reason)
    };
    assert_eq!(state(1), (Outcome::Failed, Some(Reason::Cancelled)));
    assert_eq!(state(2), (Outcome::Skipped, Some(Reason::Cancelled)));
    let end = tracker.snapshot(at(3));
    assert_eq!((end.total_items, end.items_restored, end.sequence), (1, 1, 3));
    assert_eq!(end.failure_reason.as_deref(), Some("storage is gone"));
}

#[test]
fn a_stall_has_a_name_also_where_nobody_announced_a_wait() {
    let mut tracker = Tracker::new(Duration::from_secs(30));
    tracker.set_phase(Phase::InProgress, at(0));
    tracker.apply(&Event::Stage(Stage::Collecting), at(0));
    assert!(tracker.snapshot(at(29)).waiting_for.is_empty());
    let waiting = tracker.snapshot(at(30)).waiting_for;
    assert_eq!((waiting.len(), &*waiting[0].object, &*waiting[0].request), (1, "backup", "read it from its location"));
    tracker.moved(at(31));
    assert!(tracker.snapshot(at(60)).waiting_for.is_empty(), "a backup that comes piece by piece is no stall");
    assert_eq!(tracker.snapshot(at(61)).waiting_for.len(), 1);
}

#[test]
fn the_stages_that_were_entered_are_known_in_order_and_once() {
    let mut tracker = Tracker::default();
    for stage in [Stage::Collecting, Stage::Items, Stage::Items, Stage::Collecting, Stage::Finalizing, Stage::Done] {
        tracker.apply(&Event::Stage(stage), at(0));
    }
    assert_eq!(tracker.stages_entered(), [Stage::Collecting, Stage::Items, Stage::Finalizing]);
}

#[test]
fn rate_and_time_left_show_in_the_items_stage_and_vanish_with_a_stall() {
    let mut tracker = running(1_000);
    for id in 0..200_u32 {
        tracker.apply(&Event::Finished(created(id)), at(1 + i64::from(id / 20)));
    }
    let progress = tracker.snapshot(at(11));
    let rate = progress.items_per_second.unwrap();
    assert!((18.0..22.0).contains(&rate), "{rate}");
    let left = progress.time_left.unwrap();
    assert!(left.low_seconds <= 40 && left.high_seconds >= 40, "{left:?}");
    let stalled = tracker.snapshot(at(60));
    assert_eq!((stalled.items_per_second, stalled.time_left), (Some(0.0), None));
    tracker.apply(&Event::Stage(Stage::Hooks), at(61));
    assert_eq!(tracker.snapshot(at(61)).items_per_second, None);
}

#[test]
fn what_cannot_be_is_counted_and_changes_nothing() {
    let mut tracker = running(2);
    tracker.apply(&Event::Finished(created(0)), at(2));
    let before = tracker.snapshot(at(2));
    let wrong = [
        Event::Finished(created(0)),
        Event::Finished(created(99)),
        Event::Finished(ended(1, Outcome::Pending, VeleroCount::Restored)),
        Event::Started(ItemId(0)),
        Event::Added(known(1, Origin::Additional)),
        Event::Stage(Stage::Collecting),
        Event::WaitOver("namespace nowhere".to_owned()),
        Event::Counts(Stage::Items, Counts { created: 7, ..Counts::default() }),
    ];
    for (number, event) in (1..).zip(&wrong) {
        tracker.apply(event, at(2));
        assert_eq!((tracker.anomalies(), tracker.snapshot(at(2))), (number, before.clone()), "{event:?}");
    }
}

#[test]
fn counts_of_later_stages_stand_beside_the_items_and_change_no_number_of_them() {
    let mut tracker = running(2);
    tracker.apply(&Event::Finished(created(0)), at(2));
    let before = tracker.snapshot(at(50));
    for (pending, created) in [(2, 0), (1, 1)] {
        let counts = Counts { pending, created, ..Counts::default() };
        tracker.apply(&Event::Counts(Stage::Volumes, counts), at(50));
        let progress = tracker.snapshot(at(50));
        assert_eq!(progress.stages[&Stage::Volumes], counts);
        assert_eq!((progress.outcomes, progress.total_items), (before.outcomes, before.total_items));
        assert_eq!((progress.items_restored, progress.sequence), (before.items_restored, before.sequence));
        assert_eq!(progress.last_progress_at, Some(at(50)), "something moves");
    }
    assert_eq!(tracker.anomalies(), 0);
}
