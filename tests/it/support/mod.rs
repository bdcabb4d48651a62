//! The parts the integration tests run on: a real Kubernetes API server with Velero's CRDs, and an S3 server.
//!
//! Nothing here needs preparing by hand. The first test that asks for a cluster builds etcd, kube-apiserver and
//! kube-controller-manager from their Go modules (`tests/controlplane`, several minutes once, cached afterwards under
//! the target directory) and starts one control plane that all tests of the run share; each test works in namespaces of
//! its own. Everything that is started ends with the test process, however that ends.
//!
//! A cluster test begins with
//!
//! ```ignore
//! let Some(cluster) = support::cluster().await else { return };
//! let client = cluster.client().await;
//! let namespace = support::namespace(&client, "my-subject").await;
//! ```
//!
//! # Environment
//!
//! | Variable | Meaning |
//! |---|---|
//! | `REPRISE_CLUSTER_TESTS=off` | skip every test that needs a cluster (each says so); default is on |
//! | `KUBEBUILDER_ASSETS` | a folder with `etcd` and `kube-apiserver` (and `kube-controller-manager`, where a test wants it) to use instead of building them; Velero's CRDs are still printed by the Go program |
//! | `REPRISE_TEST_KEEP=1` | leave the folder of a control plane (logs, audit log, kubeconfig) behind and print where it is |
//! | `REPRISE_TEST_LOGS=1` | print where the logs are when a control plane is up |
//! | `REPRISE_FAULT_ITEMS`, `REPRISE_FAULT_SEEDS` | items of a restore that is disturbed (default 120), and seeds of mixed faults, comma-separated (default `1,2`) |
//! | `REPRISE_CONFORMANCE_CASES` | comma-separated numbers or names of the conformance cases to run; default all |
//! | `REPRISE_CONFORMANCE_ENGINE` | shell command that starts another engine for the conformance cases, instead of `reprise serve` |
//! | `REPRISE_CONFORMANCE_STRICT=1` | message texts and creation order count as differences too |
//! | `REPRISE_CONFORMANCE_ALL_LINES=1` | do not shorten the differences of a case |

// Not every helper is used by every test that is compiled in.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod control_plane;
pub(crate) mod kubelet;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod tools;

use std::sync::{Arc, OnceLock};

pub(crate) use control_plane::{ControlPlane, Options};
pub(crate) use namespace::namespace;

/// Whether tests that need a cluster are to run; prints the reason where they are not.
pub(crate) fn cluster_tests_enabled() -> bool {
    let off = std::env::var("REPRISE_CLUSTER_TESTS").is_ok_and(|v| matches!(v.as_str(), "off" | "0" | "false" | "no"));
    if off {
        eprintln!("skipped: REPRISE_CLUSTER_TESTS=off");
    }
    !off
}

/// The control plane that all tests of this process share, with Velero's CRDs and the namespace `velero`.
///
/// `None` where cluster tests are switched off. Panics, with the logs' ends, where it cannot be started: a test that
/// could not run must not look like one that passed.
pub(crate) async fn cluster() -> Option<Arc<ControlPlane>> {
    static SHARED: OnceLock<Result<Arc<ControlPlane>, String>> = OnceLock::new();
    if !cluster_tests_enabled() {
        return None;
    }
    let shared =
        tokio::task::spawn_blocking(|| SHARED.get_or_init(|| ControlPlane::start(Options::default()).map(Arc::new)))
            .await
            .expect("the thread that starts the control plane");
    match shared {
        Ok(cluster) => Some(Arc::clone(cluster)),
        Err(why) => panic!("no control plane: {why}"),
    }
}

/// A short random name part: lower-case letters and digits, fit for Kubernetes names.
pub(crate) fn random_suffix() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_string()
}

/// The project's folder `tests/`.
pub(crate) fn tests_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}
