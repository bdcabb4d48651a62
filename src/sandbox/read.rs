//! Reading: one object, lists in pages, and the shapes a client may ask for.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::convert;
use super::registry::View;
use super::route::Query;
use super::selector::Selector;
use super::state::State;
use super::status::Error;
use super::store::key;

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they are.
    Whole,
    /// Their metadata alone (`as=PartialObjectMetadata` or `as=PartialObjectMetadataList`).
    Metadata,
}

impl Shape {
    /// What an `Accept` header asks for; an error where JSON is not among it.
    pub(super) fn of(accept: &str) -> Result<Self, Error> {
        if accept.is_empty() {
            return Ok(Self::Whole);
        }
        for option in accept.split(',') {
            let mut parts = option.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            match parts.find_map(|part| part.strip_prefix("as=")) {
                None => return Ok(Self::Whole),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Self::Metadata),
                // Tables and the like: the client names a plainer shape behind them.
                Some(_) => {}
            }
        }
        Err(Error::not_acceptable())
    }

    /// The JSON of a stored object at the request's version.
    pub(super) fn show(self, view: &View, stored: &Value) -> String {
        match self {
            Self::Whole => convert::to_view(view, stored).to_string(),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": stored.get("metadata").unwrap_or(&Value::Null),
            })
            .to_string(),
        }
    }
}

/// The fields a resource's selectors may name, besides name and namespace.
fn selectable(view: &View, path: &str) -> bool {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return true;
    }
    let resource = &view.resource;
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => matches!(
            path,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        ("", "events") => {
            path.starts_with("involvedObject.") || matches!(path, "reason" | "reportingComponent" | "source" | "type")
        }
        ("events.k8s.io", _) => {
            path.starts_with("regarding.") || matches!(path, "reason" | "type" | "reportingController")
        }
        ("", "secrets") => path == "type",
        ("", "namespaces") => path == "status.phase",
        ("", "nodes") => path == "spec.unschedulable",
        ("", "services") => matches!(path, "spec.clusterIP" | "spec.type"),
        ("batch", "jobs") => path == "status.successful",
        ("", "replicationcontrollers") | ("apps", "replicasets") => path == "status.replicas",
        _ => view.version().selectable.iter().any(|one| one == path),
    }
}

/// The selector of a list, watch or deletecollection.
pub(super) fn selector(view: &View, query: &Query) -> Result<Selector, Error> {
    // Events of both groups are stored in the core group's shape.
    let fields = if view.resource.group == "events.k8s.io" {
        query.get("fieldSelector").replace("regarding.", "involvedObject.")
    } else {
        query.get("fieldSelector").to_owned()
    };
    let supported =
        |path: &str| selectable(view, &path.replace("involvedObject.", "regarding.")) || selectable(view, path);
    let own = selectable(view, "spec.nodeName") || view.resource.custom;
    Selector::parse(query.get("labelSelector"), &fields, |path| {
        if supported(path) {
            Ok(())
        } else if own {
            Err(format!("field label not supported: {path}"))
        } else {
            Err(format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""))
        }
    })
}

/// Where a page starts: after a key, at the revision of the first page.
fn decode_continue(token: &str) -> Result<(u64, String), Error> {
    let refuse = || {
        Error::bad_request(
            "invalid continue token: continue key is not valid: the token does not come from this server",
        )
    };
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = engine.decode(token.trim_end_matches('=')).map_err(|_| refuse())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
    match (token.get("rv").and_then(Value::as_u64), token.get("start").and_then(Value::as_str)) {
        (Some(revision), Some(start)) => Ok((revision, start.to_owned())),
        _ => Err(refuse()),
    }
}

impl State {
    /// One object.
    pub(super) fn get(&self, view: &View, namespace: Option<&str>, name: &str) -> Result<Arc<Value>, Error> {
        let resource = &view.resource;
        self.store
            .get(resource.table, &key(namespace, name))
            .ok_or_else(|| Error::not_found(&resource.group, &resource.plural, name))
    }

    /// The selected objects of a collection, as they are now, and the rest of a list's answer.
    ///
    /// Later pages are read from the present state, not from a snapshot of the first page's; their revision is that of
    /// the first page, so that a watch from there sees every change that fell between them.
    pub(super) fn list(&mut self, view: &View, namespace: Option<&str>, query: &Query) -> Result<Page, Error> {
        let selector = selector(view, query)?;
        let limit = match query.get("limit") {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| Error::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
        };
        let now = self.store.revision();
        let (revision, after) = match query.get("continue") {
            "" => (now, None),
            token => decode_continue(token).map(|(revision, start)| (revision, Some(start)))?,
        };
        let table = self.store.table(view.resource.table);
        let mut objects: Vec<Arc<Value>> = Vec::new();
        let (mut last, mut more) = ("", 0_usize);
        for (key, object) in table.range(namespace, after.as_deref()) {
            if limit > 0 && objects.len() >= limit {
                if !selector.is_empty() {
                    more = 1;
                    break;
                }
                more += 1;
                continue;
            }
            if selector.matches(object) {
                objects.push(Arc::clone(object));
                last = key;
            }
        }
        let continues = (more > 0).then(|| {
            let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": last }).to_string();
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token)
        });
        let remaining = (more > 0 && selector.is_empty()).then_some(more);
        Ok(Page { revision, objects, continues, remaining })
    }
}

/// An item of a built-in kind's list, which tells its kind and version once for all.
fn push_item(text: &mut String, object: &Value) {
    text.push('{');
    let fields = object.as_object().into_iter().flatten();
    for (at, (key, value)) in fields.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")).enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&format!("\"{key}\":{value}"));
    }
    text.push('}');
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page {
    revision: u64,
    pub(super) objects: Vec<Arc<Value>>,
    continues: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    /// The JSON of the list.
    pub(super) fn show(&self, view: &View, shape: Shape) -> String {
        let mut meta = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(token) = &self.continues {
            meta["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        let (kind, version) = match shape {
            Shape::Whole => (view.resource.list_kind.as_str(), view.api_version()),
            Shape::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
        };
        let mut text =
            format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{meta},\"items\":[", json!(kind), json!(version));
        for (at, object) in self.objects.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            if shape == Shape::Whole && !view.resource.custom {
                push_item(&mut text, &convert::to_view(view, object));
            } else {
                text.push_str(&shape.show(view, object));
            }
        }
        text.push_str("]}");
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_shape_that_can_be_produced_is_taken() {
        assert_eq!(Shape::of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").unwrap(), Shape::Whole);
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(Shape::of(metadata).unwrap(), Shape::Metadata);
        assert_eq!(Shape::of("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(Shape::of("application/vnd.kubernetes.protobuf,application/json").unwrap(), Shape::Whole);
    }
}
