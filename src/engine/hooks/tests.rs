//! Tasks of pods with a fake exec and a fake watch, under a paused clock (restore-semantics 5.12).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::BroadcastStream;

use super::*;
use crate::engine::discovery::Discovery;
use crate::engine::ports::exec::{Captured, ExecAnswer, ExecFailure, ExecRequest, NoExec};
use crate::engine::ports::{ApiError, ApiErrorKind, Change};
use crate::model::Target;

/// Pods of a namespace, which may be changed and watched; everything else of a cluster is missing.
struct Pods {
    live: Mutex<BTreeMap<String, Value>>,
    changes: broadcast::Sender<Result<Change, ApiError>>,
    watches: AtomicUsize,
}

impl Pods {
    fn new() -> Arc<Self> {
        Arc::new(Self { live: Mutex::default(), changes: broadcast::channel(10_000).0, watches: AtomicUsize::new(0) })
    }

    fn set(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.live.lock().unwrap().insert(name, pod.clone());
        let _ = self.changes.send(Ok(Change::Is(pod)));
    }

    fn remove(&self, name: &str) {
        self.live.lock().unwrap().remove(name);
        let _ = self.changes.send(Ok(Change::Gone(name.to_owned())));
    }

    fn break_watch(&self) {
        let _ = self.changes.send(Err(ApiError::transport(ApiErrorKind::Connection, "broken")));
    }

    fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Cluster for Pods {
    async fn discovery(&self, _refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        Ok(Arc::default())
    }

    async fn get(&self, _target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        Ok(self.live.lock().unwrap().get(name).cloned())
    }

    async fn list(&self, _target: &Target, _label_selector: &str) -> Result<Vec<Value>, ApiError> {
        Ok(Vec::new())
    }

    async fn create(&self, _target: &Target, object: &Value) -> Result<Value, ApiError> {
        Ok(object.clone())
    }

    async fn merge_patch(&self, _target: &Target, _name: &str, patch: &Value) -> Result<Value, ApiError> {
        Ok(patch.clone())
    }

    async fn delete(&self, _: &Target, _: &str) -> Result<(), ApiError> {
        unreachable!("exec hooks delete nothing")
    }

    async fn delete_collection(&self, _: &Target, _: &str) -> Result<(), ApiError> {
        unreachable!("exec hooks delete nothing")
    }

    async fn replace_status(&self, _target: &Target, _name: &str, object: &Value) -> Result<Value, ApiError> {
        Ok(object.clone())
    }

    async fn openapi(&self, _group: &str, _version: &str) -> Result<Value, ApiError> {
        Err(ApiError::status(404, "NotFound", "the server has no such document"))
    }

    fn watch<'a>(&'a self, _target: &Target, _name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        let live = self.live.lock().unwrap();
        let now: Vec<_> = live.values().cloned().map(|pod| Ok(Change::Is(pod))).collect();
        let later = BroadcastStream::new(self.changes.subscribe()).map(Result::unwrap);
        stream::iter(now).chain(later).boxed()
    }
}

/// Commands are what they do: `ok`, `exit 3`, `hang`, `sleep 90`.
#[derive(Default)]
struct Commands(Mutex<Vec<String>>);

impl Commands {
    fn run(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl PodExec for Commands {
    async fn exec(&self, request: &ExecRequest) -> ExecAnswer {
        let ExecRequest { namespace, pod, container, command } = request;
        self.0.lock().unwrap().push(format!("{namespace}/{pod}/{container}: {}", command.join(" ")));
        match (command[0].as_str(), command.get(1)) {
            ("exit", Some(code)) => ExecAnswer {
                outcome: Err(ExecFailure::ExitCode(code.parse().unwrap())),
                stdout: Captured::default(),
                stderr: "oh".into(),
            },
            ("sleep", Some(seconds)) => {
                sleep(Duration::from_secs(seconds.parse().unwrap())).await;
                ExecAnswer::silent(Ok(()))
            }
            ("hang", _) => std::future::pending().await,
            _ => ExecAnswer { outcome: Ok(()), stdout: "done\n".into(), stderr: Captured::default() },
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Events for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(match event {
            Event::Wait(waiting) => format!("wait {}", waiting.object),
            Event::WaitOver(object) => format!("over {object}"),
            Event::Log(level, line) => format!("{level:?} {line}"),
            other => format!("{other:?}"),
        });
    }
}

impl Heard {
    fn with(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

struct Bench {
    pods: Arc<Pods>,
    commands: Arc<Commands>,
    heard: Arc<Heard>,
    hooks: ExecHooks,
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "app", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]}, "status": {"phase": "Pending"}})
}

/// The pod with these containers running, and ready if they end in `!`.
fn running(name: &str, containers: &[&str]) -> Value {
    let status = |container: &&str| {
        let name = container.trim_end_matches('!');
        json!({"name": name, "state": {"running": {}}, "ready": name != *container})
    };
    let statuses: Vec<Value> = containers.iter().map(status).collect();
    let mut pod = pod(name);
    pod["status"] = json!({"phase": "Running", "containerStatuses": statuses});
    pod
}

/// A hook `h` of the specification with these commands.
fn hook(execs: Value) -> Vec<Value> {
    let posts: Vec<Value> = execs.as_array().unwrap().iter().map(|exec| json!({"exec": exec})).collect();
    vec![json!({"name": "h", "postHooks": posts})]
}

impl Bench {
    fn new() -> Self {
        let (pods, commands, heard) = (Pods::new(), Arc::new(Commands::default()), Arc::new(Heard::default()));
        let hooks = ExecHooks::new(Arc::clone(&pods) as _, Arc::clone(&commands) as _, Arc::clone(&heard) as _);
        Self { pods, commands, heard, hooks }
    }

