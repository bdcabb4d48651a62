//! Deleting objects: finalizers, namespaces with their contents, CRDs with their objects.
//!
//! The sandbox plays the namespace controller and the CRD finalizer itself, at once. It has no kubelet and no
//! garbage collector: pods go without a grace period, `propagationPolicy` is accepted and not acted on.

use std::sync::Arc;

use serde_json::{Value, json};

use super::crd;
use super::registry::View;
use super::state::{State, has_finalizers, meta, metadata};
use super::status::Error;
use super::store::key;

/// Namespaces that cannot be deleted.
const ETERNAL: [&str; 3] = ["default", "kube-public", "kube-system"];

/// What a delete came to.
#[derive(Debug)]
pub(super) enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Value>),
    /// It waits for its finalizers.
    Waiting(Arc<Value>),
}

impl Deleted {
    /// The object's last state.
    pub(super) fn object(&self) -> &Arc<Value> {
        match self {
            Self::Gone(object) | Self::Waiting(object) => object,
        }
    }
}

impl State {
    /// Deletes an object; `options` is a `DeleteOptions` or null.
    pub(super) fn delete(
        &mut self,
        view: &View,
        namespace: Option<&str>,
        name: &str,
        options: &Value,
        dry_run: bool,
    ) -> Result<Deleted, Error> {
        let resource = &view.resource;
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        let key = key(namespace, name);
        if resource.is("", "namespaces") && ETERNAL.contains(&name) {
            return Err(Error::forbidden("", "namespaces", name, "this namespace may not be deleted"));
        }
        let Some(object) = self.store.get(resource.table, &key) else {
            return Err(Error::not_found(group, plural, name));
        };
        for (precondition, words) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let asked = options.pointer(&format!("/preconditions/{precondition}")).and_then(Value::as_str);
            let own = meta(&object, precondition);
            if let Some(asked) = asked.filter(|asked| *asked != own) {
                let why = format!(
                    "the {words} in the precondition ({asked}) does not match the {words} in record ({own}). The object might have been deleted and then recreated"
                );
                return Err(Error::conflict(group, &resource.kind, name, &why));
            }
        }
        if dry_run {
            return Ok(Deleted::Gone(object));
        }
        Ok(self.discard(view, &key))
    }

    /// Removes an object, or marks it where finalizers hold it.
    fn discard(&mut self, view: &View, key: &str) -> Deleted {
        let resource = &view.resource;
        let Some(object) = self.store.get(resource.table, key) else { return Deleted::Gone(Arc::new(Value::Null)) };
        let (is_namespace, is_crd) = (resource.is("", "namespaces"), resource.is(crd::GROUP, crd::PLURAL));
        if !is_held(&object) && !is_namespace && !is_crd {
            return Deleted::Gone(self.remove(view, key).unwrap_or(object));
        }
        let mut marked = object;
        if marked.pointer("/metadata/deletionTimestamp").is_none() {
            let mut terminating = (*marked).clone();
            let now = self.now();
            let fields = metadata(&mut terminating);
            fields.insert("deletionTimestamp".to_owned(), Value::from(now.as_str()));
            if !is_namespace && !is_crd {
                fields.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
                if let Some(generation) = fields.get("generation").and_then(Value::as_i64) {
                    fields.insert("generation".to_owned(), json!(generation + 1));
                }
            }
            if is_namespace {
                terminating["status"]["phase"] = json!("Terminating");
            }
            if is_crd {
                fields_with_cleanup(&mut terminating, &now);
            }
            marked = self.store.put(resource.table, key.to_owned(), terminating);
        }
        let name = meta(&marked, "name").to_owned();
        if is_namespace {
            self.empty_namespace(&name);
        } else if is_crd {
            self.empty_crd(&marked);
        }
        Deleted::Waiting(marked)
    }

    /// Takes an object out of the store and lets what waited for that go on.
    pub(super) fn remove(&mut self, view: &View, key: &str) -> Option<Arc<Value>> {
        let resource = &view.resource;
        let last = self.store.remove(resource.table, key)?;
        if resource.is("", "services") {
            self.services.release(key);
        }
        if resource.is(crd::GROUP, crd::PLURAL) {
            let text = |pointer: &str| last.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            self.registry.remove(text("/spec/group"), text("/spec/names/plural"));
        }
        if resource.custom {
            self.finish_crd(&resource.group, &resource.plural);
        }
        if resource.namespaced {
            self.finish_namespace(meta(&last, "namespace"));
        }
        Some(last)
    }

    fn empty_namespace(&mut self, namespace: &str) {
        let views: Vec<View> = self.every_namespaced();
        for view in views {
            for key in self.store.keys(view.resource.table, Some(namespace)) {
                self.discard(&view, &key);
            }
        }
        self.finish_namespace(namespace);
    }

    fn every_namespaced(&self) -> Vec<View> {
        let of = |resource: &Arc<super::registry::Resource>| {
            let version = &resource.versions.first()?.name;
            self.registry.view(&resource.group, version, &resource.plural)
        };
        self.registry.namespaced().filter_map(of).collect()
    }

    /// Removes a terminating namespace that holds nothing any more.
    fn finish_namespace(&mut self, namespace: &str) {
        let Some(table) = self.registry.resource("", "namespaces").map(|resource| resource.table) else { return };
        let own = key(None, namespace);
        let Some(found) = self.store.get(table, &own) else { return };
        if found.pointer("/metadata/deletionTimestamp").is_none() {
            return;
        }
        let empty = self.registry.namespaced().all(|resource| self.store.is_empty(resource.table, Some(namespace)));
        let kubernetes = |one: &Value| *one == json!("kubernetes");
        let finalizers = found.pointer("/spec/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        let others: Vec<Value> = finalizers.iter().filter(|one| !kubernetes(one)).cloned().collect();
        if !empty {
            return;
        }
        if others.is_empty() && !has_finalizers(&found) {
            self.store.remove(table, &own);
        } else if others.len() < finalizers.len() {
            let mut held = (*found).clone();
            held["spec"]["finalizers"] = Value::Array(others);
            self.store.put(table, own, held);
        }
    }

    fn empty_crd(&mut self, crd: &Value) {
        let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
        let view = self
            .registry
            .resource(group, plural)
            .and_then(|resource| self.registry.view(group, &resource.versions.first()?.name, plural));
        if let Some(view) = view {
            for key in self.store.keys(view.resource.table, None) {
                self.discard(&view, &key);
            }
        }
        self.finish_crd(group, plural);
    }
}

/// Finalizers of controllers the sandbox plays: nothing uses a volume here, so they never hold.
const PROTECTION: [&str; 2] = ["kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"];

fn is_held(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.into_iter().flatten().any(|one| !one.as_str().is_some_and(|name| PROTECTION.contains(&name)))
}

fn fields_with_cleanup(crd: &mut Value, now: &str) {
    let fields = metadata(crd);
    let finalizers = fields.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut()
        && !list.contains(&json!(crd::CLEANUP))
    {
        list.push(json!(crd::CLEANUP));
    }
    if let Some(conditions) = crd.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.push(json!({ "type": "Terminating", "status": "True", "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress", "lastTransitionTime": now }));
    }
}
