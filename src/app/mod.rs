//! The composition root: builds the parts, wires them, starts and ends them. The only place that sees everything.

mod read_only;
mod sandbox;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use futures::future::OptionFuture;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Readiness, Server, server};
use crate::archive;
use crate::cluster::KubeCluster;
use crate::controller::observer::Observer;
use crate::controller::preview::Previews;
use crate::controller::record_store::RecordStore;
use crate::controller::unsaved::UnsavedOperations;
use crate::controller::{self, Controller, Executor, Records, Restores, Stores};
use crate::engine::Settings;
use crate::engine::ports::Cluster as _;
use crate::progress::{self, Hub};
use crate::sandbox::Sandbox;
use crate::service::Service;
use crate::shutdown::step;
use crate::telemetry::metrics::Metrics;

pub use sandbox::NO_EXEC;

/// Path under which the sandbox's Kubernetes API can be looked at.
pub const SANDBOX_PATH: &str = "/sandbox";

/// How often the readiness of the cluster is asked for.
const READINESS_EVERY: Duration = Duration::from_secs(5);

/// How long a running restore may take to come to an item boundary when the service goes down. A request is given up
/// after 65 s; Kubernetes kills after 30 s, and what is cut off is taken up again at the next start.
const STOP_WORK: Duration = Duration::from_secs(15);

/// What is restored into.
#[derive(Clone)]
pub enum Backend {
    /// A Kubernetes cluster with Velero's CRDs.
    Cluster(Client),
    /// The in-memory API, with backups in a folder: the root of a bucket, with `backups/NAME/…` in it.
    Sandbox {
        /// The folder.
        store: PathBuf,
        /// A pause before each write, to watch a restore in peace; zero for none.
        pace: Duration,
    },
}

/// What a service is started with.
#[derive(Clone)]
pub struct Options {
    /// Address of gRPC and REST; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of health and metrics.
    pub admin_listen: SocketAddr,
    /// What is restored into.
    pub backend: Backend,
    /// Namespace of Velero's objects.
    pub namespace: String,
    /// Limits and waits of the engine.
    pub settings: Settings,
    /// Limits on archives.
    pub limits: archive::Limits,
    /// Written into Restores that name no timeout for asynchronous operations.
    pub default_item_operation_timeout: String,
    /// How often asynchronous operations are asked how far they are.
    pub item_operation_sync_frequency: Duration,
    /// Nothing moved for so long: say what is waited for.
    pub stall_after: Duration,
    /// Whether DownloadRequests are answered; Velero's server does that where it runs beside this one.
    pub download_requests: bool,
    /// Whether somebody else executes the restores, and this only reports them and writes nothing.
    pub observe: bool,
    /// The environment, where ambient credentials are looked for.
    pub environment: BTreeMap<String, String>,
}

/// A service that runs.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    sandbox: Option<Sandbox>,
    service: Service,
    stop: CancellationToken,
    streams: CancellationToken,
    controller: JoinHandle<()>,
    server: JoinHandle<usize>,
    readiness: Readiness,
    watcher: JoinHandle<()>,
    admin: JoinHandle<Result<(), api::admin::Error>>,
}

