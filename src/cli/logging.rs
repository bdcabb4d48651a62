//! Log lines, to standard error: what the program says about itself, beside its output.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub(super) struct LogArgs {
    /// What is logged: error, warn, info, debug or trace, also per module, such as `info,kube=debug`;
    /// without it, info for a service and warn for the rest
    #[arg(long, global = true, env = "REPRISE_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log more: once for debug, twice for trace
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines look
    #[arg(long, global = true, env = "REPRISE_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl LogArgs {
    fn level<'a>(&'a self, default: &'a str) -> &'a str {
        match (self.verbose, self.log_level.as_deref()) {
            (0, Some(level)) => level,
            (0, None) => default,
            (1, _) => "debug",
            (_, _) => "trace",
        }
    }

    /// Starts logging.
    ///
    /// # Errors
    /// When the level cannot be understood.
    pub(super) fn start(&self, default: &str) -> anyhow::Result<()> {
        let level = self.level(default);
        let filter =
            EnvFilter::builder().parse(level).with_context(|| format!("--log-level: {level:?} is no level"))?;
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        let started = match self.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow!("start logging: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(log_level: Option<&str>, verbose: u8) -> String {
        let args = LogArgs { log_level: log_level.map(str::to_owned), verbose, log_format: LogFormat::Text };
        args.level("warn").to_owned()
    }

    #[test]
    fn the_verbose_flag_goes_before_the_level() {
        assert_eq!(level(None, 0), "warn");
        assert_eq!(level(Some("info,kube=debug"), 0), "info,kube=debug");
        assert_eq!(level(Some("info"), 1), "debug");
        assert_eq!(level(None, 2), "trace");
    }
}
