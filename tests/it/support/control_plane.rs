//! A real Kubernetes API: etcd and kube-apiserver as child processes, with Velero's CRDs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::Request;
use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::process::{FolderKeeper, Process, free_port};
use super::tools::{Tools, go_tools, say};

/// The bearer token of the administrator (`system:masters`).
pub(crate) const ADMIN_TOKEN: &str = "admin-token";

/// How long a control plane may take to come up; it takes some seconds, more where the machine compiles beside it.
const READY_WITHIN: Duration = Duration::from_secs(240);

const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [create, patch, update, delete, deletecollection]}
- {level: None}
";

/// One more user of the API server.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The bearer token.
    pub(crate) token: String,
    /// The user name that RBAC sees.
    pub(crate) name: String,
    /// The groups that RBAC sees.
    pub(crate) groups: Vec<String>,
}

/// What a control plane has beside etcd and kube-apiserver.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Users beside the administrator; what they may do is for RBAC objects to say.
    pub(crate) users: Vec<User>,
    /// Keep an audit log of all writes ([`ControlPlane::audit_log`]).
    pub(crate) audit: bool,
    /// Install Velero's CRDs and wait until they are served.
    pub(crate) velero_crds: bool,
    /// Make the namespace `velero`.
    pub(crate) velero_namespace: bool,
    /// Run kube-controller-manager, so that things move: service accounts appear, namespaces go away.
    pub(crate) controller_manager: bool,
    /// Further flags of kube-apiserver.
    pub(crate) apiserver_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: vec![],
            audit: false,
            velero_crds: true,
            velero_namespace: true,
            controller_manager: false,
            apiserver_flags: vec![],
        }
    }
}

/// A running control plane; ends when dropped, and when the test process ends.
///
/// It belongs to no async runtime, so tests with a runtime each can share it: every test makes its own client.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    // Fields are dropped in this order: the processes first, then the folder they write to.
    controller_manager: Option<Process>,
    apiserver: Mutex<Process>,
    /// What starts kube-apiserver again, as it was started.
    apiserver_command: Command,
    etcd: Process,
    folder: PathBuf,
    _cleanup: Option<FolderKeeper>,
    kubeconfig: PathBuf,
    url: String,
    ca: String,
}

impl ControlPlane {
    /// Starts one and waits until it is ready. Blocks; within a runtime call it through `spawn_blocking`.
    pub(crate) fn start(options: Options) -> Result<Self, String> {
        let tools = go_tools()?;
        let mut attempt = 1;
        loop {
            match Self::try_start(&tools, &options) {
                // Somebody else took a port between our looking for it and the server's binding it.
                Err(why) if attempt < 4 && why.contains("address already in use") => attempt += 1,
                other => return other,
            }
        }
    }

