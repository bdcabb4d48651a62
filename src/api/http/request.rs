//! What clients send: names in paths, queries and bodies, each checked and each refused with the name of what is wrong.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::MAX_BODY;
use super::problem::Problem;
use super::spec::RestoreSpec;
use crate::model::{Cancellation, GroupResource, Outcome, RestoreName};
use crate::service::{Code, CreateRestore, Error, ItemFilter, PageRequest, PlanSource, RequestId};

/// `{name}` of a path.
pub(super) struct Name(pub(super) RestoreName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let name: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|error| Error::invalid("name", error.body_text()))?;
        Ok(Self(name.parse().map_err(|error| Error::invalid_name(&error))?))
    }
}

/// A query, of which only known parameters are taken.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Error> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Error::new(Code::InvalidArgument, format!("read the query: {}", error.body_text())))?;
        for (name, _) in &pairs {
            if !known.contains(&name.as_str()) {
                let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!("query parameter {name:?} is not known: this path takes {takes}");
                return Err(Error::invalid(name, message));
            }
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Error> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Error::invalid(name, format!("query parameter {name} is there more than once")));
        }
        Ok(first)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let parse = |text: &str| {
            let message = format!("query parameter {name} is {text:?}: it must be a whole number from 0");
            text.parse().map_err(|_| Error::invalid(name, message))
        };
        self.one(name)?.map(parse).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        self.flag_or(name, false)
    }

    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool, Error> {
        match self.one(name)? {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(text) => {
                Err(Error::invalid(name, format!("query parameter {name} is {text:?}: it must be true or false")))
            }
        }
    }

    /// `pageSize` and `pageToken`.
    pub(super) fn page(&self) -> Result<PageRequest, Error> {
        let size = self.number("pageSize")?.unwrap_or_default();
        PageRequest::new(u32::try_from(size).unwrap_or(u32::MAX), self.one("pageToken")?.unwrap_or_default())
    }

    /// `outcome` (repeated, or several with commas), `resource` and `namespace`.
    pub(super) fn filter(&self) -> Result<ItemFilter, Error> {
        let parse = |text: &str| {
            Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(|| {
                let known = Outcome::ALL.map(Outcome::as_str).join(", ");
                Error::invalid("outcome", format!("outcome {text:?} is not known: take {known}"))
            })
        };
        Ok(ItemFilter {
            outcomes: self.all("outcome").flat_map(|texts| texts.split(',')).map(parse).collect::<Result<_, _>>()?,
            group_resource: self.one("resource")?.filter(|text| !text.is_empty()).map(GroupResource::parse),
            namespace: self.one("namespace")?.map(str::to_owned),
        })
    }
}

/// The sequence number a client comes back after: `Last-Event-ID`, which a browser keeps up to date, before `?after=`,
/// which stays as it was in the address.
pub(super) fn resume_after(headers: &HeaderMap, params: &Params) -> Result<Option<u64>, Error> {
    let header = headers.get("last-event-id").filter(|value| !value.is_empty());
    let Some(value) = header else {
        return params.number("after");
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    let message = "header Last-Event-ID must be the id of an event of this stream, a whole number";
    number.map(Some).ok_or_else(|| Error::invalid("Last-Event-ID", message))
}

/// What `POST /api/v1/restores` takes: either the short form or a whole Restore as kubectl would take it.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "tells the OpenAPI document of both forms; they are read one at a time for better errors")]
#[allow(clippy::large_enum_variant, reason = "never made")]
pub(super) enum CreateRequest {
    /// The short form.
    Short(CreateBody),
    /// A Restore of Velero's.
    Restore(RestoreObject),
}

/// A restore to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateBody {
    /// Name of the Restore: an RFC 1123 subdomain.
    name: String,
    /// A text of the caller's own, up to 256 bytes, that makes repeating the request harmless.
    request_id: Option<String>,
    /// What to restore.
    spec: RestoreSpec,
    /// Labels of the Restore object.
    labels: Option<BTreeMap<String, String>>,
    /// Annotations of the Restore object.
    annotations: Option<BTreeMap<String, String>>,
}

/// A Restore object of Velero's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RestoreObject {
    /// `velero.io/v1`.
    api_version: String,
    /// `Restore`.
    kind: String,
    /// Name, labels and annotations.
    metadata: Metadata,
    /// What to restore.
    spec: RestoreSpec,
    /// Must be empty.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    status: Option<Map<String, Value>>,
}

/// Metadata of a Restore object to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    /// Name of the Restore: an RFC 1123 subdomain.
    name: String,
    /// Must be the service's own, where it is given.
    namespace: Option<String>,
    /// Labels.
    labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    annotations: Option<BTreeMap<String, String>>,
    /// Null, as Kubernetes' own tools print it.
    #[schema(value_type = Option<Object>)]
    creation_timestamp: Option<Value>,
}

/// Why a restore is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CancelBody {
    /// Why: one line of up to 1,024 bytes.
    reason: Option<String>,
    /// Who cancels, up to 128 bytes, as the caller says: nobody checks it.
    by: Option<String>,
}

