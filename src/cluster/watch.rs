//! Watching one object or the objects of a kind, as the engine's [`Change`]s.

use std::collections::HashSet;

use futures::stream::{self, BoxStream, StreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::engine::ports::{ApiError, ApiErrorKind, Change};
use crate::model::Target;

pub(super) fn changes(
    client: Client,
    target: &Target,
    name: Option<&str>,
    label_selector: &str,
) -> BoxStream<'static, Result<Change, ApiError>> {
    let api_version = match target.group.as_str() {
        "" => target.version.clone(),
        group => format!("{group}/{}", target.version),
    };
    let resource = ApiResource {
        group: target.group.clone(),
        version: target.version.clone(),
        api_version,
        // Only the path matters for a watch; the kind of each object is in the object.
        kind: target.resource.clone(),
        plural: target.resource.clone(),
    };
    let api: Api<DynamicObject> = match &target.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let config = match name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None if !label_selector.is_empty() => watcher::Config::default().labels(label_selector),
        None => watcher::Config::default(),
    };
    let mut known = Known { named: name.map(str::to_owned), ..Known::default() };
    watcher(api, config).default_backoff().flat_map(move |event| stream::iter(known.changes(event))).boxed()
}

/// The names that are there, so that an object that went away while the watch was broken is told as gone.
#[derive(Default)]
struct Known {
    /// Only this one is watched.
    named: Option<String>,
    names: HashSet<String>,
    /// Those of the list that is being read.
    listed: HashSet<String>,
}

impl Known {
    fn changes(&mut self, event: watcher::Result<watcher::Event<DynamicObject>>) -> Vec<Result<Change, ApiError>> {
        let name = |object: &DynamicObject| object.metadata.name.clone().unwrap_or_default();
        match event {
            Ok(watcher::Event::Init) => {
                self.listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                self.listed.insert(name(&object));
                vec![changed(&object)]
            }
            // The list is complete: what was there, or is asked for by name, and is not in it is not there.
            Ok(watcher::Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.names, listed).into_iter().chain(self.named.clone());
                let gone: HashSet<String> = before.filter(|name| !self.names.contains(name)).collect();
                gone.into_iter().map(|name| Ok(Change::Gone(name))).collect()
            }
            Ok(watcher::Event::Apply(object)) => {
                self.names.insert(name(&object));
                vec![changed(&object)]
            }
            Ok(watcher::Event::Delete(object)) => {
                self.names.remove(&name(&object));
                vec![Ok(Change::Gone(name(&object)))]
            }
            Err(error) => vec![Err(ApiError::transport(ApiErrorKind::Connection, error.to_string()))],
        }
    }
}

fn changed(object: &DynamicObject) -> Result<Change, ApiError> {
    serde_json::to_value(object)
        .map(Change::Is)
        .map_err(|error| ApiError::transport(ApiErrorKind::Protocol, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn object(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    fn told(known: &mut Known, events: Vec<watcher::Event<DynamicObject>>) -> Vec<String> {
        let changes = events.into_iter().flat_map(|event| known.changes(Ok(event)));
        let mut told: Vec<String> = changes
            .map(|change| match change.unwrap() {
                Change::Is(object) => format!("is {}", object["metadata"]["name"].as_str().unwrap()),
                Change::Gone(name) => format!("gone {name}"),
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn what_went_away_while_the_watch_was_broken_is_told_as_gone() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut known = Known::default();
        let first = vec![Init, InitApply(object("a")), InitApply(object("b")), InitDone, Apply(object("c"))];
        assert_eq!(told(&mut known, first), ["is a", "is b", "is c"]);
        assert_eq!(told(&mut known, vec![Delete(object("a"))]), ["gone a"]);
        let again = vec![Init, InitApply(object("b")), InitDone];
        assert_eq!(told(&mut known, again), ["gone c", "is b"]);
    }

    #[test]
    fn a_named_object_that_is_not_there_is_told_as_gone_at_once() {
        use watcher::Event::{Init, InitApply, InitDone};
        let mut known = Known { named: Some("a".to_owned()), ..Known::default() };
        assert_eq!(told(&mut known, vec![Init, InitDone]), ["gone a"]);
        assert_eq!(told(&mut known, vec![Init, InitApply(object("a")), InitDone]), ["is a"]);
        assert_eq!(told(&mut known, vec![Init, InitDone]), ["gone a"]);
    }
}
