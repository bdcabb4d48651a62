//! Writing a restore's files back to the location, under Velero's keys (restore-semantics 9.1 to 9.3). Nothing is written
//! to a location that is read-only.
//!
//! A location that does not answer delays a file and costs nothing else: it is tried until it is there. What the location
//! refuses for good is not repeated.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::stores::OpenLocation;
use crate::engine::Report;
use crate::engine::events::{Event, Events, LogLevel};
use crate::engine::retry::Backoff;
use crate::model::{Bucket, Finding, Reason, Results, Severity, Waiting, error_chain};
use crate::progress::RestoreProgress;
use crate::storage::files;
use crate::velero::volume_info::{ItemOperation, RestoreVolumeInfo};

/// Pauses between the tries, as for the status: up to 30 s. The client of the store has its own few tries beneath each.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(30),
    tries: u32::MAX,
    outage: Duration::MAX,
    conflicts: true,
};

/// What a try that is under way may still take when the service goes down: less than the service waits for its work.
const LAST_TRY: Duration = Duration::from_secs(5);

/// Why a file is not in the location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfiled {
    /// It was told to stop before the location took the file.
    Stopped,
    /// The location does not take it, and why.
    Refused(String),
}

/// The uploads of one restore.
#[derive(Clone, Copy)]
pub(super) struct Uploads<'a> {
    /// Where to.
    pub(super) location: &'a OpenLocation,
    /// Name of the Restore.
    pub(super) restore: &'a str,
    /// Who is told what is waited for.
    pub(super) events: &'a dyn Events,
    /// Whether a failure that may pass is outlasted, or told as any other.
    pub(super) patient: bool,
    /// Ends the tries.
    pub(super) stop: &'a CancellationToken,
}

impl Uploads<'_> {
    /// Uploads the log, which must be sealed.
    ///
    /// # Errors
    /// When the location did not take it.
    pub(super) async fn log(&self, followed: &RestoreProgress) -> Result<(), Unfiled> {
        if self.location.read_only {
            return Ok(());
        }
        let reader = followed.log_reader();
        let compressed = tokio::task::spawn_blocking(move || files::log(reader)).await;
        let compressed = compressed.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.put(self.location.layout.restore_log(self.restore), compressed).await
    }

    /// Uploads results, resource list, item operations and volume info, in this order. One that is refused is told as a
    /// warning, and keeps none of the others from being uploaded. Says whether the operations are there: those that still
    /// run are needed after a restart.
    ///
    /// # Errors
    /// When it was told to stop.
    pub(super) async fn files(
        &self,
        report: &Report,
        results: &mut Results,
        operations: &[ItemOperation],
        volumes: &[RestoreVolumeInfo],
    ) -> Result<bool, Unfiled> {
        let layout = &self.location.layout;
        let are_results_there = self.or_finding(self.results(results).await, "results", results)?;
        let filed = results.warnings.count();
        let put = self.put(layout.restore_resource_list(self.restore), files::resource_list(&report.resource_list));
        self.or_finding(put.await, "resource list", results)?;
        let is_list_there = self.or_finding(self.operations(operations).await, "item operations", results)?;
        let put = self.put(layout.restore_volume_info(self.restore), files::volume_info(volumes));
        self.or_finding(put.await, "volume info", results)?;
        if are_results_there && results.warnings.count() > filed {
            // What was refused since is one of them.
            self.or_finding(self.results(results).await, "results", results)?;
        }
        Ok(is_list_there)
    }

    /// Uploads the results alone.
    ///
    /// # Errors
    /// When the location did not take them.
    pub(super) async fn results(&self, results: &Results) -> Result<(), Unfiled> {
        self.put(self.location.layout.restore_results(self.restore), files::results(results)).await
    }

    /// Uploads the item operations alone.
    ///
    /// # Errors
    /// When the location did not take them.
    pub(super) async fn operations(&self, operations: &[ItemOperation]) -> Result<(), Unfiled> {
        self.put(self.location.layout.restore_item_operations(self.restore), files::item_operations(operations)).await
    }

    /// Records that a file was refused, while the counts of the restore are still open; says whether the file is there.
    ///
    /// # Errors
    /// When it was told to stop.
    pub(super) fn or_finding(
        &self,
        put: Result<(), Unfiled>,
        what: &str,
        results: &mut Results,
    ) -> Result<bool, Unfiled> {
        let Err(unfiled) = put else { return Ok(true) };
        let Unfiled::Refused(error) = unfiled else { return Err(unfiled) };
        let message = format!("error uploading {what} to backup storage: {error}");
        self.record(Severity::Warning, message, results);
        Ok(false)
    }

    /// Records a finding about the uploads.
    pub(super) fn record(&self, severity: Severity, message: String, results: &mut Results) {
        let finding = Finding { severity, bucket: Bucket::Velero, message };
        self.events.emit(Event::Finding(finding.clone(), Reason::Other));
        results.add(finding);
    }

    /// Uploads a file; nothing is left to do about it where the location takes none.
    async fn put(&self, key: String, content: io::Result<Bytes>) -> Result<(), Unfiled> {
        if self.location.read_only {
            return Ok(());
        }
        let content = content.map_err(|error| Unfiled::Refused(error.to_string()))?;
        let mut wait = Announced { events: self.events, waiting: None };
        let mut tries = 0_u32;
        loop {
            let stored = tokio::select! {
                stored = self.location.store.put(&key, content.clone()) => stored,
                () = async {
                    self.stop.cancelled().await;
                    tokio::time::sleep(LAST_TRY).await;
                } => return Err(Unfiled::Stopped),
            };
            let Err(error) = stored else { return Ok(()) };
            let message = error_chain(&error);
            if !self.patient || !error.is_retryable() {
                tracing::error!(restore = self.restore, key, error = message, "a file of the restore was not uploaded");
                return Err(Unfiled::Refused(message));
            }
            tries = tries.saturating_add(1);
            // Without a random source the pause is merely not spread.
            let pause = BACKOFF.delay(tries, getrandom::u32().unwrap_or(u32::MAX));
            tracing::warn!(restore = self.restore, key, error = message, ?pause, "an upload failed; trying again");
            wait.becomes(Waiting {
                object: format!("backup storage location {}", self.location.name),
                request: format!("upload {key}"),
                reason: Some(message),
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(Unfiled::Stopped),
            }
        }
    }
}

