//! Watches: an endless answer of one JSON document a line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::read::{Shape, selector};
use super::registry::View;
use super::route::Query;
use super::selector::Selector;
use super::state::{State, meta};
use super::status::Error;
use super::store::{Change, Event};

/// How often a client that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts that names no limit.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// A running watch.
pub(super) struct Watch {
    view: View,
    shape: Shape,
    namespace: Option<String>,
    selector: Selector,
    /// Lines that are due already.
    ready: VecDeque<Bytes>,
    receiver: Option<mpsc::Receiver<Arc<Event>>>,
    bookmarks: bool,
    revision: u64,
    ends: Instant,
    next_bookmark: Instant,
}

fn line(kind: &str, object: &str) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

impl State {
    /// Starts a watch. One from before the kept history is a stream with the 410 in it, as the API server does it.
    pub(super) fn watch(
        &mut self,
        view: &View,
        namespace: Option<&str>,
        name: Option<&str>,
        query: &Query,
        shape: Shape,
    ) -> Result<Watch, Error> {
        let selector = match name {
            None => selector(view, query)?,
            Some(name) => Selector::parse("", &format!("metadata.name={name}"), |_| Ok(()))?,
        };
        let timeout = query.get("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
        let now = Instant::now();
        let mut watch = Watch {
            view: view.clone(),
            shape,
            namespace: namespace.map(str::to_owned),
            selector,
            ready: VecDeque::new(),
            receiver: None,
            bookmarks: query.flag("allowWatchBookmarks"),
            revision: self.store.revision(),
            ends: now + timeout.map_or(LONGEST, Duration::from_secs),
            next_bookmark: now + BOOKMARK_EVERY,
        };
        let sent = query.get("resourceVersion");
        let initial = query.flag("sendInitialEvents");
        let from = if matches!(sent, "" | "0") || initial {
            if query.get("sendInitialEvents") != "false" {
                watch.send_present(self);
            }
            if initial && watch.bookmarks {
                watch.ready.push_back(watch.bookmark(true));
            }
            watch.revision
        } else {
            let why = || {
                let parse = format!("strconv.ParseUint: parsing {sent:?}: invalid syntax");
                Error::internal(format!("resourceVersion: Invalid value: {sent:?}: {parse}"))
            };
            sent.parse::<u64>().map_err(|_| why())?
        };
        match self.store.table(view.resource.table).watch(from) {
            Ok((missed, receiver)) => {
                for event in missed {
                    watch.take(&event);
                }
                watch.receiver = Some(receiver);
            }
            Err(oldest) => {
                watch.ready.push_back(line("ERROR", &Error::expired(from, oldest).status().to_string()));
            }
        }
        Ok(watch)
    }
}

impl Watch {
    fn send_present(&mut self, state: &mut State) {
        for (_, object) in state.store.table(self.view.resource.table).range(self.namespace.as_deref(), None) {
            if self.selector.matches(object) {
                self.ready.push_back(line("ADDED", &self.shape.show(&self.view, object)));
            }
        }
    }

    fn sees(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| meta(object, "namespace") == namespace)
            && self.selector.matches(object)
    }

    /// Turns a change into the event of this watch's view, if it is one.
    fn take(&mut self, event: &Event) {
        self.revision = event.revision;
        let before = event.old.as_deref().is_some_and(|old| self.sees(old));
        let after = event.change != Change::Deleted && self.sees(&event.new);
        let kind = match (before, after) {
            (false, false) => return,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        let shown = self.shape.show(&self.view, &event.new);
        self.ready.push_back(line(kind, &shown));
    }

    fn bookmark(&self, initial: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let (kind, version) = match self.shape {
            Shape::Whole => (self.view.resource.kind.clone(), self.view.api_version()),
            Shape::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let object = json!({ "kind": kind, "apiVersion": version, "metadata": metadata });
        line("BOOKMARK", &object.to_string())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            let receiver = self.receiver.as_mut()?;
            let wake = self.ends.min(if self.bookmarks { self.next_bookmark } else { self.ends });
            tokio::select! {
                biased;
                event = receiver.recv() => match event {
                    Some(event) => self.take(&event),
                    // Cut off for lagging: the stream ends and the client starts again from what it has seen.
                    None => self.receiver = None,
                },
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if self.bookmarks {
                        self.ready.push_back(self.bookmark(false));
                    }
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    if now >= self.ends {
                        self.receiver = None;
                    }
                }
            }
        }
    }

    /// The lines of the answer.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(line), watch))
        })
    }
}
