//! Creating, replacing and patching objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::patch;
use super::registry::View;
use super::schema::substance;
use super::state::{State, WriteOptions, Written, has_finalizers, meta, metadata};
use super::status::{Cause, Error};
use super::store::key;
use super::{crd, kinds, names, services, validate};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The object itself.
    Main,
    /// Its `/status` subresource.
    Status,
    /// The `/finalize` subresource of namespaces.
    Finalize,
}

/// Tries for a free generated name before giving up (as the API server since 1.30).
const NAME_TRIES: usize = 8;
/// What the suffix leaves of a name of 63 letters.
const LONGEST_PREFIX: usize = 58;

fn namespace_agrees(object: &mut Value, namespace: Option<&str>) -> Result<(), Error> {
    let own = meta(object, "namespace");
    if own.is_empty() {
        if let Some(namespace) = namespace {
            metadata(object).insert("namespace".to_owned(), Value::from(namespace));
        }
        Ok(())
    } else if own == namespace.unwrap_or_default() {
        Ok(())
    } else {
        Err(Error::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
    }
}

impl State {
    /// Creates an object.
    pub(super) fn create(
        &mut self,
        view: &View,
        namespace: Option<&str>,
        mut object: Value,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let resource = &view.resource;
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        let warnings = self.decode(view, &mut object, options)?;
        namespace_agrees(&mut object, namespace)?;
        if let Some(namespace) = namespace {
            self.check_namespace(view, namespace, meta(&object, "name"))?;
        }
        if resource.custom && self.crd_is_terminating(group, plural) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Error::forbidden(group, plural, meta(&object, "name"), why));
        }
        let (uid, now) = (self.random.uid(), self.now());
        let generated = meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty();
        if generated {
            self.generate_name(view, namespace, &mut object);
        }
        let sent_revision = meta(&object, "resourceVersion").to_owned();
        let fields = metadata(&mut object);
        for gone in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"] {
            fields.remove(gone);
        }
        fields.insert("uid".to_owned(), Value::from(uid));
        fields.insert("creationTimestamp".to_owned(), Value::from(now));
        if resource.generation {
            fields.insert("generation".to_owned(), json!(1));
        }
        if resource.custom {
            if view.version().status
                && let Some(all) = object.as_object_mut()
            {
                all.remove("status");
            }
        } else {
            kinds::prepare(resource, &mut object);
            if resource.is(crd::GROUP, crd::PLURAL) {
                crd::fill(&mut object);
                object["status"] = crd::first_status(&object);
            }
        }
        self.check(view, &object, Vec::new())?;
        let name = meta(&object, "name").to_owned();
        let key = key(namespace, &name);
        let taken = self.store.get(resource.table, &key).is_some();
        if resource.is("", "services") {
            // As in the API server, addresses come first: a copy of a Service with a node port is told about the port.
            let owner = if taken || options.dry_run { format!("{key}?") } else { key.clone() };
            let causes = self.services.allocate(&owner, &mut object);
            if taken || options.dry_run {
                self.services.release(&owner);
            }
            if !causes.is_empty() {
                return Err(Error::invalid(group, &resource.kind, &name, &causes));
            }
        }
        if taken {
            return Err(Error::already_exists(group, plural, &name));
        }
        if !matches!(sent_revision.as_str(), "" | "0") {
            self.services.release(&key);
            return Err(Error::internal("resourceVersion should not be set on objects to be created"));
        }
        if options.dry_run {
            return Ok(Written { object: Arc::new(object), created: true, warnings });
        }
        let object = self.store.put(resource.table, key, object);
        if resource.is(crd::GROUP, crd::PLURAL) {
            if self.establish_at_once {
                self.establish(&name);
            } else {
                self.unestablished.push(name);
            }
        }
        Ok(Written { object, created: true, warnings })
    }

    fn generate_name(&mut self, view: &View, namespace: Option<&str>, object: &mut Value) {
        let mut prefix = meta(object, "generateName").to_owned();
        if let Some((cut, _)) = prefix.char_indices().nth(LONGEST_PREFIX) {
            prefix.truncate(cut);
        }
        for _ in 0..NAME_TRIES {
            let name = format!("{prefix}{}", self.random.suffix());
            let free = self.store.get(view.resource.table, &key(namespace, &name)).is_none();
            metadata(object).insert("name".to_owned(), Value::from(name));
            if free {
                break;
            }
        }
    }

    /// The namespace must exist and not be on its way out (admission plugin NamespaceLifecycle).
    fn check_namespace(&self, view: &View, namespace: &str, name: &str) -> Result<(), Error> {
        let resource = &view.resource;
        let table = self.registry.resource("", "namespaces").map_or(0, |resource| resource.table);
        let Some(found) = self.store.get(table, &key(None, namespace)) else {
            return Err(Error::not_found("", "namespaces", namespace));
        };
        if found.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(Error::terminating(&resource.group, &resource.plural, name, namespace));
        }
        Ok(())
    }

    /// All rules of an object of its kind; `more` are causes found before.
    fn check(&self, view: &View, object: &Value, more: Vec<Cause>) -> Result<(), Error> {
        let resource = &view.resource;
        let mut causes = more;
        if let Some(fields) = object.get("metadata").and_then(Value::as_object) {
            causes.extend(names::check_metadata(&resource.group, &resource.plural, fields));
            if !resource.custom {
                causes.extend(names::check_finalizers(fields));
            }
        }
        if let Some(schema) = &view.version().schema {
            causes.extend(validate::faults(schema, object));
        } else if !resource.custom {
            causes.extend(kinds::check(resource, object));
            if resource.is(crd::GROUP, crd::PLURAL) {
                causes.extend(crd::check(object));
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(&resource.group, &resource.kind, meta(object, "name"), &causes))
    }

    /// Replaces an object (PUT).
    pub(super) fn update(
        &mut self,
        view: &View,
        namespace: Option<&str>,
        name: &str,
        mut object: Value,
        part: Part,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let resource = &view.resource;
        let warnings = self.decode(view, &mut object, options)?;
        match meta(&object, "name") {
            "" => {
                let why = "was undeterminable: name must be provided";
                return Err(Error::bad_request(format!("the name of the object ({name} based on URL) {why}")));
            }
            own if own != name => {
                return Err(Error::bad_request(format!(
                    "the name of the object ({own}) does not match the name on the URL ({name})"
                )));
            }
            _ => namespace_agrees(&mut object, namespace)?,
        }
        let key = key(namespace, name);
        let Some(old) = self.store.get(resource.table, &key) else {
            return Err(Error::not_found(&resource.group, &resource.plural, name));
        };
        if meta(&object, "resourceVersion").is_empty() && resource.custom {
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(Error::invalid(&resource.group, &resource.plural, name, &[cause]));
        }
        let object = self.replace(view, key, &old, object, part, options)?;
        Ok(Written { object, created: false, warnings })
    }

    /// Patches an object, or creates it where an apply patch finds none.
    pub(super) fn patch(
        &mut self,
        view: &View,
        namespace: Option<&str>,
        name: &str,
        (kind, patch): (patch::Kind, &Value),
        part: Part,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let resource = &view.resource;
        let key = key(namespace, name);
        let Some(old) = self.store.get(resource.table, &key) else {
            if kind == patch::Kind::Apply && part == Part::Main {
                let mut object = patch.clone();
                if meta(&object, "name").is_empty() {
                    metadata(&mut object).insert("name".to_owned(), Value::from(name));
                }
                return self.create(view, namespace, object, options);
            }
            return Err(Error::not_found(&resource.group, &resource.plural, name));
        };
        let shown = super::convert::to_view(view, &old);
        let mut object = patch::apply(kind, &shown, patch, resource.custom)?;
        let warnings = self.decode(view, &mut object, options)?;
        if meta(&object, "name") != name {
            return Err(Error::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta(&object, "name")
            )));
        }
        namespace_agrees(&mut object, namespace)?;
        let object = self.replace(view, key, &old, object, part, options)?;
        Ok(Written { object, created: false, warnings })
    }

    fn replace(
        &mut self,
        view: &View,
        key: String,
        old: &Arc<Value>,
        mut object: Value,
        part: Part,
        options: WriteOptions,
    ) -> Result<Arc<Value>, Error> {
        let resource = &view.resource;
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        let name = meta(old, "name").to_owned();
        let sent = meta(&object, "resourceVersion");
        if !sent.is_empty() && sent.parse::<u64>().is_err() {
            return Err(Error::internal(format!("strconv.ParseUint: parsing {sent:?}: invalid syntax")));
        }
        if !matches!(sent, "" | "0") && sent != meta(old, "resourceVersion") {
            return Err(Error::stale(group, plural, &name));
        }
        let (sent, own) = (meta(&object, "uid"), meta(old, "uid"));
        if !sent.is_empty() && sent != own {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{plural}/{key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {sent}, UID in object meta: {own}"
            );
            return Err(Error::conflict(group, plural, &name, &why));
        }
        if part == Part::Main {
            carry_over(view, old, &mut object);
        } else {
            object = only_part(old, &object, part);
        }
        let mut causes = Vec::new();
        if !resource.custom {
            kinds::fill(resource, &mut object);
            causes = kinds::check_update(resource, old, &object);
            if resource.is(crd::GROUP, crd::PLURAL) {
                crd::fill(&mut object);
            }
        }
        causes.extend(new_finalizers(old, &object));
        self.check(view, &object, causes)?;
        let apart = view.version().status;
        let changed = substance(old, apart) != substance(&object, apart);
        if changed && resource.generation {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            metadata(&mut object).insert("generation".to_owned(), json!(generation + 1));
        }
        if resource.is("", "services") && !options.dry_run {
            let causes = self.services.allocate(&key, &mut object);
            if !causes.is_empty() {
                return Err(Error::invalid(group, &resource.kind, &name, &causes));
            }
        }
        if object == **old || options.dry_run {
            return Ok(Arc::new(object));
        }
        if object.pointer("/metadata/deletionTimestamp").is_some() && released(view, &object) {
            self.remove(view, &key);
            return Ok(Arc::new(object));
        }
        let object = self.store.put(resource.table, key, object);
        if resource.is(crd::GROUP, crd::PLURAL) && crd::has_condition(&object, "Established") {
            self.establish(&name);
        }
        Ok(object)
    }
}