/// A restore to plan: as one to create, but that it needs no name.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "tells the OpenAPI document of both forms; they are read one at a time for better errors")]
#[allow(clippy::large_enum_variant, reason = "never made")]
pub(super) enum PlanBody {
    /// The short form.
    Short(PlanShort),
    /// A Restore of Velero's.
    Restore(RestoreObject),
}

/// A restore to plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PlanShort {
    /// The name the Restore would have; made from the backup's without it.
    name: Option<String>,
    /// What to restore.
    spec: RestoreSpec,
}

/// Reads and checks the body of a request to create a Restore.
pub(super) async fn create(headers: &HeaderMap, body: Body) -> Result<CreateRestore, Problem> {
    Ok(checked(value(headers, body).await?)?)
}

/// Reads and checks the body of a request to cancel, which may be left out.
pub(super) async fn cancel(headers: &HeaderMap, body: Body) -> Result<Cancellation, Problem> {
    let body = bytes(headers, body).await?;
    let content_type = content_type(headers);
    let CancelBody { reason, by } = match is_yaml(content_type) {
        Some(is_yaml) if !body.is_empty() => read(decode(&body, is_yaml)?)?,
        Some(_) => CancelBody::default(),
        None if content_type.is_empty() && body.is_empty() => CancelBody::default(),
        // Also without a body: the form of a page in a browser has a type, and may not cancel.
        None => return Err(Problem::wrong_content_type(content_type)),
    };
    let by = by.filter(|by| !by.is_empty()).unwrap_or_else(|| "a REST call".to_owned());
    let cancellation = Cancellation::new(&by, &reason.unwrap_or_default());
    Ok(cancellation.map_err(|error| Error::invalid_cancellation(&error))?)
}

/// Reads and checks the body of a request for a plan.
pub(super) async fn plan(headers: &HeaderMap, body: Body) -> Result<PlanSource, Problem> {
    Ok(checked_plan(value(headers, body).await?)?)
}

fn checked_plan(value: Value) -> Result<PlanSource, Error> {
    if value.is_object() && value.get("apiVersion").is_none() && value.get("kind").is_none() {
        let PlanShort { name, spec } = read(value)?;
        let name = name.map(|name| name.parse().map_err(|error| Error::invalid_name(&error))).transpose()?;
        return Ok(PlanSource::Spec { name, spec: spec.into_json() });
    }
    let create = checked(value)?;
    Ok(PlanSource::Spec { name: Some(create.name), spec: create.spec })
}

/// The body as JSON, whichever of both forms it has.
async fn value(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let content_type = content_type(headers);
    let is_yaml = is_yaml(content_type).ok_or_else(|| Problem::wrong_content_type(content_type))?;
    Ok(decode(&bytes(headers, body).await?, is_yaml)?)
}

/// Whether a body of this content type is YAML and not JSON; `None` for what is neither.
fn is_yaml(content_type: &str) -> Option<bool> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(false),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Some(true),
        _ => None,
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default()
}

async fn bytes(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_BODY) {
        return Err(Problem::too_large(MAX_BODY));
    }
    to_bytes(body, MAX_BODY).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            return Problem::too_large(MAX_BODY);
        }
        Error::new(Code::InvalidArgument, format!("read the body: {error}")).into()
    })
}

fn decode(body: &[u8], is_yaml: bool) -> Result<Value, Error> {
    let value = if is_yaml {
        serde_yaml_ng::from_slice(body).map_err(|error| format!("the body is not YAML: {error}"))
    } else {
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
    };
    value.map_err(|message| Error::new(Code::InvalidArgument, message))
}

/// Reads the body of a request to create a Restore, in JSON or YAML.
///
/// # Errors
/// [`Code::InvalidArgument`] that names the field.
pub fn read_create(body: &[u8], is_yaml: bool) -> Result<CreateRestore, Error> {
    checked(decode(body, is_yaml)?)
}

/// Reads a part of the body; what does not fit is named by its path.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if path == "." {
            return Error::new(Code::InvalidArgument, error.to_string());
        }
        Error::invalid(&path, format!("{path}: {error}"))
    })
}

