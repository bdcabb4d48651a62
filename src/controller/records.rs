//! Velero's own objects in its namespace: reading them, and the few writes there are.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cluster::FIELD_MANAGER;
use crate::model::fault::{self, Ending};
use crate::velero::{Backup, BackupStorageLocation, PodVolumeBackup, Restore};

/// Pauses between the tries of a write that must get through: 0.1 s doubled up to 30 s, without an end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Tries of a read: about 13 s in all.
const READS: u32 = 8;

/// The objects of Velero's namespace.
#[derive(Clone)]
pub struct Records {
    client: Client,
    namespace: String,
}

impl Records {
    /// The objects of this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Velero's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Restores, for watching and creating.
    #[must_use]
    pub fn restores(&self) -> Api<Restore> {
        self.api()
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a Restore.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn create(&self, restore: &Restore) -> kube::Result<Restore> {
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.restores().create(&parameters, restore).await
    }

    /// Merge-patches a Restore, spec and status in one as Velero does: the CRD has no status subresource.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn patch(&self, name: &str, patch: &Value) -> kube::Result<Restore> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.restores().patch(name, &parameters, &Patch::Merge(patch)).await
    }

    /// The same, tried until it is in place: the last word must be written however long it takes.
    ///
    /// Gives up only when the Restore is gone, the API server finds the patch invalid, or `stop` fires.
    pub async fn patch_for_good(&self, name: &str, patch: &Value, stop: &CancellationToken) -> Option<Restore> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.patch(name, patch).await {
                Ok(restore) => return Some(restore),
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    tracing::warn!(restore = name, "the Restore is gone; its status is not written");
                    return None;
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                    tracing::error!(restore = name, error = %status.message, "the API server refuses the Restore's status");
                    return None;
                }
                Err(error) => {
                    tracing::warn!(restore = name, %error, ?pause, "the Restore's status could not be written; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stop.cancelled() => return None,
            }
        }
    }

    /// The Backup of this name.
    ///
    /// # Errors
    /// Those of the API server; also when there is none.
    pub async fn backup(&self, name: &str) -> kube::Result<Backup> {
        let api = self.api::<Backup>();
        patiently(|| api.get(name)).await
    }

    /// The Backup of this name, `None` where there is none.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn backup_if_there(&self, name: &str) -> kube::Result<Option<Backup>> {
        let api = self.api::<Backup>();
        patiently(|| api.get_opt(name)).await
    }

    /// The Backups of a schedule.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn backups_of_schedule(&self, schedule: &str) -> kube::Result<Vec<Backup>> {
        let label = crate::model::label::SCHEDULE_NAME;
        let parameters = ListParams::default().labels(&format!("{label}={schedule}"));
        let api = self.api::<Backup>();
        Ok(patiently(|| api.list(&parameters)).await?.items)
    }

    /// The BackupStorageLocation of this name.
    ///
    /// # Errors
    /// Those of the API server; also when there is none.
    pub async fn location(&self, name: &str) -> kube::Result<BackupStorageLocation> {
        let api = self.api::<BackupStorageLocation>();
        patiently(|| api.get(name)).await
    }

    /// The PodVolumeBackups of a backup.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn pod_volume_backups(&self, backup: &str) -> kube::Result<Vec<PodVolumeBackup>> {
        let label = crate::model::label::BACKUP_NAME;
        let value = crate::model::label::valid_name(backup);
        let parameters = ListParams::default().labels(&format!("{label}={value}"));
        let api = self.api::<PodVolumeBackup>();
        Ok(patiently(|| api.list(&parameters)).await?.items)
    }

    /// One key of a Secret; `None` where the Secret or the key is missing.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn secret(&self, name: &str, key: &str) -> kube::Result<Option<Vec<u8>>> {
        let api = self.api::<Secret>();
        let secret = patiently(|| api.get_opt(name)).await?;
        Ok(secret.and_then(|secret| secret.data?.remove(key)).map(|bytes| bytes.0))
    }

    /// A ConfigMap; `None` where there is none.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn config_map(&self, name: &str) -> kube::Result<Option<ConfigMap>> {
        let api = self.api::<ConfigMap>();
        patiently(|| api.get_opt(name)).await
    }
}