impl Running {
    /// Builds and starts everything. It runs until `stop` is cancelled; [`Self::wait`] then ends it in order.
    ///
    /// # Errors
    /// When an address is taken or the cluster cannot be set up.
    pub async fn start(options: Options, stop: CancellationToken) -> anyhow::Result<Self> {
        let Options {
            listen,
            admin_listen,
            backend,
            namespace,
            settings,
            limits,
            default_item_operation_timeout,
            item_operation_sync_frequency,
            stall_after,
            download_requests,
            observe,
            environment,
        } = options;
        let listener = bind(listen, "--listen").await?;
        let admin_listener = bind(admin_listen, "--admin-listen").await?;
        let admin_address = admin_listener.local_addr().context("read the address of the admin listener")?;

        let (client, sandbox, extra) = match backend {
            // Nothing in this process can write then, whatever it tries.
            Backend::Cluster(client) if observe => (read_only::read_only(&client), None, Router::new()),
            Backend::Cluster(client) => (client, None, Router::new()),
            Backend::Sandbox { store, pace } => {
                let sandbox = sandbox::start(&namespace, &store).await?;
                let extra = Router::new().nest_service(SANDBOX_PATH, sandbox.http_service());
                (sandbox::paced(&sandbox, pace), Some(sandbox), extra)
            }
        };
        let streams = CancellationToken::new();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let readiness = Readiness::default();
        let cluster = Arc::new(KubeCluster::new(client.clone()));
        let hub = Hub::new(
            progress::Options { namespace: namespace.clone(), stall: stall_after, ..progress::Options::default() },
            streams.clone(),
        );
        let records = Records::new(client, &namespace);
        let restores = Restores::default();
        let stores = Stores::new(environment);
        let service = Service::new(
            Arc::new(RecordStore {
                records: records.clone(),
                restores: restores.clone(),
                stores: stores.clone(),
                sandbox: sandbox.is_some(),
            }),
            hub.clone(),
        );
        let service = if observe { service.observing() } else { service };
        let observer = observe.then(|| Observer {
            records: records.clone(),
            restores: restores.clone(),
            hub: hub.clone(),
            metrics: metrics.clone(),
        });
        // Shared with whoever waits for item operations.
        let unsaved = UnsavedOperations::default();
        let downloads = download_requests.then(|| {
            controller::download_requests::answer(records.clone(), stores.clone(), unsaved.clone(), stop.clone())
        });
        let executor = Executor {
            records,
            restores: restores.clone(),
            cluster: Arc::clone(&cluster) as _,
            exec: if sandbox.is_some() { Arc::new(NO_EXEC) } else { Arc::clone(&cluster) as _ },
            stores,
            hub,
            settings,
            limits,
            item_operation_sync_frequency,
            unsaved,
            metrics: metrics.clone(),
            finalizers: Arc::new(Semaphore::new(controller::FINALIZERS)),
        };
        let dry_run = Arc::clone(&cluster) as _;
        let previews = Previews::new(
            executor.clone(),
            dry_run,
            &default_item_operation_timeout,
            sandbox.is_some(),
            streams.clone(),
        );
        // A plan asks by dry runs, which the client of an observer refuses like all that is no read.
        let service = if observe { service } else { service.with_plans(Arc::new(previews)) };
        let controller = Controller {
            executor,
            restores: restores.clone(),
            options: controller::Options { default_item_operation_timeout },
        };
        let context = api::Context::new(Arc::new(service.clone()), streams.clone())
            .with_metrics(metrics)
            .with_readiness(readiness.clone());
        let server = Server::with_extra(listener, context, server::Options::default(), extra)?;
        let address = server.address();
        readiness.not_ready("cluster", "not asked yet");
        readiness.not_ready("restores", "the list of Restores is not complete yet");
        let watcher = tokio::spawn(watch_readiness(cluster, restores, readiness.clone()));
        Ok(Self {
            address,
            admin_address,
            sandbox,
            service,
            controller: match observer {
                Some(observer) => tokio::spawn(observer.run(stop.clone())),
                None => tokio::spawn({
                    let run = controller.run(stop.clone());
                    async move {
                        tokio::join!(run, OptionFuture::from(downloads));
                    }
                }),
            },
            server: tokio::spawn(server.run()),
            watcher,
            admin: tokio::spawn(api::admin::serve(admin_listener, readiness.clone(), Arc::new(registry))),
            readiness,
            stop,
            streams,
        })
    }

    /// Where gRPC and REST are served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are served.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The sandbox, when there is one.
    #[must_use]
    pub const fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// The façade.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Waits for the stop token, and ends everything in order: not ready, the work at an item boundary, the streams
    /// with their last event, the doors, and last the port that tells how we are.
    ///
    /// # Errors
    /// When a part ended before it was told to.
    pub async fn wait(self) -> anyhow::Result<()> {
        let mut server = self.server;
        let mut controller = self.controller;
        let early = tokio::select! {
            // Told to stop, the parts end as well; that is no surprise then.
            biased;
            () = self.stop.cancelled() => None,
            ended = &mut server => Some(format!("the server ended unexpectedly: {ended:?}")),
            ended = &mut controller => Some(format!("the controller ended unexpectedly: {ended:?}")),
        };
        self.readiness.not_ready("shutdown", "the service is going down");
        self.stop.cancel();
        self.watcher.abort();
        if !controller.is_finished() {
            step("restores", STOP_WORK, &mut controller).await;
        }
        self.streams.cancel();
        if !server.is_finished() {
            // It has its own bound, after which it cuts off what is still open.
            step("doors", server::Options::default().grace + Duration::from_secs(5), &mut server).await;
        }
        self.admin.abort();
        early.map_or(Ok(()), |message| Err(anyhow::anyhow!(message)))
    }
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: another program may have it; choose another address with {flag}")
    })
}

/// Ready means: the API server answers, and the Restores are known.
async fn watch_readiness(cluster: Arc<KubeCluster>, restores: Restores, readiness: Readiness) {
    loop {
        match cluster.discovery(false).await {
            Ok(_) => readiness.ready("cluster"),
            Err(error) => readiness.not_ready("cluster", error.to_string()),
        }
        if restores.is_synced() {
            readiness.ready("restores");
        }
        tokio::time::sleep(if restores.is_synced() { READINESS_EVERY } else { Duration::from_millis(100) }).await;
    }
}
