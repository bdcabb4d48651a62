//! Why a restore that is under way stops: the service goes down, or the restore is cancelled.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::model::Cancellation;

/// One token for whoever does the work, and two causes for whoever ends it. Cheap to clone.
///
/// A restore that is *given up* is left in the phase it is in, and nothing of it is written any more. One that is
/// *cancelled* is ended, for which the API server and the storage are still needed.
#[derive(Clone, Debug)]
pub(super) struct Halt {
    given_up: CancellationToken,
    work: CancellationToken,
    cause: Arc<OnceLock<Cancellation>>,
}

impl Halt {
    /// Of a restore that is given up when `stop` fires.
    pub(super) fn new(stop: &CancellationToken) -> Self {
        let given_up = stop.child_token();
        Self { work: given_up.child_token(), given_up, cause: Arc::default() }
    }

    /// Cancels the restore; the first who does is who did.
    pub(super) fn cancel(&self, cancellation: Cancellation) {
        // Before the token, so that whoever sees that one sees the cause.
        if self.cause.set(cancellation).is_ok() {
            self.work.cancel();
        }
    }

    /// Gives the restore up.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Fires for either cause: what is awaited for the restore is awaited no longer.
    pub(super) fn work(&self) -> &CancellationToken {
        &self.work
    }

    /// Fires when nothing may be written any more.
    pub(super) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// Who cancelled the restore, and why; `None` for one that goes on or is given up.
    pub(super) fn cause(&self) -> Option<&Cancellation> {
        self.cause.get().filter(|_| !self.given_up.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_restore_may_still_be_written_and_one_given_up_may_not() {
        let service = CancellationToken::new();
        let halt = Halt::new(&service);
        assert!(halt.cause().is_none() && !halt.work().is_cancelled());
        halt.cancel(Cancellation::lenient("first", ""));
        halt.cancel(Cancellation::lenient("second", ""));
        assert!(halt.work().is_cancelled() && !halt.given_up().is_cancelled());
        assert_eq!(halt.cause().map(Cancellation::by), Some("first"));
        service.cancel();
        assert!(halt.given_up().is_cancelled() && halt.cause().is_none(), "the next start ends it");
    }

    #[test]
    fn one_given_up_stops_without_a_cause_and_leaves_the_service_alone() {
        let service = CancellationToken::new();
        let halt = Halt::new(&service);
        halt.give_up();
        assert!(halt.work().is_cancelled() && halt.cause().is_none() && !service.is_cancelled());
    }
}
