//! Observe mode: Velero restores, and this only reports. It reads Restores and their files, and writes nothing at all.
//!
//! What is known of a restore that runs is what its object says: the phase, two numbers at most once a second, and when
//! it began. Each state of the object is read into [`Told`], of which the hub's tracker makes progress that all doors show:
//! what never falls, rate, time left, stalls. Single items are told by files in the backup location, when the restore has ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

use super::decide::phase_of;
use super::{Records, Restores};
use crate::model::{Phase, RestoreName, Stage};
use crate::progress::{Hub, Numbers, RestoreProgress, Told};
use crate::telemetry::metrics::Metrics;
use crate::velero::Restore;

/// Reads a state; `None` where the phase is one of a newer Velero, of which it is not known how far it is.
fn read(restore: &Restore) -> Option<Told> {
    let phase = phase_of(restore)?;
    let status = restore.status.clone().unwrap_or_default();
    let progress = status.progress.unwrap_or_default();
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let numbers = Numbers {
        total_items: count(progress.total_items),
        items_restored: count(progress.items_restored),
        operations: count(status.restore_item_operations_attempted),
        operations_ended: count(status.restore_item_operations_completed)
            .saturating_add(count(status.restore_item_operations_failed)),
        warnings: count(status.warnings),
        errors: count(status.errors),
    };
    Some(Told {
        phase,
        stage: stage(phase, numbers),
        started_at: status.start_timestamp.map(|time| time.0),
        ended_at: status.completion_timestamp.map(|time| time.0),
        failure_reason: (!status.failure_reason.is_empty()).then_some(status.failure_reason),
        numbers,
    })
}

/// The stage that a phase and its numbers speak of. Before the first numbers Velero downloads, plans, and restores
/// CustomResourceDefinitions, and says nothing of which (restore-semantics 6.2); after the last item it may wait for
/// volumes and hooks, and says nothing of that either.
const fn stage(phase: Phase, numbers: Numbers) -> Stage {
    match phase {
        Phase::New => Stage::Queued,
        Phase::InProgress if numbers.total_items == 0 && numbers.items_restored == 0 => Stage::Collecting,
        Phase::InProgress => Stage::Items,
        Phase::WaitingForPluginOperations | Phase::WaitingForPluginOperationsPartiallyFailed => Stage::PluginOperations,
        Phase::Finalizing | Phase::FinalizingPartiallyFailed => Stage::Finalizing,
        Phase::FailedValidation | Phase::Completed | Phase::PartiallyFailed | Phase::Failed => Stage::Done,
    }
}

/// Watches Restores that somebody else executes.
pub struct Observer {
    /// Velero's objects; only read.
    pub records: Records,
    /// What is known of all.
    pub restores: Restores,
    /// Where their progress is told.
    pub hub: Hub,
    /// Counts of them.
    pub metrics: Metrics,
}

/// What was seen of the Restores that are there.
#[derive(Default)]
struct Seen {
    /// UID and phase, by name.
    by_name: HashMap<String, (Option<String>, Phase)>,
    /// Names that the list under way has held so far; `None` between lists.
    listed: Option<HashSet<String>>,
}

