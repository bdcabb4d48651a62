//! States of item operations that are newer than the file in the backup location.
//!
//! Whoever waits for operations keeps small changes in memory, as Velero does (restore-semantics 5.14), and uploads the
//! important ones. Whoever gives the file to somebody uploads what was kept first (restore-semantics 9.4). Both hold the
//! restore's place while they upload, so that an older state never comes over a newer one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::velero::volume_info::ItemOperation;

type Place = Arc<tokio::sync::Mutex<Option<Vec<ItemOperation>>>>;

/// What is not uploaded yet, by restore. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UnsavedOperations {
    places: Arc<Mutex<HashMap<String, Place>>>,
}

impl UnsavedOperations {
    /// Holds the place of a restore, for whoever works on its operations.
    pub async fn hold(&self, restore: &str) -> Held {
        let place = Arc::clone(self.places().entry(restore.to_owned()).or_default());
        Held(place.lock_owned().await)
    }

    /// Holds the place of a restore whose operations somebody works on; `None` where nobody does.
    pub async fn hold_known(&self, restore: &str) -> Option<Held> {
        let place = self.places().get(restore).map(Arc::clone)?;
        Some(Held(place.lock_owned().await))
    }

    /// Forgets a restore whose operations are over; its last state must be uploaded.
    pub fn forget(&self, restore: &str) {
        self.places().remove(restore);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a restore. While it is held, nobody else uploads operations of this restore.
#[derive(Debug)]
pub struct Held(OwnedMutexGuard<Option<Vec<ItemOperation>>>);

impl Held {
    /// The state that is newer than the file, where there is one.
    #[must_use]
    pub fn unsaved(&self) -> Option<&[ItemOperation]> {
        self.0.as_deref()
    }

    /// Keeps a state that is not uploaded for now.
    pub fn keep(mut self, operations: Vec<ItemOperation>) {
        *self.0 = Some(operations);
    }

    /// The newest state is in the location.
    pub fn saved(mut self) {
        *self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn operation(id: &str) -> ItemOperation {
        let mut operation = ItemOperation::default();
        operation.spec.operation_id = id.to_owned();
        operation
    }

    #[tokio::test]
    async fn what_was_kept_is_there_until_it_is_saved() {
        let unsaved = UnsavedOperations::default();
        assert!(unsaved.hold_known("r").await.is_none());
        unsaved.hold("r").await.keep(vec![operation("1")]);
        let held = unsaved.hold_known("r").await.unwrap();
        assert_eq!(held.unsaved().unwrap()[0].spec.operation_id, "1");
        // Dropped without being saved, as an upload that failed, it stays.
        drop(held);
        let held = unsaved.hold_known("r").await.unwrap();
        assert!(held.unsaved().is_some());
        held.saved();
        assert_eq!(unsaved.hold_known("r").await.unwrap().unsaved(), None);
        unsaved.forget("r");
        assert!(unsaved.hold_known("r").await.is_none());
    }

    #[tokio::test]
    async fn only_one_uploads_at_a_time() {
        let unsaved = UnsavedOperations::default();
        let held = unsaved.hold("r").await;
        let other = unsaved.clone();
        let mut waiting = Box::pin(async move { other.hold("r").await.unsaved().map(<[_]>::len) });
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(futures::poll!(Box::pin(unsaved.hold("another"))).is_ready());
        held.keep(vec![operation("1"), operation("2")]);
        assert_eq!(waiting.await, Some(2));
    }
}
