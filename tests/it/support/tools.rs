//! Builds the Go programs of the test set-up, once per state of their sources.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use sha2::{Digest, Sha256};

/// Where the programs of the test set-up are.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) etcd: PathBuf,
    pub(crate) kube_apiserver: PathBuf,
    /// May be absent where `KUBEBUILDER_ASSETS` is used: its folder has none as a rule.
    pub(crate) kube_controller_manager: PathBuf,
    /// Velero's CRDs as one JSON array.
    pub(crate) velero_crds: PathBuf,
}

/// The programs, built first where needed.
pub(crate) fn go_tools() -> Result<Tools, String> {
    let velero_crds = built("velero-crds", |source, out| {
        go_build(source, out, &[], ".")?;
        let printed = Command::new(out.join("velero-crds"))
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("running velero-crds: {e}"))?;
        if !printed.status.success() {
            return Err(format!("velero-crds ended with {}", printed.status));
        }
        fs::write(out.join("velero-crds.json"), printed.stdout).map_err(|e| format!("keeping Velero's CRDs: {e}"))
    })?
    .join("velero-crds.json");

    let programs = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(assets) if !assets.is_empty() => {
            let assets = PathBuf::from(assets);
            for program in ["etcd", "kube-apiserver"] {
                if !assets.join(program).is_file() {
                    return Err(format!(
                        "KUBEBUILDER_ASSETS is {}, which has no {program}: unset it to build the programs from source",
                        assets.display()
                    ));
                }
            }
            assets
        }
        _ => built("controlplane", |source, out| go_build(source, out, &version_flags(source)?, "./cmd/..."))?,
    };
    Ok(Tools {
        etcd: programs.join("etcd"),
        kube_apiserver: programs.join("kube-apiserver"),
        kube_controller_manager: programs.join("kube-controller-manager"),
        velero_crds,
    })
}

/// The folder with what `build` makes of the Go module `tests/<module>`; other test processes wait for the first.
fn built(module: &str, build: impl FnOnce(&Path, &Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let source = super::tests_dir().join(module);
    let root = tools_dir()?;
    fs::create_dir_all(&root).map_err(|e| format!("making {}: {e}", root.display()))?;
    let done = root.join(format!("{module}-{}", hash_of(&source)?));
    if done.is_dir() {
        return Ok(done);
    }
    let lock_path = root.join(format!("{module}.lock"));
    let lock = File::create(&lock_path).map_err(|e| format!("opening {}: {e}", lock_path.display()))?;
    lock.lock().map_err(|e| format!("locking {}: {e}", lock_path.display()))?;
    if done.is_dir() {
        return Ok(done);
    }
    let started = Instant::now();
    say(&format!(
        "building tests/{module} with Go (once, cached in {}){}",
        done.display(),
        if module == "controlplane" { ": etcd and Kubernetes from source, some minutes" } else { "" },
    ));
    // Built beside its final place and renamed, so that a build cut short is never taken for a finished one.
    let unfinished = tempfile::Builder::new()
        .prefix(&format!("{module}-unfinished-"))
        .tempdir_in(&root)
        .map_err(|e| format!("making a folder in {}: {e}", root.display()))?;
    build(&source, unfinished.path())?;
    fs::rename(unfinished.keep(), &done)
        .map_err(|e| format!("moving the built programs to {}: {e}", done.display()))?;
    say(&format!("built tests/{module} in {} s", started.elapsed().as_secs()));
    Ok(done)
}

fn go_build(source: &Path, out: &Path, ldflags: &[String], packages: &str) -> Result<(), String> {
    let mut command = Command::new("go");
    command.current_dir(source).env("GOWORK", "off").arg("build");
    if !ldflags.is_empty() {
        command.arg("-ldflags").arg(ldflags.join(" "));
    }
    // The slash makes Go take the path for a folder to build into.
    command.arg("-o").arg(format!("{}/", out.display())).arg(packages);
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            "Go is missing: the tests build etcd and kube-apiserver from source. Install Go 1.26 or newer \
             (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder that has both programs, or set \
             REPRISE_CLUSTER_TESTS=off to leave out the tests that need a cluster"
                .to_string()
        }
        _ => format!("starting go: {e}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "go build in {} ended with {}:\n{}",
        source.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// What makes the programs report the version that go.mod names: clients ask for it at `/version`.
fn version_flags(source: &Path) -> Result<Vec<String>, String> {
    let go_mod = fs::read_to_string(source.join("go.mod")).map_err(|e| format!("reading go.mod: {e}"))?;
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
        .ok_or("go.mod of tests/controlplane requires no k8s.io/kubernetes")?
        .trim();
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    Ok(vec![
        "-s -w".to_string(),
        set("gitVersion", &format!("v{version}")),
        set("gitMajor", major),
        set("gitMinor", minor),
    ])
}

/// `<target>/reprise-tools`: beside the folder cargo gives to integration tests.
fn tools_dir() -> Result<PathBuf, String> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = tmp.parent().ok_or("CARGO_TARGET_TMPDIR has no parent")?;
    Ok(target.join("reprise-tools"))
}

fn hash_of(source: &Path) -> Result<String, String> {
    fn files(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                files(&path, into)?;
            } else if path.extension().is_some_and(|e| e == "go" || e == "mod" || e == "sum") {
                into.push(path);
            }
        }
        Ok(())
    }
    let unreadable = |e: std::io::Error| format!("reading {}: {e}", source.display());
    let mut paths = Vec::new();
    files(source, &mut paths).map_err(unreadable)?;
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.strip_prefix(source).unwrap_or(&path).to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update(fs::read(&path).map_err(unreadable)?);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect())
}

/// To the terminal itself where there is one: the test harness keeps a test's own output until it fails, and a first
/// build of some minutes without a word looks like a hang.
pub(crate) fn say(line: &str) {
    let shown =
        fs::OpenOptions::new().write(true).open("/dev/tty").and_then(|mut tty| writeln!(tty, "reprise tests: {line}"));
    if shown.is_err() {
        // Writing to the stream, unlike eprintln!, is not captured by the test harness.
        let _ = writeln!(std::io::stderr(), "reprise tests: {line}");
    }
}
