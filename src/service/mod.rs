//! The façade behind every door: gRPC, REST, the command line. One behaviour, three entrances.

pub mod error;
mod facade;
mod observed;
pub mod plans;
pub mod records;
pub mod values;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use error::{Code, Error};
pub use facade::Service;
pub use plans::{PlanBegun, PlanEvent, PlanRestore, PlanSource};
pub use values::{
    CreateRestore, FoundItems, ItemFilter, LogLine, Page, PageRequest, RequestId, RestoreResults, RestoreView,
    WatchEvent,
};

use crate::model::{Cancellation, ItemState, RestoreName};

/// What a door can ask of the service.
///
/// # Guarantees
/// Whatever is created here is a `Restore` object, indistinguishable from one made with kubectl or the velero CLI.
/// Every stream begins with a snapshot and ends with [`WatchEvent::Ended`] or [`WatchEvent::ShuttingDown`].
///
/// # Errors
/// Each method fails with a [`Code`] that has one gRPC and one HTTP status, and a message that names the thing and
/// the way out.
#[async_trait]
pub trait Restores: Send + Sync {
    /// Creates a Restore. The same name with the same request id gives the Restore that is there already; the same
    /// name otherwise is [`Code::AlreadyExists`].
    async fn create(&self, request: CreateRestore) -> Result<RestoreView, Error>;

    /// Cancels a restore that has not ended, and returns before it has. Again, it changes nothing: the first who cancels is
    /// who did. Of one that has ended it is [`Code::FailedPrecondition`].
    async fn cancel(&self, name: &RestoreName, cancellation: Cancellation) -> Result<RestoreView, Error>;

    /// One Restore.
    async fn get(&self, name: &RestoreName) -> Result<RestoreView, Error>;

    /// Restores by name, a page at a time.
    async fn list(&self, page: PageRequest) -> Result<Page<RestoreView>, Error>;

    /// A snapshot of one restore, then its changes, then its end. With `after`, items after that sequence number
    /// are sent again, or the gap is told where they are no longer known.
    async fn watch(&self, name: &RestoreName, after: Option<u64>) -> Result<BoxStream<'static, WatchEvent>, Error>;

    /// A snapshot of every restore, then changes of any of them; ends only with the service.
    async fn watch_all(&self) -> Result<BoxStream<'static, WatchEvent>, Error>;

    /// Items of one restore, in their order, a page at a time.
    async fn items(&self, name: &RestoreName, filter: ItemFilter, page: PageRequest) -> Result<FoundItems, Error>;

    /// One item's state by number, where it is known.
    async fn item(&self, name: &RestoreName, id: u32) -> Result<ItemState, Error>;

    /// Warnings and errors with typed reasons.
    async fn results(&self, name: &RestoreName) -> Result<RestoreResults, Error>;

    /// The log of one restore: what is there so far, and with `follow` what comes, until the end.
    async fn logs(&self, name: &RestoreName, follow: bool) -> Result<BoxStream<'static, LogLine>, Error>;

    /// What a restore would do to the live cluster, item by item; nothing is written. Ends with [`PlanEvent::Ended`] or
    /// [`PlanEvent::Failed`]. Dropping the stream ends the work.
    async fn plan(&self, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error>;

    /// Whether the cluster behind this service is the in-memory sandbox.
    fn is_sandbox(&self) -> bool;

    /// Whether this service only reports restores that somebody else executes, and refuses calls that write.
    fn is_observing(&self) -> bool {
        false
    }
}
