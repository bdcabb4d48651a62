//! Watching one object or the objects of a kind, as the engine's [`Change`]s.

use futures::stream::{BoxStream, StreamExt};
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
    let named = name.map(str::to_owned);
    let mut seen_in_list = false;
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let change = match event {
                Ok(watcher::Event::Init) => {
                    seen_in_list = false;
                    None
                }
                Ok(watcher::Event::InitApply(object)) => {
                    seen_in_list = true;
                    Some(changed(&object))
                }
                // The list is complete: a named object that was not in it is not there.
                Ok(watcher::Event::InitDone) => match &named {
                    Some(name) if !seen_in_list => Some(Ok(Change::Gone(name.clone()))),
                    _ => None,
                },
                Ok(watcher::Event::Apply(object)) => Some(changed(&object)),
                Ok(watcher::Event::Delete(object)) => Some(Ok(Change::Gone(object.metadata.name.unwrap_or_default()))),
                Err(error) => Some(Err(ApiError::transport(ApiErrorKind::Connection, error.to_string()))),
            };
            std::future::ready(change)
        })
        .boxed()
}

fn changed(object: &DynamicObject) -> Result<Change, ApiError> {
    serde_json::to_value(object)
        .map(Change::Is)
        .map_err(|error| ApiError::transport(ApiErrorKind::Protocol, error.to_string()))
}
