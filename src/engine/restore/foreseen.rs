//! What a preview tells of an item beside its outcome.

use serde_json::Value;

use super::Run;
use super::item::{End, Item};
use crate::engine::compare;
use crate::engine::events::{Event, Foreseen};
use crate::model::Target;

/// How many places of a difference are named: enough to see what it is about.
const PLACES: usize = 8;

impl Run {
    /// The end of an item that a preview would have created: status, managed fields and all that follows a create are
    /// writes on an object that is not there. `None` in a restore.
    pub(super) fn foreseen_created(&self, item: &Item, target: &Target, created: &Value) -> Option<End> {
        let preview = self.preview.as_ref()?;
        let name = created.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if let Some(untried) = preview.untried(target, name) {
            self.events.emit(Event::Foreseen(item.id, Foreseen::Untried(untried)));
        }
        Some(End::Created(None))
    }

    /// Tells a preview where the live object differs from the one to restore.
    pub(super) fn foresee_differences(&self, item: &Item, live: &Value, object: &Value) {
        if self.preview.is_some() {
            let places = compare::differences(live, object, PLACES);
            self.events.emit(Event::Foreseen(item.id, Foreseen::Differs(places)));
        }
    }
}
