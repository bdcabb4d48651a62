//! Strategic merge patches (restore-semantics 8), by the schema that the API server publishes.
//!
//! What makes a merge patch strategic is in the schema of the kind: which lists are merged, and by which key. Here it
//! is read from the OpenAPI v3 document of the kind's group version (`x-kubernetes-patch-strategy`,
//! `x-kubernetes-patch-merge-key`), never from a list of this program. The merge itself is that of Kubernetes, with its
//! directives: `$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// How many `$ref` and `allOf` are followed for one field; published documents have two or three.
const MAX_REFERENCES: usize = 16;

/// Why a patch cannot be applied, and at which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    path: String,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }

    fn below(mut self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.path = format!("{key}{dot}{}", self.path);
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The schemas of one group version.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    schemas: Object,
}

impl Document {
    /// Takes the schemas out of an OpenAPI v3 document; one without any gives no kind.
    pub(super) fn new(mut openapi: Value) -> Self {
        let schemas = openapi.pointer_mut("/components/schemas").map(Value::take);
        Self { schemas: if let Some(Value::Object(schemas)) = schemas { schemas } else { Object::new() } }
    }

    /// The schema of a kind.
    pub(super) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Schema<'_>> {
        let is_kind = |gvk: &Value| gvk["group"] == group && gvk["version"] == version && gvk["kind"] == kind;
        let named = |schema: &&Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.iter().any(is_kind))
        };
        self.schemas.values().find(named).map(|node| Schema { document: self, node })
    }
}

/// The schema of a kind or of a field in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema<'a> {
    document: &'a Document,
    node: &'a Value,
}

/// How a list is merged.
struct ListStrategy<'a> {
    merge: bool,
    key: Option<&'a str>,
    elements: Option<Schema<'a>>,
}

impl<'a> Schema<'a> {
    fn of(self, node: &'a Value) -> Self {
        Self { node, ..self }
    }

    /// The node and all it refers to.
    fn nodes(self) -> Vec<&'a Value> {
        let mut nodes = vec![self.node];
        let mut next = 0;
        while let Some(&node) = nodes.get(next) {
            next += 1;
            let target = node["$ref"].as_str().and_then(|target| target.strip_prefix("#/components/schemas/"));
            let target = target.and_then(|name| self.document.schemas.get(name));
            let all = target.into_iter().chain(node["allOf"].as_array().into_iter().flatten());
            nodes.extend(all.take(MAX_REFERENCES.saturating_sub(next)));
        }
        nodes
    }

    /// The schema of a field: `None` where the schema leaves open what is there.
    fn field(self, key: &str) -> Result<Option<Self>, Failure> {
        let nodes = self.nodes();
        if let Some(field) = nodes.iter().find_map(|node| node["properties"].get(key)) {
            return Ok(Some(self.of(field)));
        }
        if let Some(values) = nodes.iter().find_map(|node| node.get("additionalProperties")) {
            return Ok(values.is_object().then(|| self.of(values)));
        }
        let open = |node: &&Value| node["x-kubernetes-preserve-unknown-fields"] == true;
        if nodes.iter().any(|node| node["properties"].is_object()) && !nodes.iter().any(open) {
            return Err(Failure::new("the schema has no such field"));
        }
        Ok(None)
    }

    fn extension(self, name: &str) -> Option<&'a str> {
        self.nodes().into_iter().find_map(|node| node[name].as_str())
    }

    fn has_strategy(self, wanted: &str) -> bool {
        let strategies = self.extension("x-kubernetes-patch-strategy").unwrap_or_default();
        strategies.split(',').any(|strategy| strategy.trim() == wanted)
    }

    fn list(field: Option<Self>) -> ListStrategy<'a> {
        ListStrategy {
            merge: field.is_some_and(|field| field.has_strategy("merge")),
            key: field.and_then(|field| field.extension("x-kubernetes-patch-merge-key")),
            elements: field.and_then(|field| {
                let items = field.nodes().into_iter().find_map(|node| node.get("items"));
                items.map(|items| field.of(items))
            }),
        }
    }
}

/// Applies a patch to an object of the schema's kind.
///
/// # Errors
///
/// The patch contradicts the schema or itself; nothing is half done.
pub(super) fn apply(object: &Value, patch: &Object, schema: Schema<'_>) -> Result<Value, Failure> {
    let Value::Object(object) = object else { return Err(Failure::new("the item is no object")) };
    merge_object(object.clone(), patch, Some(schema)).map(Value::Object)
}