fn checked(value: Value) -> Result<CreateRestore, Error> {
    if !value.is_object() {
        return Err(Error::new(Code::InvalidArgument, "the body must be an object with name and spec, or a Restore"));
    }
    if value.get("apiVersion").is_none() && value.get("kind").is_none() {
        let CreateBody { name, request_id, spec, labels, annotations } = read(value)?;
        return Ok(CreateRestore {
            name: name.parse().map_err(|error| Error::invalid_name(&error))?,
            namespace: None,
            request_id: request_id.map(RequestId::new).transpose()?,
            spec: spec.into_json(),
            labels: labels.unwrap_or_default(),
            annotations: annotations.unwrap_or_default(),
        });
    }
    let RestoreObject { api_version, kind, metadata, spec, status } = read(value)?;
    if api_version != "velero.io/v1" {
        return Err(Error::invalid("apiVersion", format!("apiVersion {api_version:?} is not taken: use velero.io/v1")));
    }
    if kind != "Restore" {
        return Err(Error::invalid("kind", format!("kind {kind:?} is not taken: use Restore")));
    }
    if status.is_some_and(|status| !status.is_empty()) {
        return Err(Error::invalid("status", "status is written by the service: leave it out"));
    }
    let Metadata { name, namespace, labels, annotations, creation_timestamp } = metadata;
    if creation_timestamp.is_some() {
        let message = "metadata.creationTimestamp is set by Kubernetes: leave it out";
        return Err(Error::invalid("metadata.creationTimestamp", message));
    }
    let name =
        name.parse().map_err(|error| Error { field: Some("metadata.name".into()), ..Error::invalid_name(&error) })?;
    Ok(CreateRestore {
        name,
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        request_id: None,
        spec: spec.into_json(),
        labels: labels.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    fn refused(value: Value) -> (String, String) {
        let error = checked(value).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        (error.field.unwrap_or_default(), error.message)
    }

    #[test]
    fn an_unknown_field_is_named_by_its_path() {
        let cases = [
            (json!({"name": "a", "spec": {}, "colour": 1}), "colour"),
            (json!({"name": "a", "spec": {"backup": "b"}}), "spec.backup"),
            (json!({"name": "a", "spec": {"orLabelSelectors": [{}, {"x": 1}]}}), "spec.orLabelSelectors[1].x"),
            (
                json!({"name": "a", "spec": {"hooks": {"resources": [{"name": "h", "y": 1}]}}}),
                "spec.hooks.resources[0].y",
            ),
        ];
        for (value, field) in cases {
            let (named, message) = refused(value);
            assert_eq!(named, field);
            assert!(message.contains("unknown field"), "{message}");
        }
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let cases = [
            (json!({"name": 1, "spec": {}}), "name"),
            (json!({"name": "a", "spec": {"restorePVs": "yes"}}), "spec.restorePVs"),
            (json!({"name": "a", "spec": {"includedNamespaces": ["x", 2]}}), "spec.includedNamespaces[1]"),
            (json!({"name": "a", "spec": {}, "labels": {"x": 1}}), "labels.x"),
        ];
        for (value, field) in cases {
            let (named, message) = refused(value);
            assert_eq!(named, field);
            assert!(message.contains("invalid type"), "{message}");
        }
        assert!(refused(json!({"name": "a"})).1.contains("missing field `spec`"));
        assert!(refused(json!([])).1.contains("must be an object"));
    }

    #[test]
    fn a_restore_as_kubectl_takes_it_is_taken() {
        let create = checked(json!({
            "apiVersion": "velero.io/v1", "kind": "Restore",
            "metadata": {"name": "again", "namespace": "velero", "creationTimestamp": null, "labels": {"a": "b"}},
            "spec": {"backupName": "nightly", "orLabelSelectors": [], "hooks": {}, "labelSelector": null},
            "status": {},
        }))
        .unwrap();
        assert_eq!((create.name.as_str(), create.namespace.as_deref()), ("again", Some("velero")));
        assert_eq!(create.spec, json!({"backupName": "nightly", "orLabelSelectors": [], "hooks": {}}));
        assert_eq!(create.labels["a"], "b");
    }

    #[test]
    fn another_kind_or_version_or_a_status_is_refused() {
        let with = |key: &str, value: Value| {
            let mut object =
                json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "a"}, "spec": {}});
            object[key] = value;
            refused(object).0
        };
        assert_eq!(with("apiVersion", json!("velero.io/v2")), "apiVersion");
        assert_eq!(with("kind", json!("Backup")), "kind");
        assert_eq!(with("status", json!({"phase": "Completed"})), "status");
        assert_eq!(with("metadata", json!({"name": "A"})), "metadata.name");
        assert_eq!(with("metadata", json!({"generateName": "a-"})), "metadata.generateName");
    }

    #[test]
    fn a_query_is_checked() {
        let params = |query: &str, known: &[&str]| Params::parse(&format!("/x?{query}").parse().unwrap(), known);
        assert_eq!(params("colour=1", &["pageSize"]).unwrap_err().field.as_deref(), Some("colour"));
        let known = ["pageSize", "pageToken", "outcome", "resource", "namespace", "follow"];
        for bad in ["pageSize=-1", "pageSize=1001", "pageSize=x", "pageSize=1&pageSize=2", "pageSize=99999999999"] {
            assert_eq!(params(bad, &known).unwrap().page().unwrap_err().field.as_deref(), Some("pageSize"), "{bad}");
        }
        let page = params("pageSize=7&pageToken=a%2Fb", &known).unwrap().page().unwrap();
        assert_eq!(page, PageRequest { size: 7, token: "a/b".into() });
        let filter = params("outcome=failed,skipped&outcome=created&namespace=", &known).unwrap().filter().unwrap();
        assert_eq!(filter.outcomes, [Outcome::Failed, Outcome::Skipped, Outcome::Created]);
        assert_eq!((filter.namespace.as_deref(), filter.group_resource), (Some(""), None));
        assert!(
            params("outcome=lost", &known).unwrap().filter().unwrap_err().message.contains("take pending, created")
        );
        assert!(params("follow=true", &known).unwrap().flag("follow").unwrap());
        assert!(params("follow=1", &known).unwrap().flag("follow").is_err());
    }
}
