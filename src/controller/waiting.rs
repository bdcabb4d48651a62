//! The phases that wait for asynchronous operations (restore-semantics 1.6 and 5.14): asks about them when something
//! changed, and in regular intervals besides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::conclude::Conclusion;
use super::execute::Executor;
use super::halt::Halt;
use super::operations::{self, Counts, Look};
use super::status;
use super::upload::Uploads;
use crate::engine::DataDownloads;
use crate::engine::events::{Event, Events};
use crate::engine::operations::{Operations, Progress};
use crate::model::{self, Bucket, Finding, Phase, Reason, Results, Severity, Stage, Waiting};
use crate::progress::RestoreProgress;
use crate::velero::volume_info::ItemOperation;

/// Changes that come closer together are looked at together.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// No operation runs any more; the phase is the next one.
    Over,
    /// The Backup is gone, and with it whatever the operations read.
    BackupGone,
    /// It was told to stop.
    Stopped,
}

/// What the wait needs from outside, apart from the operations: a seam for tests of its times.
#[async_trait::async_trait]
pub(super) trait Outside: Send + Sync {
    /// Whether the Backup is known to be gone.
    async fn backup_is_gone(&self) -> bool;

    /// Puts these files into the location; `false` when they must be put there again.
    async fn upload(&self, operations: &[ItemOperation], results: &Results) -> bool;

    /// Keeps operations that are newer than their file, for whoever asks for the file.
    async fn keep(&self, operations: &[ItemOperation]);

    /// Writes the phase and the counts.
    async fn write(&self, phase: Phase, warnings: usize, errors: usize, counts: Counts);
}

/// Asks each operation that runs once, and tells those that took too long to stop; gives the errors.
pub(super) async fn look(
    port: &dyn Operations,
    operations: &mut [ItemOperation],
    timeout: Duration,
    now: Timestamp,
) -> Vec<String> {
    let places = operations::running(operations);
    if places.is_empty() {
        return Vec::new();
    }
    let asked: Vec<_> =
        places.iter().filter_map(|&place| operations.get(place)).map(|one| operations::asked(one)).collect();
    let answers: Vec<Result<Progress, _>> = port.progress(&asked).await;
    let answers = places.into_iter().zip(answers).collect();
    let Look { errors, overdue } = operations::advance(operations, answers, timeout, now);
    for operation in overdue.into_iter().filter_map(|place| operations.get(place)) {
        let asked = operations::asked(operation);
        if let Err(error) = port.cancel(asked).await {
            tracing::warn!(operation = asked.id, %error, "an operation that took too long could not be told to stop");
        }
    }
    errors
}

/// Files the errors of operations. Velero counts those that come later only; here they are in the results as well.
pub(super) fn file(errors: Vec<String>, results: &mut Results, events: &dyn Events) {
    for error in errors {
        let message = format!("error from restore item operation: {error}");
        let finding = Finding { severity: Severity::Error, bucket: Bucket::Velero, message };
        events.emit(Event::Finding(finding.clone(), Reason::Other));
        results.add(finding);
    }
}

/// Tells how many operations there are and how they ended.
pub(super) fn tell(operations: &[ItemOperation], events: &dyn Events) {
    let counts = Counts::of(operations);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let counts = model::Counts {
        pending: count(counts.running()),
        created: count(counts.completed),
        failed: count(counts.failed),
        ..model::Counts::default()
    };
    events.emit(Event::Counts(Stage::PluginOperations, counts));
}

/// A restore whose operations are waited for.
pub(super) struct Wait<'a> {
    pub(super) operations: &'a mut Vec<ItemOperation>,
    pub(super) results: &'a mut Results,
    pub(super) events: &'a dyn Events,
    pub(super) timeout: Duration,
    /// How often they are asked without an occasion.
    pub(super) every: Duration,
    /// Whether the files in the location are those of this moment.
    pub(super) uploaded: bool,
}

