//! Kubernetes Events on a Restore: its start, its stages, its stalls, its end.
//!
//! A task per restore reads what the restore publishes anyway, so that neither the engine nor the queue waits for an
//! Event: where the API server is slow, the task falls behind and tells the newest; what it refuses is lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource as _};
use serde_json::json;

use super::{Executor, Records, Restores};
use crate::cluster::FIELD_MANAGER;
use crate::model::{Outcome, Phase, Progress, Stage};
use crate::progress::{RestoreProgress, Update};
use crate::velero::Restore;

/// An Event is nothing to wait for: the next one may be the last.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// The longest name of an object, less what makes the name of an Event its own.
const LONGEST_PREFIX: usize = 220;

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// For the first time.
    Started,
    /// After a restart of the service.
    Resumed,
}

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    is_warning: bool,
    /// Why it is told, in one word for machines.
    reason: &'static str,
    /// What was being done, in one word.
    action: &'static str,
    text: String,
}

/// Tells of a restore until it has ended, is deleted, or the service goes down.
pub(super) fn follow(executor: &Executor, restore: &Restore, followed: Arc<RestoreProgress>, begin: Begin) {
    let publisher = Publisher::new(&executor.records, restore);
    let begun = began(begin, &restore.spec.backup_name);
    tokio::spawn(tell(publisher, executor.restores.clone(), followed, begun));
}

/// Tells that a restore is refused.
pub(super) fn refused(executor: &Executor, restore: &Restore, errors: &[String]) {
    let mut publisher = Publisher::new(&executor.records, restore);
    let text = errors.join("; ");
    let note = Note { is_warning: true, reason: Phase::FailedValidation.as_str(), action: "Validate", text };
    tokio::spawn(async move { publisher.publish(&note).await });
}

async fn tell(mut publisher: Publisher, restores: Restores, followed: Arc<RestoreProgress>, begun: Note) {
    let mut updates = followed.subscribe_counts();
    publisher.publish(&begun).await;
    let mut milestones = Milestones::default();
    while let Some(update) = updates.next().await {
        let progress = match update {
            Update::Snapshot(progress) | Update::Progress(progress) | Update::Ended(progress) => progress,
            Update::Item { .. } | Update::Gap { .. } => continue,
            Update::Deleted | Update::ShuttingDown => return,
        };
        for note in milestones.next(&followed.stages_entered(), &progress) {
            publisher.publish(&note).await;
        }
        if progress.phase.is_terminal() {
            // The object knows those of a run before a restart too, and is written before the progress ends.
            let status = restores.get(followed.name()).and_then(|restore| restore.status.clone());
            let counted = status.map(|status| (status.warnings, status.errors));
            publisher.publish(&ended(&progress, counted)).await;
            return;
        }
    }
}

fn began(begin: Begin, backup: &str) -> Note {
    let (reason, text) = match begin {
        Begin::Started => ("Started", format!("Restoring backup {backup}")),
        Begin::Resumed => ("Resumed", format!("Going on with backup {backup} after a restart of the service")),
    };
    Note { is_warning: false, reason, action: "Restore", text }
}

/// What was told of a restore.
#[derive(Debug, Default)]
struct Milestones {
    /// How many of its stages.
    stages: usize,
    is_stalled: bool,
}

impl Milestones {
    /// What is new.
    fn next(&mut self, entered: &[Stage], progress: &Progress) -> Vec<Note> {
        let mut notes = Vec::new();
        let is_stalled = !progress.waiting_for.is_empty();
        let is_over = progress.phase.is_terminal();
        if self.is_stalled && !is_stalled && !is_over {
            let text = "It goes on".to_owned();
            notes.push(Note { is_warning: false, reason: "Resumed", action: action(progress.stage), text });
        }
        for stage in entered.get(self.stages..).unwrap_or_default() {
            if let Some(text) = begins(*stage) {
                let text = text.to_owned();
                notes.push(Note { is_warning: false, reason: "StageStarted", action: action(*stage), text });
            }
        }
        if is_stalled && !self.is_stalled && !is_over {
            let (action, text) = (action(progress.stage), stall(progress));
            notes.push(Note { is_warning: true, reason: "Stalled", action, text });
        }
        self.stages = entered.len().max(self.stages);
        self.is_stalled = is_stalled;
        notes
    }
}

/// The name of a stage, as an action.
const fn action(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "Queued",
        Stage::Collecting => "Collecting",
        Stage::CustomResourceDefinitions => "CustomResourceDefinitions",
        Stage::Items => "Items",
        Stage::Volumes => "Volumes",
        Stage::PluginOperations => "PluginOperations",
        Stage::Hooks => "Hooks",
        Stage::Finalizing => "Finalizing",
        Stage::Done => "Done",
    }
}

