//! Where a restore comes from: schedule, backup and location (restore-semantics 1.4, rules 9 to 13, and 1.5).

use super::records::Records;
use crate::engine::modifiers::Modifiers;
use crate::model::label;
use crate::velero::{Backup, BackupStorageLocation, RestoreSpec};

/// A backup and where it lies.
#[derive(Clone, Debug)]
pub struct Source {
    /// The backup.
    pub backup: Backup,
    /// Its location.
    pub location: BackupStorageLocation,
}

/// Resolves the source, and completes the specification with what was resolved.
///
/// # Errors
/// The messages that go into `status.validationErrors`.
pub async fn resolve(records: &Records, spec: &mut RestoreSpec) -> Result<Source, Vec<String>> {
    if !spec.schedule_name.is_empty() {
        spec.backup_name = newest_completed(records, &spec.schedule_name).await?;
    }
    let source =
        fetch(records, &spec.backup_name).await.map_err(|error| vec![format!("Error retrieving backup: {error}")])?;
    let location = source.location.metadata.name.clone().unwrap_or_default();
    if source.location.status.as_ref().is_none_or(|status| status.phase != "Available") {
        return Err(vec![format!("The BSL {location} is unavailable, cannot retrieve the backup")]);
    }
    if spec.schedule_name.is_empty()
        && let Some(schedule) =
            source.backup.metadata.labels.as_ref().and_then(|labels| labels.get(label::SCHEDULE_NAME))
    {
        schedule.clone_into(&mut spec.schedule_name);
    }
    Ok(source)
}

/// The backup and its location.
///
/// # Errors
/// The API server's message; for a missing backup also `namespace/name`.
pub async fn fetch(records: &Records, backup: &str) -> Result<Source, String> {
    let found = records.backup(backup).await;
    let backup = found.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 => {
            format!("can't find backup {}/{backup}: {}", records.namespace(), message(&error))
        }
        _ => message(&error),
    })?;
    let location = records.location(&backup.spec.storage_location).await.map_err(|error| message(&error))?;
    Ok(Source { backup, location })
}

/// The same, with `None` where the backup or its location is not there.
///
/// # Errors
/// The API server's message, when it cannot tell.
pub async fn find(records: &Records, backup: &str) -> Result<Option<Source>, String> {
    let found = records.backup_if_there(backup).await.map_err(|error| message(&error))?;
    let Some(backup) = found else { return Ok(None) };
    match records.location(&backup.spec.storage_location).await {
        Ok(location) => Ok(Some(Source { backup, location })),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(message(&error)),
    }
}

/// kube's errors print the status twice; the API server's own message is what users know.
#[must_use]
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// The newest backup of a schedule whose phase is exactly `Completed`.
async fn newest_completed(records: &Records, schedule: &str) -> Result<String, Vec<String>> {
    let backups = records.backups_of_schedule(schedule).await;
    let mut backups =
        backups.map_err(|error| vec![format!("Unable to list backups for schedule: {}", message(&error))])?;
    let mut errors = Vec::new();
    if backups.is_empty() {
        errors.push("No backups found for schedule".to_owned());
    }
    // Those without a start come last, as the zero time.
    backups.sort_by_key(|backup| {
        std::cmp::Reverse(backup.status.as_ref().and_then(|status| status.start_timestamp.clone()).map(|time| time.0))
    });
    let completed = backups
        .into_iter()
        .find(|backup| backup.status.as_ref().is_some_and(|status| status.phase == "Completed"))
        .and_then(|backup| backup.metadata.name);
    completed.ok_or_else(|| {
        errors.push("No completed backups found for schedule".to_owned());
        errors
    })
}