impl Wait<'_> {
    /// Waits until no operation runs, and writes what they come to on the way.
    ///
    /// `now` is the wall clock; times between looks are tokio's.
    pub(super) async fn until_over(
        mut self,
        port: &dyn Operations,
        outside: &dyn Outside,
        now: impl Fn() -> Timestamp + Send + Sync,
        stop: &CancellationToken,
    ) -> Waited {
        let mut announced = Announced { events: self.events, waits: BTreeMap::new() };
        let mut changes = port.changes();
        let mut ticks = tokio::time::interval(self.every.max(LEAST_PAUSE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once: after a restart nobody has asked yet.
        let mut is_first = true;
        announced.become_those(self.operations);
        loop {
            let is_regular = tokio::select! {
                _ = ticks.tick() => true,
                Some(()) = changes.next() => false,
                () = stop.cancelled() => return Waited::Stopped,
            };
            if is_regular && !is_first && outside.backup_is_gone().await {
                return Waited::BackupGone;
            }
            is_first = false;
            let before = Counts::of(self.operations);
            // Given up in the middle it loses nothing: whoever takes this up asks again.
            let errors = tokio::select! {
                errors = look(port, self.operations, self.timeout, now()) => errors,
                () = stop.cancelled() => return Waited::Stopped,
            };
            let failed = !errors.is_empty();
            file(errors, self.results, self.events);
            tell(self.operations, self.events);
            announced.become_those(self.operations);
            let counts = Counts::of(self.operations);
            let over = counts.running() == 0;
            // Other changes stay in memory, as in Velero: whoever takes this up again asks anew.
            if failed || over || !self.uploaded {
                self.uploaded = outside.upload(self.operations, self.results).await;
                if over && !self.uploaded && stop.is_cancelled() {
                    return Waited::Stopped;
                }
            } else {
                outside.keep(self.operations).await;
            }
            let (warnings, errors) = (self.results.warnings.count(), self.results.errors.count());
            let phase = match (over, errors > 0) {
                (false, false) => Phase::WaitingForPluginOperations,
                (false, true) => Phase::WaitingForPluginOperationsPartiallyFailed,
                (true, false) => Phase::Finalizing,
                (true, true) => Phase::FinalizingPartiallyFailed,
            };
            if over || failed || counts != before {
                outside.write(phase, warnings, errors, counts).await;
            }
            if over {
                return Waited::Over;
            }
            tokio::select! {
                () = tokio::time::sleep(LEAST_PAUSE) => {}
                () = stop.cancelled() => return Waited::Stopped,
            }
        }
    }
}

/// What is announced as being waited for; over when it goes out of scope.
struct Announced<'a> {
    events: &'a dyn Events,
    waits: BTreeMap<String, Waiting>,
}

impl Announced<'_> {
    fn become_those(&mut self, operations: &[ItemOperation]) {
        let wait = |operation: &ItemOperation| {
            let item = &operation.spec.resource_identifier;
            let group = if item.group.is_empty() { String::new() } else { format!(".{}", item.group) };
            let namespace = if item.namespace.is_empty() { String::new() } else { format!("{}/", item.namespace) };
            let waiting = Waiting {
                object: format!("operation {}", operation.spec.operation_id),
                request: format!(
                    "wait until {} is done with {}{group} {namespace}{}",
                    operation.spec.restore_item_action, item.resource, item.name
                ),
                reason: Some(operations::describe(operation)),
            };
            (waiting.object.clone(), waiting)
        };
        let running = operations::running(operations).into_iter().filter_map(|place| operations.get(place));
        let wanted: BTreeMap<String, Waiting> = running.map(wait).collect();
        self.waits.retain(|object, waiting| {
            let stays = wanted.get(object) == Some(waiting);
            if !stays {
                self.events.emit(Event::WaitOver(object.clone()));
            }
            stays
        });
        for (object, waiting) in wanted {
            if !self.waits.contains_key(&object) {
                self.events.emit(Event::Wait(waiting.clone()));
                self.waits.insert(object, waiting);
            }
        }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.become_those(&[]);
    }
}

/// The outside of a restore that runs.
struct Written<'a> {
    executor: &'a Executor,
    conclusion: &'a super::conclude::Place,
    followed: &'a Arc<RestoreProgress>,
    stop: &'a CancellationToken,
}

