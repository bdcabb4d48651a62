//! The JSON of REST as text, for the command line: what it prints can be read by whatever reads the service's answers.

use serde::Serialize;

use super::body::{Event, Item, Restore, Results};
use crate::api::watch::Numbered;
use crate::model::ItemState;
use crate::service::{RestoreResults, RestoreView};

/// A server-sent event as one object: its name in front of its data.
#[derive(Serialize)]
struct Named {
    event: &'static str,
    #[serde(flatten)]
    data: Event,
}

/// Values of ours are maps with text keys and finite numbers, which JSON has a form for.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A Restore, as `GET /api/v1/restores/{name}` answers.
#[must_use]
pub fn restore(view: RestoreView) -> String {
    text(&Restore::from(view))
}

/// An item, as it stands in `GET /api/v1/restores/{name}/items`.
#[must_use]
pub fn item(item: &ItemState) -> String {
    text(&Item::from(item))
}

/// Warnings and errors, as `GET /api/v1/restores/{name}/results` answers.
#[must_use]
pub fn results(results: RestoreResults) -> String {
    text(&Results::from(results))
}

/// An event of a watch: `{"event": …}` and what `GET /api/v1/restores/{name}/events` sends as its data.
#[must_use]
pub fn event(numbered: Numbered) -> String {
    let (event, data) = Event::new(numbered);
    text(&Named { event, data })
}
