//! Restoring one item, and first the additional items it wants (restore-semantics 5.3 to 5.8).

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::ledger::{Chain, Claim, Guard};
use super::volumes::VolumeDecision;
use super::{Run, crds};
use crate::archive::EntryId;
use crate::engine::actions::{self, ItemIdentifier};
use crate::engine::events::{Event, Finished, VeleroCount};
use crate::engine::operations::Operation;
use crate::engine::retry::Attempts;
use crate::engine::strip;
use crate::model::{ApiVersion, Bucket, GroupResource, ItemId, ItemKey, Origin, Outcome, Reason, Severity, Target};

/// An item of the archive that is to be restored.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) entry: EntryId,
    pub(super) group_resource: GroupResource,
    pub(super) source_namespace: Arc<str>,
    pub(super) target_namespace: Arc<str>,
}

/// What the wish for an item came to, for the item that wished it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visit {
    /// Warnings and errors recorded on the way: they count for the item that wanted this one, too.
    pub(super) findings: usize,
}

/// An item that is being restored: who it is, and what was found on the way.
pub(super) struct Item {
    pub(super) wanted: Wanted,
    pub(super) key: ItemKey,
    pub(super) id: ItemId,
    guard: Guard,
    begun: Instant,
    pub(super) attempts: Attempts,
    findings: usize,
    /// The first warning or error, which explains a failed item.
    first: Option<(Reason, String)>,
}

/// How an item ended, before it is told to anybody.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// Created, under this name.
    Created(Option<String>),
    /// Existed and was changed.
    Updated,
    /// Nothing was done: skipped for this reason, unless something was found, which makes it failed.
    Nothing(Reason),
    /// Existed and is equal; failed when something was found all the same.
    Unchanged,
}

/// The end of an item, ready to be told.
pub(super) struct Ending {
    guard: Guard,
    finished: Finished,
    name: Option<String>,
    /// The item as messages name it.
    what: String,
}

impl Item {
    fn bucket(&self) -> Bucket {
        Bucket::of(&self.wanted.target_namespace)
    }

    /// `resource.group/namespace/name`, as Velero's messages name an item.
    pub(super) fn display(&self, name: &str) -> String {
        match &*self.wanted.target_namespace {
            "" => format!("{}/{name}", self.wanted.group_resource),
            namespace => format!("{}/{namespace}/{name}", self.wanted.group_resource),
        }
    }

    /// Records a warning or error in this item's bucket.
    pub(super) fn find(&mut self, run: &Run, severity: Severity, reason: Reason, message: String) {
        self.find_in(run, severity, self.bucket(), reason, message);
    }

    /// Records a warning or error of this item in another bucket.
    pub(super) fn find_in(&mut self, run: &Run, severity: Severity, bucket: Bucket, reason: Reason, message: String) {
        self.findings += 1;
        self.first.get_or_insert_with(|| (reason, message.clone()));
        run.find(severity, bucket, reason, message);
    }

    pub(super) fn warn(&mut self, run: &Run, reason: Reason, message: String) {
        self.find(run, Severity::Warning, reason, message);
    }

    pub(super) fn error(&mut self, run: &Run, reason: Reason, message: String) {
        self.find(run, Severity::Error, reason, message);
    }

    /// Derives the outcome (restore-semantics 6.4).
    fn ending(self, end: End) -> Ending {
        let what = self.display(&self.key.name);
        let (first_reason, first_message) =
            self.first.map_or((None, None), |(reason, text)| (Some(reason), Some(text)));
        let (outcome, reason, message, name) = match end {
            End::Created(name) => (Outcome::Created, first_reason, first_message, name),
            End::Updated => (Outcome::Updated, first_reason, first_message, None),
            End::Nothing(_) | End::Unchanged if self.findings > 0 => {
                (Outcome::Failed, first_reason, first_message, None)
            }
            End::Nothing(reason) => (Outcome::Skipped, Some(reason), None, None),
            End::Unchanged => (Outcome::Unchanged, None, None, None),
        };
        let finished = Finished {
            id: self.id,
            outcome,
            reason,
            message,
            attempts: self.attempts.0,
            duration: self.begun.elapsed(),
            velero: VeleroCount::Restored,
        };
        Ending { guard: self.guard, finished, name, what }
    }
}

