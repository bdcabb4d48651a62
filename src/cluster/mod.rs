//! The Kubernetes side of the engine's [`Cluster`] port, over `kube::Client`.
//!
//! Objects travel as plain JSON: no typed structs and no `DynamicObject`, so that nothing of an item is lost.

mod discovery;
mod exec;
mod request;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::engine::discovery::Discovery;
use crate::engine::ports::{ApiError, Change, Cluster, DryRun};
use crate::model::Target;

use request::{ContentType, openapi_path, path_of, send};

/// The field manager of everything written here, where the backup records no managers of its own.
pub const FIELD_MANAGER: &str = "reprise";

/// What makes a write a dry run.
const DRY_RUN: [(&str, &str); 2] = [("dryRun", "All"), ("fieldManager", FIELD_MANAGER)];

/// How many objects one page of a LIST holds: the page size of client-go's pager.
const LIST_PAGE: u32 = 500;

/// A cluster reached through a `kube::Client`, be it a real one or the sandbox.
pub struct KubeCluster {
    client: Client,
    discovery: Mutex<Option<Arc<Discovery>>>,
}

impl KubeCluster {
    /// The cluster behind this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, discovery: Mutex::new(None) }
    }

    /// The client itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn discovery(&self, refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        // The lock is held over the requests on purpose: callers that come meanwhile want the same answer.
        let mut known = self.discovery.lock().await;
        match &*known {
            Some(table) if !refresh => Ok(Arc::clone(table)),
            _ => {
                let table = Arc::new(Discovery::new(discovery::fetch(&self.client).await?));
                *known = Some(Arc::clone(&table));
                Ok(table)
            }
        }
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        match send(&self.client, Method::GET, &path_of(target, Some(name), None, &[]), None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let limit = LIST_PAGE.to_string();
            let mut query = vec![("limit", limit.as_str())];
            if !label_selector.is_empty() {
                query.push(("labelSelector", label_selector));
            }
            if !next.is_empty() {
                query.push(("continue", next.as_str()));
            }
            let mut page = send(&self.client, Method::GET, &path_of(target, None, None, &query), None).await?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                objects.extend(items);
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = token.to_owned(),
                _ => return Ok(objects),
            }
        }
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let path = path_of(target, None, None, &[("fieldManager", FIELD_MANAGER)]);
        send(&self.client, Method::POST, &path, Some((ContentType::Json, object))).await
    }

    async fn merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        let path = path_of(target, Some(name), None, &[("fieldManager", FIELD_MANAGER)]);
        send(&self.client, Method::PATCH, &path, Some((ContentType::MergePatch, patch))).await
    }

    async fn delete(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        match send(&self.client, Method::DELETE, &path_of(target, Some(name), None, &[]), None).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn delete_collection(&self, target: &Target, label_selector: &str) -> Result<(), ApiError> {
        let path = path_of(target, None, None, &[("labelSelector", label_selector)]);
        send(&self.client, Method::DELETE, &path, None).await.map(|_| ())
    }

    async fn replace_status(&self, target: &Target, name: &str, object: &Value) -> Result<Value, ApiError> {
        let path = path_of(target, Some(name), Some("status"), &[("fieldManager", FIELD_MANAGER)]);
        send(&self.client, Method::PUT, &path, Some((ContentType::Json, object))).await
    }

    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        send(&self.client, Method::GET, &openapi_path(group, version), None).await
    }

    fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        watch::changes(self.client.clone(), target, name, "")
    }

    fn watch_selected<'a>(&'a self, target: &Target, label_selector: &str) -> BoxStream<'a, Result<Change, ApiError>> {
        watch::changes(self.client.clone(), target, None, label_selector)
    }
}

#[async_trait]
impl DryRun for KubeCluster {
    async fn create_dry_run(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let path = path_of(target, None, None, &DRY_RUN);
        send(&self.client, Method::POST, &path, Some((ContentType::Json, object))).await
    }

    async fn merge_patch_dry_run(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        let path = path_of(target, Some(name), None, &DRY_RUN);
        send(&self.client, Method::PATCH, &path, Some((ContentType::MergePatch, patch))).await
    }

    async fn may(&self, verb: &str, target: &Target) -> Result<bool, ApiError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb,
                "group": target.group,
                "version": target.version,
                "resource": target.resource,
                "namespace": target.namespace.as_deref().unwrap_or_default(),
            }},
        });
        let reviews = Target::new("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "");
        let path = path_of(&reviews, None, None, &[]);
        let answer = send(&self.client, Method::POST, &path, Some((ContentType::Json, &review))).await?;
        Ok(answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or_default())
    }
}
