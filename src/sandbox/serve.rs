//! One request: from HTTP to the state and back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::discovery::{AGGREGATED, wants_aggregated};
use super::patch;
use super::read::{Shape, selector};
use super::registry::View;
use super::route::{Address, Query, Route, parse};
use super::state::{State, WriteOptions, Written, meta, unrecognized};
use super::status::{Cause, Error};
use super::write::Part;

/// Largest body that is read, as of the API server.
pub(super) const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// The state and what is done with it outside the lock.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) state: Mutex<State>,
    /// How long after its creation a CRD is established.
    pub(super) crd_delay: Duration,
}

fn json_answer(code: u16, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text_answer(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The answer of a refusal.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    if error.plain {
        return text_answer(StatusCode::NOT_FOUND, error.message.clone());
    }
    json_answer(error.code, error.status().to_string())
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A request whose body has arrived.
struct Call<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: Query,
    body: Bytes,
}

impl Call<'_> {
    /// The object in the body, JSON or YAML by its content type.
    fn object(&self, kind: &str) -> Result<Value, Error> {
        let content_type = header_text(self.headers, header::CONTENT_TYPE);
        match content_type.split(';').next().unwrap_or_default().trim() {
            "" | "application/json" | "*/*" => serde_json::from_slice(&self.body)
                .map_err(|why| unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}"))),
            "application/yaml" => {
                serde_yaml_ng::from_slice(&self.body).map_err(|why| unrecognized(kind, &why.to_string()))
            }
            _ => Err(Error::unsupported_media("application/json, application/yaml")),
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            dry_run: self.query.get("dryRun") == "All",
            strict: self.query.get("fieldValidation") == "Strict",
        }
    }

    fn written(&self, view: &View, shape: Shape, written: &Written) -> Response<Body> {
        let mut response = json_answer(if written.created { 201 } else { 200 }, shape.show(view, &written.object));
        if self.query.get("fieldValidation") != "Ignore" {
            for warning in &written.warnings {
                let text = format!("299 - \"{}\"", warning.replace('"', "\\\""));
                if let Ok(value) = HeaderValue::from_str(&text) {
                    response.headers_mut().append(header::WARNING, value);
                }
            }
        }
        response
    }
}

impl Server {
    /// The state; a panic elsewhere does not take the sandbox down with it.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request.
    pub(super) fn answer(self: &Arc<Self>, request: &Request<Bytes>) -> Response<Body> {
        let call = Call {
            method: request.method(),
            headers: request.headers(),
            query: Query::parse(request.uri().query().unwrap_or_default()),
            body: request.body().clone(),
        };
        let route = parse(request.uri().path());
        let answered = match route {
            Route::Resource(address) => self.resource(&call, &address),
            route if call.method == Method::GET => self.document(&call, &route),
            _ => Err(Error::method_not_allowed()),
        };
        self.establish_soon();
        answered.unwrap_or_else(|error| refusal(&error))
    }