/// The resource modifiers that a Restore refers to (rule 13); `None` where it refers to none.
///
/// # Errors
/// The message for `status.validationErrors`: they are not there, or cannot be read.
pub async fn modifiers(records: &Records, spec: &RestoreSpec) -> Result<Option<Modifiers>, String> {
    let Some(reference) = &spec.resource_modifier else { return Ok(None) };
    if !reference.kind.eq_ignore_ascii_case("configmap") {
        return Ok(None);
    }
    let what = format!("{}/{}", records.namespace(), reference.name);
    let Ok(Some(config_map)) = records.config_map(&reference.name).await else {
        return Err(format!("failed to get resource modifiers configmap {what}"));
    };
    let config_map = serde_json::to_value(&config_map).map_err(|error| error.to_string())?;
    let modifiers = Modifiers::from_config_map(&config_map);
    modifiers
        .map(Some)
        .map_err(|error| format!("Error in parsing resource modifiers provided in configmap {what}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::testing::{backup, location, records, serving};
    use super::*;

    fn spec(spec: Value) -> RestoreSpec {
        serde_json::from_value(spec).unwrap()
    }

    async fn resolved(objects: &[Value], from: Value) -> (Result<Source, Vec<String>>, RestoreSpec) {
        let (records, _) = records(serving(objects));
        let mut spec = spec(from);
        (resolve(&records, &mut spec).await, spec)
    }

    fn at(time: &str, phase: &str) -> Value {
        if time.is_empty() { json!({"phase": phase}) } else { json!({"phase": phase, "startTimestamp": time}) }
    }

    /// restore-semantics 1.5: exactly `Completed`, the newest by its start; one without a start is the oldest.
    #[tokio::test]
    async fn the_newest_completed_backup_of_a_schedule_is_taken() {
        let objects = [
            backup("a-undated", &at("", "Completed")),
            backup("b-old", &at("2026-01-01T00:00:00Z", "Completed")),
            backup("c-newest", &at("2026-01-03T00:00:00Z", "Completed")),
            backup("d-newer", &at("2026-01-02T00:00:00Z", "Completed")),
            backup("e-partial", &at("2026-01-09T00:00:00Z", "PartiallyFailed")),
            backup("f-running", &at("2026-01-08T00:00:00Z", "InProgress")),
            location("Available"),
        ];
        let (found, spec) = resolved(&objects, json!({"scheduleName": "nightly"})).await;
        assert_eq!(found.unwrap().backup.metadata.name.as_deref(), Some("c-newest"));
        // Both stay set: the check that they exclude each other is for new objects only.
        assert_eq!((spec.backup_name.as_str(), spec.schedule_name.as_str()), ("c-newest", "nightly"));
        let (found, _) = resolved(&[objects[0].clone(), location("Available")], json!({"scheduleName": "n"})).await;
        assert_eq!(found.unwrap().backup.metadata.name.as_deref(), Some("a-undated"));
    }

    /// restore-semantics 1.5: by the label of the schedule.
    #[tokio::test]
    async fn backups_of_a_schedule_are_found_by_their_label() {
        let (records, log) = records(serving(&[]));
        let _ = resolve(&records, &mut spec(json!({"scheduleName": "nightly"}))).await;
        assert!(log.lock().unwrap()[0].query.contains("velero.io%2Fschedule-name%3Dnightly"), "{log:?}");
    }

    /// restore-semantics 1.4 rule 9
    #[tokio::test]
    async fn a_schedule_without_a_completed_backup_is_wrong() {
        let none = "No completed backups found for schedule";
        let (found, _) = resolved(&[location("Available")], json!({"scheduleName": "n"})).await;
        assert_eq!(found.unwrap_err(), ["No backups found for schedule", none]);
        let partial = backup("b", &at("2026-01-01T00:00:00Z", "PartiallyFailed"));
        let (found, spec) = resolved(&[partial, location("Available")], json!({"scheduleName": "n"})).await;
        assert_eq!(found.unwrap_err(), [none]);
        assert_eq!(spec.backup_name, "");
        let (records, _) = records(|_| (403, json!("not for you")));
        let error = resolve(&records, &mut super::tests::spec(json!({"scheduleName": "n"}))).await.unwrap_err();
        assert_eq!(error, ["Unable to list backups for schedule: not for you"]);
    }

    /// restore-semantics 1.4 rule 10: one message; for a missing backup also `namespace/name`.
    #[tokio::test]
    async fn a_backup_or_location_that_cannot_be_read_is_one_message() {
        let (found, _) = resolved(&[location("Available")], json!({"backupName": "gone"})).await;
        let errors = found.unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("Error retrieving backup: ") && errors[0].contains("velero/gone"), "{errors:?}");
        let (found, _) = resolved(&[backup("b", &at("", "Completed"))], json!({"backupName": "b"})).await;
        let errors = found.unwrap_err();
        assert_eq!(errors, ["Error retrieving backup: backupstoragelocations \"default\" not found"]);
    }

    /// restore-semantics 1.4 rule 11 and 1.3: `Available` alone will do, and a location that is read-only will.
    #[tokio::test]
    async fn a_location_that_is_not_available_is_named() {
        let backup = backup("b", &at("", "Completed"));
        for phase in ["Unavailable", ""] {
            let (found, _) = resolved(&[backup.clone(), location(phase)], json!({"backupName": "b"})).await;
            assert_eq!(found.unwrap_err(), ["The BSL default is unavailable, cannot retrieve the backup"]);
        }
        let (found, _) = resolved(&[backup, location("Available")], json!({"backupName": "b"})).await;
        assert!(found.is_ok());
    }

    /// restore-semantics 1.2: the phase of a backup that is named is not looked at.
    #[tokio::test]
    async fn a_backup_that_is_named_is_taken_whatever_its_phase() {
        for phase in ["", "New", "InProgress", "Failed", "PartiallyFailed", "Deleting"] {
            let objects = [backup("b", &at("", phase)), location("Available")];
            assert!(resolved(&objects, json!({"backupName": "b"})).await.0.is_ok(), "{phase}");
        }
    }

    /// restore-semantics 1.4 rule 12
    #[tokio::test]
    async fn the_schedule_of_a_backup_that_is_named_is_written_down() {
        let mut backup = backup("b", &at("", "Completed"));
        backup["metadata"]["labels"] = json!({"velero.io/schedule-name": "nightly"});
        let (_, spec) = resolved(&[backup, location("Available")], json!({"backupName": "b"})).await;
        assert_eq!(spec.schedule_name, "nightly");
    }

    /// restore-semantics 1.4 rule 13; a reference to another kind is ignored (1.1).
    #[tokio::test]
    async fn resource_modifiers_are_read_and_what_is_wrong_with_them_is_told() {
        let config = |name: &str, rules: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"rules": rules}});
        let rule = |patch: &str| {
            format!("version: v1\nresourceModifierRules:\n- conditions: {{groupResource: pods}}\n  {patch}\n")
        };
        let good = rule("patches: [{operation: add, path: /a, value: b}]");
        let (records, _) = records(serving(&[
            config("good", &good),
            config("unparsable", "version: v1\nrules: []"),
            config("invalid", &rule("patches: [{operation: add, path: \"\"}]")),
        ]));
        let read = async |kind: &str, name: &str| {
            let spec = spec(json!({"resourceModifier": {"kind": kind, "name": name}}));
            modifiers(&records, &spec).await.map(|found| found.is_some())
        };
        assert_eq!(read("ConfigMap", "good").await, Ok(true));
        assert_eq!(read("configmap", "good").await, Ok(true));
        assert_eq!(read("Secret", "good").await, Ok(false));
        assert_eq!(modifiers(&records, &RestoreSpec::default()).await.map(|found| found.is_some()), Ok(false));
        let missing = "failed to get resource modifiers configmap velero/gone";
        assert_eq!(read("configmap", "gone").await, Err(missing.to_owned()));
        for name in ["unparsable", "invalid"] {
            let error = read("configmap", name).await.unwrap_err();
            let lead = format!("Error in parsing resource modifiers provided in configmap velero/{name}: ");
            assert!(error.starts_with(&lead), "{error}");
        }
    }
}
