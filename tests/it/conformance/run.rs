//! Runs the cases: a fresh control plane and bucket, one engine for all, the cases one by one.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{Kube, USER_AGENT};
use super::compare::Seen;
use super::normalize::{self, Context, has_token};
use super::values::{items, load_yaml, text};
use crate::support::control_plane::Options;
use crate::support::process::Process;
use crate::support::s3::S3Server;
use crate::support::{ControlPlane, tools};

const BUCKET: &str = "velero";
const TERMINAL: [&str; 4] = ["Completed", "PartiallyFailed", "Failed", "FailedValidation"];
/// How long one Restore may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the recordings were made with.
const TERMINATING_TIMEOUT: &str = "5s";
const RESOURCE_TIMEOUT: &str = "15s";

struct Bench {
    cases: PathBuf,
    cluster: ControlPlane,
    s3: S3Server,
    kube: Kube,
}

/// Runs these cases and hands each result, with the seconds it took, to `on_case`. Panics where the cluster of the
/// recordings cannot be set up.
pub(super) async fn run_cases(cases: &[String], mut on_case: impl FnMut(&str, f64, &Seen)) {
    let options = Options { audit: true, ..Options::default() };
    let cluster = tokio::task::spawn_blocking(|| ControlPlane::start(options)).await.expect("the starting thread");
    let cluster = cluster.unwrap_or_else(|why| panic!("no control plane: {why}"));
    let s3 = S3Server::start(&[BUCKET]);
    let kube = Kube::new(&cluster).await;
    let bench = Bench { cases: super::folder().join("cases"), cluster, s3, kube };
    bench.set_up(cases).await.unwrap_or_else(|why| panic!("setting up the cluster of the recordings: {why}"));

    // Admission policies and quotas become effective.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let work = tempfile::tempdir().expect("a folder for the engine");
    let mut engine = bench.start_engine(work.path()).unwrap_or_else(|why| panic!("{why}"));
    for case in cases {
        let started = Instant::now();
        let seen = bench.run_case(case, &mut engine).await;
        on_case(case, started.elapsed().as_secs_f64(), &seen);
    }
    println!("{}", engine.log_tail(60));
    tokio::task::spawn_blocking(move || {
        engine.terminate(Duration::from_secs(20));
        drop(bench);
    })
    .await
    .expect("the stopping thread");
}

fn engine_command(kubeconfig: &Path) -> Command {
    let mut command = match std::env::var("REPRISE_CONFORMANCE_ENGINE") {
        Ok(line) if !line.trim().is_empty() => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec {line}")]);
            shell
        }
        _ => {
            let mut reprise = Command::new(env!("CARGO_BIN_EXE_reprise"));
            reprise
                .args(["serve", "--namespace", "velero"])
                .args(["--terminating-resource-timeout", TERMINATING_TIMEOUT, "--resource-timeout", RESOURCE_TIMEOUT])
                .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--download-requests"]);
            reprise
        }
    };
    command
        .env("KUBECONFIG", kubeconfig)
        .env("VELERO_NAMESPACE", "velero")
        .env("CONFORMANCE_TERMINATING_TIMEOUT", TERMINATING_TIMEOUT)
        .env("CONFORMANCE_RESOURCE_TIMEOUT", RESOURCE_TIMEOUT);
    command
}

impl Bench {
    fn start_engine(&self, work: &Path) -> Result<Process, String> {
        let tmp = work.join("tmp");
        std::fs::create_dir_all(&tmp).map_err(|e| format!("making {}: {e}", tmp.display()))?;
        let mut command = engine_command(self.cluster.kubeconfig());
        command.env("TMPDIR", &tmp).env("CONFORMANCE_S3_URL", self.s3.url());
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-engine.log");
        let engine = Process::start("engine", &command, &log)?;
        tools::say(&format!("conformance: the engine runs, its log is {}", log.display()));
        Ok(engine)
    }