    /// Establishes new CRDs after the delay that was asked for.
    fn establish_soon(self: &Arc<Self>) {
        let waiting = std::mem::take(&mut self.state().unestablished);
        for name in waiting {
            let server = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(server.crd_delay).await;
                server.state().establish(&name);
            });
        }
    }

    fn document(&self, call: &Call<'_>, route: &Route) -> Result<Response<Body>, Error> {
        let state = self.state();
        let aggregated = wants_aggregated(header_text(call.headers, header::ACCEPT));
        let answer = |document: Value| json_answer(200, document.to_string());
        Ok(match route {
            Route::Root => {
                answer(json!({ "paths": ["/api", "/api/v1", "/apis", "/livez", "/openapi/v3", "/readyz", "/version"] }))
            }
            Route::Version => answer(version()),
            Route::Health => text_answer(StatusCode::OK, "ok".to_owned()),
            Route::Api | Route::Apis if aggregated => {
                let mut response = answer(state.registry.aggregated(*route == Route::Api));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
                response
            }
            Route::Api => answer(json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "sandbox" }],
            })),
            Route::Apis => answer(state.registry.group_list()),
            Route::Group(group) => answer(state.registry.one_group(group)?),
            Route::GroupVersion(group, version) => answer(state.registry.resource_list(group, version)?),
            Route::OpenApi(path) if path.is_empty() => answer(state.registry.openapi_index()),
            Route::OpenApi(path) => answer(state.registry.openapi(path)?),
            Route::Resource(_) | Route::Nowhere => return Err(Error::no_page()),
        })
    }

    /// What the path addresses, or why it addresses nothing.
    fn view(&self, address: &Address) -> Result<View, Error> {
        let state = self.state();
        let Some(view) = state.registry.view(&address.group, &address.version, &address.plural) else {
            let known = state.registry.group(&address.group).is_some_and(|group| group.builtin);
            return Err(if known { Error::no_resource() } else { Error::no_page() });
        };
        let resource = &view.resource;
        let misplaced = match (&address.namespace, &address.name) {
            (Some(_), _) => !resource.namespaced,
            (None, Some(_)) => resource.namespaced,
            (None, None) => false,
        };
        match misplaced {
            true if resource.custom => Err(Error::no_page()),
            true => Err(Error::no_resource()),
            false => Ok(view),
        }
    }

    fn resource(&self, call: &Call<'_>, address: &Address) -> Result<Response<Body>, Error> {
        let view = self.view(address)?;
        let shape = Shape::of(header_text(call.headers, header::ACCEPT))?;
        let namespace = address.namespace.as_deref();
        if view.resource.review {
            return if call.method == Method::POST && address.name.is_none() {
                review(&view, call)
            } else {
                Err(Error::method_not_allowed())
            };
        }
        if view.resource.is("", "componentstatuses") && call.method != Method::GET {
            return Err(Error::method_not_allowed());
        }
        match &address.name {
            None => self.collection(call, &view, namespace, shape),
            Some(name) => {
                let part = match address.subresource.as_deref() {
                    None => Part::Main,
                    Some("status") if view.version().status => Part::Status,
                    Some("finalize") if view.resource.is("", "namespaces") => Part::Finalize,
                    Some(_) if view.resource.custom => {
                        return Err(Error::not_found(&view.resource.group, &view.resource.plural, name));
                    }
                    Some(_) => return Err(Error::no_resource()),
                };
                self.object(call, &view, (namespace, name), part, shape)
            }
        }
    }

    fn collection(
        &self,
        call: &Call<'_>,
        view: &View,
        namespace: Option<&str>,
        shape: Shape,
    ) -> Result<Response<Body>, Error> {
        let resource = &view.resource;
        match *call.method {
            Method::GET if call.query.flag("watch") => {
                let watch = self.state().watch(view, namespace, None, &call.query, shape)?;
                Ok(watching(watch))
            }
            Method::GET => {
                let page = self.state().list(view, namespace, &call.query)?;
                Ok(json_answer(200, page.show(view, shape)))
            }
            Method::POST if resource.namespaced == namespace.is_some() => {
                let object = call.object(&resource.kind)?;
                let written = self.state().create(view, namespace, object, call.write_options())?;
                Ok(call.written(view, shape, &written))
            }
            Method::DELETE
                if resource.verbs().contains(&"deletecollection") && resource.namespaced == namespace.is_some() =>
            {
                let options = delete_options(&call.body)?;
                selector(view, &call.query)?;
                let dry_run = call.write_options().dry_run;
                let mut state = self.state();
                let page = state.list(view, namespace, &call.query)?;
                for object in &page.objects {
                    state.delete(view, namespace, meta(object, "name"), &options, dry_run)?;
                }
                Ok(json_answer(200, page.show(view, shape)))
            }
            Method::POST if resource.custom => Err(Error::no_page()),
            _ => Err(Error::method_not_allowed()),
        }
    }

    fn object(
        &self,
        call: &Call<'_>,
        view: &View,
        (namespace, name): (Option<&str>, &str),
        part: Part,
        shape: Shape,
    ) -> Result<Response<Body>, Error> {
        let resource = &view.resource;
        let options = call.write_options();
        match *call.method {
            Method::GET if part != Part::Finalize => {
                if call.query.flag("watch") {
                    let watch = self.state().watch(view, namespace, Some(name), &call.query, shape)?;
                    return Ok(watching(watch));
                }
                let object = self.state().get(view, namespace, name)?;
                Ok(json_answer(200, shape.show(view, &object)))
            }
            Method::PUT => {
                let object = call.object(&resource.kind)?;
                let written = self.state().update(view, namespace, name, object, part, options)?;
                Ok(call.written(view, shape, &written))
            }
            Method::PATCH if part != Part::Finalize => {
                let kind = patch::Kind::of(header_text(call.headers, header::CONTENT_TYPE), resource.custom)?;
                if kind == patch::Kind::Apply && call.query.get("fieldManager").is_empty() {
                    let cause = Cause::required("fieldManager", "is required for apply patch");
                    return Err(Error::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
                }
                let patch = if kind == patch::Kind::Apply {
                    serde_yaml_ng::from_slice(&call.body)
                        .map_err(|why| Error::bad_request(format!("error decoding YAML: {why}")))?
                } else {
                    serde_json::from_slice(&call.body)
                        .map_err(|why| Error::bad_request(format!("error decoding patch: {why}")))?
                };
                let written = self.state().patch(view, namespace, name, (kind, &patch), part, options)?;
                Ok(call.written(view, shape, &written))
            }
            Method::DELETE if part == Part::Main => {
                let delete = delete_options(&call.body)?;
                let deleted = self.state().delete(view, namespace, name, &delete, options.dry_run)?;
                let returns_object = matches!(deleted, super::delete::Deleted::Waiting(_)) || returns_deleted(view);
                if returns_object {
                    return Ok(json_answer(200, shape.show(view, deleted.object())));
                }
                let mut details =
                    json!({ "name": name, "kind": resource.plural, "uid": meta(deleted.object(), "uid") });
                if !resource.group.is_empty() {
                    details["group"] = json!(resource.group);
                }
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                });
                Ok(json_answer(200, status.to_string()))
            }
            _ => Err(Error::method_not_allowed()),
        }
    }
}