fn merge_object(mut object: Object, patch: &Object, schema: Option<Schema<'_>>) -> Result<Object, Failure> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        Some(directive) if directive == "replace" => {
            let mut replaced = without_nulls(patch);
            replaced.remove(DIRECTIVE);
            return Ok(replaced);
        }
        Some(other) => {
            return Err(Failure::new(format!("unknown directive {DIRECTIVE}: {other}, use delete or replace")));
        }
    }
    retain_keys(&mut object, patch)?;
    for (directive, order) in patch {
        if let Some(key) = directive.strip_prefix(ELEMENT_ORDER) {
            let field = field_of(schema, key)?;
            let ordered = set_order(object.get(key), patch.get(key), order, field).map_err(|it| it.below(key))?;
            if let Some(ordered) = ordered {
                object.insert(key.to_owned(), Value::Array(ordered));
            }
        }
    }
    for (key, value) in patch {
        let has_order = patch.contains_key(&format!("{ELEMENT_ORDER}{key}"));
        if key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) || has_order {
            continue;
        }
        if let Some(key) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut object, key, value).map_err(|it| it.below(key))?;
            continue;
        }
        if value.is_null() {
            object.remove(key);
            continue;
        }
        let merged = match (object.get_mut(key).map(Value::take), value) {
            (Some(Value::Object(present)), Value::Object(patch)) => {
                let field = field_of(schema, key)?;
                Some(Value::Object(if field.is_some_and(|field| field.has_strategy("replace")) {
                    patch.clone()
                } else {
                    merge_object(present, patch, field).map_err(|it| it.below(key))?
                }))
            }
            (Some(Value::Array(present)), Value::Array(patch)) => {
                let strategy = Schema::list(field_of(schema, key)?);
                Some(Value::Array(merge_list(present, patch, &strategy).map_err(|it| it.below(key))?))
            }
            (_, value) => plain(value),
        };
        match merged {
            Some(merged) => object.insert(key.clone(), merged),
            None => object.remove(key),
        };
    }
    Ok(object)
}

fn field_of<'a>(schema: Option<Schema<'a>>, key: &str) -> Result<Option<Schema<'a>>, Failure> {
    schema.map_or(Ok(None), |schema| schema.field(key)).map_err(|it| it.below(key))
}

/// A value that nothing is there to merge with: without nulls, and without what has a directive.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(object) if object.contains_key(DIRECTIVE) => None,
        Value::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect()))
        }
        Value::Array(values) => Some(Value::Array(values.iter().filter_map(plain).collect())),
        other => Some(other.clone()),
    }
}

/// The API server takes a null for a field that is not there; so do later patches.
fn without_nulls(object: &Object) -> Object {
    let inner = |value: &Value| match value {
        Value::Object(object) => Value::Object(without_nulls(object)),
        other => other.clone(),
    };
    object.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), inner(value))).collect()
}

fn retain_keys(object: &mut Object, patch: &Object) -> Result<(), Failure> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| Failure::new(format!("{RETAIN_KEYS} is no list")))?;
    let retained = |key: &str| keys.iter().any(|retained| retained == key);
    let stray = patch.iter().find(|(key, value)| {
        !value.is_null()
            && *key != RETAIN_KEYS
            && !key.starts_with(ELEMENT_ORDER)
            && !key.starts_with(DELETE_FROM)
            && !retained(key)
    });
    if let Some((key, _)) = stray {
        return Err(Failure::new(format!("{RETAIN_KEYS} lacks {key:?}, which the patch sets")));
    }
    object.retain(|key, _| retained(key));
    Ok(())
}

fn delete_from(object: &mut Object, key: &str, values: &Value) -> Result<(), Failure> {
    let values = match values {
        Value::Null => {
            object.remove(key);
            return Ok(());
        }
        Value::Array(values) => values,
        _ => return Err(Failure::new("what to delete from a primitive list is no list")),
    };
    if let Some(Value::Array(present)) = object.get_mut(key) {
        if present.iter().chain(values).any(|value| value.is_object() || value.is_array()) {
            return Err(Failure::new("only a list of plain values has values deleted from it"));
        }
        present.retain(|value| !values.contains(value));
    }
    Ok(())
}

