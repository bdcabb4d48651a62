//! Streams of the façade made fit for a door: numbered, counted, and ended when the service goes down.
//!
//! # Guarantees
//! A watch of one restore ends after [`WatchEvent::Ended`], [`WatchEvent::Deleted`] or [`WatchEvent::ShuttingDown`],
//! a watch of all after the last of these only, and both say so themselves where the façade's stream breaks off.
//! Dropping a stream drops the façade's, and with it the subscription.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::context::StreamGuard;
use crate::service::{Error, LogLine, WatchEvent};
use crate::telemetry::metrics::Door;

/// Most lines of a log that go out as one message: some 30 kB.
const LINES_AT_ONCE: usize = 256;

/// An event with the number that a watch is resumed after.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// To be given back as the sequence to resume after.
    pub sequence: u64,
    /// The event.
    pub event: WatchEvent,
}

/// A part of a log, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Some lines.
    Lines(Vec<LogLine>),
    /// There is no more.
    Ended,
    /// The service goes down.
    ShuttingDown,
}

/// How far a client got, for each restore it watches.
///
/// Counts are latest-value-wins and may overtake items, so a progress event must not move the number: a client that
/// broke off right after it would come back past items it never saw.
#[derive(Debug, Default)]
struct Cursor {
    after: Option<u64>,
    at: HashMap<Arc<str>, u64>,
}

impl Cursor {
    fn number(&mut self, event: &WatchEvent) -> u64 {
        match event {
            WatchEvent::Snapshot(view) => {
                let snapshot = view.progress.sequence;
                // More than the snapshot has comes from before a restart: what it counted is gone.
                let at = self.after.map_or(snapshot, |after| after.min(snapshot));
                self.at.insert(Arc::from(view.name.as_str()), at);
                at
            }
            WatchEvent::Progress { name, .. } => self.at.get(name).copied().unwrap_or(0),
            WatchEvent::Item { name, sequence, .. } => self.advance(name, *sequence),
            WatchEvent::Gap { name, to, .. } => self.advance(name, *to),
            WatchEvent::Ended(view) => {
                let at = self.at.remove(view.name.as_str()).unwrap_or(0);
                at.max(view.progress.sequence)
            }
            WatchEvent::Deleted { name } => self.at.remove(name).unwrap_or(0),
            WatchEvent::ShuttingDown => match self.at.len() {
                1 => self.at.values().copied().next().unwrap_or(0),
                _ => 0,
            },
        }
    }

    fn advance(&mut self, name: &Arc<str>, to: u64) -> u64 {
        let at = self.at.entry(Arc::clone(name)).or_insert(0);
        *at = to.max(*at);
        *at
    }
}

/// Which events end a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    One,
    All,
}

impl Scope {
    const fn ends_with(self, event: &WatchEvent) -> bool {
        match event {
            WatchEvent::Ended(_) | WatchEvent::Deleted { .. } => matches!(self, Self::One),
            WatchEvent::ShuttingDown => true,
            WatchEvent::Snapshot(_)
            | WatchEvent::Progress { .. }
            | WatchEvent::Item { .. }
            | WatchEvent::Gap { .. } => false,
        }
    }
}

struct Watch {
    source: BoxStream<'static, WatchEvent>,
    shutdown: CancellationToken,
    scope: Scope,
    cursor: Cursor,
    is_over: bool,
    _guard: StreamGuard,
}

impl Watch {
    fn stream(self) -> BoxStream<'static, Numbered> {
        stream::unfold(self, |mut watch| async move {
            if watch.is_over {
                return None;
            }
            let event = tokio::select! {
                biased;
                () = watch.shutdown.cancelled() => WatchEvent::ShuttingDown,
                event = watch.source.next() => event.unwrap_or(WatchEvent::ShuttingDown),
            };
            watch.is_over = watch.scope.ends_with(&event);
            let sequence = watch.cursor.number(&event);
            Some((Numbered { sequence, event }, watch))
        })
        .boxed()
    }
}

