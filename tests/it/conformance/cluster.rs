//! Requests as the recordings were made with: raw JSON, an explicit field manager, no defaulting on the client's side.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, header};
use serde_json::{Value, json};

use super::normalize::has_token;
use super::values::{entries, items, text};
use crate::support::ControlPlane;
use crate::support::control_plane::{ADMIN_TOKEN, Listable, listable};

/// What the runner's own requests are told by in the audit log.
pub(super) const USER_AGENT: &str = "conformance/1";

/// A refusal by the API server, or no answer from it.
#[derive(Debug)]
pub(super) struct Refused {
    /// The HTTP status; 0 where there was no answer.
    pub(super) code: u16,
    /// What happened to which request.
    pub(super) message: String,
}

impl From<Refused> for String {
    fn from(refused: Refused) -> Self {
        refused.message
    }
}

#[derive(Debug, Clone)]
struct Kind {
    plural: String,
    namespaced: bool,
    has_status: bool,
}

/// A client of the API server.
pub(super) struct Kube {
    client: kube::Client,
    kinds: tokio::sync::Mutex<HashMap<(String, String), Kind>>,
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

impl Kube {
    pub(super) async fn new(cluster: &ControlPlane) -> Self {
        let mut config = cluster.config(ADMIN_TOKEN).await;
        config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
        config.read_timeout = Some(Duration::from_secs(60));
        let client = kube::Client::try_from(config).expect("a client from the kubeconfig just made");
        Self { client, kinds: tokio::sync::Mutex::default() }
    }

    async fn request(&self, method: Method, path: &str, body: Option<(&Value, &str)>) -> Result<Value, Refused> {
        let mut attempt = 1;
        loop {
            let mut request = Request::builder().method(method.clone()).uri(path).header(header::ACCEPT, JSON);
            if let Some((_, kind)) = body {
                request = request.header(header::CONTENT_TYPE, kind);
            }
            let bytes = body.map(|(body, _)| body.to_string().into_bytes()).unwrap_or_default();
            let request = request.body(bytes).map_err(|e| Refused { code: 0, message: format!("{path}: {e}") })?;
            match self.client.request_text(request).await {
                Ok(text) => return Ok(serde_json::from_str(&text).unwrap_or_else(|_| json!({"message": text}))),
                Err(kube::Error::Api(status)) => {
                    let message = format!("{method} {path}: HTTP {}: {}", status.code, status.message);
                    return Err(Refused { code: status.code, message });
                }
                Err(_) if attempt < 3 => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(e) => return Err(Refused { code: 0, message: format!("{method} {path}: {e}") }),
            }
            attempt += 1;
        }
    }

