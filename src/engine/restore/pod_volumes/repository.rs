//! What the data of pod volumes comes from and who brings it: the node agent and the repository, each asked for once.

use futures::StreamExt;
use serde_json::Value;

use super::objects::{self, text};
use super::{Shared, WATCH_ENDED_PAUSE};
use crate::engine::ports::Change;
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Target, Waiting};

/// Velero's name of the node agent's DaemonSet, and the role label of its pods.
const NODE_AGENT: &str = "node-agent";

impl Shared {
    /// Whether there is a node agent at all; asked once per restore.
    ///
    /// # Errors
    /// The message of the error that every pod with volumes has then.
    pub(super) async fn node_agent(&self) -> Result<(), String> {
        let asked = self.node_agent.get_or_init(|| async {
            let namespace = &self.job.velero_namespace;
            let target = Target::new("apps", "v1", "daemonsets", namespace);
            let mut attempts = Attempts::default();
            match retrying(Backoff::default(), &mut attempts, || self.cluster.get(&target, NODE_AGENT)).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!(
                    "error to check node agent status: daemonset not found: there is no DaemonSet {NODE_AGENT} in namespace \
                     {namespace}; install Velero's node agent and restore these pods again"
                )),
                Err(error) => Err(format!("error to check node agent status: {error}")),
            }
        });
        asked.await.clone()
    }

    /// Whether the node agent runs on a node; a node where it does is not asked for again.
    ///
    /// # Errors
    /// The message of the error.
    pub(super) async fn node_agent_on(&self, node: &str) -> Result<(), String> {
        // Held over the request, so that the pods of a node ask once.
        let mut known = self.agents.lock().await;
        if known.contains(node) {
            return Ok(());
        }
        let target = Target::new("", "v1", "pods", &self.job.velero_namespace);
        let selector = format!("role={NODE_AGENT}");
        let list = || self.cluster.list(&target, &selector);
        let agents = retrying(Backoff::default(), &mut Attempts::default(), list).await;
        let agents = agents.map_err(|error| format!("failed to list node-agent pods: {error}"))?;
        if agents.iter().any(|agent| objects::is_agent_on(agent, node)) {
            known.insert(node.to_owned());
            return Ok(());
        }
        Err(format!("daemonset pod not found in running state in node {node}"))
    }

    /// Sees to it that the repository of a source namespace is there and ready; once per restore.
    ///
    /// # Errors
    /// The message of the error that every pod from that namespace has then.
    pub(super) async fn repository(&self, source_namespace: &str) -> Result<(), String> {
        let cell = self.repositories().entry(source_namespace.to_owned()).or_default().clone();
        cell.get_or_init(|| self.ensure_repository(source_namespace)).await.clone()
    }

    async fn ensure_repository(&self, source_namespace: &str) -> Result<(), String> {
        let location = &self.job.backup_storage_location;
        if location.is_empty() {
            return Err(format!(
                "backup {} names no storage location, so the repository of namespace {source_namespace} cannot be found",
                self.job.backup_name
            ));
        }
        let target = objects::velero(&self.job, "backuprepositories");
        let selector = objects::repository_selector(&self.job, source_namespace);
        let list = || self.cluster.list(&target, &selector);
        let found = retrying(Backoff::default(), &mut Attempts::default(), list).await;
        let found = found.map_err(|error| format!("error getting backup repository list: {error}"))?;
        if found.len() > 1 {
            let names: Vec<&str> = found.iter().map(|repository| text(repository, "/metadata/name")).collect();
            return Err(format!(
                "more than one BackupRepository found for workload namespace {source_namespace:?}, backup storage location \
                 {location:?}, repository type \"kopia\": {}; delete all but one",
                names.join(", ")
            ));
        }
        let object = objects::backup_repository(&self.job, source_namespace);
        if found.is_empty() {
            let create = || self.cluster.create(&target, &object);
            match retrying(Backoff::default(), &mut Attempts::default(), create).await {
                Ok(_) => self.info(format!("created BackupRepository {}", text(&object, "/metadata/name"))),
                // Somebody else needed it at the same moment, or the first try got no answer.
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(format!("unable to create backup repository resource: {error}")),
            }
        }
        let name = text(found.first().unwrap_or(&object), "/metadata/name").to_owned();
        let _announced = self.announce(Waiting {
            object: format!("BackupRepository {name}"),
            request: "wait until it is ready".to_owned(),
            reason: None,
        });
        let ready =
            tokio::time::timeout(self.job.settings.resource_timeout, self.until_ready(&target, &selector)).await;
        ready.unwrap_or_else(|_| {
            Err(format!(
                "failed to wait BackupRepository, timeout exceeded: BackupRepository {name} is not ready after {:?}; see its \
                 status, and whether a Velero server runs that maintains repositories",
                self.job.settings.resource_timeout
            ))
        })
    }

    async fn until_ready(&self, target: &Target, selector: &str) -> Result<(), String> {
        let is_it = |repository: &Value, key: &str| {
            selector.split(',').filter_map(|part| part.split_once('=')).all(|(label, value)| {
                repository.pointer(key).and_then(|labels| labels.get(label)).and_then(Value::as_str) == Some(value)
            })
        };
        loop {
            let mut changes = self.cluster.watch_selected(target, selector);
            while let Some(change) = changes.next().await {
                match change {
                    Ok(Change::Is(repository)) if is_it(&repository, "/metadata/labels") => {
                        match text(&repository, "/status/phase") {
                            "" | "New" => {}
                            "NotReady" => {
                                return Err(format!(
                                    "failed to wait BackupRepository, errored early: backup repository is not ready: {}",
                                    text(&repository, "/status/message")
                                ));
                            }
                            _ => return Ok(()),
                        }
                    }
                    Ok(_) => {}
                    Err(error) => self.debug(format!("watching BackupRepositories: {error}")),
                }
            }
            tokio::time::sleep(WATCH_ENDED_PAUSE).await;
        }
    }
}