/// Merges a list, and orders it as `$setElementOrder` says; `None` where there is no list.
fn set_order(
    present: Option<&Value>,
    patch: Option<&Value>,
    order: &Value,
    field: Option<Schema<'_>>,
) -> Result<Option<Vec<Value>>, Failure> {
    let list = |value: Option<&Value>| match value {
        None => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values.clone())),
        Some(_) => Err(Failure::new("no list to set the order of elements of")),
    };
    let order = list(Some(order))?.unwrap_or_default();
    let strategy = Schema::list(field);
    let server_order = list(present)?.unwrap_or_default();
    if let Some(patch) = list(patch)? {
        let ordinary: Vec<Value> = patch.into_iter().filter(|value| value.get(DIRECTIVE).is_none()).collect();
        let mut rest = order.iter();
        let in_order = |value: &Value| rest.any(|ordered| same_element(value, ordered, strategy.key));
        if !order.is_empty() && !ordinary.iter().all(in_order) {
            return Err(Failure::new("the elements of the patch are not in the order that the patch sets"));
        }
    }
    let merged = match (list(present)?, list(patch)?) {
        (None, None) => return Ok(None),
        (Some(present), None) => present,
        (None, Some(patch)) => plain(&Value::Array(patch)).and_then(|it| it.as_array().cloned()).unwrap_or_default(),
        (Some(present), Some(patch)) => merge_list(present, &patch, &strategy)?,
    };
    in_order(merged, &order, &server_order, strategy.key).map(Some)
}

fn merge_list(present: Vec<Value>, patch: &[Value], strategy: &ListStrategy<'_>) -> Result<Vec<Value>, Failure> {
    if !strategy.merge {
        return Ok(patch.to_vec());
    }
    let of_objects = |value: &Value| value.is_object();
    let of_values = |value: &Value| !(value.is_object() || value.is_array() || value.is_null());
    let both = || present.iter().chain(patch);
    if both().all(of_values) {
        let mut merged = Vec::new();
        for value in both() {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return in_order(merged, patch, &present, None);
    }
    if !both().all(of_objects) {
        return Err(Failure::new("the elements of a list that is merged must be all objects or all plain values"));
    }
    let Some(key) = strategy.key else {
        return Err(Failure::new("the schema has no merge key for this list"));
    };
    merge_by_key(present, patch, key, strategy.elements)
}

fn merge_by_key(
    mut present: Vec<Value>,
    patch: &[Value],
    key: &str,
    elements: Option<Schema<'_>>,
) -> Result<Vec<Value>, Failure> {
    let no_key = || Failure::new(format!("an element lacks the merge key {key:?}"));
    let (mut ordinary, mut replace) = (Vec::new(), false);
    for element in patch {
        match element.get(DIRECTIVE) {
            None => ordinary.push(element.clone()),
            Some(directive) if directive == "delete" => {
                let value = element.get(key).ok_or_else(no_key)?;
                present.retain(|present| present.get(key) != Some(value));
            }
            Some(directive) if directive == "replace" => replace = true,
            Some(other) => {
                let message = format!("unknown directive {DIRECTIVE}: {other} of an element, use delete or replace");
                return Err(Failure::new(message));
            }
        }
    }
    if replace {
        return Ok(ordinary);
    }
    let server_order = present.clone();
    for element in &ordinary {
        let (Value::Object(element), Some(value)) = (element, element.get(key)) else { return Err(no_key()) };
        let found = present.iter_mut().find(|present| present.get(key) == Some(value));
        match found {
            Some(found) => {
                let Value::Object(object) = found.take() else { return Err(no_key()) };
                let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                *found = Value::Object(merge_object(object, element, elements).map_err(|it| it.below(&name))?);
            }
            None => present.push(Value::Object(without_nulls(element))),
        }
    }
    if present.iter().any(|element| element.get(key).is_none()) {
        return Err(no_key());
    }
    in_order(present, &ordinary, &server_order, Some(key))
}

fn same_element(one: &Value, other: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => one.get(key).is_some() && one.get(key) == other.get(key),
        None => one == other,
    }
}

/// Elements of the patch in its order, and those only the server has in theirs. An element of the server's comes as
/// late as the server's own order allows, so new elements of the patch come before it.
fn in_order(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Failure> {
    if let Some(key) = key
        && let Some(without) = merged.iter().chain(patch_order).find(|element| element.get(key).is_none())
    {
        return Err(Failure::new(format!("the element {without} lacks the merge key {key:?}")));
    }
    let place = |order: &[Value], element: &Value| order.iter().position(|it| same_element(it, element, key));
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| place(patch_order, element).is_some());
    patched.sort_by_cached_key(|element| place(patch_order, element));
    // One that is new comes with the patch, and is not among these.
    others.sort_by_cached_key(|element| place(server_order, element).unwrap_or(usize::MAX));
    let mut ordered = Vec::with_capacity(patched.len() + others.len());
    let mut patched = patched.into_iter().peekable();
    for other in others {
        let other_place = place(server_order, &other);
        while let Some(next) = patched.next_if(|next| match (other_place, place(server_order, next)) {
            (Some(other), Some(next)) => next <= other,
            _ => true,
        }) {
            ordered.push(next);
        }
        ordered.push(other);
    }
    ordered.extend(patched);
    Ok(ordered)
}

#[cfg(test)]
pub(super) mod tests;
