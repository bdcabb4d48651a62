//! The asynchronous operations of a restore, as a state machine without I/O: answers in, the next state and what is to be
//! done about it out (restore-semantics 5.14, plugin-protocol 8.5).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::engine::operations::{Asked, Error, Operation, Progress};
use crate::model::GoDuration;
use crate::velero::Restore;
use crate::velero::volume_info::{ItemOperation, ItemOperationSpec, ItemOperationStatus, ResourceIdentifier};

const NEW: &str = "New";
const IN_PROGRESS: &str = "InProgress";
const COMPLETED: &str = "Completed";
const FAILED: &str = "Failed";

/// What Velero says of an operation that took too long; tools may look for it.
const TIMED_OUT: &str = "Asynchronous action timed out";

/// Time given to operations where the Restore does not say, which an accepted one always does.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// How many operations there are, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) attempted: usize,
    pub(super) completed: usize,
    pub(super) failed: usize,
}

impl Counts {
    pub(super) fn of(operations: &[ItemOperation]) -> Self {
        let count = |phase: &str| operations.iter().filter(|operation| operation.status.phase == phase).count();
        Self { attempted: operations.len(), completed: count(COMPLETED), failed: count(FAILED) }
    }

    pub(super) fn running(self) -> usize {
        self.attempted - self.completed - self.failed
    }
}

/// What a look at the operations came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Why operations failed that ran before.
    pub(super) errors: Vec<String>,
    /// Those, by their places in the list, that took too long and are to be told to stop.
    pub(super) overdue: Vec<usize>,
}

/// The record of an operation that an action has just started. Times are in whole seconds, as Kubernetes writes them.
pub(super) fn started(operation: Operation, restore: &Restore) -> ItemOperation {
    let created = Timestamp::from_second(operation.created.as_second()).unwrap_or(operation.created);
    ItemOperation {
        spec: ItemOperationSpec {
            restore_name: restore.metadata.name.clone().unwrap_or_default(),
            restore_uid: restore.metadata.uid.clone().unwrap_or_default(),
            restore_item_action: operation.action,
            resource_identifier: ResourceIdentifier {
                group: operation.group_resource.group().to_owned(),
                resource: operation.group_resource.resource().to_owned(),
                namespace: operation.namespace,
                name: operation.name,
            },
            operation_id: operation.id,
        },
        status: ItemOperationStatus {
            phase: NEW.to_owned(),
            created: Some(Time(created)),
            ..ItemOperationStatus::default()
        },
    }
}

/// How long the operations of this restore may take.
pub(super) fn timeout(restore: &Restore) -> Duration {
    let given = restore.spec.item_operation_timeout.parse::<GoDuration>().ok().and_then(GoDuration::to_std);
    given.filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT)
}

/// The places in the list of those that still run.
pub(super) fn running(operations: &[ItemOperation]) -> Vec<usize> {
    let runs = |operation: &ItemOperation| !matches!(operation.status.phase.as_str(), COMPLETED | FAILED);
    operations.iter().enumerate().filter(|(_, operation)| runs(operation)).map(|(place, _)| place).collect()
}

/// Those that still run have failed, for this reason: their restore has ended.
pub(super) fn give_up(operations: &mut [ItemOperation], reason: &str) {
    for place in running(operations) {
        if let Some(ItemOperation { status, .. }) = operations.get_mut(place) {
            FAILED.clone_into(&mut status.phase);
            reason.clone_into(&mut status.error);
        }
    }
}

/// The operation as its action is asked about it.
pub(super) fn asked(operation: &ItemOperation) -> Asked<'_> {
    Asked { action: &operation.spec.restore_item_action, id: &operation.spec.operation_id }
}

