//! `reprise serve`: the service, over a cluster or the sandbox.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::engine_flags::{self, ClusterFlags, EngineFlags};
use super::exit::Exit;
use super::output;
use crate::app::{Backend, Options, Running, SANDBOX_PATH};
use crate::engine::Settings;
use crate::model::GoDuration;
use crate::sample::{self, SampleOptions};

/// `reprise serve`.
#[derive(Args, Clone, Debug)]
pub(super) struct ServeArgs {
    /// Address of gRPC and REST; port 0 takes a free one
    #[arg(long, env = "REPRISE_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "REPRISE_ADMIN_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    admin_listen: SocketAddr,
    /// Namespace of Velero's objects
    #[arg(long, short = 'n', env = "VELERO_NAMESPACE", default_value = "velero", value_name = "NAMESPACE")]
    namespace: String,
    /// Folder of backups for the sandbox, the root of a bucket with `backups/NAME/…` in it; a sample backup without it
    #[arg(long, requires = "sandbox", value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// How long to wait for asynchronous operations, where a Restore does not say
    #[arg(long, default_value = "4h", value_parser = engine_flags::duration, value_name = "DURATION")]
    default_item_operation_timeout: std::time::Duration,
    /// How often asynchronous operations are asked how far they are, beside the times when something changes
    #[arg(long, default_value = "10s", value_parser = engine_flags::duration, value_name = "DURATION")]
    item_operation_sync_frequency: std::time::Duration,
    /// How long the pod volumes of a restore may take, where the Restore's annotation velero.io/pod-volume-timeout does not say
    #[arg(long, default_value = "4h", value_parser = engine_flags::duration, value_name = "DURATION")]
    fs_backup_timeout: std::time::Duration,
    /// How long nothing may move before the progress, and an Event, say what is waited for
    #[arg(long, default_value = "30s", value_parser = engine_flags::duration, value_name = "DURATION")]
    stall_after: std::time::Duration,
    /// Answer DownloadRequests, as `velero restore logs` and `describe` make them; off, because Velero's own server does so
    /// wherever it runs beside this one
    #[arg(long)]
    download_requests: bool,
    /// Only report restores that Velero executes, and write nothing: progress, rate, time left, stalls, streams
    #[arg(long, conflicts_with_all = ["sandbox", "download_requests"])]
    observe: bool,
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(flatten)]
    engine: EngineFlags,
}

/// Serves until it is told to stop.
pub(super) async fn serve(args: ServeArgs, stop: CancellationToken) -> anyhow::Result<Exit> {
    let ServeArgs {
        listen,
        admin_listen,
        namespace,
        store,
        default_item_operation_timeout,
        item_operation_sync_frequency,
        fs_backup_timeout,
        stall_after,
        download_requests,
        observe,
        cluster,
        engine,
    } = args;
    anyhow::ensure!(
        listen.ip().is_loopback(),
        "--listen {listen} can be reached from outside, and this version has neither TLS nor authentication: listen on \
         127.0.0.1, and reach it by `kubectl port-forward` or through a proxy that authenticates"
    );
    let settings = Settings { pod_volume_timeout: fs_backup_timeout, ..engine.settings()? };
    // Kept until the end, as the sample lies in it.
    let temporary;
    let backend = if cluster.sandbox {
        let store = match store {
            Some(store) => store,
            None => {
                temporary = tempfile::tempdir().context("make a folder for the sample backup")?;
                let root = temporary.path().to_owned();
                write_sample(root.clone(), SampleOptions::default()).await?;
                root
            }
        };
        Backend::Sandbox { store, pace: std::time::Duration::ZERO }
    } else {
        let (client, address) = cluster.client().await?;
        let work = if observe { "observing the restores of a cluster" } else { "restoring into a cluster" };
        tracing::info!(cluster = address, namespace, "{work}");
        Backend::Cluster(client)
    };
    let is_sandbox = matches!(backend, Backend::Sandbox { .. });
    let options = Options {
        listen,
        admin_listen,
        backend,
        namespace,
        settings,
        limits: engine.limits(),
        default_item_operation_timeout: GoDuration::from(default_item_operation_timeout).to_string(),
        item_operation_sync_frequency,
        stall_after,
        download_requests,
        observe,
        environment: std::env::vars().collect(),
    };
    let running = Running::start(options, stop).await?;
    let address = running.address();
    if is_sandbox {
        output::notice(&format!(
            "This is a sandbox: an in-memory Kubernetes API, not a cluster. Look at it with: \
             kubectl --server http://{address}{SANDBOX_PATH} get restores -A"
        ));
    }
    tracing::info!(%address, admin = %running.admin_address(), sandbox = is_sandbox, "serving gRPC and REST");
    running.wait().await?;
    Ok(Exit::Success)
}

/// Writes a sample backup into the root of a store.
pub(super) async fn write_sample(store: PathBuf, options: SampleOptions) -> anyhow::Result<sample::SampleSummary> {
    let written = tokio::task::spawn_blocking(move || sample::write_backup(&store, &options)).await;
    written.context("write the sample backup")?.context("write the sample backup")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        serve: ServeArgs,
    }

    /// restore-semantics 1.10.
    #[test]
    fn pod_volumes_have_veleros_four_hours_unless_the_flag_says_otherwise() {
        let timeout = |arguments: &[&str]| {
            let flags = Flags::try_parse_from(["reprise"].iter().chain(arguments));
            flags.map(|flags| flags.serve.fs_backup_timeout).map_err(|error| error.to_string())
        };
        assert_eq!(timeout(&[]).unwrap(), Settings::default().pod_volume_timeout);
        assert_eq!(timeout(&["--fs-backup-timeout=90m"]).unwrap(), std::time::Duration::from_secs(5400));
        assert!(timeout(&["--fs-backup-timeout=-1s"]).unwrap_err().contains("--fs-backup-timeout"));
    }

    #[test]
    fn a_stall_is_named_after_half_a_minute_unless_the_flag_says_otherwise() {
        let after =
            |arguments: &[&str]| Flags::try_parse_from(["reprise"].iter().chain(arguments)).unwrap().serve.stall_after;
        assert_eq!(after(&[]), crate::progress::STALL);
        assert_eq!(after(&["--stall-after=2m"]), std::time::Duration::from_secs(120));
    }

    #[test]
    fn who_observes_neither_answers_requests_nor_has_a_sandbox() {
        let parse = |arguments: &[&str]| Flags::try_parse_from(["serve"].iter().chain(arguments));
        assert!(parse(&["--observe"]).unwrap().serve.observe);
        assert!(parse(&["--download-requests", "--sandbox"]).unwrap().serve.download_requests);
        for other in ["--sandbox", "--download-requests"] {
            assert!(parse(&["--observe", other]).is_err(), "{other}");
        }
        let nothing = parse(&[]).unwrap().serve;
        assert!(!nothing.observe && !nothing.download_requests);
    }
}
