//! Creating an object, and what follows a successful create (restore-semantics 5.9 and 5.11).

use std::time::Duration;

use serde_json::Value;

use super::Run;
use super::item::{End, Item};
use crate::engine::managed_fields;
use crate::engine::retry::{Attempts, Backoff, patiently, retrying};
use crate::model::{Reason, Target, label};

/// Tries of a status write that meets a newer object, and the pause between them (restore-semantics 5.11.1).
const STATUS_TRIES: u32 = 5;
const STATUS_PAUSE: Duration = Duration::from_millis(10);

/// Annotation that overrides whether the status of an object is restored.
const RESTORE_STATUS: &str = "/metadata/annotations/velero.io~1restore-status";

impl Run {
    /// Creates the object; where one is there already, compares and settles with that.
    pub(super) async fn create_or_reconcile(
        &self,
        item: &mut Item,
        target: &Target,
        object: Value,
        status: Option<Value>,
    ) -> End {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut attempts = Attempts(1);
        let mut answer = self.cluster.create(target, &object).await;
        if let Err(error) = &answer
            && error.is_retryable()
        {
            // A 500 may be all there is to hear about a namesake: a health check port that it holds is one. Looking first
            // spares the tries, and it is a request per failure only.
            if error.code == 500
                && let Ok(Some(live)) = self.cluster.get(target, &name).await
                && !self.is_ours(&live)
            {
                item.attempts.0 += attempts.0;
                return self.reconcile(item, target, object, live).await;
            }
            tokio::time::sleep(Backoff::default().pause(1, error, getrandom::u32().unwrap_or(u32::MAX))).await;
            answer = retrying(Backoff::default(), &mut attempts, || self.cluster.create(target, &object)).await;
        }
        item.attempts.0 += attempts.0;
        let refusal = match answer {
            Ok(created) => return self.complete(item, target, &object, created, status).await,
            Err(error) => error,
        };
        // Whatever refused the create: if the object is there, it exists (restore-semantics 5.9 step 5). An admission
        // policy that refuses a create may well let the object of that name stand.
        let mut lookups = Attempts::default();
        let live = retrying(Backoff::default(), &mut lookups, || self.cluster.get(target, &name)).await;
        match live {
            // A create that was tried more than once may have succeeded without an answer the first time.
            Ok(Some(live)) if attempts.0 > 1 && self.preview.is_none() && self.is_ours(&live) => {
                self.complete(item, target, &object, live, status).await
            }
            Ok(Some(live)) => self.reconcile(item, target, object, live).await,
            // A port that is taken says nothing of a namesake by itself: without one, or without an answer, it is an error
            // (restore-semantics 5.9 step 3).
            Err(error) if refusal.is_already_exists() => {
                item.warn(self, error.typed_reason(), error.to_string());
                End::Nothing(error.typed_reason())
            }
            Ok(None) | Err(_) => {
                let reason = refusal.typed_reason();
                item.error(self, reason, format!("error restoring {}: {refusal}", item.display(&name)));
                End::Nothing(reason)
            }
        }
    }

    /// Whether this very restore made the object.
    pub(super) fn is_ours(&self, live: &Value) -> bool {
        let pointer = format!("/metadata/labels/{}", label::RESTORE_NAME.replace('/', "~1"));
        live.pointer(&pointer).and_then(Value::as_str) == Some(&*label::valid_name(&self.job.restore_name))
    }

    /// Status, managedFields: what a create does not carry. CustomResourceDefinitions are waited for elsewhere.
    async fn complete(
        &self,
        item: &mut Item,
        target: &Target,
        object: &Value,
        created: Value,
        status: Option<Value>,
    ) -> End {
        if let Some(end) = self.foreseen_created(item, target, &created) {
            return end;
        }
        let name = created.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        if self.wants_status(item, object)
            && let Some(status) = status
        {
            self.restore_status(item, target, object, &created, status).await;
        }
        self.restore_managed_fields(item, target, object, &created).await;
        if item.wanted.group_resource == "pods" {
            self.restore_pod_volumes(item, &created);
            self.begin_exec_hooks(item, &created);
        }
        End::Created(name)
    }

    fn wants_status(&self, item: &Item, object: &Value) -> bool {
        let asked = object.pointer(RESTORE_STATUS).and_then(Value::as_str).map(|text| text.trim().to_lowercase());
        match asked.as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => self.status.as_ref().is_some_and(|filter| filter.should_include(item.wanted.group_resource.as_str())),
        }
    }

    /// PUTs the backed-up status; on conflict with what the object has become meanwhile, tries again.
    async fn restore_status(&self, item: &mut Item, target: &Target, object: &Value, created: &Value, status: Value) {
        let name = item.key.name.to_string();
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(&name).to_owned();
        let mut wanted = object.clone();
        wanted["status"] = status;
        wanted["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
        // A conflict is settled here, with a newer resourceVersion; sending the same again would not help.
        let backoff = Backoff { conflicts: false, ..Backoff::default() };
        for tried in 1..=STATUS_TRIES {
            let answer =
                retrying(backoff, &mut item.attempts, || self.cluster.replace_status(target, &name, &wanted)).await;
            let error = match answer {
                Ok(_) => return,
                Err(error) => error,
            };
            let newer = match patiently(|| self.cluster.get(target, &name)).await {
                Ok(Some(live)) if error.is_conflict() && tried < STATUS_TRIES => live,
                _ => {
                    item.warn(self, error.typed_reason(), error.to_string());
                    return;
                }
            };
            wanted["metadata"]["resourceVersion"] = newer["metadata"]["resourceVersion"].clone();
            tokio::time::sleep(STATUS_PAUSE).await;
        }
    }

    /// Puts back the recorded field managers. A backup without them asks for no change, so no request is sent.
    async fn restore_managed_fields(&self, item: &mut Item, target: &Target, object: &Value, created: &Value) {
        if !object["metadata"]["managedFields"].is_array() {
            return;
        }
        let Some(patch) = managed_fields::patch(created, object) else { return };
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let answer =
            retrying(Backoff::default(), &mut item.attempts, || self.cluster.merge_patch(target, name, &patch)).await;
        match answer {
            Ok(_) => {}
            Err(error) if error.is_not_found() => item.warn(self, Reason::NotFound, error.to_string()),
            Err(error) => item.error(self, error.typed_reason(), error.to_string()),
        }
    }
}