/// What an operation does, in words.
pub(super) fn describe(operation: &ItemOperation) -> String {
    let ItemOperationStatus { phase, n_completed, n_total, operation_units, description, .. } = &operation.status;
    let state = if description.is_empty() { phase } else { description };
    match *n_total {
        0 => state.clone(),
        _ => format!("{state}, {n_completed} of {n_total} {}", operation_units.to_lowercase()),
    }
}

/// Takes in the answers about operations that run, each with its place in the list.
pub(super) fn advance(
    operations: &mut [ItemOperation],
    answers: Vec<(usize, Result<Progress, Error>)>,
    timeout: Duration,
    now: Timestamp,
) -> Look {
    let mut look = Look::default();
    for (place, answer) in answers {
        let Some(ItemOperation { status, .. }) = operations.get_mut(place) else { continue };
        let over = match answer {
            Ok(progress) => take_in(status, progress),
            Err(Error::Lost(message)) => Some(Err(message)),
            // What is not known has neither moved nor ended; its time runs all the same.
            Err(Error::Unreachable(_)) => None,
        };
        let over = over.or_else(|| {
            is_overdue(status, timeout, now).then(|| {
                look.overdue.push(place);
                Err(TIMED_OUT.to_owned())
            })
        });
        match over {
            Some(Ok(())) => COMPLETED.clone_into(&mut status.phase),
            Some(Err(error)) => {
                FAILED.clone_into(&mut status.phase);
                status.error.clone_from(&error);
                look.errors.push(error);
            }
            None if status.started.is_some() => IN_PROGRESS.clone_into(&mut status.phase),
            None => {}
        }
    }
    look
}

/// Copies what is told; gives how it ended, when it did.
fn take_in(status: &mut ItemOperationStatus, progress: Progress) -> Option<Result<(), String>> {
    let Progress { completed, error, done, total, units, description, started, updated } = progress;
    (status.n_completed, status.n_total) = (done, total);
    (status.operation_units, status.description) = (units, description);
    status.started = started.map(Time).or(status.started.take());
    status.updated = updated.map(Time).or(status.updated.take());
    completed.then_some(if error.is_empty() { Ok(()) } else { Err(error) })
}

