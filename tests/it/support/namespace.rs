//! A namespace of a test's own, with a look at what is in it when the test fails.

use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};

/// A namespace with a random name. When the test panics, what is in the namespace is printed; either way the namespace is
/// told to go (without a controller-manager it then stays in phase `Terminating`, which disturbs nobody).
pub(crate) struct Namespace {
    name: String,
    client: kube::Client,
}

impl Namespace {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Makes the namespace `<prefix>-<random>`.
pub(crate) async fn namespace(client: &kube::Client, prefix: &str) -> Namespace {
    let name = format!("{prefix}-{}", super::random_suffix());
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let request = Request::post("/api/v1/namespaces")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body).expect("JSON from JSON"))
        .expect("a request");
    client.request::<Value>(request).await.unwrap_or_else(|e| panic!("making namespace {name}: {e}"));
    Namespace { name, client: client.clone() }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        // The client's connection belongs to the test's runtime, so the work has to run there; a runtime with one
        // thread is busy dropping us, and then only a last word to the server is left undone.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if runtime.runtime_flavor() != tokio::runtime::RuntimeFlavor::MultiThread {
            if panicking {
                eprintln!(
                    "namespace {}: run the test with flavor = \"multi_thread\" to see its content here",
                    self.name
                );
            }
            return;
        }
        let (client, name) = (self.client.clone(), self.name.clone());
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                if panicking {
                    eprintln!("{}", dump(&client, &name).await);
                }
                if let Ok(request) = Request::delete(format!("/api/v1/namespaces/{name}")).body(vec![]) {
                    let _ = tokio::time::timeout(Duration::from_secs(5), client.request::<Value>(request)).await;
                }
            });
        });
    }
}

/// Everything in a namespace as text, one line per object and the objects themselves below, managed fields left out.
pub(crate) async fn dump(client: &kube::Client, namespace: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    let mut out = format!("--- namespace {namespace}\n");
    let mut full = String::new();
    for listable in super::control_plane::listable(client).await {
        if !listable.namespaced || listable.group == "events.k8s.io" || Instant::now() > end {
            continue;
        }
        let path = format!("{}/namespaces/{namespace}/{}", listable.root(), listable.plural);
        let Ok(request) = Request::get(path).body(vec![]) else { continue };
        let Ok(mut list) = client.request::<Value>(request).await else { continue };
        for object in list["items"].as_array_mut().into_iter().flatten() {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            out.push_str(&format!(
                "{}/{}\n",
                listable.group_resource(),
                object["metadata"]["name"].as_str().unwrap_or("?")
            ));
            full.push_str(&format!("{object}\n"));
        }
    }
    out + &full
}
