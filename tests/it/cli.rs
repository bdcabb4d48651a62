//! The command line, as a user runs it: the binary, its output and its exit code.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use reprise::archive::testing::Backup;
use reprise::sample::{SampleOptions, SampleSummary, write_backup};
use serde_json::{Value, json};

use crate::support;
use crate::support::s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY};

fn reprise() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    // What the machine has set up must not matter.
    for name in ["KUBECONFIG", "REPRISE_SERVER", "REPRISE_LOG_LEVEL", "REPRISE_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    reprise().args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The objects of an output with one on each line.
fn objects(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn sample(store: &Path) -> SampleSummary {
    write_backup(store, &SampleOptions { items: 300, ..SampleOptions::default() }).unwrap()
}

/// A file with a backup of ConfigMaps in the namespace `shop`.
fn tarball(folder: &Path, names: &[&str]) -> (PathBuf, Backup) {
    let config = |name: &&str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": name}, "data": {"a": "b"}});
    let backup = Backup::new().with_all(names.iter().map(config));
    let path = folder.join("small.tar.gz");
    std::fs::write(&path, backup.tarball().unwrap()).unwrap();
    (path, backup)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_demo_restores_its_sample_and_says_that_it_is_a_sandbox() {
    let output = run(&["demo", "--exit", "--items", "400", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let told = stdout(&output);
    assert_eq!(code(&output), 0, "{output:?}");
    for part in [
        "This is a sandbox",
        "400 items of",
        "Serving gRPC and REST on http://127.0.0.1:",
        "Restore demo completed in the sandbox",
        "created ",
        "unchanged 1",
        "failed 1",
        "failed, conflict: 1 item",
    ] {
        assert!(told.contains(part), "{part:?} is missing in {told}");
    }
}

#[test]
fn a_tarball_is_restored_on_the_spot_and_told_as_json() {
    let store = tempfile::tempdir().unwrap();
    let sample = sample(store.path());
    let output = run(&["restore", "run", "mine", "--from", text(&sample.tarball), "--sandbox", "-o", "json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = objects(&output);
    assert_eq!(events[0]["event"], "snapshot");
    let ended = events.last().unwrap();
    assert_eq!(ended["event"], "ended");
    let restore = &ended["restore"];
    assert_eq!((&restore["name"], &restore["phase"]), (&json!("mine"), &json!("Completed")));
    assert_eq!((&restore["sandbox"], &restore["progress"]["percent"]), (&json!(true), &json!(100)));
    let outcomes = restore["progress"]["outcomes"].as_object().unwrap();
    assert_eq!(outcomes["pending"], 0);
    let sum: u64 = outcomes.values().filter_map(Value::as_u64).sum();
    assert!(sum > 250, "{outcomes:?}");
    // Every item was told once, and the counts are those of the items.
    let items: Vec<&Value> = events.iter().filter(|event| event["event"] == "item").collect();
    assert_eq!(u64::try_from(items.len()).unwrap(), sum);
}

#[test]
fn a_folder_is_restored_with_the_filters_of_velero() {
    let store = tempfile::tempdir().unwrap();
    let sample = sample(store.path());
    let output = run(&[
        "restore",
        "run",
        "--from",
        text(&sample.folder),
        "--sandbox",
        "--include-resources=configmaps",
        "--namespace-mappings=checkout:till",
        "--include-namespaces=checkout",
        "-o=json",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = objects(&output);
    let restore = &events.last().unwrap()["restore"];
    assert!(restore["name"].as_str().unwrap().starts_with("fernhill-nightly-20"), "{restore}");
    assert_eq!(restore["spec"]["namespaceMapping"], json!({"checkout": "till"}));
    let resources = restore["progress"]["resources"].as_object().unwrap();
    assert_eq!(resources.keys().collect::<Vec<_>>(), ["configmaps", "namespaces"]);
    let namespaces = restore["progress"]["namespaces"].as_object().unwrap();
    assert!(namespaces.contains_key("till") && !namespaces.contains_key("checkout"), "{namespaces:?}");
}

#[test]
fn a_broken_item_fails_alone_and_the_restore_partially() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = tarball(folder.path(), &["good"]);
    let backup = backup.with_file("resources/configmaps/namespaces/shop/bad.json", "{not json");
    std::fs::write(&path, backup.tarball().unwrap()).unwrap();
    let output = run(&["restore", "run", "--from", text(&path), "--sandbox"]);
    let told = stdout(&output);
    assert_eq!(code(&output), 3, "{told}");
    assert!(told.contains("partially failed in the sandbox") && told.contains("failed, archive: 1 item"), "{told}");
    assert!(told.contains("1 error:") && told.contains("bad.json"), "{told}");
    assert!(told.contains("created 2"), "{told}");
}

#[test]
fn the_sandbox_says_that_it_cannot_run_exec_hooks_and_does_not_wait_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let annotations = json!({"post.hook.restore.velero.io/command": "/bin/true"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "db", "namespace": "shop", "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "i"}]}});
    let (path, backup) = tarball(folder.path(), &["good"]);
    std::fs::write(&path, backup.with(pod).tarball().unwrap()).unwrap();
    let output = run(&["restore", "run", "--from", text(&path), "--sandbox"]);
    let told = stdout(&output);
    assert_eq!(code(&output), 3, "{told}");
    assert!(
        told.contains("hook <from-annotation> in container main in pod shop/db not executed: the sandbox"),
        "{told}"
    );
    assert!(told.contains("1 error:") && told.contains("created 3"), "{told}");
}

#[test]
fn a_plan_tells_what_would_be_done_in_order_and_what_is_left_out() {
    let store = tempfile::tempdir().unwrap();
    let sample = sample(store.path());
    let from = text(&sample.folder);
    let told = stdout(&run(&["restore", "plan", "--from", from, "--sandbox"]));
    assert!(told.contains("into the sandbox") && told.contains("nothing is written"), "{told}");
    assert!(told.contains("customresourcedefinitions.apiextensions.k8s.io (1), before all others"), "{told}");
    assert!(told.contains("left out (") && told.contains(": completed"), "{told}");

    let output = run(&["restore", "plan", "--from", from, "--sandbox", "-o", "json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let plan = objects(&output).remove(0);
    let tiers = plan["tiers"].as_array().unwrap();
    assert_eq!(tiers[0]["groupResource"], "customresourcedefinitions.apiextensions.k8s.io");
    let sum: usize = tiers.iter().map(|tier| tier["items"].as_array().unwrap().len()).sum();
    assert_eq!(plan["totals"]["items"], json!(sum));
    assert_eq!(plan["leftOut"].as_array().unwrap().len(), plan["totals"]["leftOut"].as_u64().unwrap() as usize);
}

#[test]
fn a_plan_against_the_cluster_tells_each_item_and_exits_by_what_stands_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = tarball(folder.path(), &["a", "b"]);
    let from = text(&path);
    for arguments in [["plan", "--against-cluster"], ["run", "--dry-run"], ["plan", "--no-dry-run"]] {
        let output = run(&["restore", arguments[0], arguments[1], "--from", from, "--sandbox", "-o", "json"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let told = objects(&output);
        let events: Vec<&str> = told.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["begun", "entry", "entry", "entry", "ended"], "{arguments:?}");
        assert_eq!((&told[0]["backup"], &told[4]["actions"]), (&json!("small"), &json!({"create": 3})));
    }
    let told = stdout(&run(&["restore", "run", "--dry-run", "--from", from, "--sandbox"]));
    assert!(told.contains("into the sandbox") && told.contains("nothing is written"), "{told}");
    assert!(told.contains("create    v1/ConfigMap shop/a") && told.contains("3 items: create 3"), "{told}");

    let nowhere =
        json!({"apiVersion": "nobody.example.org/v1", "kind": "Thing", "metadata": {"namespace": "shop", "name": "x"}});
    std::fs::write(&path, backup.with(nowhere).tarball().unwrap()).unwrap();
    let output = run(&["restore", "plan", "--from", from, "--sandbox", "--against-cluster"]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(stdout(&output).contains("fail      nobody.example.org/v1/Thing shop/x: discovery"), "{output:?}");

    for (arguments, wanted, message) in [
        (&["--from-backup", "b", "--sandbox"][..], 1, "go with --from"),
        (&[], 2, "name the backup by --from-backup"),
        (&["again", "--from", from], 2, "cannot be used with"),
        (&["--server", "http://127.0.0.1:1", "--from-backup", "b"], 1, "reach a service"),
    ] {
        let output = reprise().args(["restore", "plan"]).args(arguments).output().unwrap();
        assert_eq!(code(&output), wanted, "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {output:?}");
    }
}

#[test]
fn bad_input_is_told_by_name_with_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = tarball(folder.path(), &["a"]);
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text_file = write("text.tar.gz", b"this is no backup");
    let whole = std::fs::read(&path).unwrap();
    let cut = write("cut.tar.gz", &whole[..whole.len() / 2]);
    let spec = write("spec.yaml", b"backupName: small\nincludeNamespaces: [a]\n");
    let good = text(&path);
    let folder = text(folder.path());

    let cases: [(&[&str], i32, &str); 13] = [
        (&["--from", "no/such.tar.gz"], 1, "no/such.tar.gz\": No such file"),
        (&["--from", folder], 1, "velero-backup.json is missing"),
        (&["--from", &text_file], 4, "the backup tarball is not gzip"),
        (&["--from", &cut], 4, "the backup tarball ends early"),
        (&["--from", "gs://bucket/backups/x"], 1, "cannot be opened"),
        (&["--from", good, "--selector", "app in x"], 2, "--selector: \"app in x\" is no label selector"),
        (&["--from", good, "--namespace-mappings", "a"], 2, "--namespace-mappings: \"a\" is not of the form"),
        (&["--from", good, "--restore-volumes=perhaps"], 2, "--restore-volumes"),
        (&["--from", good, "--spec", &spec], 1, "unknown field spec.includeNamespaces"),
        (&["Not_A_Name", "--from", good], 2, "\"Not_A_Name\" is not a Kubernetes name"),
        (&["--from", good, "--include-resources", "nodes"], 4, "nodes are non-restorable resources"),
        (&["--from", good, "--resource-modifier-configmap", "x"], 4, "resource modifiers configmap velero/x"),
        (&[], 2, "--from"),
    ];
    for (arguments, wanted, message) in cases {
        let output = reprise().args(["restore", "run", "--sandbox"]).args(arguments).output().unwrap();
        let told = stdout(&output) + &stderr(&output);
        assert_eq!(code(&output), wanted, "{arguments:?}: {told}");
        assert!(told.contains(message), "{arguments:?}: {told}");
    }
    let output = run(&["restore", "plan", "--sandbox", "--from", &text_file]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("not gzip"), "{output:?}");
    let output = run(&["restore", "list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("reach a service at http://127.0.0.1:1"), "{output:?}");
}

#[test]
fn a_backup_is_restored_from_a_bucket() {
    let store = tempfile::tempdir().unwrap();
    let sample = sample(store.path());
    let server = S3Server::start(&[]);
    server.put_folder(&sample.folder, "velero", "cluster-a/backups/fernhill-nightly");
    let run = |from: &str, secret: &str| {
        reprise()
            .args(["restore", "run", "--sandbox", "-o", "json", "--from", from])
            .envs([("AWS_ENDPOINT_URL", server.url().as_str()), ("AWS_REGION", REGION)])
            .envs([("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", secret)])
            .output()
            .unwrap()
    };
    let output = run("s3://velero/cluster-a/backups/fernhill-nightly", SECRET_KEY);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(objects(&output).last().unwrap()["restore"]["phase"], "Completed");

    let missing = run("s3://velero/cluster-a/backups/nope", SECRET_KEY);
    assert_eq!(code(&missing), 1, "{missing:?}");
    assert!(stderr(&missing).contains("nope/velero-backup.json"), "{missing:?}");
    let denied = run("s3://velero/cluster-a/backups/fernhill-nightly", "wrong");
    assert_eq!(code(&denied), 1, "{denied:?}");
    assert!(!stderr(&denied).contains("wrong"), "{denied:?}");
}

#[test]
fn a_reader_that_has_enough_is_no_trouble() {
    let store = tempfile::tempdir().unwrap();
    let sample = sample(store.path());
    let mut child = reprise()
        .args(["restore", "plan", "--sandbox", "--from", text(&sample.tarball)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stderr(&output), "");
}

/// Sends the signal of Ctrl-C.
fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn ctrl_c_stops_at_an_item_boundary_and_says_what_was_done() {
    let from = support::tests_dir().join("data/b50");
    let mut child = reprise()
        .args(["restore", "run", "--sandbox", "-o", "json", "--from", text(&from)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.by_ref().map(Result::unwrap).find(|line| line.contains(r#""event":"item""#));
    assert!(first.is_some());
    interrupt(&child);
    let last = lines.map(Result::unwrap).last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let restore = &serde_json::from_str::<Value>(&last).unwrap()["restore"];
    assert_eq!(restore["phase"], "Failed");
    assert!(restore["failureReason"].as_str().unwrap().starts_with("stopped before the end: "), "{restore}");
    let outcomes = &restore["progress"]["outcomes"];
    assert_eq!(outcomes["pending"], 0);
    assert!(outcomes["created"].as_u64().unwrap() > 0 && outcomes["skipped"].as_u64().unwrap() > 0, "{outcomes}");
}

/// A service on the sandbox; ends when dropped.
struct Service {
    child: Child,
    server: String,
}

impl Service {
    fn start(store: &Path) -> Self {
        let mut child = reprise()
            .args(["serve", "--sandbox", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"])
            .args(["--store", text(store)])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .find(|line| line["message"] == "serving gRPC and REST")
            .and_then(|line| line["address"].as_str().map(str::to_owned))
            .expect("the service tells its address");
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(|line| drop(line.map(|line| writeln!(std::io::stderr(), "{line}")))));
        Self { child, server: format!("http://{address}") }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        reprise().arg("restore").args(arguments).args(["--server", &self.server]).output().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_service_is_used_from_the_command_line() {
    let store = tempfile::tempdir().unwrap();
    sample(store.path());
    let mut service = Service::start(store.path());

    let created = service.run(&["create", "one", "--from-backup", "fernhill-nightly", "--labels=team=blue", "--wait"]);
    assert_eq!(code(&created), 0, "{created:?}");
    assert!(stdout(&created).contains("Restore one completed in the sandbox"), "{created:?}");

    let got = objects(&service.run(&["get", "one", "-o", "json"])).remove(0);
    assert_eq!((&got["phase"], &got["labels"]["team"]), (&json!("Completed"), &json!("blue")));
    let client = reqwest_json(&format!("{}/api/v1/restores/one", service.server));
    // The same JSON as REST has it, but for what goes on with time.
    assert_eq!(got, client);

    let unnamed = service.run(&["create", "--from-backup=fernhill-nightly", "-o=json", "--include-resources=secrets"]);
    let name = objects(&unnamed)[0]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("fernhill-nightly-20"), "{name}");
    let watched = service.run(&["watch", &name, "-o", "json"]);
    assert_eq!(objects(&watched).last().unwrap()["event"], "ended");

    let refused = service.run(&["create", "two", "--from-backup", "nope", "--wait"]);
    assert_eq!(code(&refused), 4, "{refused:?}");
    assert!(stdout(&refused).contains("backups.velero.io \"nope\" not found"), "{refused:?}");

    let again = service.run(&["create", "one", "--from-backup", "fernhill-nightly"]);
    assert_eq!(code(&again), 1, "{again:?}");
    assert!(stderr(&again).contains("\"one\" exists already"), "{again:?}");
    let unknown = service.run(&["get", "nope"]);
    assert_eq!((code(&unknown), stdout(&unknown).as_str()), (1, ""), "{unknown:?}");

    let list = stdout(&service.run(&["list"]));
    assert_eq!(list.lines().count(), 4, "{list}");
    let items = objects(&service.run(&["items", "one", "--outcome", "skipped", "-o", "json"]));
    assert!(!items.is_empty() && items.iter().all(|item| item["outcome"] == "skipped"), "{items:?}");
    let results = objects(&service.run(&["results", "one", "-o", "json"])).remove(0);
    assert_eq!(results["complete"], true);
    let log = stdout(&service.run(&["logs", "one"]));
    assert!(log.contains("restore=velero/one"), "{log}");

    interrupt(&service.child);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

fn reqwest_json(url: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().json().await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tarball_is_restored_into_a_real_cluster() {
    let Some(cluster) = support::cluster().await else { return };
    let client = cluster.client().await;
    let namespace = support::namespace(&client, "cli").await;
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = tarball(folder.path(), &["a", "b", "c"]);
    let run = || {
        reprise()
            .args(["restore", "run", "on-the-spot", "--from", text(&path)])
            .args(["--kubeconfig", text(cluster.kubeconfig())])
            .args(["--namespace-mappings", &format!("shop:{}", namespace.name())])
            .output()
            .unwrap()
    };
    let first = tokio::task::block_in_place(run);
    assert_eq!(code(&first), 0, "{first:?}");
    assert!(stdout(&first).contains("created 3") && !stdout(&first).contains("sandbox"), "{first:?}");
    assert!(stderr(&first).contains(cluster.url()), "{first:?}");
    let configs: kube::Api<ConfigMap> = kube::Api::namespaced(client.clone(), namespace.name());
    let labels = configs.get("b").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["velero.io/restore-name"], "on-the-spot");
    assert_eq!(labels["velero.io/backup-name"], "small");

    let second = tokio::task::block_in_place(run);
    assert_eq!(code(&second), 0, "{second:?}");
    assert!(stdout(&second).contains("unchanged 3"), "{second:?}");
}