/// Reads, and again where a failure may pass: what is read here decides whether a restore is valid or fails for good,
/// which a busy API server must not decide.
async fn patiently<T, F, R>(mut read: F) -> kube::Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = kube::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..READS {
        match read().await {
            Err(error) if may_pass(&error) => {
                tracing::debug!(%error, ?pause, "a read failed; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    read().await
}

/// The same rule as for items. The answer of a server in front of the API server may be none of Kubernetes at all, or break
/// off.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            fault::classify(Ending::Answer, status.code, &status.reason, &status.message).lasting.may_pass()
        }
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        kube::Error::SerdeError(error) => error.is_eof(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::testing::{Log, records};
    use super::*;

    fn restore() -> Value {
        json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"}, "spec": {}})
    }

    /// Answers so many requests by this code, and the others well.
    fn failing(times: usize, code: u16) -> (Records, Log) {
        let seen = AtomicUsize::new(0);
        records(move |asked| match seen.fetch_add(1, Ordering::Relaxed) {
            seen if seen < times => (code, json!("no")),
            _ if asked.path.starts_with("configmaps") => {
                (200, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}))
            }
            _ => (200, restore()),
        })
    }

    async fn written(times: usize, code: u16) -> (Option<Restore>, usize) {
        let (records, log) = failing(times, code);
        let patch = json!({"status": {"phase": "Completed"}});
        let written = records.patch_for_good("r", &patch, &CancellationToken::new()).await;
        let tries = log.lock().unwrap().clone();
        assert!(
            tries
                .iter()
                .all(|asked| asked.method == http::Method::PATCH && asked.path == "restores/r" && asked.body == patch)
        );
        (written, tries.len())
    }

    /// Velero (restore-semantics 1.6) gives up; velero-differences: status-is-written-until-it-is-there
    #[tokio::test(start_paused = true)]
    async fn the_last_status_is_tried_until_it_is_written() {
        for code in [409, 429, 500, 503] {
            let (restore, tries) = written(300, code).await;
            assert!(restore.is_some() && tries == 301, "{code}: {tries}");
        }
    }

    /// The same, and its three ends: the Restore is gone, the patch is no good, the service is stopped.
    #[tokio::test(start_paused = true)]
    async fn a_status_that_can_never_be_written_is_given_up() {
        for code in [404, 400, 422] {
            assert_eq!(written(300, code).await, (None, 1), "{code}");
        }
        let (records, _) = failing(usize::MAX, 503);
        let stop = CancellationToken::new();
        let patch = json!({});
        let stopped = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            stop.cancel();
        };
        let (written, ()) = tokio::join!(records.patch_for_good("r", &patch, &stop), stopped);
        assert!(written.is_none());
    }

    /// restore-semantics 1.1: the Restore itself, spec and status in one; 1.6: no precondition.
    #[tokio::test]
    async fn a_restore_is_patched_as_a_whole() {
        let (records, log) = failing(0, 200);
        records.patch("r", &json!({"spec": {"a": 1}, "status": {"b": 2}})).await.unwrap();
        let asked = log.lock().unwrap()[0].clone();
        assert_eq!(asked.path, "restores/r", "no /status: the CRD has no such subresource");
        assert_eq!(asked.body, json!({"spec": {"a": 1}, "status": {"b": 2}}));
    }

    /// restore-semantics 1.2: listed by the label of the backup, whose name is cut as 5.8 says.
    #[tokio::test]
    async fn pod_volume_backups_are_found_by_the_label_of_their_backup() {
        let (records, log) =
            records(|_| (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})));
        records.pod_volume_backups("nightly").await.unwrap();
        records.pod_volume_backups(&"n".repeat(70)).await.unwrap();
        let log = log.lock().unwrap();
        assert!(log[0].query.contains("velero.io%2Fbackup-name%3Dnightly"), "{log:?}");
        assert!(log[1].query.contains(&crate::model::label::valid_name(&"n".repeat(70))), "{log:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_for_a_passing_reason_is_repeated_and_another_is_not() {
        for (times, code, tries, good) in [(7, 503, 8, true), (8, 503, 8, false), (1, 403, 1, false), (3, 429, 4, true)]
        {
            let (records, log) = failing(times, code);
            let read = records.config_map("c").await;
            assert_eq!((read.is_ok(), log.lock().unwrap().len()), (good, tries), "{times} {code}");
        }
    }
}
