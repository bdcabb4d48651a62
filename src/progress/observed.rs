//! The progress of a restore that somebody else executes: all there is to know of it are the two numbers in its Restore
//! object, written at most once a second (restore-semantics 6.2).

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Phase, Stage, Waiting};

/// What the Restore object of somebody else's restore tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `status.phase`.
    pub phase: Phase,
    /// The stage that phase and numbers speak of.
    pub stage: Stage,
    /// `status.startTimestamp`.
    pub started_at: Option<Timestamp>,
    /// `status.completionTimestamp`.
    pub ended_at: Option<Timestamp>,
    /// `status.failureReason`.
    pub failure_reason: Option<String>,
    /// The numbers.
    pub numbers: Numbers,
}

/// The numbers in the status of a Restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// `status.progress.totalItems`.
    pub total_items: u64,
    /// `status.progress.itemsRestored`.
    pub items_restored: u64,
    /// `status.restoreItemOperationsAttempted`.
    pub operations: u64,
    /// Of these, how many have ended, well or not.
    pub operations_ended: u64,
    /// `status.warnings`.
    pub warnings: u64,
    /// `status.errors`.
    pub errors: u64,
}

impl Numbers {
    /// What moves while a restore gets on; counts of warnings are written once, at a change of phase.
    const fn movement(&self) -> (u64, u64, u64, u64) {
        (self.total_items, self.items_restored, self.operations, self.operations_ended)
    }
}

/// What was told so far.
///
/// # Guarantees
/// `items_restored` and the counts of operations, warnings and errors never fall, whatever the object says; the total
/// is Velero's, which rises and falls (restore-semantics 6.3), but is never below `items_restored`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    told: Numbers,
    /// When a change was seen last; before the first one, when it was looked at first.
    moved_at: Timestamp,
}

/// What a telling changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Whether the restore got on.
    pub(super) moved: bool,
    /// How many more items are restored than were known to be, as far as it is known how long they took.
    pub(super) items: u64,
}

impl Observed {
    /// What is told first: how long it has been so is not known.
    pub(super) const fn new(told: Numbers, now: Timestamp) -> Self {
        Self { told, moved_at: now }
    }

    /// Takes in what is told next.
    pub(super) fn tell(&mut self, told: Numbers, now: Timestamp) -> Moved {
        let before = self.told;
        let moved = told.movement() != before.movement();
        self.told = Numbers {
            total_items: told.total_items,
            items_restored: before.items_restored.max(told.items_restored),
            operations: before.operations.max(told.operations),
            operations_ended: before.operations_ended.max(told.operations_ended),
            warnings: before.warnings.max(told.warnings),
            errors: before.errors.max(told.errors),
        };
        if moved {
            self.moved_at = now;
        }
        // When the first of them began was not told, so the first number is where the rate begins.
        let counted = if before.items_restored == 0 { self.told.items_restored } else { before.items_restored };
        Moved { moved, items: self.told.items_restored - counted }
    }

    pub(super) fn total_items(&self) -> u64 {
        self.told.total_items.max(self.told.items_restored)
    }

    pub(super) const fn items_restored(&self) -> u64 {
        self.told.items_restored
    }

    pub(super) fn remaining(&self) -> u64 {
        self.total_items() - self.told.items_restored
    }

    pub(super) const fn warnings(&self) -> u64 {
        self.told.warnings
    }

    pub(super) const fn errors(&self) -> u64 {
        self.told.errors
    }

    pub(super) const fn moved_at(&self) -> Timestamp {
        self.moved_at
    }

