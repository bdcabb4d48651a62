//! An in-memory Kubernetes API, reached through the same `kube::Client` as a cluster.
//!
//! A tower service in place of the network answers as a kube-apiserver 1.36 does: discovery, the verbs, watches,
//! optimistic concurrency, finalizers, CRDs whose kinds appear at run time, and refusals in the server's own words.
//! The same contract tests run against it and against the real server.
//!
//! It is *not* a cluster. No controller, scheduler, kubelet or garbage collector runs, apart from what it plays
//! itself: namespaces and CRDs empty themselves when deleted, Services get addresses. Not imitated: CEL rules,
//! conversion webhooks, admission other than the namespace's lifecycle, quotas, authorization, field ownership
//! (server-side apply merges: it neither conflicts nor takes back what is no longer sent), the `scale` subresource,
//! protobuf, tables, snapshots behind `continue` and `resourceVersionMatch`. Unknown fields of built-in kinds are kept
//! instead of pruned; their defaults, rules and types are those in `kinds`, the ones a restore meets.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use k8s_openapi::api::core::v1::Namespace;
//! use reprise::sandbox::{Options, Sandbox};
//! let client = Sandbox::new(Options::default()).client();
//! let namespaces: kube::Api<Namespace> = kube::Api::all(client);
//! assert_eq!(namespaces.list(&Default::default()).await.unwrap().items.len(), 4);
//! # });
//! ```

mod builtin;
mod convert;
mod crd;
mod delete;
mod discovery;
mod kinds;
mod names;
mod patch;
mod read;
mod registry;
mod route;
mod schema;
mod selector;
mod serve;
mod services;
mod state;
mod status;
mod store;
mod validate;
mod watch;
mod write;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use serve::Server;
use state::{Random, State, WriteOptions};

/// What a sandbox starts with.
#[derive(Clone, Debug)]
pub struct Options {
    /// CustomResourceDefinitions (`apiextensions.k8s.io/v1`) that are there from the start.
    pub crds: Vec<Value>,
    /// Where uids and generated names come from; the same seed gives the same ones in the same order of requests.
    pub seed: u64,
    /// The clock behind creation and deletion timestamps.
    pub clock: fn() -> jiff::Timestamp,
    /// How long after its creation a CRD is established; zero does it in the same step.
    pub crd_delay: Duration,
    /// How many changes of each resource are kept for watches; older ones answer 410.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { crds: Vec::new(), seed: 0, clock: jiff::Timestamp::now, crd_delay: Duration::ZERO, history: 4096 }
    }
}

/// A CRD of the options that the API refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API's own words.
    #[error("install crd {name:?} into the sandbox: {message}")]
    Crd {
        /// Its name, empty where it has none.
        name: String,
        /// What the API answered.
        message: String,
    },
}

/// An in-memory Kubernetes API; clones share their state.
#[derive(Clone, Debug)]
pub struct Sandbox {
    server: Arc<Server>,
}

impl Sandbox {
    /// A sandbox with the four namespaces and the `kubernetes` Service of a new cluster, and the CRDs of the options.
    /// A CRD that the API refuses is left out and logged; [`Sandbox::try_new`] returns it instead.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let (sandbox, refused) = Self::build(options);
        for error in refused {
            tracing::error!("{error}");
        }
        sandbox
    }

    /// As [`Sandbox::new`], but fails on a CRD that the API refuses.
    pub fn try_new(options: Options) -> Result<Self, Error> {
        let (sandbox, refused) = Self::build(options);
        refused.into_iter().next().map_or(Ok(sandbox), Err)
    }

    fn build(options: Options) -> (Self, Vec<Error>) {
        let state = State {
            registry: registry::Registry::builtin(),
            store: store::Store::new(options.history),
            services: services::Allocator::default(),
            random: Random(options.seed),
            clock: options.clock,
            unestablished: Vec::new(),
            establish_at_once: true,
        };
        let server = Server { state: Mutex::new(state), crd_delay: options.crd_delay };
        let sandbox = Self { server: Arc::new(server) };
        let mut refused = Vec::new();
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({ "metadata": { "name": name } });
            refused.extend(sandbox.install("", "v1", "namespaces", None, namespace));
        }
        let service = json!({
            "metadata": { "name": "kubernetes", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "clusterIP": "10.0.0.1", "ports": [{ "name": "https", "port": 443, "targetPort": 6443 }] },
        });
        refused.extend(sandbox.install("", "v1", "services", Some("default"), service));
        for crd in options.crds {
            refused.extend(sandbox.install(crd::GROUP, "v1", crd::PLURAL, None, crd));
        }
        sandbox.server.state().establish_at_once = options.crd_delay.is_zero();
        (sandbox, refused)
    }

    fn install(
        &self,
        group: &str,
        version: &str,
        plural: &str,
        namespace: Option<&str>,
        object: Value,
    ) -> Option<Error> {
        let name = state::meta(&object, "name").to_owned();
        let mut state = self.server.state();
        let created = match state.registry.view(group, version, plural) {
            Some(view) => state.create(&view, namespace, object, WriteOptions::default()),
            None => Err(status::Error::no_resource()),
        };
        created.err().map(|error| Error::Crd { name, message: error.message })
    }

    /// A client whose requests end here instead of on the network.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.http_service(), "default")
    }

    /// The API as an HTTP service, to be served as it is or mounted under a prefix
    /// (`Router::nest_service("/sandbox", sandbox.http_service())`, for `kubectl --server http://HOST/sandbox`).
    #[must_use]
    pub fn http_service(&self) -> HttpService {
        HttpService { server: Arc::clone(&self.server) }
    }
}