/// Kinds whose delete answers with the object (`ReturnDeletedObject` of the API server's stores).
fn returns_deleted(view: &View) -> bool {
    let resource = &view.resource;
    resource.group.is_empty()
        && matches!(
            resource.plural.as_str(),
            "pods"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        )
}

fn delete_options(body: &Bytes) -> Result<Value, Error> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|why| unrecognized("DeleteOptions", &why.to_string()))
}

fn watching(watch: super::watch::Watch) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(watch.into_stream()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Reviews: everybody may do everything in the sandbox, and it says so in the reason.
fn review(view: &View, call: &Call<'_>) -> Result<Response<Body>, Error> {
    let mut object = call.object(&view.resource.kind)?;
    if !object.is_object() {
        return Err(unrecognized(&view.resource.kind, "the body is no object"));
    }
    let user = json!({ "username": "sandbox", "groups": ["system:masters", "system:authenticated"] });
    let every = json!(["*"]);
    object["apiVersion"] = json!(view.api_version());
    object["kind"] = json!(view.resource.kind);
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    object["status"] = match view.resource.plural.as_str() {
        "tokenreviews" => json!({ "authenticated": true, "user": user }),
        "selfsubjectreviews" => json!({ "userInfo": user }),
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{ "verbs": every, "apiGroups": every, "resources": every }],
            "nonResourceRules": [{ "verbs": every, "nonResourceURLs": every }], "incomplete": false,
        }),
        "bindings" => return Err(Error::method_not_allowed()),
        _ => json!({ "allowed": true, "reason": "the sandbox allows everything" }),
    };
    Ok(json_answer(201, object.to_string()))
}

/// `/version`: that of the API it imitates, saying that it does.
fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0+reprise-sandbox", "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "sandbox",
    })
}