/// What is announced as being waited for; over when it goes out of scope.
struct Announced<'a> {
    events: &'a dyn Events,
    waiting: Option<Waiting>,
}

impl Announced<'_> {
    fn becomes(&mut self, waiting: Waiting) {
        if self.waiting.as_ref() != Some(&waiting) {
            self.end();
            self.events.emit(Event::Wait(waiting.clone()));
            self.waiting = Some(waiting);
        }
    }

    fn end(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.events.emit(Event::WaitOver(waiting.object));
        }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says in the restore's log that it leaves no files, where that is so.
pub(super) fn tell_read_only(location: &OpenLocation, followed: &RestoreProgress) {
    if location.read_only {
        let message = format!(
            "backup storage location {:?} is read-only (spec.accessMode): log, results and lists of this restore are not \
             uploaded, and are known only as long as this service runs",
            location.name
        );
        followed.log(LogLevel::Warning, "controller", &message);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;
    use crate::progress::{Hub, Options};
    use crate::storage::testing::Probe;
    use crate::storage::{BackupStore, Layout, ObjectBackupStore};

    /// In the order in which they are uploaded (restore-semantics 9.1).
    const ORDER: [&str; 4] = [
        "restores/r/restore-r-results.gz",
        "restores/r/restore-r-resource-list.json.gz",
        "restores/r/restore-r-itemoperations.json.gz",
        "restores/r/r-volumeinfo.json.gz",
    ];

    /// Writes down what it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<Event>>);

    impl Events for Told {
        fn emit(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Told {
        fn findings(&self) -> usize {
            self.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Finding(..))).count()
        }
    }

    /// What follows the first `failures` writes is kept in the memory that is given back.
    fn location(probe: impl FnOnce(Probe) -> Probe) -> (OpenLocation, Arc<Probe>, Arc<dyn BackupStore>) {
        let memory: Arc<dyn BackupStore> = Arc::new(ObjectBackupStore::memory());
        let probe = Arc::new(probe(Probe::new(Arc::clone(&memory))));
        let store = Arc::clone(&probe) as _;
        (OpenLocation { store, layout: Layout::new(""), name: "default".to_owned(), read_only: false }, probe, memory)
    }

    fn uploads<'a>(location: &'a OpenLocation, events: &'a Told, stop: &'a CancellationToken) -> Uploads<'a> {
        Uploads { location, restore: "r", events, patient: true, stop }
    }

    /// restore-semantics 9.1: in this order; a file that is refused keeps none of the others from it.
    #[tokio::test(start_paused = true)]
    async fn files_are_uploaded_in_order_and_each_for_itself() {
        for failures in 0..=4_usize {
            let (location, probe, held) = location(|probe| probe.refusing(u32::try_from(failures).unwrap()));
            let (told, stop, mut results) = (Told::default(), CancellationToken::new(), Results::default());
            let uploads = uploads(&location, &told, &stop);
            let is_list_there = uploads.files(&Report::default(), &mut results, &[], &[]).await.unwrap();
            let mut expected = ORDER[failures..].to_vec();
            expected.sort_unstable();
            assert_eq!(held.list("").await.unwrap(), expected, "after {failures} refusals");
            assert_eq!((is_list_there, probe.calls("put")), (failures < 3, 4), "nothing is repeated");
            assert_eq!((results.warnings.count(), told.findings()), (failures, failures), "each is a finding");
            assert_eq!(results.errors.count(), 0);
        }
    }

    /// velero-differences: files-are-uploaded-until-they-are-there
    #[tokio::test(start_paused = true)]
    async fn files_wait_for_a_location_that_is_down_and_say_so() {
        let (location, probe, held) = location(|probe| probe.failing(300));
        let (told, stop, mut results) = (Told::default(), CancellationToken::new(), Results::default());
        let began = Instant::now();
        uploads(&location, &told, &stop).files(&Report::default(), &mut results, &[], &[]).await.unwrap();
        let mut expected = ORDER.to_vec();
        expected.sort_unstable();
        assert_eq!(held.list("").await.unwrap(), expected);
        assert_eq!((probe.calls("put"), results.clone()), (304, Results::default()), "a delay is no finding");
        assert!(began.elapsed() > Duration::from_secs(290 * 15), "it is not asked all the time");
        let object = "backup storage location default".to_owned();
        let told = told.0.into_inner().unwrap();
        let [Event::Wait(wait), over] = &told[..] else { panic!("one wait, told once: {told:?}") };
        assert_eq!((&wait.object, over), (&object, &Event::WaitOver(object.clone())));
        assert_eq!(wait.request, format!("upload {}", ORDER[0]));
        assert!(wait.reason.as_ref().unwrap().contains("made to fail"), "{wait:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_tries_end_when_it_is_told_to_stop_and_take_back_what_they_told() {
        let (location, _, held) = location(|probe| probe.failing(u32::MAX));
        let (told, stop) = (Told::default(), CancellationToken::new());
        let uploads = uploads(&location, &told, &stop);
        let later = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            stop.cancel();
        };
        let results = Results::default();
        let (put, ()) = tokio::join!(uploads.results(&results), later);
        assert_eq!(put, Err(Unfiled::Stopped));
        assert!(matches!(told.0.lock().unwrap().last(), Some(Event::WaitOver(_))));
        assert!(held.list("").await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_on_its_way_when_it_is_told_to_stop_arrives_if_that_takes_no_long() {
        for (seconds, arrives) in [(4, true), (6, false)] {
            let (location, _, held) = location(|probe| probe.delayed(Duration::from_secs(seconds)));
            let (told, stop) = (Told::default(), CancellationToken::new());
            stop.cancel();
            let put = uploads(&location, &told, &stop).results(&Results::default()).await;
            assert_eq!(put, if arrives { Ok(()) } else { Err(Unfiled::Stopped) });
            assert_eq!(!held.list("").await.unwrap().is_empty(), arrives);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_patience_is_told_at_once() {
        let (location, probe, _) = location(|probe| probe.failing(1));
        let (told, stop) = (Told::default(), CancellationToken::new());
        let uploads = Uploads { patient: false, ..uploads(&location, &told, &stop) };
        assert!(matches!(uploads.operations(&[]).await, Err(Unfiled::Refused(_))));
        assert_eq!((probe.calls("put"), told.0.lock().unwrap().len()), (1, 0));
    }

    /// restore-semantics 9.1: that the log was refused is told, as it is an error of the restore.
    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_refused_is_told_and_one_that_is_delayed_arrives() {
        let hub = Hub::new(Options::default(), CancellationToken::new());
        let followed = hub.create(&"r".parse().unwrap()).unwrap();
        followed.seal_log();
        let (told, stop) = (Told::default(), CancellationToken::new());
        let (refusing, ..) = location(|probe| probe.refusing(1));
        assert!(matches!(uploads(&refusing, &told, &stop).log(&followed).await, Err(Unfiled::Refused(_))));
        let (failing, _, held) = location(|probe| probe.failing(5));
        uploads(&failing, &told, &stop).log(&followed).await.unwrap();
        assert_eq!(held.list("").await.unwrap(), ["restores/r/restore-r-logs.gz"]);
    }
}
