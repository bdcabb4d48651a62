//! Following a restore of a running service to its end, over broken connections and restarts.

use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::client::{self, Client, ItemQuery};
use super::display::Display;
use super::exit::Exit;
use super::summary::{FAILED_ASKED, Summary};
use super::{decode, output};
use crate::api::grpc::pb;
use crate::service::{RestoreView, WatchEvent};

/// Pauses between tries to come back.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the service may be away: longer than it takes to be moved to another node.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a stream of events ended.
enum End {
    Restore(Box<RestoreView>),
    Deleted,
    /// It may go on after this.
    Broken(anyhow::Error),
    Interrupted,
}

/// Follows a restore and says what it came to; [`Exit::Interrupted`] when `stop` fires before its end.
///
/// # Errors
/// When there is no such restore, or the service stays away.
pub(super) async fn watch(
    client: &Client,
    name: &str,
    display: &mut Display,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let Some(view) = follow(client, name, display, stop).await? else {
        display.close();
        return Ok(Exit::Interrupted);
    };
    if !display.is_json() {
        tell(client, &view).await?;
    }
    Ok(Exit::of_view(&view))
}

/// Prints what a restore came to.
async fn tell(client: &Client, view: &RestoreView) -> anyhow::Result<()> {
    let query = ItemQuery { outcomes: vec![pb::Outcome::Failed], page_size: FAILED_ASKED, ..ItemQuery::default() };
    let failed = client.items(&view.name, &query, String::new()).await?.items;
    let results = client.results(&view.name).await?;
    output::lines(&Summary { view, failed: &failed, results: &results }.lines())?;
    Ok(())
}

/// The Restore as it ended; `None` when the user has seen enough.
async fn follow(
    client: &Client,
    name: &str,
    display: &mut Display,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Box<RestoreView>>> {
    let mut after = None;
    let mut trouble: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = tokio::select! {
            opened = client.watch(name, after) => opened,
            () = stop.cancelled() => return Ok(None),
        };
        let end = match opened {
            Ok(events) => {
                let before = after;
                let end = read(events, &mut after, display, stop).await?;
                // Something came through: the patience begins anew.
                if after != before {
                    (trouble, pause) = (None, FIRST_PAUSE);
                }
                end
            }
            Err(status) if client::is_passing(&status) => End::Broken(client::told(&status)),
            Err(status) => return Err(client::told(&status)),
        };
        let error = match end {
            End::Restore(view) => return Ok(Some(view)),
            End::Deleted => bail!("restore {name} was deleted"),
            End::Interrupted => return Ok(None),
            End::Broken(error) => error,
        };
        let since = *trouble.get_or_insert_with(|| {
            display.notice(&format!("the watch broke off ({error}); coming back"));
            Instant::now()
        });
        if since.elapsed() > PATIENCE {
            return Err(error.context(format!("the service at {} stayed away for {PATIENCE:?}", client.server())));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Shows events until the stream ends, and keeps where to continue.
async fn read(
    mut events: Streaming<pb::RestoreEvent>,
    after: &mut Option<u64>,
    display: &mut Display,
    stop: &CancellationToken,
) -> anyhow::Result<End> {
    loop {
        let message = tokio::select! {
            message = events.message() => message,
            () = stop.cancelled() => return Ok(End::Interrupted),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(End::Broken(anyhow!("the stream ended without an end"))),
            Err(status) if client::is_passing(&status) => return Ok(End::Broken(client::told(&status))),
            Err(status) => return Err(client::told(&status)),
        };
        let Some(numbered) = decode::event(message)? else { continue };
        display.event(&numbered)?;
        match numbered.event {
            WatchEvent::Ended(view) => return Ok(End::Restore(view)),
            WatchEvent::Deleted { .. } => return Ok(End::Deleted),
            WatchEvent::ShuttingDown => return Ok(End::Broken(anyhow!("the service is going down"))),
            WatchEvent::Snapshot(_)
            | WatchEvent::Progress { .. }
            | WatchEvent::Item { .. }
            | WatchEvent::Gap { .. } => {
                *after = Some(numbered.sequence);
            }
        }
    }
}