#[async_trait::async_trait]
impl Outside for Written<'_> {
    async fn backup_is_gone(&self) -> bool {
        let found = self.executor.records.backup_if_there(&self.conclusion.backup).await;
        // A failure to ask says nothing.
        matches!(found, Ok(None))
    }

    async fn upload(&self, operations: &[ItemOperation], results: &Results) -> bool {
        let (location, name) = (&self.conclusion.location, self.conclusion.name.as_str());
        let once = Uploads { location, restore: name, events: &**self.followed, patient: false, stop: self.stop };
        // Those that run are asked again soon, and uploaded with what came to pass by then. The last state has no next
        // time, so it is there before the next phase.
        let is_last = operations::running(operations).is_empty();
        let uploads = Uploads { patient: is_last, ..once };
        let are_results_there = uploads.results(results).await.is_ok();
        // Held meanwhile, so that whoever answers a DownloadRequest does not put an older state over this one.
        let held = self.executor.unsaved.hold(name).await;
        if once.operations(operations).await.is_ok() {
            held.saved();
            return are_results_there;
        }
        held.keep(operations.to_vec());
        // Not held for as long as the location is down: whoever answers puts the same last state there.
        is_last && uploads.operations(operations).await.is_ok() && are_results_there
    }

    async fn keep(&self, operations: &[ItemOperation]) {
        self.executor.unsaved.hold(&self.conclusion.name).await.keep(operations.to_vec());
    }

    async fn write(&self, phase: Phase, warnings: usize, errors: usize, counts: Counts) {
        let patch = status::after_items(phase, warnings, errors, counts);
        self.executor.records.patch_for_good(&self.conclusion.name, &patch, self.stop).await;
        self.followed.set_phase(phase);
    }
}

impl Executor {
    /// Those who answer for the operations of this restore.
    pub(super) fn operations_of(&self, restore_uid: &str) -> DataDownloads {
        DataDownloads::new(Arc::clone(&self.cluster), self.records.namespace(), restore_uid)
    }