/// Follows one restore.
///
/// # Errors
/// Those of [`crate::service::Restores::watch`], and `ResourceExhausted` when too many streams are open.
pub async fn one(
    context: &Context,
    door: Door,
    name: &crate::model::RestoreName,
    after: Option<u64>,
) -> Result<BoxStream<'static, Numbered>, Error> {
    let guard = context.open_stream(door)?;
    let source = context.restores.watch(name, after).await?;
    let cursor = Cursor { after, at: HashMap::new() };
    let shutdown = context.shutdown.clone();
    Ok(Watch { source, shutdown, scope: Scope::One, cursor, is_over: false, _guard: guard }.stream())
}

/// Follows all restores.
///
/// # Errors
/// Those of [`crate::service::Restores::watch_all`], and `ResourceExhausted` when too many streams are open.
pub async fn all(context: &Context, door: Door) -> Result<BoxStream<'static, Numbered>, Error> {
    let guard = context.open_stream(door)?;
    let source = context.restores.watch_all().await?;
    let shutdown = context.shutdown.clone();
    Ok(Watch { source, shutdown, scope: Scope::All, cursor: Cursor::default(), is_over: false, _guard: guard }.stream())
}

/// The log of one restore, many lines at a time where many are there.
///
/// # Errors
/// Those of [`crate::service::Restores::logs`], and `ResourceExhausted` when too many streams are open.
pub async fn logs(
    context: &Context,
    door: Door,
    name: &crate::model::RestoreName,
    follow: bool,
) -> Result<BoxStream<'static, LogPart>, Error> {
    let guard = context.open_stream(door)?;
    let source = context.restores.logs(name, follow).await?.ready_chunks(LINES_AT_ONCE);
    let shutdown = context.shutdown.clone();
    let state = Some((source, shutdown, guard));
    Ok(stream::unfold(state, |state| async move {
        let (mut source, shutdown, guard) = state?;
        let part = tokio::select! {
            biased;
            () = shutdown.cancelled() => LogPart::ShuttingDown,
            lines = source.next() => lines.map_or(LogPart::Ended, LogPart::Lines),
        };
        let goes_on = matches!(part, LogPart::Lines(_)).then_some((source, shutdown, guard));
        Some((part, goes_on))
    })
    .boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Progress;
    use crate::service::RestoreView;

    fn view(sequence: u64) -> Box<RestoreView> {
        Box::new(RestoreView {
            name: "again".into(),
            namespace: "velero".into(),
            uid: String::new(),
            backup_name: String::new(),
            spec: serde_json::Value::Null,
            labels: Default::default(),
            annotations: Default::default(),
            phase: Default::default(),
            validation_errors: Vec::new(),
            failure_reason: None,
            warnings: 0,
            errors: 0,
            created_at: None,
            started_at: None,
            completed_at: None,
            progress: Arc::new(Progress { sequence, ..Progress::default() }),
            queue_position: None,
            sandbox: false,
        })
    }

    fn progress(sequence: u64) -> WatchEvent {
        let progress = Arc::new(Progress { sequence, ..Progress::default() });
        WatchEvent::Progress { name: Arc::from("again"), progress }
    }

    fn gap(from: u64, to: u64) -> WatchEvent {
        WatchEvent::Gap { name: Arc::from("again"), from, to }
    }

    #[test]
    fn progress_that_overtakes_items_does_not_move_the_number_to_resume_after() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.number(&WatchEvent::Snapshot(view(10))), 10);
        assert_eq!(cursor.number(&progress(90)), 10);
        assert_eq!(cursor.number(&gap(11, 20)), 20);
        assert_eq!(cursor.number(&progress(95)), 20);
        assert_eq!(cursor.number(&WatchEvent::Ended(view(99))), 99);
    }

    #[test]
    fn a_resumed_watch_stays_at_its_number_until_items_come() {
        let mut cursor = Cursor { after: Some(7), ..Cursor::default() };
        assert_eq!(cursor.number(&WatchEvent::Snapshot(view(10))), 7);
        assert_eq!(cursor.number(&WatchEvent::ShuttingDown), 7);
    }

    #[test]
    fn a_number_from_before_a_restart_of_the_service_falls_to_the_snapshot() {
        let mut cursor = Cursor { after: Some(5_000), ..Cursor::default() };
        assert_eq!(cursor.number(&WatchEvent::Snapshot(view(3))), 3);
    }
}
