//! Settling with an object that is in the cluster already (restore-semantics 5.10).

use serde_json::{Value, json};

use super::Run;
use super::item::{End, Item};
use crate::engine::retry::{Backoff, retrying};
use crate::engine::{actions, compare, merge, strip};
use crate::model::{ExistingResourcePolicy, Reason, Target, label};

impl Run {
    /// Compares the live object with the one to restore, and does what the policy says.
    pub(super) async fn reconcile(&self, item: &mut Item, target: &Target, object: Value, mut live: Value) -> End {
        self.warn_of_earlier_exec_hooks(item, &live);
        if item.wanted.group_resource == "pods" {
            self.resume_pod_volumes(item, &live);
        }
        if let Err(error) = strip::strip(&mut live).and_then(|_| strip::copy_restore_labels(&object, &mut live)) {
            item.error(self, Reason::Invalid, error.to_string());
            return End::Nothing(Reason::Invalid);
        }
        let policy = self.job.spec.existing_resource_policy;
        let updates = policy == ExistingResourcePolicy::Update;
        // What policy `update` writes is what Velero writes, so it compares like Velero. Without it the comparison only
        // decides whether to warn, and managedFields and server-filled status are no difference worth a warning.
        let equal = if updates {
            !actions::leaves_status_stub(&item.wanted.group_resource, &object)
                && compare::equals_like_velero(&live, &object)
        } else {
            compare::equals(&live, &object)
        };
        if equal {
            if updates && !self.patch_labels(item, target, &object).await {
                return End::Nothing(Reason::Other);
            }
            return End::Unchanged;
        }
        self.foresee_differences(item, &live, &object);
        if item.wanted.group_resource == "serviceaccounts" {
            return self.merge_service_account(item, target, &live, &object, updates).await;
        }
        if updates { self.update(item, target, live, &object).await } else { self.conflict(item, &object, policy) }
    }

    fn conflict(&self, item: &mut Item, object: &Value, policy: ExistingResourcePolicy) -> End {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        // Two spellings for the same thing, as Velero has them for policy `none` and for no policy.
        let what = match policy {
            ExistingResourcePolicy::None => format!("{kind} {name:?}"),
            _ => format!("{kind}:{name}"),
        };
        let message = format!(
            "could not restore, {what} already exists. Warning: the in-cluster version is different than the \
             backed-up version"
        );
        item.warn(self, Reason::Conflict, message);
        End::Nothing(Reason::Conflict)
    }

    /// Patches the live object to the backed-up one; what the backup lacks is removed.
    async fn update(&self, item: &mut Item, target: &Target, mut live: Value, object: &Value) -> End {
        if let Err(error) = strip::blank_restore_labels(&mut live) {
            item.error(self, Reason::Invalid, error.to_string());
            return End::Nothing(Reason::Invalid);
        }
        let patch = merge::merge_patch(&live, object);
        let name = name_of(object);
        let answer =
            retrying(Backoff::default(), &mut item.attempts, || self.cluster.merge_patch(target, name, &patch)).await;
        let Err(error) = answer else { return End::Updated };
        item.warn(self, error.typed_reason(), error.to_string());
        self.patch_labels(item, target, object).await;
        End::Nothing(error.typed_reason())
    }

    /// Adds what the backup has and the live ServiceAccount lacks, whatever the policy.
    async fn merge_service_account(
        &self,
        item: &mut Item,
        target: &Target,
        live: &Value,
        object: &Value,
        updates: bool,
    ) -> End {
        let merged = match merge::merge_service_account(live, object) {
            Ok(merged) => merged,
            Err(error) => {
                item.warn(self, Reason::Invalid, error.to_string());
                return End::Nothing(Reason::Invalid);
            }
        };
        let patch = merge::merge_patch(live, &merged);
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return End::Unchanged;
        }
        let name = name_of(object);
        let answer =
            retrying(Backoff::default(), &mut item.attempts, || self.cluster.merge_patch(target, name, &patch)).await;
        let Err(error) = answer else { return End::Updated };
        item.warn(self, error.typed_reason(), error.to_string());
        if updates {
            self.patch_labels(item, target, object).await;
        }
        End::Nothing(error.typed_reason())
    }

    /// Puts only the two restore labels on the live object; `false` when that failed, with the error recorded.
    async fn patch_labels(&self, item: &mut Item, target: &Target, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
        let patch = json!({"metadata": {"labels": {
            label::BACKUP_NAME: value(label::BACKUP_NAME),
            label::RESTORE_NAME: value(label::RESTORE_NAME),
        }}});
        let name = name_of(object);
        let answer =
            retrying(Backoff::default(), &mut item.attempts, || self.cluster.merge_patch(target, name, &patch)).await;
        match answer {
            Ok(_) => true,
            Err(error) => {
                item.error(self, error.typed_reason(), error.to_string());
                false
            }
        }
    }
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}
