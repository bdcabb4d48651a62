//! The flags that a server and a restore on the spot share: Velero's own names and defaults (restore-semantics 1.10),
//! and which cluster is meant.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::archive_flags::ArchiveFlags;
use crate::archive::Limits;
use crate::engine::Settings;
use crate::model::GoDuration;

/// Limits and waits of the engine.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How it is restored (the flags of `velero server`)")]
pub(super) struct EngineFlags {
    /// How long to wait for a namespace or volume that is being deleted
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    terminating_resource_timeout: Duration,
    /// How long to wait for a CustomResourceDefinition to be served
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    resource_timeout: Duration,
    /// The order of resources: those that come first, a `-`, those that come last
    #[arg(long, value_name = "RESOURCES")]
    restore_resource_priorities: Option<String>,
    /// Feature flags: EnableCSI, EnableAPIGroupVersions
    #[arg(long, value_delimiter = ',', value_name = "FEATURES")]
    features: Vec<String>,
    /// How many items are worked on at a time
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "NUMBER")]
    concurrency: Option<u16>,
    #[command(flatten)]
    archive: ArchiveFlags,
}

impl EngineFlags {
    /// The settings of the engine.
    ///
    /// # Errors
    /// When the order of resources has more than one separator.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let Self {
            terminating_resource_timeout,
            resource_timeout,
            restore_resource_priorities,
            features,
            concurrency,
            archive: _,
        } = self;
        let defaults = Settings::default();
        let priorities = match restore_resource_priorities {
            Some(text) => text.parse().context("--restore-resource-priorities")?,
            None => defaults.priorities,
        };
        Ok(Settings {
            concurrency: concurrency.map_or(defaults.concurrency, usize::from),
            terminating_resource_timeout: *terminating_resource_timeout,
            resource_timeout: *resource_timeout,
            priorities,
            pod_volume_timeout: defaults.pod_volume_timeout,
            features: features.iter().map(|name| name.trim().to_owned()).collect::<BTreeSet<_>>(),
        })
    }
}

impl EngineFlags {
    /// How much of a backup tarball is taken.
    pub(super) fn limits(&self) -> Limits {
        self.archive.limits()
    }
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which cluster")]
pub(super) struct ClusterFlags {
    /// The kubeconfig file; without it KUBECONFIG, ~/.kube/config, or the service account of the pod
    #[arg(long, value_name = "FILE", conflicts_with = "sandbox")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "CONTEXT", conflicts_with = "sandbox")]
    kubecontext: Option<String>,
    /// Use an in-memory Kubernetes API in place of a cluster; nothing real is touched
    #[arg(long)]
    pub(super) sandbox: bool,
}

impl ClusterFlags {
    /// Whether a flag says which cluster.
    pub(super) const fn names_a_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.kubecontext.is_some()
    }

    /// A client of the cluster, and its address.
    ///
    /// # Errors
    /// When no cluster is configured.
    pub(super) async fn client(&self) -> anyhow::Result<(Client, String)> {
        let options = KubeConfigOptions { context: self.kubecontext.clone(), ..KubeConfigOptions::default() };
        let mut config = match (&self.kubeconfig, &self.kubecontext) {
            (Some(file), _) => {
                let read =
                    Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig: read {}", file.display()))?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .with_context(|| format!("use {}", file.display()))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.context("find the kubeconfig")?,
            (None, None) => Config::infer()
                .await
                .context("find a cluster: name a kubeconfig by --kubeconfig or KUBECONFIG, or try --sandbox")?,
        };
        // The engine sorts failures and tries again itself, visibly and within its own bounds.
        config.default_retry = false;
        let address = config.cluster_url.to_string();
        Ok((Client::try_from(config).context("set up the Kubernetes client")?, address))
    }
}

/// A Go duration that is not negative.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration: GoDuration = text.parse().map_err(|error: crate::model::InvalidDuration| error.to_string())?;
    duration.to_std().ok_or_else(|| format!("{text:?} is negative"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        engine: EngineFlags,
        #[command(flatten)]
        cluster: ClusterFlags,
    }

    fn parse(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(["reprise"].iter().chain(arguments))
    }

    /// restore-semantics 1.10
    #[test]
    fn the_defaults_are_veleros() {
        let settings = parse(&[]).unwrap().engine.settings().unwrap();
        let defaults = Settings::default();
        assert_eq!(settings.terminating_resource_timeout, defaults.terminating_resource_timeout);
        assert_eq!(settings.resource_timeout, defaults.resource_timeout);
        assert_eq!(settings.priorities, defaults.priorities);
        assert_eq!((&settings.features, settings.concurrency), (&defaults.features, defaults.concurrency));
        let ten_minutes = Duration::from_secs(600);
        assert_eq!((settings.terminating_resource_timeout, settings.resource_timeout), (ten_minutes, ten_minutes));
        assert!(settings.features.is_empty());
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        for (argument, part) in [
            ("--resource-timeout=5", "missing unit"),
            ("--resource-timeout=-5s", "negative"),
            ("--concurrency=0", "--concurrency"),
        ] {
            let error = parse(&[argument]).err().unwrap().to_string();
            assert!(error.contains(part) && error.contains(argument.split('=').next().unwrap()), "{error}");
        }
        let flags = parse(&["--restore-resource-priorities=a,-,b,-,c"]).unwrap();
        let error = format!("{:#}", flags.engine.settings().unwrap_err());
        assert!(error.starts_with("--restore-resource-priorities: "), "{error}");
    }

    #[test]
    fn a_sandbox_has_no_kubeconfig() {
        assert!(parse(&["--sandbox", "--kubeconfig=x"]).is_err());
        assert!(parse(&["--sandbox"]).unwrap().cluster.sandbox);
    }
}