    /// What is known of a stall, which is little: Velero does not say what it waits for.
    pub(super) fn waiting(&self, stage: Stage, still: Duration) -> Waiting {
        let seconds = still.as_secs();
        let request = match stage {
            Stage::Queued | Stage::Collecting | Stage::CustomResourceDefinitions => "begin to restore items".to_owned(),
            Stage::Items if self.remaining() > 0 => "restore the next item".to_owned(),
            Stage::PluginOperations => {
                let Numbers { operations, operations_ended, .. } = self.told;
                format!("finish item operations, of which {operations_ended} of {operations} have ended")
            }
            // The items are done; volumes, hooks and files are all that is left.
            _ => "finish what comes after the items".to_owned(),
        };
        let reason = format!("no progress for {seconds} s; Velero does not say what it waits for");
        Waiting { object: "Velero".to_owned(), request, reason: Some(reason) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::Progress;
    use crate::progress::Tracker;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    /// A restore that is at its items since 0 s.
    fn told(items_restored: u64, total_items: u64) -> Told {
        Told {
            phase: Phase::InProgress,
            stage: Stage::Items,
            started_at: Some(at(0)),
            numbers: Numbers { total_items, items_restored, ..Numbers::default() },
            ..Told::default()
        }
    }

    /// A restore that was seen from its begin.
    fn running() -> Tracker {
        let mut tracker = Tracker::default();
        tracker.tell(&Told::default(), at(-1_000));
        tracker.tell(&Told { stage: Stage::Collecting, ..told(0, 0) }, at(0));
        tracker
    }

    #[test]
    fn a_total_that_jumps_in_veleros_way_never_makes_counts_fall_restore_semantics_6_3() {
        let mut tracker = running();
        let mut seen: Vec<Progress> = Vec::new();
        // It rises with additional items, falls with excluded ones, and an empty progress is no new begin.
        let pattern = [(1, 100), (5, 103), (9, 104), (9, 97), (0, 0), (4, 90), (50, 97), (96, 96), (96, 96)];
        for (number, (restored, total)) in (1_i64..).zip(pattern) {
            let stage = if total == 0 { Stage::Collecting } else { Stage::Items };
            tracker.tell(&Told { stage, ..told(restored, total) }, at(1_000 * number));
            seen.push(tracker.snapshot(at(1_000 * number)));
        }
        for pair in seen.windows(2) {
            assert!(pair[0].items_restored <= pair[1].items_restored, "{seen:#?}");
        }
        for value in &seen {
            assert!(value.items_restored <= value.total_items && value.percent() < 100, "{value:?}");
            assert_eq!((value.stage, value.outcomes_known(), value.outcomes.total()), (Stage::Items, false, 0));
        }
        assert_eq!(seen.last().unwrap().percent(), 99, "all items are done, but the restore is not");
        assert_eq!((seen[2].total_items, seen[3].total_items), (104, 97), "the total is Velero's");
        assert!(tracker.tell(&Told { phase: Phase::Completed, stage: Stage::Done, ..told(96, 96) }, at(20_000)));
        let ended = tracker.snapshot(at(30_000));
        assert_eq!((ended.percent(), ended.items_restored, ended.total_items, ended.stage), (100, 96, 96, Stage::Done));
        assert_eq!(tracker.anomalies(), 0);
    }

    #[test]
    fn the_rate_is_taken_from_the_first_number_on_and_the_time_left_encloses_the_truth() {
        let mut tracker = running();
        // What was done before the first number is not part of the rate: how long it took is not known.
        tracker.tell(&told(500, 1_000), at(1_000));
        for second in 1..=10_i64 {
            let restored = 500 + 20 * u64::try_from(second).unwrap();
            tracker.tell(&told(restored, 1_000), at(1_000 + 1_000 * second));
        }
        let value = tracker.snapshot(at(11_000));
        let rate = value.items_per_second.unwrap();
        assert!((18.0..=22.0).contains(&rate), "{rate}");
        let left = value.time_left.unwrap();
        assert!(left.low_seconds <= 15 && 15 <= left.high_seconds && left.high_seconds <= 20, "{left:?}");
        assert_eq!(value.last_progress_at, Some(at(11_000)));
        assert!((value.elapsed_seconds - 11.0).abs() < 1e-9);
    }

    #[test]
    fn after_half_a_minute_without_a_change_it_says_so_and_that_velero_does_not_say_why() {
        let mut tracker = running();
        tracker.tell(&told(10, 100), at(1_000));
        assert_eq!(tracker.snapshot(at(30_999)).waiting_for, []);
        // Told again, the same is no progress.
        tracker.tell(&told(10, 100), at(20_000));
        let stalled = tracker.snapshot(at(43_000));
        let [waiting] = &stalled.waiting_for[..] else { panic!("{stalled:?}") };
        assert_eq!((waiting.object.as_str(), waiting.request.as_str()), ("Velero", "restore the next item"));
        let reason = "no progress for 42 s; Velero does not say what it waits for";
        assert_eq!((waiting.reason.as_deref(), stalled.time_left), (Some(reason), None));
        tracker.tell(&told(11, 100), at(44_000));
        assert_eq!(tracker.snapshot(at(44_500)).waiting_for, []);
        // With all items done it is something else that is waited for.
        tracker.tell(&told(100, 100), at(45_000));
        let request = tracker.snapshot(at(80_000)).waiting_for.pop().unwrap().request;
        assert_eq!(request, "finish what comes after the items");
    }

    #[test]
    fn item_operations_that_end_are_progress_and_are_told_in_a_stall() {
        let mut tracker = running();
        tracker.tell(&told(10, 10), at(1_000));
        let operations = |operations_ended| Told {
            phase: Phase::WaitingForPluginOperations,
            stage: Stage::PluginOperations,
            numbers: Numbers { operations: 5, operations_ended, ..told(10, 10).numbers },
            ..told(10, 10)
        };
        tracker.tell(&operations(1), at(2_000));
        tracker.tell(&operations(2), at(30_000));
        assert_eq!(tracker.snapshot(at(59_000)).waiting_for, []);
        let waiting = tracker.snapshot(at(61_000)).waiting_for.pop().unwrap();
        assert_eq!(waiting.request, "finish item operations, of which 2 of 5 have ended");
    }

    #[test]
    fn one_that_was_already_running_has_no_known_last_progress_and_stalls_from_when_it_was_first_seen() {
        let mut tracker = Tracker::default();
        tracker.tell(&Told { started_at: Some(at(-7_200_000)), ..told(40, 100) }, at(0));
        let first = tracker.snapshot(at(29_000));
        assert_eq!((first.last_progress_at, first.items_per_second, first.items_restored), (None, None, 40));
        assert_eq!(first.waiting_for, []);
        assert_eq!(tracker.snapshot(at(30_000)).waiting_for.len(), 1);
        assert!((first.elapsed_seconds - 7_229.0).abs() < 1e-9);
    }

    #[test]
    fn it_ended_when_the_object_says_so_however_late_that_was_seen_and_nothing_comes_after() {
        let mut tracker = running();
        let failed = Told {
            phase: Phase::Failed,
            stage: Stage::Done,
            ended_at: Some(at(9_000)),
            failure_reason: Some("the bucket is gone".to_owned()),
            numbers: Numbers { warnings: 3, errors: 1, ..told(7, 12).numbers },
            ..told(7, 12)
        };
        assert!(tracker.tell(&failed, at(60_000)));
        let ended = tracker.snapshot(at(90_000));
        assert!((ended.elapsed_seconds - 9.0).abs() < 1e-9, "{ended:?}");
        assert_eq!((ended.warnings, ended.errors, ended.items_per_second), (3, 1, None));
        assert_eq!(ended.failure_reason.as_deref(), Some("the bucket is gone"));
        assert!(!tracker.tell(&told(99, 100), at(61_000)));
        assert_eq!(tracker.snapshot(at(90_000)), ended);
    }
}
