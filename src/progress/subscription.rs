//! One reader of a restore's progress.

use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;

use super::item_log::{Batch, Read};
use super::restore::{Published, RestoreProgress};
use crate::model::{ItemState, Progress};

/// What a reader is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The state at the begin. Its sequence number is where the reader stands: items behind it follow.
    Snapshot(Arc<Progress>),
    /// The newest value; values in between may have been left out. The items up to its sequence number were sent.
    Progress(Arc<Progress>),
    /// The outcome of an item became known.
    Item {
        /// Number of this event.
        sequence: u64,
        /// The item.
        item: Arc<ItemState>,
    },
    /// Items from one number to another were not sent: the reader was too slow, or came back too late.
    Gap {
        /// First number that is missing.
        from: u64,
        /// Last number that is missing.
        to: u64,
    },
    /// The restore is in a terminal phase; nothing follows.
    Ended(Arc<Progress>),
    /// The Restore was deleted; nothing follows.
    Deleted,
    /// The service goes down; nothing follows.
    ShuttingDown,
}

/// A reader of one restore; dropping it unregisters.
///
/// # Guarantees
/// The first update is a [`Update::Snapshot`]; the last is one of `Ended`, `Deleted`, `ShuttingDown`, and then there
/// are no more. Every item between two sequence numbers is either sent or within a [`Update::Gap`].
#[derive(Debug)]
pub struct Subscription {
    source: Arc<RestoreProgress>,
    published: watch::Receiver<Published>,
    with_items: bool,
    after: Option<u64>,
    /// Number of the last item that was sent, or is known to be missing.
    position: u64,
    /// The value that is sent once its items are; and whether it is sent at all.
    goal: Option<(Arc<Progress>, bool)>,
    batch: Option<Batch>,
    greeted: bool,
    stopping: bool,
    over: bool,
}

impl Subscription {
    pub(super) fn new(
        source: Arc<RestoreProgress>,
        published: watch::Receiver<Published>,
        after: Option<u64>,
        with_items: bool,
    ) -> Self {
        Self {
            source,
            published,
            with_items,
            after,
            position: 0,
            goal: None,
            batch: None,
            greeted: false,
            stopping: false,
            over: false,
        }
    }

    /// The next update; `None` after the last. May be cancelled: nothing is lost.
    pub async fn next(&mut self) -> Option<Update> {
        if self.over {
            return None;
        }
        if !self.greeted {
            return Some(self.greet());
        }
        loop {
            if let Some(update) = self.advance() {
                return Some(update);
            }
            if self.stopping {
                self.over = true;
                return Some(Update::ShuttingDown);
            }
            tokio::select! {
                biased;
                () = self.source.shutdown().cancelled() => {
                    self.stopping = true;
                    // The last word before the end is the newest.
                    self.source.flush();
                    if self.published.has_changed().unwrap_or(false) {
                        self.look();
                    }
                }
                () = self.source.deleted().cancelled() => {
                    self.over = true;
                    return Some(Update::Deleted);
                }
                changed = self.published.changed() => match changed {
                    Ok(()) => self.look(),
                    // The sender lives in `source`, so this cannot be; should it, there is nothing more to tell.
                    Err(_) => {
                        self.over = true;
                        return Some(Update::Deleted);
                    }
                },
            }
        }
    }

    /// The updates as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Update> + Send + 'static {
        futures::stream::unfold(self, |mut reader| async move { Some((reader.next().await?, reader)) })
    }

    fn greet(&mut self) -> Update {
        self.greeted = true;
        let progress = Arc::clone(&self.published.borrow_and_update().progress);
        self.position = match self.after {
            None => progress.sequence,
            Some(after) if after <= progress.sequence => after,
            // A number of another life of this service: all that is known is new to the reader.
            Some(_) => 0,
        };
        self.goal = Some((Arc::clone(&progress), false));
        if self.position == progress.sequence {
            return Update::Snapshot(progress);
        }
        Update::Snapshot(Arc::new(Progress { sequence: self.position, ..(*progress).clone() }))
    }

    /// Makes the newest value the goal.
    fn look(&mut self) {
        let progress = Arc::clone(&self.published.borrow_and_update().progress);
        self.goal = Some((progress, true));
    }

    /// The next update on the way to the goal.
    fn advance(&mut self) -> Option<Update> {
        loop {
            let (goal, tell) = self.goal.clone()?;
            if !self.with_items || self.position >= goal.sequence {
                self.position = goal.sequence;
                self.goal = None;
                self.batch = None;
                if goal.phase.is_terminal() {
                    self.over = true;
                    return Some(Update::Ended(goal));
                }
                return tell.then_some(Update::Progress(goal));
            }
            let next = self.position + 1;
            if let Some(item) = self.batch.as_ref().and_then(|batch| batch.get(next)) {
                self.position = next;
                return Some(Update::Item { sequence: next, item: Arc::clone(item) });
            }
            let (newest, read) = {
                let published = self.published.borrow_and_update();
                (Arc::clone(&published.progress), published.items.read(self.position))
            };
            let tell = tell || !Arc::ptr_eq(&newest, &goal);
            self.goal = Some((newest, tell));
            match read {
                Read::Batch(batch) => self.batch = Some(batch),
                Read::GoneUpTo(to) => {
                    self.position = to;
                    self.source.count_gap();
                    return Some(Update::Gap { from: next, to });
                }
                // The log always reaches to the value's number; if not, the items are missing, and that is told.
                Read::Nothing => {
                    let to = goal.sequence;
                    self.position = to;
                    self.source.count_gap();
                    return Some(Update::Gap { from: next, to });
                }
            }
        }
    }
}