/// What begins with a stage; the first and the last one are told by start and end.
const fn begins(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Queued | Stage::Collecting | Stage::Done => None,
        Stage::CustomResourceDefinitions => Some("Restoring CustomResourceDefinitions"),
        Stage::Items => Some("Restoring items"),
        Stage::Volumes => Some("Waiting for volume data"),
        Stage::PluginOperations => Some("Waiting for asynchronous operations"),
        Stage::Hooks => Some("Waiting for exec hooks"),
        Stage::Finalizing => Some("Uploading files and finalizing"),
    }
}

fn stall(progress: &Progress) -> String {
    let mut text = "Nothing was finished for a while".to_owned();
    // Writing to a text cannot fail.
    for (number, waiting) in progress.waiting_for.iter().enumerate() {
        let reason = waiting.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let separator = if number == 0 { ": waiting for" } else { ";" };
        let _ = write!(text, "{separator} {}: {}{reason}", waiting.object, waiting.request);
    }
    text
}

/// The end; `counted` are the warnings and errors of the status.
fn ended(progress: &Progress, counted: Option<(i64, i64)>) -> Note {
    let mut text = String::new();
    if let Some(reason) = &progress.failure_reason {
        let _ = write!(text, "{reason}; ");
    }
    let outcomes = progress.outcomes;
    if outcomes.total() > 0 {
        let _ = write!(text, "{} items", outcomes.total());
        let mut separator = ": ";
        for outcome in Outcome::ALL {
            let count = outcomes.get(outcome);
            if count > 0 {
                let _ = write!(text, "{separator}{count} {}", outcome.as_str());
                separator = ", ";
            }
        }
        text.push_str("; ");
    }
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let (warnings, errors) = counted.unwrap_or_else(|| (count(progress.warnings), count(progress.errors)));
    let _ = write!(text, "{warnings} warnings, {errors} errors");
    let is_warning = progress.phase != Phase::Completed;
    Note { is_warning, reason: progress.phase.as_str(), action: "Restore", text }
}

/// Writes the Events of one Restore; the same once more becomes a series.
struct Publisher {
    api: Api<Event>,
    regarding: ObjectReference,
    /// Name of the Event and how often it was told, by what it says.
    told: BTreeMap<(&'static str, String), (String, i32)>,
}

impl Publisher {
    fn new(records: &Records, restore: &Restore) -> Self {
        // Of another namespace than the object's own no Event is taken.
        let namespace = Some(records.namespace().to_owned());
        let regarding = ObjectReference { namespace, ..restore.object_ref(&()) };
        Self { api: records.api(), regarding, told: BTreeMap::new() }
    }

    async fn publish(&mut self, note: &Note) {
        match tokio::time::timeout(PATIENCE, self.write(note)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(reason = note.reason, %error, "an Event was not taken"),
            Err(_) => tracing::debug!(reason = note.reason, "an Event was not taken in time"),
        }
    }

    async fn write(&mut self, note: &Note) -> kube::Result<()> {
        let now = Timestamp::now();
        let key = (note.reason, note.text.clone());
        if let Some((name, count)) = self.told.get_mut(&key) {
            *count = count.saturating_add(1);
            let series = json!({"series": {"count": *count, "lastObservedTime": MicroTime(now)}});
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            return self.api.patch(name, &parameters, &Patch::Merge(series)).await.map(|_| ());
        }
        let event = event(&self.regarding, note, now);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = self.api.create(&parameters, &event).await?;
        self.told.insert(key, (created.metadata.name.unwrap_or_default(), 1));
        Ok(())
    }
}

fn event(regarding: &ObjectReference, note: &Note, now: Timestamp) -> Event {
    let restore = regarding.name.as_deref().unwrap_or_default();
    // As of client-go: the object's name and a time nobody else has.
    let prefix = shortened(restore, LONGEST_PREFIX).trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}.{:x}", now.as_nanosecond())),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.is_warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.to_owned()),
        action: Some(note.action.to_owned()),
        note: Some(shortened(&note.text, LONGEST_NOTE).to_owned()),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(FIELD_MANAGER.to_owned()),
        ..Event::default()
    }
}

