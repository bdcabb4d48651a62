//! `reprise demo`: the first minute. A sandbox, a sample backup, and one restore, started and followed over gRPC as any
//! client would.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::display::Display;
use super::exit::Exit;
use super::output::{self, Format};
use super::{serve, text, watch};
use crate::api::grpc::pb;
use crate::app::{Backend, Options, Running, SANDBOX_PATH};
use crate::archive::Limits;
use crate::cluster::KubeCluster;
use crate::engine::Settings;
use crate::engine::ports::Cluster as _;
use crate::model::{ApiVersion, Target};
use crate::sample::{self, Highlight, Lesson, SampleOptions, SampleSummary};
use crate::sandbox::Sandbox;

/// Where it serves unless told otherwise, and unless that is taken.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Any free port.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How long a restore for the eye takes, about: long enough to see, short enough to wait for.
const FOR_THE_EYE: Duration = Duration::from_secs(14);

/// Name of the Restore.
const RESTORE: &str = "demo";

/// `reprise demo`.
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// How many items the sample backup has, from 200 up
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(200..=1_000_000), value_name = "NUMBER")]
    items: u32,
    /// End when the restore does; the exit code is 0 only if it completed
    #[arg(long)]
    exit: bool,
    /// Address of gRPC and REST; without it 127.0.0.1:8080, or a free port where that is taken
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of health and metrics; without it 127.0.0.1:9090, or a free port where that is taken
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// How fast: `human` slows the sandbox down so that there is something to watch; without it, human on a terminal
    #[arg(long, value_enum)]
    pace: Option<Pace>,
}

/// How fast the sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// As fast as it goes.
    Fast,
    /// So that the restore takes some ten to twenty seconds.
    Human,
}

/// Runs the demo.
pub(super) async fn demo(args: DemoArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let DemoArgs { items, exit, listen, admin_listen, pace } = args;
    let for_people = output::has_terminal() && !exit;
    let pace = pace.unwrap_or(if for_people { Pace::Human } else { Pace::Fast });
    let settings = Settings::default();
    let pause = pause(pace, settings.concurrency, items);

    output::line(
        "Reprise demo. This is a sandbox: an in-memory Kubernetes API in this process; no cluster is touched.",
    )?;
    let store = tempfile::tempdir().context("make a folder for the sample backup")?;
    let options = SampleOptions { items: items as usize, ..SampleOptions::default() };
    let written = serve::write_sample(store.path().to_owned(), options.clone()).await?;
    output::line(&told(&written))?;

    // The demo has its own token, as it goes on serving until the user stops it, but ends by itself with --exit.
    let end = stop.child_token();
    let running = Running::start(
        Options {
            listen: free(listen, LISTEN, "--listen"),
            admin_listen: free(admin_listen, ADMIN_LISTEN, "--admin-listen"),
            backend: Backend::Sandbox { store: store.path().to_owned(), pace: pause },
            namespace: "velero".to_owned(),
            settings,
            limits: Limits::default(),
            default_item_operation_timeout: "4h0m0s".to_owned(),
            item_operation_sync_frequency: std::time::Duration::from_secs(10),
            stall_after: crate::progress::STALL,
            download_requests: false,
            observe: false,
            environment: std::collections::BTreeMap::new(),
        },
        end.clone(),
    )
    .await?;
    let address = running.address();
    output::line(&format!("Serving gRPC and REST on http://{address}"))?;
    if !pause.is_zero() {
        output::line(&format!("Slowed down for the eye: each write waits {pause:?}. Without that: --pace fast"))?;
    }
    let shown = show(&running, &options, address, end.clone(), exit).await;
    if exit || shown.is_err() {
        end.cancel();
    }
    // Whatever the show came to, the service ends in order.
    let ended = running.wait().await;
    let outcome = shown?;
    ended?;
    Ok(match outcome {
        // Success is the restore's with --exit, and whoever stops a demo is content.
        Exit::Interrupted if !exit => Exit::Success,
        outcome if exit => outcome,
        _ => Exit::Success,
    })
}

/// Starts a restore through the service's own door and follows it.
async fn show(
    running: &Running,
    options: &SampleOptions,
    address: SocketAddr,
    stop: CancellationToken,
    exit: bool,
) -> anyhow::Result<Exit> {
    if let Some(sandbox) = running.sandbox() {
        put_before(sandbox, options).await?;
    }
    let client = Client::connect(&format!("http://{address}")).await?;
    let request = pb::CreateRestoreRequest {
        name: RESTORE.to_owned(),
        spec: Some(pb::RestoreSpec { backup_name: options.name.clone(), ..pb::RestoreSpec::default() }),
        ..pb::CreateRestoreRequest::default()
    };
    client.create(request).await.context("create the Restore")?;
    output::line(&format!("From another terminal: curl -N http://{address}/api/v1/restores/{RESTORE}/events"))?;
    output::line("")?;
    let outcome = watch::watch(&client, RESTORE, &mut Display::new(Format::Text), &stop).await?;
    if !exit && outcome != Exit::Interrupted {
        output::lines(&addresses(address, running.admin_address(), &options.name))?;
    }
    Ok(outcome)
}

/// The pause before each write: so many are under way at a time, and so many there are.
fn pause(pace: Pace, concurrency: usize, items: u32) -> Duration {
    match pace {
        Pace::Fast => Duration::ZERO,
        Pace::Human => {
            let under_way = u32::try_from(concurrency).unwrap_or(1);
            let pause = FOR_THE_EYE * under_way / items.max(1);
            // Whole milliseconds are what timers can do, and a large backup has enough to watch by itself.
            Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(0).min(500))
        }
    }
}