    fn try_start(tools: &Tools, options: &Options) -> Result<Self, String> {
        let keep = std::env::var_os("REPRISE_TEST_KEEP").is_some();
        let folder = tempfile::Builder::new()
            .prefix("reprise-control-plane-")
            .tempdir()
            .map_err(|e| format!("making a folder for the control plane: {e}"))?
            .keep();
        let cleanup = if keep { None } else { Some(FolderKeeper::start(&folder)?) };
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| format!("writing {}: {e}", path.display()))?;
            Ok::<_, String>(path)
        };
        let at = |name: &str| folder.join(name).display().to_string();

        let mut tokens = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
        for User { token, name, groups } in &options.users {
            tokens.push_str(&format!("{token},{name},{name},\"{}\"\n", groups.join(",")));
        }
        write("tokens.csv", &tokens)?;
        write("audit-policy.yaml", AUDIT_POLICY)?;

        let client_url = format!("http://127.0.0.1:{}", free_port()?);
        let peer_url = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new(&tools.etcd);
        command
            .args(["--data-dir", &at("etcd"), "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")]);
        let mut etcd = Process::start("etcd", &command, &folder.join("etcd.log"))?;

        let port = free_port()?;
        // The server makes itself a certificate in --cert-dir before it reads the service account keys, so the key of
        // that certificate serves for them too and no key has to be generated here.
        let key = at("pki/apiserver.key");
        let mut command = Command::new(&tools.kube_apiserver);
        command
            .arg(format!("--etcd-servers={client_url}"))
            .arg(format!("--cert-dir={}", at("pki")))
            .arg(format!("--secure-port={port}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            // It would try every ten seconds to announce an address that may not be announced.
            .arg("--endpoint-reconciler-type=none")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={key}"))
            .arg(format!("--service-account-signing-key-file={key}"))
            .args(["--service-cluster-ip-range=10.0.0.0/16", "--authorization-mode=RBAC"])
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .args(["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"]);
        if options.audit {
            command
                .arg(format!("--audit-policy-file={}", at("audit-policy.yaml")))
                .arg(format!("--audit-log-path={}", at("audit.log")))
                .arg("--audit-log-mode=blocking");
        }
        command.args(&options.apiserver_flags);
        let mut apiserver = Process::start("kube-apiserver", &command, &folder.join("apiserver.log"))?;

        let certificate = folder.join("pki/apiserver.crt");
        let deadline = Instant::now() + READY_WITHIN;
        while !certificate.is_file() || !folder.join("pki/apiserver.key").is_file() {
            still_running(&mut [&mut etcd, &mut apiserver], deadline)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let ca = std::fs::read(&certificate).map_err(|e| format!("reading the server's certificate: {e}"))?;
        let ca = base64::engine::general_purpose::STANDARD.encode(ca);
        let url = format!("https://127.0.0.1:{port}");
        let kubeconfig = write("kubeconfig", &kubeconfig(&url, &ca, ADMIN_TOKEN).to_string())?;

        let mut this = Self {
            controller_manager: None,
            apiserver: Mutex::new(apiserver),
            apiserver_command: command,
            etcd,
            folder,
            _cleanup: cleanup,
            kubeconfig,
            url,
            ca,
        };
        this.wait_until_ready(deadline)?;
        if options.controller_manager {
            this.start_controller_manager(tools)?;
        }
        this.install(tools, options)?;
        if keep || std::env::var_os("REPRISE_TEST_LOGS").is_some() {
            say(&format!("control plane {} is up, its folder is {}", this.url, this.folder.display()));
        }
        Ok(this)
    }

    fn wait_until_ready(&mut self, deadline: Instant) -> Result<(), String> {
        let mut last = String::new();
        loop {
            let apiserver = self.apiserver.get_mut().unwrap_or_else(PoisonError::into_inner);
            still_running(&mut [&mut self.etcd, apiserver], deadline).map_err(|why| format!("{why}\n{last}"))?;
            let ready = self.block_on(|client| async move {
                let request = Request::get("/readyz").body(vec![]).map_err(|e| e.to_string())?;
                client.request_text(request).await.map_err(|e| format!("{e:?}"))
            });
            match ready {
                Ok(text) if text == "ok" => return Ok(()),
                Ok(text) => last = format!("/readyz says {text}"),
                Err(why) => last = format!("asking /readyz: {why}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn start_controller_manager(&mut self, tools: &Tools) -> Result<(), String> {
        if !tools.kube_controller_manager.is_file() {
            return Err(format!(
                "there is no {}: unset KUBEBUILDER_ASSETS to build it from source",
                tools.kube_controller_manager.display()
            ));
        }
        let kubeconfig = self.kubeconfig.display();
        let mut command = Command::new(&tools.kube_controller_manager);
        command
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg(format!("--authentication-kubeconfig={kubeconfig}"))
            .arg(format!("--authorization-kubeconfig={kubeconfig}"))
            .arg(format!("--service-account-private-key-file={}", self.folder.join("pki/apiserver.key").display()))
            .arg(format!("--root-ca-file={}", self.folder.join("pki/apiserver.crt").display()))
            .args(["--leader-elect=false", "--use-service-account-credentials=false", "--bind-address=127.0.0.1"])
            .arg(format!("--secure-port={}", free_port()?))
            .arg(format!("--cert-dir={}", self.folder.join("controller-manager-pki").display()));
        let log = self.folder.join("controller-manager.log");
        self.controller_manager = Some(Process::start("kube-controller-manager", &command, &log)?);
        Ok(())
    }

    fn install(&self, tools: &Tools, options: &Options) -> Result<(), String> {
        let crds: Vec<Value> = if options.velero_crds {
            let text = std::fs::read(&tools.velero_crds).map_err(|e| format!("reading Velero's CRDs: {e}"))?;
            serde_json::from_slice(&text).map_err(|e| format!("Velero's CRDs as printed are not JSON: {e}"))?
        } else {
            vec![]
        };
        let namespace = options.velero_namespace;
        self.block_on(|client| async move {
            install_crds(&client, crds).await?;
            if namespace {
                let gvk = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "velero"}});
                let object: DynamicObject = serde_json::from_value(object).map_err(|e| e.to_string())?;
                let namespaces: Api<DynamicObject> = Api::all_with(client, &gvk);
                namespaces.create(&params(), &object).await.map_err(|e| format!("making namespace velero: {e}"))?;
            }
            Ok(())
        })
    }

    /// Runs on a runtime and thread of its own, whether or not the caller is inside one.
    fn block_on<T, F, R>(&self, run: F) -> Result<T, String>
    where
        T: Send,
        F: FnOnce(kube::Client) -> R + Send,
        R: Future<Output = Result<T, String>>,
    {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .map_err(|e| format!("making a runtime: {e}"))?;
                    runtime.block_on(async { run(self.client().await).await })
                })
                .join()
                .unwrap_or_else(|_| Err("the thread that talks to the API server panicked".to_string()))
        })
    }

    /// A client of the administrator, for the runtime of the caller.
    pub(crate) async fn client(&self) -> kube::Client {
        self.token_client(ADMIN_TOKEN).await
    }

    /// A client that shows this bearer token.
    pub(crate) async fn token_client(&self, token: &str) -> kube::Client {
        let mut config = self.config(token).await;
        config.read_timeout = Some(Duration::from_secs(60));
        kube::Client::try_from(config).expect("a client from the kubeconfig just made")
    }

    /// The client configuration that shows this bearer token.
    pub(crate) async fn config(&self, token: &str) -> kube::Config {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(kubeconfig(&self.url, &self.ca, token)).expect("a kubeconfig just made");
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("a configuration from the kubeconfig just made");
        // A test wants to see the server's answer, and an API service that is away answers 503 for good.
        config.default_retry = false;
        config
    }

    /// The administrator's kubeconfig file, for programs that want `KUBECONFIG`.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its folder: logs, kubeconfig, certificates.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the audit log is, if [`Options::audit`] asked for one.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    fn apiserver(&self) -> MutexGuard<'_, Process> {
        self.apiserver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends kube-apiserver; etcd and what it holds stay. Blocks. For control planes of a test's own.
    pub(crate) fn stop_apiserver(&self) {
        let _ = self.apiserver().terminate(Duration::from_secs(1));
    }

    /// Starts kube-apiserver anew, on the same port and etcd; does not wait until it is ready.
    pub(crate) fn start_apiserver(&self) -> Result<(), String> {
        let again =
            Process::start("kube-apiserver", &self.apiserver_command, &self.folder.join("apiserver-again.log"))?;
        *self.apiserver() = again;
        Ok(())
    }

    /// The ends of the logs, to print when a test fails.
    pub(crate) fn log_tails(&self, lines: usize) -> String {
        let mut tails = self.etcd.log_tail(lines) + &self.apiserver().log_tail(lines);
        if let Some(controller_manager) = &self.controller_manager {
            tails += &controller_manager.log_tail(lines);
        }
        tails
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some("reprise-tests".to_string()), ..PostParams::default() }
}