/// Whether a terminating object has nothing left to wait for.
fn released(view: &View, object: &Value) -> bool {
    let held = view.resource.is("", "namespaces")
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    !has_finalizers(object) && !held
}

/// The old object with one part of the new one.
fn only_part(old: &Value, new: &Value, part: Part) -> Value {
    let mut object = old.clone();
    match part {
        Part::Finalize => object["spec"]["finalizers"] = new.pointer("/spec/finalizers").cloned().unwrap_or(json!([])),
        Part::Main | Part::Status => match new.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => {
                if let Some(all) = object.as_object_mut() {
                    all.remove("status");
                }
            }
        },
    }
    let entries = new.pointer("/metadata/managedFields").filter(|entries| entries.is_array()).cloned();
    if let Some(entries) = entries {
        metadata(&mut object).insert("managedFields".to_owned(), entries);
    }
    object
}

/// What a write of the main object cannot change.
fn carry_over(view: &View, old: &Value, object: &mut Value) {
    let resource = &view.resource;
    for key in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"]
    {
        match old.get("metadata").and_then(|all| all.get(key)) {
            Some(value) => metadata(object).insert(key.to_owned(), value.clone()),
            None => metadata(object).remove(key),
        };
    }
    let kept = old.pointer("/metadata/managedFields").cloned();
    match object.pointer("/metadata/managedFields") {
        // `[{}]` asks for a reset.
        Some(entries) if *entries == json!([{}]) => {
            metadata(object).remove("managedFields");
        }
        None => {
            if let Some(kept) = kept {
                metadata(object).insert("managedFields".to_owned(), kept);
            }
        }
        Some(_) => {}
    }
    if view.version().status {
        match old.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => {
                if let Some(all) = object.as_object_mut() {
                    all.remove("status");
                }
            }
        }
    }
    if resource.is("", "namespaces")
        && let Some(spec) = old.get("spec")
    {
        object["spec"] = spec.clone();
    }
    if resource.is("", "services")
        && let (Some(before), Some(after)) =
            (old.get("spec").and_then(Value::as_object), object.get_mut("spec").and_then(Value::as_object_mut))
    {
        services::carry_over(before, after);
    }
}

/// A terminating object takes no further finalizers.
fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    old.pointer("/metadata/deletionTimestamp")?;
    let list =
        |object: &Value| object.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list(old);
    let added: Vec<String> = list(new).iter().filter(|one| !before.contains(one)).map(Value::to_string).collect();
    if added.is_empty() {
        return None;
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    Some(Cause::forbidden("metadata.finalizers", &why))
}