/// The sandbox as a tower service over any request body.
#[derive(Clone, Debug)]
pub struct HttpService {
    server: Arc<Server>,
}

impl<B> tower::Service<Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = Arc::clone(&self.server);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let response = match Limited::new(body, serve::BODY_LIMIT).collect().await {
                Ok(body) => server.answer(&Request::from_parts(parts, body.to_bytes())),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    serve::refusal(&status::Error::too_large(serve::BODY_LIMIT))
                }
                Err(error) => serve::refusal(&status::Error::bad_request(format!("read the body: {error}"))),
            };
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{ListParams, PostParams};
    use kube::{Api, ResourceExt as _};
    use tower::ServiceExt as _;

    fn config_map(name: &str) -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
    }

    #[tokio::test]
    async fn clones_share_their_state_and_a_seed_their_uids() {
        let sandbox = Sandbox::new(Options::default());
        let api = |sandbox: &Sandbox| Api::<ConfigMap>::default_namespaced(sandbox.client());
        let one = api(&sandbox).create(&PostParams::default(), &config_map("a")).await.unwrap();
        assert_eq!(api(&sandbox.clone()).get("a").await.unwrap().uid(), one.uid());
        let again = Sandbox::new(Options::default());
        assert!(api(&again).get_opt("a").await.unwrap().is_none());
        let other = api(&again).create(&PostParams::default(), &config_map("a")).await.unwrap();
        assert_eq!(other.uid(), one.uid());
    }

    #[tokio::test]
    async fn it_can_be_mounted_under_a_prefix() {
        let service = Sandbox::new(Options::default()).http_service();
        let router: axum::Router = axum::Router::new().nest_service("/sandbox", service);
        let request = Request::get("/sandbox/api/v1/namespaces/default").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let namespace: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(namespace["metadata"]["name"], "default");
    }

    #[tokio::test]
    async fn crds_of_the_options_are_served_at_once_and_bad_ones_are_named() {
        let mut crd = json!({
            "metadata": { "name": "things.example.com" },
            "spec": { "group": "example.com", "scope": "Cluster", "names": { "plural": "things", "kind": "Thing" },
                "versions": [{ "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object" } } }] },
        });
        let with =
            |crd: &Value| Options { crds: vec![crd.clone()], crd_delay: Duration::from_secs(60), ..Options::default() };
        let client = Sandbox::try_new(with(&crd)).unwrap().client();
        assert!(client.list_api_groups().await.unwrap().groups.iter().any(|group| group.name == "example.com"));
        crd["metadata"]["name"] = json!("other");
        let error = Sandbox::try_new(with(&crd)).unwrap_err();
        assert!(error.to_string().starts_with("install crd \"other\" into the sandbox: "), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_clients_write_and_watch_at_once() {
        use futures::TryStreamExt as _;
        const WRITERS: usize = 8;
        const EACH: usize = 250;
        let client = Sandbox::new(Options::default()).client();
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let params = kube::api::WatchParams::default().timeout(60);
        let mut events = std::pin::pin!(api.watch(&params, &version).await.unwrap());
        let writers = (0..WRITERS).map(|writer| {
            let api = api.clone();
            tokio::spawn(async move {
                for at in 0..EACH {
                    let object = config_map(&format!("w{writer}-{at}"));
                    api.create(&PostParams::default(), &object).await.unwrap();
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut last = 0;
        for _ in 0..WRITERS * EACH {
            let event = events.try_next().await.unwrap().unwrap();
            let kube::api::WatchEvent::Added(object) = event else { panic!("{event:?}") };
            let revision: u64 = object.resource_version().unwrap().parse().unwrap();
            assert!(revision > last, "in order");
            last = revision;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), WRITERS * EACH);
    }
}