    /// What is served for a kind, waiting for one that is about to appear.
    async fn kind(&self, object: &Value) -> Result<Kind, Refused> {
        let (version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let mut kinds = self.kinds.lock().await;
            if let Some(kind) = kinds.get(&(version.to_string(), kind.to_string())) {
                return Ok(kind.clone());
            }
            if let Ok(list) = self.request(Method::GET, &root(version), None).await {
                let names: Vec<&str> = items(&list["resources"]).map(|r| text(r, &["name"])).collect();
                for resource in items(&list["resources"]).filter(|r| !text(r, &["name"]).contains('/')) {
                    let plural = text(resource, &["name"]);
                    let found = Kind {
                        plural: plural.to_string(),
                        namespaced: resource["namespaced"] == true,
                        has_status: names.contains(&format!("{plural}/status").as_str()),
                    };
                    kinds.insert((version.to_string(), text(resource, &["kind"]).to_string()), found);
                }
                if kinds.contains_key(&(version.to_string(), kind.to_string())) {
                    continue;
                }
            }
            drop(kinds);
            if Instant::now() > end {
                return Err(Refused { code: 0, message: format!("no resource for {version} {kind}") });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn collection(&self, object: &Value) -> Result<String, Refused> {
        let kind = self.kind(object).await?;
        let root = root(text(object, &["apiVersion"]));
        let namespace = Some(text(object, &["metadata", "namespace"])).filter(|n| !n.is_empty()).unwrap_or("default");
        let scope = if kind.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        Ok(format!("{root}{scope}/{}", kind.plural))
    }

    async fn path(&self, object: &Value) -> Result<String, Refused> {
        Ok(format!("{}/{}", self.collection(object).await?, text(object, &["metadata", "name"])))
    }

    /// Creates, trying again for what a CRD or policy made a moment ago may still refuse.
    pub(super) async fn create(&self, object: &Value, manager: &str) -> Result<(), Refused> {
        let end = Instant::now() + Duration::from_secs(10);
        let path = format!("{}?fieldManager={manager}", self.collection(object).await?);
        loop {
            match self.request(Method::POST, &path, Some((object, JSON))).await {
                Ok(_) => return Ok(()),
                Err(refused) if ![404, 429, 500, 503].contains(&refused.code) || Instant::now() > end => {
                    return Err(refused);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    async fn apply(&self, object: &Value, manager: &str) -> Result<(), Refused> {
        let end = Instant::now() + Duration::from_secs(10);
        let path = format!("{}?fieldManager={manager}&force=true", self.path(object).await?);
        loop {
            match self.request(Method::PATCH, &path, Some((object, "application/apply-patch+yaml"))).await {
                Ok(_) => return Ok(()),
                Err(refused) if ![404, 422, 429, 500, 503].contains(&refused.code) || Instant::now() > end => {
                    return Err(refused);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    async fn patch(&self, object: &Value, patch: &Value, how: &str, manager: &str, sub: &str) -> Result<(), Refused> {
        let path = format!("{}{sub}?fieldManager={manager}", self.path(object).await?);
        self.request(Method::PATCH, &path, Some((patch, how))).await.map(drop)
    }

    /// Deletes; whether it was there does not matter.
    pub(super) async fn delete(&self, object: &Value) {
        if let Ok(path) = self.path(object).await {
            let _ = self.request(Method::DELETE, &path, None).await;
        }
    }

    /// One object; `None` where there is none.
    pub(super) async fn get(
        &self,
        version: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Refused> {
        let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        match self.request(Method::GET, &format!("{}{scope}/{plural}/{name}", root(version)), None).await {
            Ok(object) => Ok(Some(object)),
            Err(refused) if refused.code == 404 => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// A Restore of the namespace `velero`.
    pub(super) async fn restore(&self, name: &str) -> Result<Option<Value>, Refused> {
        self.get("velero.io/v1", "restores", "velero", name).await
    }

    /// All objects below a path; none where it is not served.
    async fn list(&self, path: &str) -> Vec<Value> {
        let mut list = self.request(Method::GET, path, None).await.unwrap_or_default();
        list["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All objects of all listable kinds.
    pub(super) async fn list_all(&self) -> Vec<(Listable, Vec<Value>)> {
        let mut all = vec![];
        for kind in listable(&self.client).await {
            let objects = self.list(&format!("{}/{}", kind.root(), kind.plural)).await;
            all.push((kind, objects));
        }
        all
    }

    /// Applies the documents of a case or manifest; all problems are reported together.
    pub(super) async fn apply_documents(&self, documents: &[Value], manager: &str) -> Result<(), String> {
        let mut failed = vec![];
        for document in documents {
            if let Err(why) = self.apply_document(document.clone(), manager).await {
                let (kind, name) = (text(document, &["kind"]), text(document, &["metadata", "name"]));
                let namespace = text(document, &["metadata", "namespace"]);
                failed.push(format!("applying {kind} {namespace}/{name}: {why}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }

    async fn apply_document(&self, mut document: Value, manager: &str) -> Result<(), String> {
        let mut take = |key: &str| document.as_object_mut().and_then(|d| d.remove(key));
        let how = take("x-conformance").unwrap_or_default();
        let status = take("status");
        let manager = how["manager"].as_str().unwrap_or(manager);
        if how["ssa"] == true {
            self.apply(&document, manager).await?;
        } else if how["update"] == true {
            self.patch(&document, &document, MERGE_PATCH, manager, "").await?;
        } else {
            self.create(&document, manager).await?;
            if document["kind"] == "CustomResourceDefinition" {
                self.wait_for_crd(text(&document, &["metadata", "name"])).await?;
            }
        }
        if let Some(status) = status {
            let sub = if self.kind(&document).await?.has_status { "/status" } else { "" };
            self.patch(&document, &json!({"status": status}), MERGE_PATCH, manager, sub).await?;
        }
        for patch in items(&how["patches"]) {
            let sub = text(patch, &["subresource"]);
            let strategic = "application/strategic-merge-patch+json";
            self.patch(&document, &patch["patch"], strategic, manager, sub).await?;
        }
        if how["delete"] == true {
            self.delete(&document).await;
        }
        Ok(())
    }

    /// Returns when the CRD is established.
    pub(super) async fn wait_for_crd(&self, name: &str) -> Result<(), String> {
        for _ in 0..100 {
            let crd =
                self.get("apiextensions.k8s.io/v1", "customresourcedefinitions", "", name).await?.unwrap_or_default();
            if items(&crd["status"]["conditions"]).any(|c| c["type"] == "Established" && c["status"] == "True") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("CRD {name} was not established"))
    }

    async fn force_delete(&self, root: &str, plural: &str, object: &Value) {
        let metadata = &object["metadata"];
        let namespace = text(metadata, &["namespace"]);
        let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let path = format!("{root}{scope}/{plural}/{}", text(metadata, &["name"]));
        if items(&metadata["finalizers"]).next().is_some() {
            let bare = json!({"metadata": {"finalizers": null}});
            let _ = self.request(Method::PATCH, &path, Some((&bare, MERGE_PATCH))).await;
        }
        let _ = self.request(Method::DELETE, &path, None).await;
    }

    /// Removes what the next cases could meet: ports and addresses, what is cluster-scoped, the case's configuration.
    pub(super) async fn purge(&self, token: &str, configuration: &[Value]) {
        for document in configuration {
            self.delete(document).await;
        }
        for namespace in self.list("/api/v1/namespaces").await {
            let name = text(&namespace, &["metadata", "name"]);
            if !has_token(name, token) {
                continue;
            }
            for service in self.list(&format!("/api/v1/namespaces/{name}/services")).await {
                self.force_delete("/api/v1", "services", &service).await;
            }
            for map in self.list(&format!("/api/v1/namespaces/{name}/configmaps")).await {
                if items(&map["metadata"]["finalizers"]).next().is_some() {
                    self.force_delete("/api/v1", "configmaps", &map).await;
                }
            }
        }
        let (kept, crds) = (["namespaces", "componentstatuses", "ipaddresses"], "customresourcedefinitions");
        for kind in listable(&self.client).await {
            if kind.namespaced || kept.contains(&kind.plural.as_str()) || kind.plural == crds {
                continue;
            }
            for object in self.list(&format!("{}/{}", kind.root(), kind.plural)).await {
                let labelled = entries(&object["metadata"]["labels"]).any(|(k, v)| k == "case" && v == token);
                if labelled || has_token(text(&object, &["metadata", "name"]), token) {
                    self.force_delete(&kind.root(), &kind.plural, &object).await;
                }
            }
        }
        let root = "/apis/apiextensions.k8s.io/v1";
        for crd in self.list(&format!("{root}/{crds}")).await {
            if has_token(text(&crd, &["metadata", "name"]), token) {
                self.force_delete(root, crds, &crd).await;
            }
        }
        // A kind that went away may come back otherwise with another case.
        self.kinds.lock().await.clear();
    }
}

fn root(version: &str) -> String {
    if version == "v1" { "/api/v1".to_string() } else { format!("/apis/{version}") }
}