/// The begin of a text, up to so many bytes.
fn shortened(text: &str, longest: usize) -> &str {
    let end = text.char_indices().map(|(at, each)| at + each.len_utf8()).take_while(|end| *end <= longest).last();
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::records;
    use super::*;
    use crate::model::{Counts, Waiting};

    fn at(stage: Stage, waits: &[(&str, &str, Option<&str>)]) -> Progress {
        let waiting = |(object, request, reason): &(&str, &str, Option<&str>)| Waiting {
            object: (*object).to_owned(),
            request: (*request).to_owned(),
            reason: reason.map(str::to_owned),
        };
        let waiting_for = waits.iter().map(waiting).collect();
        Progress { phase: Phase::InProgress, stage, waiting_for, ..Progress::default() }
    }

    fn told(notes: &[Note]) -> Vec<String> {
        notes.iter().map(|note| format!("{} {}: {}", note.reason, note.action, note.text)).collect()
    }

    #[test]
    fn each_stage_is_told_once_also_one_that_nobody_saw() {
        let mut milestones = Milestones::default();
        assert!(milestones.next(&[Stage::Collecting], &at(Stage::Collecting, &[])).is_empty());
        let entered = [Stage::Collecting, Stage::CustomResourceDefinitions, Stage::Items];
        let notes = milestones.next(&entered, &at(Stage::Items, &[]));
        assert_eq!(
            told(&notes),
            [
                "StageStarted CustomResourceDefinitions: Restoring CustomResourceDefinitions",
                "StageStarted Items: Restoring items"
            ]
        );
        assert!(milestones.next(&entered, &at(Stage::Items, &[])).is_empty());
    }

    #[test]
    fn a_stall_is_told_once_with_what_is_waited_for_and_again_when_it_is_over() {
        let mut milestones = Milestones::default();
        let (moving, entered) = (at(Stage::Items, &[]), [Stage::Items]);
        milestones.next(&entered, &moving);
        let waits = [("namespace shop", "wait until it is gone", Some("finalizers: x")), ("v1/Pod a", "create", None)];
        let still = at(Stage::Items, &waits);
        let notes = milestones.next(&entered, &still);
        let text = "Nothing was finished for a while: waiting for namespace shop: wait until it is gone (finalizers: x); v1/Pod a: create";
        assert_eq!(told(&notes), [format!("Stalled Items: {text}")]);
        assert!(notes[0].is_warning);
        assert!(milestones.next(&entered, &at(Stage::Items, &waits[..1])).is_empty(), "the same stall");
        assert_eq!(told(&milestones.next(&entered, &moving)), ["Resumed Items: It goes on"]);
        assert_eq!(milestones.next(&entered, &still).len(), 1, "another one");
        let over = Progress { phase: Phase::Completed, ..at(Stage::Done, &[]) };
        assert!(milestones.next(&entered, &over).is_empty(), "its end says enough");
    }

    #[test]
    fn the_end_has_the_counts_of_the_status_and_is_a_warning_unless_it_is_good() {
        let outcomes = Counts { created: 3, unchanged: 2, ..Counts::default() };
        let progress = Progress { phase: Phase::Completed, outcomes, errors: 9, ..Progress::default() };
        let note = ended(&progress, Some((1, 0)));
        let text = "5 items: 3 created, 2 unchanged; 1 warnings, 0 errors".to_owned();
        assert_eq!(note, Note { is_warning: false, reason: "Completed", action: "Restore", text });
        let failed = Progress { phase: Phase::Failed, failure_reason: Some("no".into()), ..Progress::default() };
        let note = ended(&failed, None);
        assert_eq!((note.is_warning, note.reason, &*note.text), (true, "Failed", "no; 0 warnings, 0 errors"));
    }

    #[test]
    fn an_event_has_a_name_and_a_note_of_a_length_that_is_taken() {
        let note = Note { is_warning: true, reason: "Stalled", action: "Items", text: "ü".repeat(LONGEST_NOTE) };
        let regarding = ObjectReference {
            name: Some(format!("{}.{}", "n".repeat(LONGEST_PREFIX - 1), "m".repeat(30))),
            ..ObjectReference::default()
        };
        let event = event(&regarding, &note, Timestamp::UNIX_EPOCH);
        assert_eq!(event.note.unwrap(), "ü".repeat(LONGEST_NOTE / 2));
        assert_eq!(event.metadata.name.unwrap(), format!("{}.0", "n".repeat(LONGEST_PREFIX - 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_again_becomes_a_series_and_what_is_refused_is_left() {
        let (records, log) = records(|asked| match asked.path.as_str() {
            "events" if asked.body["reason"] == "Stalled" => (403, json!("no")),
            "events" => (201, asked.body.clone()),
            _ => (200, json!({"metadata": {"name": "e"}})),
        });
        let mut publisher = Publisher::new(&records, &Restore::new("r", Default::default()));
        let resumed = Note { is_warning: false, reason: "Resumed", action: "Items", text: "x".to_owned() };
        for note in [&resumed, &Note { reason: "Stalled", ..resumed.clone() }, &resumed, &resumed] {
            publisher.publish(note).await;
        }
        let log = log.lock().unwrap();
        let name = log[0].body["metadata"]["name"].as_str().unwrap();
        assert_eq!(
            (&log[0].body["regarding"]["name"], &log[0].body["regarding"]["kind"]),
            (&json!("r"), &json!("Restore"))
        );
        let counts: Vec<_> =
            log[2..].iter().map(|asked| (asked.path.clone(), asked.body["series"]["count"].clone())).collect();
        let path = format!("events/{name}");
        assert_eq!(counts, [(path.clone(), json!(2)), (path, json!(3))]);
    }
}