fn told(written: &SampleSummary) -> String {
    format!(
        "Made the sample backup: {} of {} in {}, {} kB",
        text::plural(u64::try_from(written.items).unwrap_or(0), "item"),
        text::plural(u64::try_from(written.group_resources.len()).unwrap_or(0), "resource"),
        text::plural(u64::try_from(written.namespaces.len()).unwrap_or(0), "namespace"),
        text::number(written.tarball_bytes / 1_000),
    )
}

/// The usual address, or a free port where another program has it; an address that was asked for stays as it is.
fn free(asked: Option<SocketAddr>, usual: SocketAddr, flag: &str) -> SocketAddr {
    if let Some(asked) = asked {
        return asked;
    }
    match TcpListener::bind(usual) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            output::notice(&format!("{usual} is taken; using a free port (choose one with {flag})"));
            FREE
        }
        // Any other trouble is told where the address is really used.
        Ok(_) | Err(_) => usual,
    }
}

/// Puts two objects into the cluster before the restore: one as it is in the backup, and one that differs, so that
/// there is more to see than creations.
async fn put_before(sandbox: &Sandbox, options: &SampleOptions) -> anyhow::Result<()> {
    let cluster = KubeCluster::new(sandbox.client());
    let wanted: Vec<Highlight> = sample::highlights(options)
        .into_iter()
        .filter(|highlight| matches!(highlight.lesson, Lesson::ConflictsIfChanged | Lesson::UnchangedIfPresent))
        .collect();
    for (group_resource, object) in sample::objects(options) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let found = wanted.iter().find(|highlight| {
            highlight.group_resource == group_resource && highlight.namespace == namespace && highlight.name == name
        });
        let Some(highlight) = found else { continue };
        let mut object = fresh(&object);
        if highlight.lesson == Lesson::ConflictsIfChanged {
            object["data"] = json!({"changed": "since the backup"});
        }
        let namespaces = Target::new("", "v1", "namespaces", "");
        let parent = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        match cluster.create(&namespaces, &parent).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error).context("prepare the sandbox"),
        }
        let version: ApiVersion = object["apiVersion"].as_str().unwrap_or_default().parse()?;
        let target = Target::new(&version.group, &version.version, group_resource.resource(), namespace);
        cluster.create(&target, &object).await.context("prepare the sandbox")?;
    }
    Ok(())
}

/// An object as somebody would create it: without what the API server puts in.
fn fresh(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = ["name", "namespace", "labels", "annotations"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), object["metadata"].get(key)?.clone())));
    object["metadata"] = Value::Object(metadata.collect());
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// What to try next.
fn addresses(address: SocketAddr, admin: SocketAddr, backup: &str) -> Vec<String> {
    let grpc = |method: &str, body: &str| {
        format!("  grpcurl -plaintext -d '{body}' {address} reprise.v1.RestoreService/{method}")
    };
    vec![
        String::new(),
        "Still serving; Ctrl-C ends it. Try:".to_owned(),
        format!("  curl -s http://{address}/api/v1/restores/{RESTORE}"),
        format!("  curl -s 'http://{address}/api/v1/restores/{RESTORE}/items?outcome=failed'"),
        format!("  curl -s http://{address}/api/v1/restores/{RESTORE}/results"),
        format!("  curl -N http://{address}/api/v1/events"),
        format!("  curl -s http://{address}/api/v1/openapi.json"),
        grpc("GetRestore", &format!(r#"{{"name":"{RESTORE}"}}"#)),
        grpc(
            "CreateRestore",
            &format!(r#"{{"name":"again","spec":{{"backupName":"{backup}","existingResourcePolicy":"update"}}}}"#),
        ),
        grpc("WatchRestore", r#"{"name":"again"}"#),
        format!("  reprise restore list --server http://{address}"),
        format!("  kubectl --server http://{address}{SANDBOX_PATH} get restores -n velero"),
        format!("  curl -s http://{admin}/metrics"),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_restore_for_the_eye_takes_some_ten_to_twenty_seconds() {
        for items in [1_000, 3_000, 10_000] {
            let pause = pause(Pace::Human, 16, items);
            let whole = pause * items / 16;
            assert!((8..=20).contains(&whole.as_secs()), "{items}: {pause:?}, {whole:?}");
        }
        assert_eq!(pause(Pace::Fast, 16, 3_000), Duration::ZERO);
    }

    #[test]
    fn a_taken_port_is_given_up_for_a_free_one_unless_it_was_asked_for() {
        let taken = TcpListener::bind(FREE).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(free(None, address, "--listen").port(), 0);
        assert_eq!(free(Some(address), LISTEN, "--listen"), address);
    }

    #[test]
    fn a_fresh_object_has_nothing_of_the_api_server() {
        let object = json!({
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "managedFields": []},
            "data": {"k": "v"},
            "status": {},
        });
        assert_eq!(fresh(&object), json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
    }

    #[tokio::test]
    async fn what_is_put_before_can_be_created() {
        let sandbox = Sandbox::new(crate::sandbox::Options::default());
        let options = SampleOptions { items: 300, ..SampleOptions::default() };
        put_before(&sandbox, &options).await.unwrap();
        let count = async |resource| {
            let cluster = KubeCluster::new(sandbox.client());
            cluster.list(&Target::new("", "v1", resource, ""), "").await.unwrap().len()
        };
        assert_eq!((count("configmaps").await, count("secrets").await), (1, 1));
    }
}