    /// What every case needs, and all cases' buckets, Backups and pre-existing objects.
    async fn set_up(&self, cases: &[String]) -> Result<(), String> {
        let manager = "conformance-base";
        for file in ["vgsc-crd.yaml", "base.yaml"] {
            self.kube.apply_documents(&load_yaml(&super::folder().join(file)), manager).await?;
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "conformance-credentials", "namespace": "velero"},
            "stringData": {"cloud": S3Server::credentials_file()},
        });
        let config = json!({
            "region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": self.s3.url(), "checksumAlgorithm": "",
        });
        let location = json!({
            "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
            "metadata": {"name": "default", "namespace": "velero"},
            "spec": {
                "provider": "aws", "default": true, "objectStorage": {"bucket": BUCKET}, "config": config,
                "credential": {"name": "conformance-credentials", "key": "cloud"},
            },
            "status": {"phase": "Available", "lastValidationTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
        });
        self.kube.apply_documents(&[secret, location], manager).await?;
        for case in cases {
            let folder = self.cases.join(case);
            let backups = std::fs::read_dir(folder.join("backup")).map_err(|e| format!("case {case}: backup: {e}"))?;
            let mut backups: Vec<PathBuf> = backups.filter_map(|e| e.ok().map(|e| e.path())).collect();
            backups.sort();
            for backup in backups {
                let name = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.s3.put_folder(&backup, BUCKET, &format!("backups/{name}"));
                self.create_backup(&backup.join("velero-backup.json"))
                    .await
                    .map_err(|e| format!("case {case}: {e}"))?;
            }
        }
        let mut failed = vec![];
        for case in cases {
            let target = load_yaml(&self.cases.join(case).join("target.yaml"));
            if let Err(why) = self.kube.apply_documents(&target, "conformance-target").await {
                failed.push(format!("case {case}: target.yaml: {why}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }

    /// The Backup object for a backup in the bucket; a backup without its file has none.
    async fn create_backup(&self, file: &Path) -> Result<(), String> {
        if !file.is_file() {
            return Ok(());
        }
        let content = std::fs::read(file).map_err(|e| format!("reading {}: {e}", file.display()))?;
        let mut backup: Value = serde_json::from_slice(&content).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut metadata = json!({"namespace": "velero"});
        for key in ["name", "labels", "annotations"] {
            if !backup["metadata"][key].is_null() {
                metadata[key] = backup["metadata"][key].clone();
            }
        }
        backup["metadata"] = metadata;
        backup["spec"]["storageLocation"] = json!("default");
        Ok(self.kube.create(&backup, "conformance-base").await?)
    }

    async fn run_case(&self, case: &str, engine: &mut Process) -> Seen {
        let folder = self.cases.join(case);
        let context = Context::of(case);
        let settings = load_yaml(&folder.join("case.yaml")).into_iter().next().unwrap_or_default();
        let without_crd = settings["withoutVolumeGroupSnapshotCRD"] == true;
        let crds = load_yaml(&super::folder().join("vgsc-crd.yaml"));
        if without_crd {
            for crd in &crds {
                self.kube.delete(crd).await;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let mut configuration = load_yaml(&folder.join("config.yaml"));
        let mut seen = Seen::default();
        let audited = std::fs::metadata(self.cluster.audit_log()).map_or(0, |m| m.len());
        if let Err(why) = self.run_restores(case, &context, &mut configuration, engine, &mut seen).await {
            seen.broken = Some(why);
        }
        for (kind, objects) in self.kube.list_all().await {
            for object in objects.iter().filter(|o| context.owns(o, &kind)) {
                let metadata = &object["metadata"];
                let namespace =
                    if kind.namespaced { format!("{}/", text(metadata, &["namespace"])) } else { String::new() };
                let key = format!("{}/{namespace}{}", kind.group_resource(), text(metadata, &["name"]));
                let key = context.key(&key);
                let (object, fields) = context.object(object, &kind);
                seen.objects.insert(key.clone(), object);
                seen.managed_fields.insert(key, fields);
            }
        }
        seen.order = self.creation_order(audited, &context.token);
        self.kube.purge(&context.token, &configuration).await;
        if without_crd && let Err(why) = self.kube.apply_documents(&crds, "conformance-base").await {
            seen.broken.get_or_insert(why);
        }
        seen
    }

    async fn run_restores(
        &self,
        case: &str,
        context: &Context,
        configuration: &mut Vec<Value>,
        engine: &mut Process,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let folder = self.cases.join(case);
        self.kube.apply_documents(configuration, "conformance-target").await?;
        for mut document in load_yaml(&folder.join("restore.yaml")) {
            let how = document.as_object_mut().and_then(|d| d.remove("x-conformance")).unwrap_or_default();
            let name = text(&document, &["metadata", "name"]).to_string();
            if document["kind"] == "DownloadRequest" {
                seen.status[format!("DownloadRequest/{name}")] = self.download(&document).await?;
                continue;
            }
            let existing = how["existing"] == true;
            if !existing {
                self.kube.create(&document, "conformance-target").await?;
            }
            self.wait_for(&name, existing, engine).await?;
            // A late write after the terminal phase would be a finding.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let restore = self.kube.restore(&name).await?;
            seen.status[&name] = normalize::restore(restore.as_ref(), &self.bucket_keys(&name));
            let file = |file: String| self.json_file(&name, &file);
            seen.results[&name] = context.results(&file(format!("restore-{name}-results.gz")));
            seen.resource_lists[&name] = context.resource_list(&file(format!("restore-{name}-resource-list.json.gz")));
            seen.volumeinfo[&name] = normalize::volumeinfo(&file(format!("{name}-volumeinfo.json.gz")));
            seen.itemoperations[&name] = file(format!("restore-{name}-itemoperations.json.gz"));
            if how["deleteAfter"] == true {
                self.kube.delete(&document).await;
                let mut gone = false;
                for _ in 0..100 {
                    gone = self.kube.restore(&name).await?.is_none();
                    if gone {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                seen.status[&name]["afterDeletion"] = json!({"gone": gone, "bucketKeys": self.bucket_keys(&name)});
            }
            let after = load_yaml(&folder.join(format!("after-{name}.yaml")));
            self.kube.apply_documents(&after, "conformance-target").await?;
            configuration.extend(after.into_iter().filter(|d| text(d, &["metadata", "namespace"]) == "velero"));
        }
        Ok(())
    }

    /// Returns when the Restore is in a terminal phase, or gone.
    async fn wait_for(&self, name: &str, existing: bool, engine: &mut Process) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let Some(restore) = self.kube.restore(name).await? else { return Ok(()) };
            let phase = text(&restore, &["status", "phase"]);
            // One that was terminal before the engine came up only gets its finalizer: give it the time.
            let touched = !existing
                || items(&restore["metadata"]["finalizers"]).next().is_some()
                || begin.elapsed() > Duration::from_secs(15);
            if TERMINAL.contains(&phase) && touched {
                return Ok(());
            }
            if let Some(status) = engine.exited() {
                return Err(format!("engine ended ({status}) while restore {name} was in phase '{phase}'"));
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("restore {name} still in phase '{phase}' after {}s", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// The names directly below `restores/<name>/` in the bucket.
    fn bucket_keys(&self, restore: &str) -> Vec<String> {
        let folder = format!("restores/{restore}/");
        let keys = self.s3.keys(BUCKET, &folder);
        let mut names: Vec<String> =
            keys.iter().filter_map(|k| k[folder.len()..].split('/').next()).map(str::to_string).collect();
        names.dedup();
        names
    }

    /// A gzipped JSON file of a Restore; null for none. One that cannot be read is text that says so, and so a difference.
    fn json_file(&self, restore: &str, name: &str) -> Value {
        let Some(content) = self.s3.get(BUCKET, &format!("restores/{restore}/{name}")) else { return Value::Null };
        let mut plain = vec![];
        match flate2::read::MultiGzDecoder::new(content.as_ref()).read_to_end(&mut plain) {
            Ok(_) => serde_json::from_slice(&plain).unwrap_or_else(|e| json!(format!("{name} is not JSON: {e}"))),
            Err(e) => json!(format!("{name} is not gzip: {e}")),
        }
    }

    /// A DownloadRequest as a client makes it, and what came of it.
    async fn download(&self, document: &Value) -> Result<Value, String> {
        self.kube.create(document, "conformance-target").await?;
        let name = text(document, &["metadata", "name"]);
        let mut status = Value::Null;
        for _ in 0..25 {
            let current = self.kube.get("velero.io/v1", "downloadrequests", "velero", name).await?;
            status = current.unwrap_or_default()["status"].clone();
            if !text(&status, &["downloadURL"]).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (mut path, mut code) = (None, None);
        if let Ok(url) = reqwest::Url::parse(text(&status, &["downloadURL"])) {
            path = Some(url.path().to_string());
            let response = reqwest::get(url).await.map_err(|e| format!("download request {name}: {e}"))?;
            code = Some(response.status().as_u16());
        }
        Ok(json!({
            "phase": text(&status, &["phase"]),
            "expirationSet": !text(&status, &["expiration"]).is_empty(),
            "path": path,
            "httpStatus": code,
        }))
    }

    /// Group-resources in the order of the engine's first create request that concerns this case.
    fn creation_order(&self, offset: u64, token: &str) -> Vec<String> {
        let mut log = String::new();
        let read = std::fs::File::open(self.cluster.audit_log()).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_string(&mut log)
        });
        read.unwrap_or_else(|e| panic!("reading the audit log: {e}"));
        let mut order = vec![];
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let object = &event["objectRef"];
            let (group, namespace) = (text(object, &["apiGroup"]), text(object, &["namespace"]));
            let of_a_case = has_token(namespace, token) || has_token(text(object, &["name"]), token);
            let of_the_engine = !text(&event, &["userAgent"]).starts_with(USER_AGENT)
                && !text(&event, &["user", "username"]).contains("system:apiserver");
            let of_velero = group == "velero.io" || namespace == "velero";
            let created = event["verb"] == "create" && text(object, &["subresource"]).is_empty();
            if !(created && of_a_case && of_the_engine && !of_velero) {
                continue;
            }
            let plural = text(object, &["resource"]);
            let kind = if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") };
            if !order.contains(&kind) {
                order.push(kind);
            }
        }
        order
    }
}
