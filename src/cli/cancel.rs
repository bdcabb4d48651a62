//! `reprise restore cancel`.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::client::{Client, ServerArgs};
use super::exit::Exit;
use super::output::{self, Format, OutputArgs};
use super::remote;
use crate::api::grpc::pb;
use crate::api::http::json;

/// `reprise restore cancel`.
#[derive(Args, Clone, Debug)]
pub(super) struct CancelArgs {
    /// Name of the Restore
    name: String,
    /// Why: one line, which becomes part of the failureReason
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Who cancels, as failureReason tells it
    #[arg(long, env = "USER", default_value = "reprise restore cancel", hide_env_values = true)]
    by: String,
    /// Watch the restore to its end, and exit with what it came to
    #[arg(long, short)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Cancels a Restore; with `--wait` also watches it.
pub(super) async fn cancel(args: CancelArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let CancelArgs { name, reason, by, wait, server, output } = args;
    let client = Client::connect(&server.server).await?;
    let view = client.cancel(pb::CancelRestoreRequest { name, reason, by }).await?;
    if wait {
        return remote::follow(&client, &view.name, output, stop).await;
    }
    match output.output {
        Format::Json => output::line(&json::restore(view))?,
        Format::Text => {
            let name = &view.name;
            output::line(&format!("Restore {name} is told to stop; see its end with: reprise restore watch {name}"))?;
        }
    }
    Ok(Exit::Success)
}
