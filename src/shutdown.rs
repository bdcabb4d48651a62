//! Ending in order: first the work, then the doors, and all within bounds.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first SIGINT or SIGTERM, and ends the process at the second: whoever asks twice means it.
///
/// # Errors
/// When the signals cannot be listened for.
pub fn on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut asked = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            asked += 1;
            if asked > 1 {
                tracing::warn!("second signal: ending at once");
                std::process::exit(EXIT_AT_ONCE);
            }
            tracing::info!("shutting down; a second signal ends at once");
            stop.cancel();
        }
    });
    Ok(())
}

/// 128 + SIGINT, as shells have it.
const EXIT_AT_ONCE: i32 = 130;

/// Waits for one step of the shutdown, at most so long; tells when it took longer.
pub async fn step<F: Future>(name: &'static str, limit: Duration, work: F) -> Option<F::Output> {
    let begun = std::time::Instant::now();
    match tokio::time::timeout(limit, work).await {
        Ok(done) => {
            tracing::debug!(step = name, took = ?begun.elapsed(), "shutdown step done");
            Some(done)
        }
        Err(_) => {
            tracing::warn!(step = name, ?limit, "shutdown step did not end in time; going on without it");
            None
        }
    }
}
