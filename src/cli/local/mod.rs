//! `reprise restore run` and `plan`: a backup straight into a cluster, without Velero, a service or a Restore object.

mod one_backup;
mod plan;
mod preview;
mod run;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub(super) use plan::plan;
pub(super) use preview::preview;
pub(super) use run::{RunArgs, run};

use self::source::Source;
use super::engine_flags::{ClusterFlags, EngineFlags};
use super::output;
use super::restore_flags::{self, RestoreFlags, Wanted};
use crate::archive::{self, Archive, ReadOptions};
use crate::cluster::KubeCluster;
use crate::controller::source::modifiers;
use crate::controller::{Records, convert, validate};
use crate::engine::Job;
use crate::engine::collect::needs_labels;
use crate::engine::ports::exec::PodExec;
use crate::engine::versions::VersionPolicy;
use crate::model::{RestoreName, label};
use crate::sandbox::{self, Sandbox};
use crate::velero::RestoreSpec;

/// What `run` and `plan` share.
#[derive(Args, Clone, Debug)]
pub(super) struct LocalArgs {
    /// The backup: its tarball, its folder (with velero-backup.json), or s3://BUCKET/[PREFIX/]backups/NAME
    ///
    /// For S3 the environment holds as for the AWS tools: AWS_REGION, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the others.
    #[arg(long, value_name = "PATH or URL")]
    pub(super) from: String,
    #[command(flatten)]
    pub(super) flags: RestoreFlags,
    #[command(flatten)]
    pub(super) cluster: ClusterFlags,
    #[command(flatten)]
    pub(super) engine: EngineFlags,
    /// The namespace of Velero, where ConfigMaps with resource modifiers and settings of item actions are looked for
    #[arg(long, short = 'n', default_value = "velero", value_name = "NAMESPACE")]
    pub(super) namespace: String,
}

/// Everything but the archive's content.
struct Prepared {
    source: Source,
    job: Job,
    spec: RestoreSpec,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// How much of the tarball is taken.
    limits: archive::Limits,
    cluster: Arc<KubeCluster>,
    /// Runs exec hooks.
    exec: Arc<dyn PodExec>,
    /// Address of the cluster; `None` for the sandbox.
    address: Option<String>,
    /// What is wrong with the specification, in Velero's words.
    validation_errors: Vec<String>,
}

/// Reads the flags, finds the backup and the cluster, and checks the specification; writes nothing.
async fn prepare(args: &LocalArgs, name: Option<&str>) -> anyhow::Result<Prepared> {
    let LocalArgs { from, flags, cluster, engine, namespace } = args;
    let Wanted { name: file_name, mut spec, labels, annotations } = flags.read()?;
    let settings = engine.settings()?;
    let source = Source::open(from, &std::env::vars().collect()).await?;
    take_source(&mut spec, &source)?;
    let name: RestoreName = restore_flags::restore_name(name.or(file_name.as_deref()), &source.name, Timestamp::now())?;
    // No asynchronous operation is waited for here; the value is what a service would put.
    validate::complete(&mut spec, "4h0m0s");
    let mut validation_errors = validate::validate(&spec).errors;

    let volumes = source.volumes().await?;
    if volumes.pod_volume_backups > 0 && spec.restore_pvs != Some(false) {
        output::notice(&format!(
            "the backup has the files of {} pod volumes, which only Velero's node agent can bring back: these volumes \
             will be empty",
            volumes.pod_volume_backups
        ));
    }
    let (client, address) = if cluster.sandbox {
        (Sandbox::new(sandbox::Options::default()).client(), None)
    } else {
        let (client, address) = cluster.client().await?;
        (client, Some(address))
    };
    let modifiers = match modifiers(&Records::new(client.clone(), namespace), &spec).await {
        Ok(modifiers) => modifiers.map(Arc::new),
        Err(error) => {
            validation_errors.push(error);
            None
        }
    };
    let backup = source.backup.as_ref();
    let cluster = Arc::new(KubeCluster::new(client));
    let format = backup.map(|backup| backup.status.clone().unwrap_or_default().format_version);
    let versions = VersionPolicy::read(&*cluster, &settings, namespace, format).await;
    let job = Job {
        versions,
        restore_name: name.to_string(),
        // Items carry it where Velero puts it; nobody looks it up, as there is no Restore object.
        restore_uid: uuid::Uuid::new_v4().to_string(),
        velero_namespace: namespace.clone(),
        backup_name: source.name.clone(),
        backup_storage_location: backup.map(|backup| backup.spec.storage_location.clone()).unwrap_or_default(),
        snapshot_move_data: backup.and_then(|backup| backup.spec.snapshot_move_data).unwrap_or_default(),
        // It ends with its items, and has no Restore object that a DataDownload could belong to.
        data_mover: None,
        spec: convert::restore_spec(&spec),
        volumes: volumes.volumes,
        // A PodVolumeRestore without a Restore that owns it is garbage: pods would wait for ever for their volumes.
        pod_volumes: None,
        modifiers,
        settings,
    };
    let limits = engine.limits();
    let exec: Arc<dyn PodExec> =
        if address.is_some() { Arc::clone(&cluster) as _ } else { Arc::new(crate::app::NO_EXEC) };
    Ok(Prepared { source, job, limits, spec, labels, annotations, cluster, exec, address, validation_errors })
}

/// `--from` says which backup; what a file says of it must not contradict.
fn take_source(spec: &mut RestoreSpec, source: &Source) -> anyhow::Result<()> {
    let has_own_name = source.backup.is_some();
    if has_own_name && !spec.backup_name.is_empty() && spec.backup_name != source.name {
        bail!(
            "--spec names backup {:?}, and --from is backup {:?}: take backupName out, or point --from to the other",
            spec.backup_name,
            source.name
        );
    }
    if !spec.schedule_name.is_empty() {
        let of_schedule =
            source.backup.as_ref().and_then(|backup| backup.metadata.labels.as_ref()?.get(label::SCHEDULE_NAME));
        if of_schedule.is_some_and(|schedule| *schedule != spec.schedule_name) {
            bail!("--spec names schedule {:?}, of which backup {:?} is not", spec.schedule_name, source.name);
        }
        spec.schedule_name.clear();
    }
    source.name.clone_into(&mut spec.backup_name);
    Ok(())
}

impl Prepared {
    /// What is restored into, in words.
    fn place(&self) -> String {
        self.address.as_ref().map_or_else(
            || "the sandbox (an in-memory Kubernetes API, not a cluster)".to_owned(),
            |address| format!("the cluster at {address}"),
        )
    }

    /// Reads the archive until it is read or `stop` fires.
    async fn read(&self, stop: &CancellationToken) -> Result<Archive, archive::Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let options = ReadOptions {
            limits: self.limits,
            keep_labels: needs_labels(&self.job.spec),
            keep_versions: self.job.versions.is_some(),
            cancelled: Some(Arc::clone(&cancelled)),
            ..ReadOptions::default()
        };
        let read = self.source.read(options);
        tokio::pin!(read);
        tokio::select! {
            archive = &mut read => archive,
            () = stop.cancelled() => {
                cancelled.store(true, Ordering::Relaxed);
                read.await
            }
        }
    }

    /// The first error of the specification, all in one text.
    fn refusal(&self) -> anyhow::Result<()> {
        if self.validation_errors.is_empty() {
            return Ok(());
        }
        Err(anyhow::anyhow!(self.validation_errors.join("; "))).context("the restore is not valid")
    }
}