impl Run {
    /// Tells how an item ended, and lets those who wait for it go on.
    pub(super) fn end(&self, ending: Ending) {
        let outcome = ending.finished.outcome.as_str();
        self.info(match ending.finished.reason {
            Some(reason) => format!("{}: {outcome} ({})", ending.what, reason.as_str()),
            None => format!("{}: {outcome}", ending.what),
        });
        ending.guard.finish(ending.finished.outcome, ending.name);
        self.events.emit(Event::Finished(ending.finished));
    }

    /// Restores one item of the archive, unless it was restored before or the filters leave it out.
    ///
    /// Boxed, as an item's additional items come through here again.
    pub(super) fn restore_item(self: &Arc<Self>, wanted: Wanted, chain: Chain) -> BoxFuture<'_, Visit> {
        Box::pin(self.visit(wanted, chain))
    }

    async fn visit(self: &Arc<Self>, wanted: Wanted, chain: Chain) -> Visit {
        let begun = Instant::now();
        if !self.filters.takes_additional(&wanted.group_resource, &wanted.source_namespace) {
            self.leave_out(&wanted, Reason::Other, "the filters of the restore leave it out");
            return Visit::default();
        }
        if !wanted.target_namespace.is_empty()
            && let Err(message) = self.ensure_namespace(&wanted.source_namespace, &wanted.target_namespace).await
        {
            self.find(Severity::Error, Bucket::Velero, Reason::Namespace, message);
            return Visit { findings: 1 };
        }
        let entry = self.archive.entry(wanted.entry);
        let damaged = entry.header.err().map(ToString::to_string);
        let completed = entry.header.is_ok_and(|header| header.completed);
        let path = entry.path();
        if completed {
            self.leave_out(&wanted, Reason::Completed, "it had completed when it was backed up");
            return Visit::default();
        }
        let loaded = match damaged {
            Some(damage) => Err(damage),
            None => self.archive.load(wanted.entry).map_err(|error| error.to_string()),
        };
        let readable = loaded.map_err(|damage| format!("error decoding {path:?}: {damage}"));
        let object = match readable.and_then(|object| checked_completion(&wanted, object)) {
            Ok(object) => object,
            Err(message) => {
                self.find(Severity::Error, Bucket::of(&wanted.target_namespace), Reason::Archive, message.clone());
                let end = (Outcome::Failed, Some(Reason::Archive), Some(message));
                self.finish(wanted.entry, end.0, end.1, end.2, VeleroCount::Dropped, begun.elapsed());
                return Visit { findings: 1 };
            }
        };
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let key = ItemKey::new(text("/apiVersion"), text("/kind"), &wanted.target_namespace, text("/metadata/name"));
        let guard = match self.ledger.claim(&key, Some(wanted.entry), chain).await {
            Claim::Mine(guard) => guard,
            // Restored on behalf of another item, or being restored further up: whoever claimed it tells its end.
            Claim::Done(Some(entry)) if entry == wanted.entry => return Visit::default(),
            Claim::Circle => return Visit::default(),
            Claim::Done(_) => {
                self.leave_out(&wanted, Reason::Other, "another entry of the backup is the same object");
                return Visit::default();
            }
        };
        let id = match self.ids.get(&wanted.entry) {
            Some(&id) => id,
            None => self.added(&wanted.group_resource, key.clone(), Origin::Additional),
        };
        self.events.emit(Event::Started(id));
        let mut item = Item { wanted, key, id, guard, begun, attempts: Attempts::default(), findings: 0, first: None };
        let end = self.restore_claimed(&mut item, object, chain).await;
        let findings = item.findings;
        let name = item.key.name.to_string();
        let is_crd = item.wanted.group_resource == crds::CRDS && matches!(end, End::Created(_));
        let ending = item.ending(end);
        if is_crd {
            self.crds.defer(&name, ending);
        } else {
            self.end(ending);
        }
        Visit { findings }
    }

    /// A planned item that leaves no trace in Velero's numbers; an additional one was never announced.
    fn leave_out(&self, wanted: &Wanted, reason: Reason, message: &str) {
        let message = Some(message.to_owned());
        self.finish(wanted.entry, Outcome::Skipped, Some(reason), message, VeleroCount::Dropped, Duration::ZERO);
    }

    async fn restore_claimed(self: &Arc<Self>, item: &mut Item, backed_up: Value, chain: Chain) -> End {
        if is_mirror_pod(&item.wanted.group_resource, &backed_up) {
            return End::Nothing(Reason::MirrorPod);
        }
        let mut object = backed_up.clone();
        if item.wanted.group_resource == "persistentvolumes" {
            match self.decide_volume(item, &mut object).await {
                Ok(VolumeDecision::Restore) => {}
                Ok(VolumeDecision::ProvisionDynamically) => return End::Nothing(Reason::DynamicVolume),
                Err(message) => {
                    item.error(self, Reason::Volume, message);
                    return End::Nothing(Reason::Volume);
                }
            }
        }
        let status = match strip::strip(&mut object) {
            Ok(status) => status,
            Err(error) => {
                item.error(self, Reason::Invalid, error.to_string());
                return End::Nothing(Reason::Invalid);
            }
        };
        let object = match self.run_actions(item, object, &backed_up, chain).await {
            Ok(object) => object,
            Err(end) => return end,
        };
        let object = match self.place(item, object).await {
            Ok(object) => object,
            Err(error) => {
                item.error(self, Reason::Invalid, error.to_string());
                return End::Nothing(Reason::Invalid);
            }
        };
        let target = match self.target_of(item, &object, &backed_up) {
            Ok(target) => target,
            Err(message) => {
                item.error(self, Reason::Discovery, message);
                return End::Nothing(Reason::Discovery);
            }
        };
        self.create_or_reconcile(item, &target, object, status).await
    }

    /// The claim's volume, the resource modifiers, the target namespace and the restore labels (restore-semantics 5.6
    /// to 5.8). A modifier that fails is an error, and the item is still created.
    async fn place(&self, item: &mut Item, mut object: Value) -> Result<Value, actions::Error> {
        if item.wanted.group_resource == "persistentvolumeclaims" {
            self.fix_claim(&mut object)?;
        }
        if let Some(modifiers) = &self.job.modifiers {
            let modified = modifiers.apply(object, &item.wanted.group_resource, &self.schemas).await;
            for note in modified.notes {
                self.info(format!("{}: {note}", item.display(&item.key.name)));
            }
            for error in modified.errors {
                item.error(self, Reason::ResourceModifier, error.to_string());
            }
            object = modified.item;
        }
        if !item.wanted.target_namespace.is_empty() {
            strip::set_namespace(&mut object, &item.wanted.target_namespace)?;
        }
        strip::set_restore_labels(&mut object, &self.job.backup_name, &self.job.restore_name)?;
        Ok(object)
    }

    /// Runs the item actions one after the other, each followed by the additional items it wants
    /// (restore-semantics 5.5).
    async fn run_actions(
        self: &Arc<Self>,
        item: &mut Item,
        mut object: Value,
        backed_up: &Value,
        chain: Chain,
    ) -> Result<Value, End> {
        let group_resource = item.wanted.group_resource.clone();
        for action in actions::applicable(&group_resource, self.job.csi()) {
            if !action.selects(&object) {
                continue;
            }
            let context = self.context();
            let input = actions::Input { item: object, item_from_backup: backed_up, context: &context };
            let output = match action.execute(input).await {
                Ok(output) => output,
                Err(error) => {
                    let name = item.display(&item.key.name);
                    item.error(self, Reason::ItemAction, format!("error preparing {name}: {error}"));
                    return Err(End::Nothing(Reason::ItemAction));
                }
            };
            for note in &output.notes {
                self.info(format!("{}: {note}", item.display(&item.key.name)));
            }
            // Also of an item that is then left out (restore-semantics 5.5 step 4).
            if let Some(id) = output.operation_id {
                self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(Operation {
                    action: action.name.to_owned(),
                    id,
                    group_resource: group_resource.clone(),
                    namespace: item.wanted.target_namespace.to_string(),
                    name: item.key.name.to_string(),
                    created: Timestamp::now(),
                });
            }
            if output.skip {
                return Err(End::Nothing(Reason::SkippedByAction));
            }
            object = output.item;
            for additional in &output.additional_items {
                self.restore_additional(item, additional, chain).await;
            }
        }
        Ok(object)
    }

    async fn restore_additional(self: &Arc<Self>, item: &mut Item, wanted: &ItemIdentifier, chain: Chain) {
        let Some(entry) = self.archive.find(&wanted.group_resource, &wanted.namespace, &wanted.name) else {
            let path = match wanted.namespace.as_str() {
                "" => format!("resources/{}/cluster/{}.json", wanted.group_resource, wanted.name),
                namespace => format!("resources/{}/namespaces/{namespace}/{}.json", wanted.group_resource, wanted.name),
            };
            // Filed under the additional item's own source namespace, as Velero does.
            let message = format!("stat {path}: no such file or directory");
            self.find(Severity::Warning, Bucket::of(&wanted.namespace), Reason::NotFound, message.clone());
            item.findings += 1;
            item.first.get_or_insert((Reason::NotFound, message));
            return;
        };
        let target_namespace = match wanted.namespace.as_str() {
            "" => "",
            namespace => self.job.spec.target_namespace(namespace),
        };
        let wanted = Wanted {
            entry,
            group_resource: wanted.group_resource.clone(),
            source_namespace: Arc::from(wanted.namespace.as_str()),
            target_namespace: Arc::from(target_namespace),
        };
        let name = wanted.group_resource.clone();
        let visit = self.restore_item(wanted, chain).await;
        if visit.findings > 0 {
            item.findings += visit.findings;
            item.first.get_or_insert_with(|| {
                (Reason::Other, format!("an additional item ({name}) was not restored cleanly"))
            });
        }
    }

    /// The group and version of the object itself, and the collected resource name (restore-semantics 3.5).
    fn target_of(&self, item: &Item, object: &Value, backed_up: &Value) -> Result<Target, String> {
        let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api_version: ApiVersion =
            text(object, "apiVersion").parse().map_err(|error: crate::model::InvalidApiVersion| error.to_string())?;
        let kind = text(object, "kind");
        let resource = if kind == text(backed_up, "kind") {
            item.wanted.group_resource.resource().to_owned()
        } else {
            let discovery = self.current_discovery();
            let served = discovery.kind_for(&api_version, &kind);
            let served = served.map_err(|error| format!("error getting GVR for {api_version}/{kind}: {error}"))?;
            served.name.clone()
        };
        Ok(Target::new(&api_version.group, &api_version.version, &resource, &item.wanted.target_namespace))
    }
}

/// The object, unless what tells of its completion is of a wrong type: nobody knows then whether to restore it
/// (restore-semantics 5.3 step 4).
fn checked_completion(wanted: &Wanted, object: Value) -> Result<Value, String> {
    let field = match wanted.group_resource.as_str() {
        "pods" => "phase",
        "jobs.batch" => "completionTime",
        _ => return Ok(object),
    };
    let status = &object["status"];
    let wrong = match status.get(field) {
        _ if !status.is_null() && !status.is_object() => "status is no object".to_owned(),
        Some(value) if !value.is_null() && !value.is_string() => format!("status.{field} is no string"),
        _ => return Ok(object),
    };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let namespace = &wanted.target_namespace;
    Err(format!("error checking whether {}/{namespace}/{name} had completed: {wrong}", wanted.group_resource))
}

fn is_mirror_pod(group_resource: &GroupResource, object: &Value) -> bool {
    *group_resource == "pods"
        && object
            .pointer("/metadata/annotations/kubernetes.io~1config.mirror")
            .and_then(Value::as_str)
            .is_some_and(|mirror| !mirror.is_empty())
}
