//! Restores that somebody else executes: what is refused, and where their items and logs come from.

use futures::stream::{self, BoxStream, StreamExt};

use super::facade::no_log;
use super::records::Record;
use super::{Code, Error, LogLine, Service};
use crate::model::RestoreName;
use crate::progress::Update;

impl Service {
    /// The same service as one that only observes: Velero executes the restores, so calls that write are refused, and
    /// items, results and logs come from the files that Velero leaves.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.observing = true;
        self
    }

    /// Refuses a call that writes where this server only observes; `what` is its name as in "creating a restore".
    pub(super) fn check_executes(&self, what: &str) -> Result<(), Error> {
        if !self.observing {
            return Ok(());
        }
        let message = format!(
            "this server only observes, so {what} is not for it: use velero or kubectl, and Velero will restore; or start \
             the server without --observe"
        );
        Err(Error::new(Code::FailedPrecondition, message))
    }

    /// Items of a restore that Velero still works on are in no file yet.
    pub(super) fn check_items_are_known(&self, record: &Record) -> Result<(), Error> {
        if !self.observing || record.phase.is_terminal() {
            return Ok(());
        }
        let message = format!(
            "restore {} is executed by Velero, which tells of single items only at the end: ask again when it has ended; \
             its progress has the counts until then",
            record.name
        );
        Err(Error::new(Code::FailedPrecondition, message))
    }

    /// The log that Velero uploads when its items are done; when following, it is waited for until the end.
    pub(super) async fn observed_log(
        &self,
        name: &RestoreName,
        record: &Record,
        follow: bool,
    ) -> Result<BoxStream<'static, LogLine>, Error> {
        if let Some(text) = self.records.log(name.as_str()).await? {
            return Ok(stream::iter(lines(&text)).boxed());
        }
        if record.phase.is_terminal() {
            return Err(no_log(name));
        }
        let Some(followed) = self.followed_or_new(name, record).filter(|_| follow) else {
            let message = format!(
                "restore {name} is executed by Velero, which writes the log when its items are done: ask again then, or \
                 follow the log"
            );
            return Err(Error::new(Code::FailedPrecondition, message));
        };
        let (service, name) = (self.clone(), name.clone());
        let log = async move {
            let mut updates = followed.subscribe_counts();
            let mut ended = false;
            while let Some(update) = updates.next().await {
                ended = matches!(update, Update::Ended(_));
            }
            let text = if ended { service.records.log(name.as_str()).await } else { Ok(None) };
            let text = text.unwrap_or_else(|error| {
                tracing::warn!(restore = %name, %error, "the log of a restore that has ended cannot be read");
                None
            });
            stream::iter(lines(&text.unwrap_or_default()))
        };
        Ok(stream::once(log).flatten().boxed())
    }
}

/// The lines of a log.
pub(super) fn lines(text: &str) -> Vec<LogLine> {
    text.lines().map(|line| LogLine { text: line.to_owned() }).collect()
}