fn kubeconfig(url: &str, ca: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        "current-context": "test",
    })
}

fn still_running(processes: &mut [&mut Process], deadline: Instant) -> Result<(), String> {
    let ended = processes.iter_mut().any(|p| p.exited().is_some());
    if !ended && Instant::now() < deadline {
        return Ok(());
    }
    let tails: String = processes.iter().map(|p| p.log_tail(30)).collect();
    let what = if ended { "ended while starting" } else { "was not ready in time" };
    Err(format!("the control plane {what}\n{tails}"))
}

/// Creates CRDs and returns when all of them are served.
pub(crate) async fn install_crds(client: &kube::Client, crds: Vec<Value>) -> Result<(), String> {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut waiting = vec![];
    for mut crd in crds {
        // The Go type prints an empty status, which is not valid as one.
        if let Some(crd) = crd.as_object_mut() {
            crd.remove("status");
        }
        let crd: DynamicObject = serde_json::from_value(crd).map_err(|e| format!("a CRD that is none: {e}"))?;
        let created =
            api.create(&params(), &crd).await.map_err(|e| format!("installing CRD {:?}: {e}", crd.metadata.name))?;
        waiting.push(created.metadata.name.unwrap_or_default());
    }
    for name in waiting {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let crd = api.get(&name).await.map_err(|e| format!("reading CRD {name}: {e}"))?;
            let established = crd.data["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
            if established && is_served(client, &crd.data["spec"]).await {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("CRD {name} was not established within a minute"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Established comes a moment before the server answers for the kind.
async fn is_served(client: &kube::Client, spec: &Value) -> bool {
    let (group, plural) =
        (spec["group"].as_str().unwrap_or_default(), spec["names"]["plural"].as_str().unwrap_or_default());
    for version in spec["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true) {
        let path = format!("/apis/{group}/{}/{plural}?limit=1", version["name"].as_str().unwrap_or_default());
        let Ok(request) = Request::get(path).body(vec![]) else { return false };
        if client.request_text(request).await.is_err() {
            return false;
        }
    }
    true
}

/// A kind that the server lists.
#[derive(Debug, Clone)]
pub(crate) struct Listable {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
}

impl Listable {
    /// `/api/v1` or `/apis/<group>/<version>`.
    pub(crate) fn root(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// `plural.group`, or the plural alone for the core group.
    pub(crate) fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// All listable kinds, each in one version: the preferred one of its group where that has it.
pub(crate) async fn listable(client: &kube::Client) -> Vec<Listable> {
    let get = |path: String| async move {
        let request = Request::get(path).body(vec![]).expect("a request");
        client.request::<Value>(request).await
    };
    let mut versions = vec![(String::new(), "v1".to_string())];
    let groups = get("/apis".to_string()).await.expect("the groups the server has");
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default().to_string();
        let preferred = group["preferredVersion"]["version"].as_str().unwrap_or_default().to_string();
        versions.push((name.clone(), preferred.clone()));
        for version in group["versions"].as_array().into_iter().flatten() {
            let version = version["version"].as_str().unwrap_or_default();
            if version != preferred {
                versions.push((name.clone(), version.to_string()));
            }
        }
    }
    let mut found: Vec<Listable> = vec![];
    for (group, version) in versions {
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        // A group whose CRD went away a moment ago answers 404.
        let Ok(resources) = get(root).await else { continue };
        for resource in resources["resources"].as_array().into_iter().flatten() {
            let text = |key: &str| resource[key].as_str().unwrap_or_default().to_string();
            let has = |verb: &str| resource["verbs"].as_array().is_some_and(|v| v.iter().any(|x| x == verb));
            let plural = text("name");
            if plural.contains('/') || !has("list") || !has("get") {
                continue;
            }
            if found.iter().any(|f| f.group == group && f.plural == plural) {
                continue;
            }
            let namespaced = resource["namespaced"] == true;
            found.push(Listable {
                group: group.clone(),
                version: version.clone(),
                plural,
                kind: text("kind"),
                namespaced,
            });
        }
    }
    found
}