impl Observer {
    /// Watches until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut seen = Seen::default();
        let mut events = watcher(self.records.restores(), watcher::Config::default()).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Ok(Some(event)) => self.take_in(event, &mut seen),
                Ok(None) => return,
                Err(error) => tracing::warn!(%error, "watching Restores failed; trying again"),
            }
        }
    }

    fn take_in(&self, event: watcher::Event<Restore>, seen: &mut Seen) {
        match event {
            watcher::Event::Init => seen.listed = Some(HashSet::new()),
            watcher::Event::InitApply(restore) => {
                if let Some(listed) = &mut seen.listed {
                    listed.insert(restore.name_any());
                }
                self.look(restore, seen);
                // Counted when all are known.
                return;
            }
            watcher::Event::InitDone => {
                // What was deleted while nobody watched is told by its absence.
                let listed = seen.listed.take().unwrap_or_default();
                let gone: Vec<String> = seen.by_name.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                for name in gone {
                    self.forget(&name, seen);
                }
                self.restores.set_synced();
            }
            watcher::Event::Apply(restore) => self.look(restore, seen),
            watcher::Event::Delete(restore) => self.forget(&restore.name_any(), seen),
        }
        self.count(seen);
    }

    fn look(&self, restore: Restore, seen: &mut Seen) {
        let (name, uid) = (restore.name_any(), restore.uid());
        if seen.by_name.get(&name).is_some_and(|(known, _)| *known != uid) {
            // Deleted and made anew between two looks.
            self.forget(&name, seen);
        }
        // Before its progress ends: whoever reads the record after the last event must find the end in it.
        let restore = self.restores.remember(restore);
        let (_, phase) = seen.by_name.entry(name.clone()).or_insert((uid, Phase::New));
        let Some(now) = read(&restore) else { return };
        if let Some(followed) = self.followed(&name, now.phase) {
            followed.tell(&now);
            if now.phase.is_terminal() {
                self.took(&now);
            }
        }
        *phase = now.phase;
    }

    /// The progress of a restore; `None` for one that had ended before it was first seen, whose record says it all.
    fn followed(&self, name: &str, phase: Phase) -> Option<Arc<RestoreProgress>> {
        // One may be there already: whoever asks for a restore that is not seen yet begins to follow it.
        if let Some(known) = self.hub.get(name).filter(|known| !known.has_ended()) {
            return Some(known);
        }
        if phase.is_terminal() {
            return None;
        }
        let name: RestoreName = name.parse().ok()?;
        self.hub.create(&name).inspect_err(|error| tracing::debug!(%error, "already followed")).ok()
    }

    fn forget(&self, name: &str, seen: &mut Seen) {
        seen.by_name.remove(name);
        self.restores.forget_named(name);
        self.hub.remove(name);
    }

    fn took(&self, ended: &Told) {
        let times = ended.started_at.zip(ended.ended_at);
        if let Some(took) = times.and_then(|(begun, end)| Duration::try_from(end.duration_since(begun)).ok()) {
            self.metrics.restore_took(ended.phase, took);
        }
    }

    fn count(&self, seen: &Seen) {
        let phases = || seen.by_name.values().map(|(_, phase)| *phase);
        let queued = phases().filter(|phase| *phase == Phase::New).count();
        let running = phases().filter(|phase| *phase != Phase::New && !phase.is_terminal()).count();
        self.metrics.set_restores(seen.by_name.len());
        self.metrics.set_active(running, queued);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::progress::Update;
    use serde_json::{Value, json};

    fn restore(uid: &str, status: &Value) -> Restore {
        serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "Restore",
            "metadata": {"name": "r", "namespace": "velero", "uid": uid}, "spec": {"backupName": "b"}, "status": status,
        }))
        .unwrap()
    }

    fn progress(restored: u64, total: u64) -> Value {
        json!({"phase": "InProgress", "startTimestamp": "2026-01-01T00:00:00Z",
            "progress": {"itemsRestored": restored, "totalItems": total}})
    }

    #[test]
    fn each_phase_has_its_stage_and_before_the_first_numbers_it_is_still_collecting() {
        for (status, stage) in [
            (json!({}), Stage::Queued),
            (json!({"phase": "New"}), Stage::Queued),
            (json!({"phase": "InProgress"}), Stage::Collecting),
            (progress(1, 10), Stage::Items),
            (json!({"phase": "WaitingForPluginOperations"}), Stage::PluginOperations),
            (json!({"phase": "WaitingForPluginOperationsPartiallyFailed"}), Stage::PluginOperations),
            (json!({"phase": "Finalizing"}), Stage::Finalizing),
            (json!({"phase": "FinalizingPartiallyFailed"}), Stage::Finalizing),
            (json!({"phase": "Completed"}), Stage::Done),
            (json!({"phase": "FailedValidation"}), Stage::Done),
        ] {
            assert_eq!(read(&restore("1", &status)).unwrap().stage, stage, "{status}");
        }
        assert_eq!(read(&restore("1", &json!({"phase": "OfTomorrow"}))), None);
    }

    #[test]
    fn all_that_the_object_says_of_its_run_is_read() {
        let status = json!({
            "phase": "Failed", "failureReason": "the bucket is gone", "startTimestamp": "2026-01-01T00:00:00Z",
            "completionTimestamp": "2026-01-01T00:01:00Z", "progress": {"itemsRestored": 3, "totalItems": 10},
            "warnings": 2, "errors": 1, "restoreItemOperationsAttempted": 5, "restoreItemOperationsCompleted": 3,
            "restoreItemOperationsFailed": 1,
        });
        let numbers =
            Numbers { total_items: 10, items_restored: 3, operations: 5, operations_ended: 4, warnings: 2, errors: 1 };
        let told = Told {
            phase: Phase::Failed,
            stage: Stage::Done,
            started_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            ended_at: Some("2026-01-01T00:01:00Z".parse().unwrap()),
            failure_reason: Some("the bucket is gone".to_owned()),
            numbers,
        };
        assert_eq!(read(&restore("1", &status)), Some(told));
        // Counts that cannot be are none.
        let odd = json!({"phase": "InProgress", "progress": {"itemsRestored": -1, "totalItems": null}});
        assert_eq!(read(&restore("1", &odd)).unwrap().numbers, Numbers::default());
    }

    #[tokio::test]
    async fn each_state_is_published_as_one_value() {
        let observer = observer();
        let mut seen = Seen::default();
        observer.take_in(watcher::Event::Apply(restore("1", &json!({}))), &mut seen);
        let mut updates = observer.hub.get("r").unwrap().subscribe_counts();
        let mut published = Vec::new();
        observer.take_in(watcher::Event::Apply(restore("1", &progress(3, 10))), &mut seen);
        observer.take_in(watcher::Event::Apply(restore("1", &json!({"phase": "Completed"}))), &mut seen);
        while let Some(update) = updates.next().await {
            if let Update::Snapshot(value) | Update::Progress(value) | Update::Ended(value) = update {
                published.push((value.phase, value.stage, value.items_restored));
            }
        }
        // Who is slow sees fewer values, and each as it was.
        let possible =
            [(Phase::New, Stage::Queued, 0), (Phase::InProgress, Stage::Items, 3), (Phase::Completed, Stage::Done, 3)];
        assert!(published.iter().all(|value| possible.contains(value)), "{published:?}");
        assert_eq!(published.last(), possible.last());
    }

    /// An observer whose cluster is not asked for anything.
    fn observer() -> Observer {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody asks"))
        });
        Observer {
            records: Records::new(kube::Client::new(nobody, "velero"), "velero"),
            restores: Restores::default(),
            hub: Hub::new(crate::progress::Options::default(), CancellationToken::new()),
            metrics: Metrics::default(),
        }
    }

    #[tokio::test]
    async fn a_restore_made_anew_under_an_old_name_is_followed_from_its_own_begin() {
        let observer = observer();
        let hub = observer.hub.clone();
        let mut seen = Seen::default();
        observer.take_in(watcher::Event::Init, &mut seen);
        observer.take_in(watcher::Event::InitApply(restore("1", &progress(7, 10))), &mut seen);
        assert!(!observer.restores.is_synced());
        observer.take_in(watcher::Event::InitDone, &mut seen);
        assert!(observer.restores.is_synced());
        assert_eq!(hub.get("r").unwrap().snapshot().items_restored, 7);

        let mut first = hub.get("r").unwrap().subscribe_counts();
        observer.take_in(watcher::Event::Apply(restore("2", &progress(2, 10))), &mut seen);
        assert_eq!(hub.get("r").unwrap().snapshot().items_restored, 2);
        let mut last = None;
        while let Some(update) = first.next().await {
            last = Some(update);
        }
        assert_eq!(last, Some(Update::Deleted));

        // Gone while nobody watched.
        observer.take_in(watcher::Event::Init, &mut seen);
        observer.take_in(watcher::Event::InitDone, &mut seen);
        assert!(hub.get("r").is_none() && observer.restores.get("r").is_none());
    }

    #[tokio::test]
    async fn one_that_had_ended_before_is_not_followed_and_one_that_is_gets_its_end() {
        let observer = observer();
        let mut seen = Seen::default();
        let ended = || watcher::Event::Apply(restore("1", &json!({"phase": "Completed"})));
        observer.take_in(ended(), &mut seen);
        assert!(observer.hub.get("r").is_none() && observer.restores.get("r").is_some());
        // Somebody asked for it with what was known a moment before its end.
        let early = observer.hub.create(&"r".parse().unwrap()).unwrap();
        observer.take_in(ended(), &mut seen);
        assert_eq!((early.has_ended(), early.snapshot().phase), (true, Phase::Completed));
        assert_eq!(early.anomalies(), 0);
    }
}
