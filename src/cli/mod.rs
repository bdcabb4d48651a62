//! The command line: flags in, output and exit code out.
//!
//! What a command prints goes to standard output, what it says about itself to standard error.

mod archive_flags;
mod cancel;
mod client;
mod decode;
mod demo;
mod display;
mod engine_flags;
mod exit;
mod local;
mod logging;
mod output;
mod plan;
mod remote;
mod restore_flags;
mod serve;
mod spec_file;
mod summary;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod watch;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

pub use exit::Exit;

/// Restores Velero backups into Kubernetes, and streams truthful progress while it does.
#[derive(Parser, Clone, Debug)]
#[command(name = "reprise", version, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: logging::LogArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Run the service: gRPC, REST and Server-Sent Events over the Restores of a cluster
    ///
    /// With --sandbox an in-memory Kubernetes API and a folder of backups take the cluster's place.
    Serve(Box<serve::ServeArgs>),
    /// See a restore go by, without a cluster: a sandbox, a sample backup, and one restore started over gRPC
    Demo(demo::DemoArgs),
    /// Restore: through a running service, or straight into a cluster
    #[command(subcommand, after_help = EXIT_CODES)]
    Restore(RestoreCommand),
}

/// The end of the help of commands that run or watch a restore.
const EXIT_CODES: &str = "\
Exit codes:
  0    the restore completed
  1    an error that is not the restore's outcome
  2    the command line makes no sense
  3    the restore partially failed
  4    the restore failed, or its specification was refused
  5    the restore was cancelled
  130  no longer watching, because of Ctrl-C";

/// The end of the help of `cancel`.
const CANCEL_EXIT_CODES: &str = "\
Exit codes:
  0    the restore is told to stop; with --wait: it had completed before it was
  1    an error, such as a restore that has ended or is not there
  2    the command line makes no sense
  3    with --wait: the restore partially failed before it was told
  4    with --wait: the restore failed before it was told
  5    with --wait: the restore was cancelled
  130  no longer watching, because of Ctrl-C";

/// The end of the help of `plan`.
const PLAN_EXIT_CODES: &str = "\
Exit codes:
  0    nothing stands against it
  1    the plan could not be made
  2    the command line makes no sense
  3    something would conflict, be refused or fail
  4    the specification was refused (with --from)
  130  interrupted by Ctrl-C";

#[derive(Subcommand, Clone, Debug)]
enum RestoreCommand {
    /// Create a Restore, and with --wait watch it to its end
    #[command(after_help = EXIT_CODES)]
    Create(Box<remote::CreateArgs>),
    /// Print one Restore
    Get(remote::NameArgs),
    /// List all Restores
    List(remote::ListArgs),
    /// Watch a restore to its end
    ///
    /// A bar on a terminal, lines in a pipe, events as JSON with -o json. Comes back by itself when the connection breaks.
    #[command(after_help = EXIT_CODES)]
    Watch(remote::NameArgs),
    /// Cancel a restore, in whatever phase it is
    ///
    /// Items in flight are finished and others skipped; what was restored stays.
    #[command(after_help = CANCEL_EXIT_CODES)]
    Cancel(cancel::CancelArgs),
    /// List the items of a restore and what became of each
    Items(remote::ItemsArgs),
    /// Print the warnings and errors of a restore
    Results(remote::NameArgs),
    /// Print the log of a restore
    Logs(remote::LogsArgs),
    /// Restore a backup straight into a cluster, without Velero or a service
    ///
    /// Ctrl-C stops it at an item boundary; a second one at once.
    #[command(after_help = EXIT_CODES)]
    Run(Box<local::RunArgs>),
    /// Print what a restore would do to the live cluster, without writing anything
    ///
    /// By a running service: of a Restore (NAME), or of one that is not created yet (--from-backup and the flags of
    /// `create`). On the spot: of a tarball or folder (--from).
    #[command(after_help = PLAN_EXIT_CODES)]
    Plan(Box<plan::PlanArgs>),
}

impl Cli {
    /// Starts logging: a service tells what it does, the other commands only trouble.
    ///
    /// # Errors
    /// When the level cannot be understood.
    pub fn start_logging(&self) -> anyhow::Result<()> {
        self.log.start(if matches!(self.command, Command::Serve(_)) { "info" } else { "warn" })
    }

    /// Runs the command to its end, or until `stop` is cancelled and what is under way has ended.
    pub async fn run(self, stop: CancellationToken) -> Exit {
        match self.command.run(stop).await {
            Ok(exit) => exit,
            // Whoever reads the output, such as `head`, has enough of it.
            Err(error) if output::is_broken_pipe(&error) => Exit::Success,
            Err(error) => {
                output::notice(&format!("error: {error:#}"));
                if is_usage(&error) { Exit::Usage } else { Exit::Error }
            }
        }
    }
}

impl Command {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<Exit> {
        match self {
            Self::Serve(args) => serve::serve(*args, stop).await,
            Self::Demo(args) => demo::demo(args, &stop).await,
            Self::Restore(command) => match command {
                RestoreCommand::Create(args) => remote::create(*args, &stop).await,
                RestoreCommand::Get(args) => remote::get(args).await,
                RestoreCommand::List(args) => remote::list(args).await,
                RestoreCommand::Watch(args) => remote::watch(args, &stop).await,
                RestoreCommand::Cancel(args) => cancel::cancel(args, &stop).await,
                RestoreCommand::Items(args) => remote::items(args).await,
                RestoreCommand::Results(args) => remote::results(args).await,
                RestoreCommand::Logs(args) => remote::logs(args, &stop).await,
                RestoreCommand::Run(args) => local::run(*args, &stop).await,
                RestoreCommand::Plan(args) => plan::plan(*args, &stop).await,
            },
        }
    }
}

/// A flag that cannot be understood is a wrong command line, whoever finds it; a file that cannot be read is not.
fn is_usage(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<restore_flags::Error>()
        .is_some_and(|error| !matches!(error, restore_flags::Error::SpecFile(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_of_all_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn exit_codes_tell_how_a_restore_ended() {
        use crate::model::Phase;
        let codes = [Phase::Completed, Phase::PartiallyFailed, Phase::Failed, Phase::FailedValidation];
        assert_eq!(codes.map(|phase| Exit::of(phase).code()), [0, 3, 4, 4]);
        let failed = |reason: &str| crate::service::RestoreView {
            phase: Phase::Failed,
            failure_reason: Some(reason.to_owned()),
            ..testing::view()
        };
        assert_eq!(Exit::of_view(&failed("cancelled by alice after 3 of 9 items")).code(), 5);
        assert_eq!(Exit::of_view(&failed("error downloading backup: gone")).code(), 4);
    }
}