    /// Creates a pod with a hook of these commands.
    fn with(mut self, name: &str, execs: Value) -> Self {
        self.pods.set(pod(name));
        self.begin(name, execs);
        self
    }

    fn begin(&mut self, name: &str, execs: Value) {
        let created = pod(name);
        self.hooks.begin("app", &created, PodHooks::of(&hook(execs), "app", &created));
    }

    /// How many hooks were attempted and failed, and the messages.
    async fn outcome(self) -> (usize, usize, Vec<String>) {
        let HooksOutcome { attempted, failed, findings } = self.hooks.wait(&*self.heard).await;
        assert!(findings.iter().all(|one| one.bucket == Bucket::of("app") && one.severity == Severity::Error));
        (attempted, failed, findings.into_iter().map(|finding| finding.message).collect())
    }
}

fn later(seconds: u64, change: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(Duration::from_secs(seconds)).await;
        change();
    });
}

#[tokio::test(start_paused = true)]
async fn hooks_run_in_their_order_once_their_container_runs() {
    let bench = Bench::new().with(
        "db",
        json!([{"command": ["first"]}, {"command": ["other"], "container": "side"}, {"command": ["second"]}]),
    );
    let (pods, commands, heard) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands), Arc::clone(&bench.heard));
    later(60, move || pods.set(running("db", &["main"])));
    let pods = Arc::clone(&bench.pods);
    later(120, move || pods.set(running("db", &["main", "side"])));
    let begun = Instant::now();
    assert_eq!(bench.outcome().await, (3, 0, vec![]));
    assert_eq!(commands.run(), ["app/db/main: first", "app/db/main: second", "app/db/side: other"]);
    assert!(begun.elapsed() >= Duration::from_secs(120));
    assert_eq!(heard.with("stdout: done").len(), 3, "the output is in the log");
    assert_eq!(heard.with("pod app/db").first().unwrap(), "wait pod app/db");
    assert_eq!(heard.with("over ").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn hooks_that_ask_for_it_wait_until_the_container_is_ready() {
    let bench = Bench::new().with("db", json!([{"command": ["a"]}, {"command": ["b"], "waitForReady": true}]));
    bench.pods.set(running("db", &["main"]));
    let (pods, commands) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands));
    later(300, move || {
        assert!(commands.run().is_empty(), "running is not ready");
        pods.set(running("db", &["main!"]));
    });
    assert_eq!(bench.outcome().await, (2, 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_hook_is_recorded_and_the_next_is_run_unless_on_error_says_fail() {
    let bench = Bench::new().with("db", json!([{"command": ["exit", "3"]}, {"command": ["next"]}]));
    bench.pods.set(running("db", &["main"]));
    let (commands, heard) = (Arc::clone(&bench.commands), Arc::clone(&bench.heard));
    let message = "hook h in container main in pod app/db failed to execute, err: command terminated with exit code 3";
    assert_eq!(bench.outcome().await, (2, 1, vec![message.to_owned()]));
    assert_eq!(commands.run(), ["app/db/main: exit 3", "app/db/main: next"]);
    assert_eq!(heard.with("stderr: oh").len(), 1);

    let bench = Bench::new().with(
        "db",
        json!([{"command": ["exit", "3"], "onError": "Fail"}, {"command": ["next"]},
            {"command": ["other"], "container": "side"}]),
    );
    bench.pods.set(running("db", &["main", "side"]));
    let commands = Arc::clone(&bench.commands);
    let (attempted, failed, messages) = bench.outcome().await;
    assert_eq!((attempted, failed, commands.run().len()), (3, 3, 1), "{messages:?}");
    assert_eq!(messages[0], message);
    let not_run = |container| {
        format!(
            "hook h in container {container} in pod app/db not executed: \
             hook h in container main failed, and its onError is Fail"
        )
    };
    assert_eq!(messages[1..], [not_run("main"), not_run("side")]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_whose_wait_timeout_passed_has_failed_and_is_run_all_the_same_unless_on_error_says_fail() {
    let expired = "hook h in container main in pod app/db expired before executing";
    for (on_error, run, failed) in [("Continue", 2, 1), ("Fail", 0, 2)] {
        let bench = Bench::new().with(
            "db",
            json!([{"command": ["late"], "waitTimeout": "1m", "onError": on_error}, {"command": ["patient"]}]),
        );
        let (pods, commands) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands));
        later(120, move || pods.set(running("db", &["main"])));
        let outcome = bench.outcome().await;
        assert_eq!((outcome.0, outcome.1, commands.run().len()), (2, failed, run), "{on_error}: {outcome:?}");
        assert_eq!(outcome.2[0], expired);
    }
    // One that expired and then fails is recorded once.
    let bench =
        Bench::new().with("db", json!([{"command": ["exit", "1"], "waitTimeout": "1m"}, {"command": ["patient"]}]));
    let (pods, heard) = (Arc::clone(&bench.pods), Arc::clone(&bench.heard));
    later(120, move || pods.set(running("db", &["main"])));
    assert_eq!(bench.outcome().await, (2, 1, vec![expired.to_owned()]));
    assert_eq!(heard.with("Error hook h in container main in pod app/db failed to execute").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_is_given_up_after_its_timeout_and_the_next_is_run() {
    let bench = Bench::new().with(
        "db",
        json!([{"command": ["hang"]}, {"command": ["hang"], "execTimeout": "2m"}, {"command": ["sleep", "25"]},
            {"command": ["sleep", "3600"], "execTimeout": "-1s"}]),
    );
    bench.pods.set(running("db", &["main"]));
    let (commands, begun) = (Arc::clone(&bench.commands), Instant::now());
    let lead = "hook h in container main in pod app/db failed to execute, err: timed out after";
    assert_eq!(bench.outcome().await, (4, 2, vec![format!("{lead} 30s"), format!("{lead} 2m0s")]));
    assert_eq!(commands.run().len(), 4);
    assert_eq!(begun.elapsed().as_secs(), 30 + 120 + 25 + 3600);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pod_fails_the_hooks_that_are_left() {
    let over = |phase: &str| {
        let mut pod = pod("db");
        pod["status"]["phase"] = json!(phase);
        pod
    };
    let mut other = running("db", &["main", "side"]);
    other["metadata"]["uid"] = json!("another");
    type End = Box<dyn FnOnce(&Pods) + Send>;
    let ends: [(&str, End); 4] = [
        ("the pod entered phase Succeeded", Box::new(move |pods| pods.set(over("Succeeded")))),
        ("the pod entered phase Failed", Box::new(move |pods| pods.set(over("Failed")))),
        ("the pod was deleted", Box::new(|pods| pods.remove("db"))),
        ("the pod was deleted, and another one has its name", Box::new(move |pods| pods.set(other))),
    ];
    for (why, end) in ends {
        let bench = Bench::new().with("db", json!([{"command": ["run"]}, {"command": ["left"], "container": "side"}]));
        bench.pods.set(running("db", &["main"]));
        let (pods, commands) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands));
        later(60, move || end(&pods));
        let message = format!("hook h in container side in pod app/db not executed: {why}");
        assert_eq!(bench.outcome().await, (2, 1, vec![message]));
        assert_eq!(commands.run(), ["app/db/main: run"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_the_longest_wait_timeout_if_every_hook_has_one() {
    let bench = Bench::new()
        .with("db", json!([{"command": ["a"], "waitTimeout": "1m"}, {"command": ["b"], "waitTimeout": "5m"}]));
    let (begun, commands) = (Instant::now(), Arc::clone(&bench.commands));
    let (attempted, failed, messages) = bench.outcome().await;
    assert_eq!((attempted, failed, begun.elapsed().as_secs()), (2, 2, 300));
    assert!(
        messages[1].ends_with("not executed: the wait timeouts of its hooks passed before it was up"),
        "{messages:?}"
    );
    assert!(commands.run().is_empty());
}

// Velero cancels the hooks of all pods when those of one end with an error (restore-semantics 5.12 and 11.3).
#[tokio::test(start_paused = true)]
async fn a_failing_hook_of_one_pod_leaves_the_hooks_of_other_pods_alone() {
    let bench = Bench::new()
        .with("bad", json!([{"command": ["exit", "1"], "onError": "Fail"}]))
        .with("gone", json!([{"command": ["never"]}]))
        .with("good", json!([{"command": ["fine"]}]));
    bench.pods.set(running("bad", &["main"]));
    bench.pods.remove("gone");
    let (pods, commands) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands));
    later(3600, move || pods.set(running("good", &["main"])));
    let (attempted, failed, messages) = bench.outcome().await;
    assert_eq!((attempted, failed), (3, 2), "{messages:?}");
    assert_eq!(commands.run(), ["app/bad/main: exit 1", "app/good/main: fine"]);
}

// In Velero they stay registered, and the finalizer waits for ever (restore-semantics 5.12 and 11.3).
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_hook_of_an_unknown_container() {
    let bench = Bench::new().with("db", json!([{"command": ["x"], "container": "nobody"}]));
    assert!(bench.hooks.is_empty());
    assert_eq!(bench.pods.watches(), 0);
    assert_eq!(bench.outcome().await, (0, 0, vec![]));
    let bench = Bench::new().with("db", json!([{"command": ["x"], "container": "nobody"}, {"command": ["y"]}]));
    bench.pods.set(running("db", &["main"]));
    assert_eq!(bench.outcome().await, (1, 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn all_pods_of_a_namespace_share_one_watch_and_it_ends_with_the_last() {
    let mut bench = Bench::new();
    for number in 0..1000 {
        bench = bench.with(&format!("web-{number}"), json!([{"command": ["x"]}]));
    }
    let (pods, commands, heard) = (Arc::clone(&bench.pods), Arc::clone(&bench.commands), Arc::clone(&bench.heard));
    let shared = Arc::clone(bench.hooks.shared.as_ref().unwrap());
    let changing = Arc::clone(&pods);
    later(60, move || (0..1000).for_each(|number| changing.set(running(&format!("web-{number}"), &["main"]))));
    let watching = Arc::clone(&shared);
    later(30, move || assert_eq!(watching.states.watched(), 1));
    assert_eq!(bench.outcome().await, (1000, 0, vec![]));
    assert_eq!((pods.watches(), shared.states.watched(), commands.run().len()), (1, 0, 1000));
    let told = heard.0.lock().unwrap().iter().take_while(|line| line.starts_with("wait ")).count();
    assert_eq!(told, TOLD_AT_ONCE, "not all that are waited for are told at once");
    assert_eq!(heard.with("wait pod").len(), heard.with("over pod").len());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_came_up_before_anybody_looked_is_found_and_a_broken_watch_is_outlived() {
    let mut bench = Bench::new().with("slow", json!([{"command": ["late"]}]));
    sleep(Duration::from_secs(1)).await;
    // The watch runs, and tells of this pod before anybody has asked for it.
    bench.pods.set(running("quick", &["main"]));
    sleep(Duration::from_secs(1)).await;
    bench.begin("quick", json!([{"command": ["early"]}]));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.commands.run(), ["app/quick/main: early"]);
    bench.pods.break_watch();
    bench.pods.set(running("slow", &["main"]));
    // Gone before it was looked at.
    bench.begin("never", json!([{"command": ["x"]}]));
    let message = "hook h in container main in pod app/never not executed: the pod was deleted".to_owned();
    assert_eq!(bench.outcome().await, (3, 1, vec![message]));
}

#[tokio::test(start_paused = true)]
async fn hooks_that_nobody_waits_for_any_more_are_not_run() {
    let Bench { pods, commands, hooks, .. } = Bench::new().with("db", json!([{"command": ["x"]}]));
    sleep(Duration::from_secs(1)).await;
    let waiting = tokio::time::timeout(Duration::from_secs(60), hooks.wait(&Heard::default())).await;
    assert!(waiting.is_err(), "without a limit it is waited for ever");
    pods.set(running("db", &["main"]));
    sleep(Duration::from_secs(60)).await;
    assert!(commands.run().is_empty());
    assert_eq!(pods.changes.receiver_count(), 0, "the watch has ended");
}

#[tokio::test(start_paused = true)]
async fn where_no_command_can_be_run_hooks_fail_at_once() {
    let pods = Pods::new();
    let heard = Arc::new(Heard::default());
    let mut hooks =
        ExecHooks::new(Arc::clone(&pods) as _, Arc::new(NoExec("nothing runs here")), Arc::clone(&heard) as _);
    let created = pod("db");
    hooks.begin("app", &created, PodHooks::of(&hook(json!([{"command": ["x"]}])), "app", &created));
    let outcome = hooks.wait(&*heard).await;
    assert_eq!((outcome.attempted, outcome.failed, pods.watches()), (1, 1, 0));
    assert_eq!(outcome.findings[0].message, "hook h in container main in pod app/db not executed: nothing runs here");
}