fn is_overdue(status: &ItemOperationStatus, timeout: Duration, now: Timestamp) -> bool {
    let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
    // One of which nobody knows when it began would be waited for without an end.
    let Some(created) = &status.created else { return true };
    created.0.checked_add(timeout).is_ok_and(|end| end < now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::model::GroupResource;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn restore(timeout: &str) -> Restore {
        serde_json::from_value(
            json!({"metadata": {"name": "r", "uid": "u"}, "spec": {"itemOperationTimeout": timeout}}),
        )
        .unwrap()
    }

    /// Created at second 0.
    fn operation(id: &str) -> ItemOperation {
        let operation = Operation {
            action: "velero.io/csi-pvc-restorer".to_owned(),
            id: id.to_owned(),
            group_resource: GroupResource::parse("persistentvolumeclaims"),
            namespace: "app".to_owned(),
            name: "data".to_owned(),
            created: at(0),
        };
        started(operation, &restore("1h"))
    }

    fn runs(done: i64) -> Progress {
        Progress { done, total: 9, units: "Bytes".to_owned(), started: Some(at(5)), ..Progress::default() }
    }

    fn one(answer: Result<Progress, Error>, now: i64) -> (ItemOperation, Look) {
        let mut operations = [operation("dd-1")];
        let look = advance(&mut operations, vec![(0, answer)], HOUR, at(now));
        let [operation] = operations;
        (operation, look)
    }

    /// restore-semantics 9.3.
    #[test]
    fn a_started_operation_is_written_as_velero_writes_it() {
        assert_eq!(
            serde_json::to_value(operation("dd-1")).unwrap(),
            json!({
                "spec": {"restoreName": "r", "restoreUID": "u", "restoreItemAction": "velero.io/csi-pvc-restorer",
                    "operationID": "dd-1", "resourceIdentifier": {"Group": "", "Resource": "persistentvolumeclaims",
                    "Namespace": "app", "Name": "data"}},
                "status": {"phase": "New", "created": "1970-01-01T00:00:00Z"},
            })
        );
    }

    #[test]
    fn one_that_was_not_taken_up_stays_new_and_one_that_began_is_in_progress() {
        let (new, look) = one(Ok(Progress::default()), 10);
        assert_eq!((new.status.phase.as_str(), look), (NEW, Look::default()));
        let (begun, look) = one(Ok(runs(3)), 10);
        assert_eq!((begun.status.phase.as_str(), look), (IN_PROGRESS, Look::default()));
        assert_eq!((begun.status.n_completed, begun.status.n_total), (3, 9));
        assert_eq!(begun.status.started, Some(Time(at(5))));
        assert_eq!(describe(&begun), "InProgress, 3 of 9 bytes");
    }

    #[test]
    fn one_that_is_over_is_completed_or_failed_with_its_error() {
        let over = |error: &str| Progress { completed: true, error: error.to_owned(), ..runs(9) };
        let (completed, look) = one(Ok(over("")), 10);
        assert_eq!((completed.status.phase.as_str(), look), (COMPLETED, Look::default()));
        let (failed, look) = one(Ok(over("no space")), 10);
        assert_eq!((failed.status.phase.as_str(), failed.status.error.as_str()), (FAILED, "no space"));
        assert_eq!(look, Look { errors: vec!["no space".to_owned()], overdue: Vec::new() });
    }

    #[test]
    fn one_that_nobody_knows_has_failed_and_one_that_cannot_be_asked_has_not() {
        let (lost, look) = one(Err(Error::Lost("gone".to_owned())), 10);
        assert_eq!((lost.status.phase.as_str(), lost.status.error.as_str()), (FAILED, "gone"));
        assert_eq!((look.errors.len(), look.overdue.len()), (1, 0));
        let (unknown, look) = one(Err(Error::Unreachable("busy".to_owned())), 10);
        assert_eq!((unknown.status.phase.as_str(), look), (NEW, Look::default()));
    }

    #[test]
    fn one_that_takes_longer_than_its_time_is_told_to_stop_and_has_failed() {
        for answer in [Ok(runs(3)), Ok(Progress::default()), Err(Error::Unreachable("busy".to_owned()))] {
            let (overdue, look) = one(answer.clone(), 3601);
            assert_eq!((overdue.status.phase.as_str(), overdue.status.error.as_str()), (FAILED, TIMED_OUT));
            assert_eq!(look, Look { errors: vec![TIMED_OUT.to_owned()], overdue: vec![0] });
            let (in_time, look) = one(answer, 3600);
            assert_ne!(in_time.status.phase, FAILED);
            assert_eq!(look, Look::default());
        }
        let (at_the_last_moment, look) = one(Ok(Progress { completed: true, ..runs(9) }), 9999);
        assert_eq!((at_the_last_moment.status.phase.as_str(), look), (COMPLETED, Look::default()));
    }

    #[test]
    fn those_that_have_ended_are_neither_asked_nor_changed() {
        let mut operations = ["a", "b", "c", "d"].map(operation);
        let over = |error: &str| Ok(Progress { completed: true, error: error.to_owned(), ..Progress::default() });
        advance(&mut operations, vec![(0, over("")), (2, over("x"))], HOUR, at(1));
        assert_eq!(running(&operations), [1, 3]);
        let counts = Counts::of(&operations);
        assert_eq!(counts, Counts { attempted: 4, completed: 1, failed: 1 });
        assert_eq!(counts.running(), 2);
    }

    #[test]
    fn the_time_of_a_restore_that_names_none_is_four_hours() {
        assert_eq!(timeout(&restore("90s")), Duration::from_secs(90));
        for text in ["", "0s", "-1s", "soon"] {
            assert_eq!(timeout(&restore(text)), 4 * HOUR, "{text:?}");
        }
    }
}
