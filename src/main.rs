//! The `reprise` binary: flags, logging, signals, exit code. All else is in the library.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use reprise::cli::{Cli, Exit};
use reprise::shutdown;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Error.into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    cli.start_logging()?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone()).context("listen for signals")?;
        Ok(cli.run(stop).await)
    })
}
