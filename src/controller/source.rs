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