    /// Waits until no operation of the restore runs.
    ///
    /// # Cancellation
    /// When it is given up or cancelled, the Restore is left in the phase it is in.
    pub(super) async fn await_operations(&self, conclusion: &mut Conclusion, halt: &Halt) -> Waited {
        let followed = Arc::clone(conclusion.followed());
        followed.emit(Event::Stage(Stage::PluginOperations));
        let restore = conclusion.restore().clone();
        let port = self.operations_of(restore.metadata.uid.as_deref().unwrap_or_default());
        let (place, operations, results, uploaded) = conclusion.parts();
        let wait = Wait {
            operations,
            results,
            events: &*followed,
            timeout: operations::timeout(&restore),
            every: self.item_operation_sync_frequency,
            uploaded,
        };
        let outside = Written { executor: self, conclusion: place, followed: &followed, stop: halt.given_up() };
        let waited = wait.until_over(&port, &outside, Timestamp::now, halt.work()).await;
        self.unsaved.forget(&outside.conclusion.name);
        waited
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use futures::stream::{self, BoxStream};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::engine::operations::{Asked, Error, Operation};
    use crate::model::GroupResource;
    use crate::velero::Restore;

    const EVERY: Duration = Duration::from_secs(10);
    const HOUR: Duration = Duration::from_secs(3600);

    fn operation(id: &str) -> ItemOperation {
        let operation = Operation {
            action: "a".to_owned(),
            id: id.to_owned(),
            group_resource: GroupResource::parse("persistentvolumeclaims"),
            namespace: "app".to_owned(),
            name: id.to_owned(),
            created: Timestamp::UNIX_EPOCH,
        };
        operations::started(operation, &Restore::default())
    }

    fn runs(done: i64) -> Result<Progress, Error> {
        let started = Some(Timestamp::UNIX_EPOCH);
        Ok(Progress { done, total: 9, units: "Bytes".to_owned(), started, ..Progress::default() })
    }

    fn over(error: &str) -> Result<Progress, Error> {
        Ok(Progress { completed: true, error: error.to_owned(), ..Progress::default() })
    }

    /// Gives each operation's next answer, the last one again and again, and writes down what was done and when.
    struct Script {
        began: Instant,
        answers: Mutex<BTreeMap<String, VecDeque<Result<Progress, Error>>>>,
        changes: Mutex<Option<mpsc::Receiver<()>>>,
        /// The Backup is gone from this second on.
        gone_after: Option<u64>,
        /// So many uploads fail.
        broken_uploads: Mutex<u32>,
        told: Mutex<Vec<String>>,
    }

    impl Script {
        fn new<const N: usize>(answers: [(&str, Vec<Result<Progress, Error>>); N]) -> Self {
            Self {
                began: Instant::now(),
                answers: Mutex::new(answers.into_iter().map(|(id, all)| (id.to_owned(), all.into())).collect()),
                changes: Mutex::default(),
                gone_after: None,
                broken_uploads: Mutex::new(0),
                told: Mutex::default(),
            }
        }

        fn tell(&self, what: impl std::fmt::Display) {
            self.told.lock().unwrap().push(format!("{} {what}", self.began.elapsed().as_secs()));
        }

        async fn play(&self, operations: &mut Vec<ItemOperation>, timeout: Duration) -> (Waited, Vec<String>) {
            self.play_until(operations, timeout, &CancellationToken::new()).await
        }

        async fn play_until(
            &self,
            operations: &mut Vec<ItemOperation>,
            timeout: Duration,
            stop: &CancellationToken,
        ) -> (Waited, Vec<String>) {
            let mut results = Results::default();
            let wait = Wait { operations, results: &mut results, events: self, timeout, every: EVERY, uploaded: true };
            let now = || Timestamp::UNIX_EPOCH + self.began.elapsed();
            let waited = wait.until_over(self, self, now, stop).await;
            (waited, self.told.lock().unwrap().clone())
        }
    }

    #[async_trait::async_trait]
    impl Operations for Script {
        async fn progress(&self, operations: &[Asked<'_>]) -> Vec<Result<Progress, Error>> {
            let mut answers = self.answers.lock().unwrap();
            let ids: Vec<&str> = operations.iter().map(|asked| asked.id).collect();
            self.tell(format!("ask {}", ids.join(" ")));
            let mut next = |asked: &Asked<'_>| {
                let answers = answers.get_mut(asked.id).unwrap();
                if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
            };
            operations.iter().map(&mut next).collect()
        }

        async fn cancel(&self, operation: Asked<'_>) -> Result<(), Error> {
            self.tell(format!("cancel {}", operation.id));
            Ok(())
        }

        fn changes(&self) -> BoxStream<'_, ()> {
            let Some(receiver) = self.changes.lock().unwrap().take() else { return stream::pending().boxed() };
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|()| ((), receiver)) })
                .chain(stream::pending())
                .boxed()
        }
    }

    #[async_trait::async_trait]
    impl Outside for Script {
        async fn backup_is_gone(&self) -> bool {
            self.gone_after.is_some_and(|second| self.began.elapsed().as_secs() >= second)
        }

        async fn upload(&self, operations: &[ItemOperation], results: &Results) -> bool {
            let phases: Vec<&str> = operations.iter().map(|operation| operation.status.phase.as_str()).collect();
            self.tell(format!("upload {} and {} errors", phases.join(" "), results.errors.count()));
            let mut broken = self.broken_uploads.lock().unwrap();
            let is_broken = *broken > 0;
            *broken = broken.saturating_sub(1);
            !is_broken
        }

        async fn keep(&self, _: &[ItemOperation]) {}

        async fn write(&self, phase: Phase, _: usize, errors: usize, counts: Counts) {
            let Counts { attempted, completed, failed } = counts;
            self.tell(format!("write {} errors {errors} of {attempted}: {completed} + {failed}", phase.as_str()));
        }
    }

    impl Events for Script {
        fn emit(&self, event: Event) {
            match event {
                Event::Wait(waiting) => self.tell(format!("wait {}: {}", waiting.object, waiting.reason.unwrap())),
                Event::WaitOver(object) => self.tell(format!("over {object}")),
                Event::Finding(finding, _) => self.tell(format!("find {}", finding.message)),
                _ => {}
            }
        }
    }

    fn without_waits(told: &[String]) -> Vec<&str> {
        told.iter().map(String::as_str).filter(|line| !line.contains("wait ") && !line.contains("over ")).collect()
    }

    /// restore-semantics 5.14 and 1.6.
    #[tokio::test(start_paused = true)]
    async fn they_are_asked_each_ten_seconds_and_only_ends_are_written() {
        let script = Script::new([("a", vec![runs(1), runs(5), over("")]), ("b", vec![runs(1), over("")])]);
        let mut operations = ["a", "b"].map(operation).to_vec();
        let (waited, told) = script.play(&mut operations, HOUR).await;
        assert_eq!(waited, Waited::Over);
        assert_eq!(
            without_waits(&told),
            [
                "0 ask a b",
                "10 ask a b",
                "10 write WaitingForPluginOperations errors 0 of 2: 1 + 0",
                "20 ask a",
                "20 upload Completed Completed and 0 errors",
                "20 write Finalizing errors 0 of 2: 2 + 0",
            ]
        );
        // What is waited for is told with how far it is, and taken back.
        let of_a: Vec<&String> = told.iter().filter(|line| line.contains("operation a")).collect();
        assert_eq!(
            of_a,
            [
                "0 wait operation a: New",
                "0 over operation a",
                "0 wait operation a: InProgress, 1 of 9 bytes",
                "10 over operation a",
                "10 wait operation a: InProgress, 5 of 9 bytes",
                "20 over operation a"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_changes_the_phase_at_once_and_stands_in_the_results() {
        let script = Script::new([("a", vec![over("no space")]), ("b", vec![runs(1), over("")])]);
        let mut operations = ["a", "b"].map(operation).to_vec();
        let (waited, told) = script.play(&mut operations, HOUR).await;
        assert_eq!(waited, Waited::Over);
        assert_eq!(
            without_waits(&told),
            [
                "0 ask a b",
                "0 find error from restore item operation: no space",
                "0 upload Failed InProgress and 1 errors",
                "0 write WaitingForPluginOperationsPartiallyFailed errors 1 of 2: 0 + 1",
                "10 ask b",
                "10 upload Failed Completed and 1 errors",
                "10 write FinalizingPartiallyFailed errors 1 of 2: 1 + 1",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_too_long_is_told_to_stop_and_the_restore_goes_on() {
        let script = Script::new([("a", vec![runs(1)])]);
        let mut operations = vec![operation("a")];
        let (waited, told) = script.play(&mut operations, Duration::from_secs(25)).await;
        assert_eq!(waited, Waited::Over);
        let told = without_waits(&told);
        assert_eq!(
            told[told.len() - 4..],
            [
                "30 cancel a",
                "30 find error from restore item operation: Asynchronous action timed out",
                "30 upload Failed and 1 errors",
                "30 write FinalizingPartiallyFailed errors 1 of 1: 0 + 1",
            ]
        );
        assert_eq!(told.iter().filter(|line| line.ends_with("ask a")).count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_looked_at_when_it_comes_and_many_within_a_second_together() {
        let (changed, receiver) = mpsc::channel(8);
        let script = Script {
            changes: Mutex::new(Some(receiver)),
            ..Script::new([("a", vec![runs(1), runs(2), runs(3), over("")])])
        };
        let changes = async {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            for _ in 0..3 {
                changed.send(()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        let mut operations = vec![operation("a")];
        let played = async { script.play(&mut operations, HOUR).await };
        let (waited, told) = tokio::select! {
            played = played => played,
            () = changes => panic!("it goes on"),
        };
        assert_eq!(waited, Waited::Over);
        let asked: Vec<&str> = without_waits(&told).into_iter().filter(|line| line.ends_with("ask a")).collect();
        assert_eq!(asked, ["0 ask a", "2 ask a", "3 ask a", "4 ask a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_could_not_be_uploaded_is_uploaded_again() {
        let script = Script {
            broken_uploads: Mutex::new(1),
            ..Script::new([("a", vec![over("x")]), ("b", vec![runs(1), runs(2), over("")])])
        };
        let (_, told) = script.play(&mut ["a", "b"].map(operation).to_vec(), HOUR).await;
        let uploads: Vec<&str> = without_waits(&told).into_iter().filter(|line| line.contains("upload")).collect();
        assert_eq!(
            uploads,
            [
                "0 upload Failed InProgress and 1 errors",
                "10 upload Failed InProgress and 1 errors",
                "20 upload Failed Completed and 1 errors",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_backup_and_with_the_service() {
        let script = Script { gone_after: Some(20), ..Script::new([("a", vec![runs(1)])]) };
        assert_eq!(script.play(&mut vec![operation("a")], HOUR).await.0, Waited::BackupGone);
        assert_eq!(script.began.elapsed(), Duration::from_secs(20));

        let (script, stop) = (Script::new([("a", vec![runs(1)])]), CancellationToken::new());
        let later = async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            stop.cancel();
        };
        let mut operations = vec![operation("a")];
        let ((waited, told), ()) = tokio::join!(script.play_until(&mut operations, HOUR, &stop), later);
        assert_eq!(waited, Waited::Stopped);
        assert_eq!(told.last().unwrap(), "15 over operation a", "what was announced is taken back");
        assert!(!told.iter().any(|line| line.contains("write")), "{told:?}");
    }
}
