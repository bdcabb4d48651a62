//! `reprise serve`: the service, in front of a cluster or of the sandbox.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;

use crate::app::{Backend, Options, Running, SANDBOX_PATH};
use crate::archive;
use crate::engine::Settings;
use crate::engine::collect::Priorities;
use crate::model::GoDuration;
use crate::shutdown;

/// Flags of `reprise serve`; those that Velero has, too, have its names and defaults (restore-semantics 1.10).
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address of gRPC and REST. Loopback only: TLS and authentication are not there yet.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,

    /// Namespace in which Velero's objects are.
    #[arg(long, default_value = "velero", env = "VELERO_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Serve an in-memory Kubernetes API instead of a cluster; nothing is restored anywhere.
    #[arg(long)]
    pub sandbox: bool,

    /// With --sandbox: the folder with the backups, laid out like a bucket (backups/NAME/NAME.tar.gz …).
    #[arg(long, requires = "sandbox", required_if_eq("sandbox", "true"), value_name = "FOLDER")]
    pub store: Option<PathBuf>,

    /// The cluster to serve, and how to reach it.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Limits and waits.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Written into Restores that name no timeout for asynchronous operations.
    #[arg(long, default_value = "4h", value_name = "DURATION")]
    pub default_item_operation_timeout: GoDuration,
}

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// Kubeconfig file. Without it: the files of $KUBECONFIG, ~/.kube/config, or the service account of the pod.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig.
    #[arg(long = "kubecontext", value_name = "CONTEXT")]
    pub context: Option<String>,
}

/// Limits and waits of restoring.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// How long to wait for namespaces and volumes that are being deleted.
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    pub terminating_resource_timeout: GoDuration,

    /// How long to wait for a CustomResourceDefinition to be served.
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    pub resource_timeout: GoDuration,

    /// Order of resources: a comma list, in which a lone '-' separates high from low priorities.
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "LIST")]
    pub restore_resource_priorities: String,

    /// Feature flags of Velero, such as EnableCSI; a comma list.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub features: Vec<String>,

    /// How many items are restored at once.
    #[arg(long, default_value_t = Settings::default().concurrency, value_name = "NUMBER")]
    pub item_concurrency: usize,
}

impl EngineArgs {
    /// The engine's settings.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let Self {
            terminating_resource_timeout,
            resource_timeout,
            restore_resource_priorities,
            features,
            item_concurrency,
        } = self;
        anyhow::ensure!(*item_concurrency > 0, "--item-concurrency must be at least 1");
        Ok(Settings {
            concurrency: *item_concurrency,
            terminating_resource_timeout: positive(*terminating_resource_timeout, "--terminating-resource-timeout")?,
            resource_timeout: positive(*resource_timeout, "--resource-timeout")?,
            priorities: restore_resource_priorities
                .parse::<Priorities>()
                .with_context(|| format!("--restore-resource-priorities {restore_resource_priorities:?}"))?,
            features: features.iter().filter(|feature| !feature.is_empty()).cloned().collect::<BTreeSet<_>>(),
        })
    }
}

fn positive(duration: GoDuration, flag: &str) -> anyhow::Result<Duration> {
    duration
        .to_std()
        .filter(|duration| !duration.is_zero())
        .with_context(|| format!("{flag} {duration}: give a duration above zero, such as 10m"))
}

impl ClusterArgs {
    /// A client of the cluster.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => from_file(path, &options).await?,
            None if self.context.is_some() => {
                kube::Config::from_kubeconfig(&options).await.context("read the kubeconfig")?
            }
            None => kube::Config::infer().await.context(
                "find a cluster: no kubeconfig is there and this is no pod; give --kubeconfig, or try --sandbox",
            )?,
        };
        kube::Client::try_from(config).context("make a client of the cluster")
    }
}

async fn from_file(path: &Path, options: &KubeConfigOptions) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, options).await;
    config.with_context(|| format!("use kubeconfig {}", path.display()))
}

/// Serves until a signal comes.
///
/// # Errors
/// When a flag is wrong, an address is taken, the cluster cannot be set up, or a part ends unexpectedly.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let ServeArgs {
        listen,
        admin_listen,
        namespace,
        sandbox: _,
        store,
        cluster,
        engine,
        default_item_operation_timeout,
    } = args;
    anyhow::ensure!(
        listen.ip().is_loopback(),
        "--listen {listen} is reachable from elsewhere, and this version has neither TLS nor authentication: listen on \
         127.0.0.1 and reach it by `kubectl port-forward` or a proxy that authenticates"
    );
    let backend = match store {
        Some(store) => Backend::Sandbox { store, pace: Duration::ZERO },
        None => Backend::Cluster(cluster.client().await?),
    };
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("listen for signals")?;
    let options = Options {
        listen,
        admin_listen,
        backend,
        namespace,
        settings: engine.settings()?,
        limits: archive::Limits::default(),
        default_item_operation_timeout: default_item_operation_timeout.to_string(),
        environment: std::env::vars().collect(),
    };
    let running = Running::start(options, stop).await?;
    tracing::info!(address = %running.address(), admin = %running.admin_address(), "serving gRPC and REST");
    if running.sandbox().is_some() {
        tracing::warn!(
            "this is a sandbox: nothing is restored into a cluster; its objects: kubectl --server http://{}{SANDBOX_PATH}",
            running.address()
        );
    }
    running.wait().await
}
