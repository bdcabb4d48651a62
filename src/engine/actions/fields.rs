//! Fields of an item by path, where a wrong type is an error that names the field.
//!
//! A path is keys joined by dots; an absent field and an explicit null are the same, as they are for Go's types.

use serde_json::{Map, Value};

use super::Error;

/// The objects of a JSON document.
pub(crate) type Object = Map<String, Value>;

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn wrong_type(path: &str, found: &Value, want: &'static str) -> Error {
    Error::Convert { path: path.to_owned(), found: describe(found), want }
}

/// The value at `path`; an error if something on the way is no object.
pub(crate) fn get<'a>(item: &'a Value, path: &str) -> Result<Option<&'a Value>, Error> {
    let mut value = item;
    let mut walked = 0;
    for key in path.split('.') {
        let Value::Object(object) = value else {
            return Err(wrong_type(path[..walked].trim_end_matches('.'), value, "an object"));
        };
        match object.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(found) => value = found,
        }
        walked += key.len() + 1;
    }
    Ok(Some(value))
}

/// The same, to change it.
pub(crate) fn get_mut<'a>(item: &'a mut Value, path: &str) -> Result<Option<&'a mut Value>, Error> {
    if get(item, path)?.is_none() {
        return Ok(None);
    }
    let mut value = item;
    for key in path.split('.') {
        match value.get_mut(key) {
            Some(found) => value = found,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// The text at `path`.
pub(crate) fn text<'a>(item: &'a Value, path: &str) -> Result<Option<&'a str>, Error> {
    get(item, path)?.map(|value| value.as_str().ok_or_else(|| wrong_type(path, value, "a string"))).transpose()
}

/// The text at `path`, empty where there is none.
pub(crate) fn text_or_empty<'a>(item: &'a Value, path: &str) -> Result<&'a str, Error> {
    Ok(text(item, path)?.unwrap_or_default())
}

/// The boolean at `path`.
pub(crate) fn boolean(item: &Value, path: &str) -> Result<Option<bool>, Error> {
    get(item, path)?.map(|value| value.as_bool().ok_or_else(|| wrong_type(path, value, "a boolean"))).transpose()
}

/// The integer at `path`.
pub(crate) fn integer(item: &Value, path: &str) -> Result<Option<i64>, Error> {
    get(item, path)?.map(|value| value.as_i64().ok_or_else(|| wrong_type(path, value, "an integer"))).transpose()
}

/// The object at `path`.
pub(crate) fn object<'a>(item: &'a Value, path: &str) -> Result<Option<&'a Object>, Error> {
    get(item, path)?.map(|value| value.as_object().ok_or_else(|| wrong_type(path, value, "an object"))).transpose()
}

/// The object at `path`, to change it.
pub(crate) fn object_mut<'a>(item: &'a mut Value, path: &str) -> Result<Option<&'a mut Object>, Error> {
    object(item, path)?;
    Ok(get_mut(item, path)?.and_then(Value::as_object_mut))
}

/// The list at `path`; empty where there is none.
pub(crate) fn list<'a>(item: &'a Value, path: &str) -> Result<&'a [Value], Error> {
    match get(item, path)? {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(wrong_type(path, other, "a list")),
    }
}

/// The list at `path`, to change it.
pub(crate) fn list_mut<'a>(item: &'a mut Value, path: &str) -> Result<Option<&'a mut Vec<Value>>, Error> {
    list(item, path)?;
    Ok(get_mut(item, path)?.and_then(Value::as_array_mut))
}

/// Visits each element of the list at `path`, all of which must be objects.
pub(crate) fn each<'a>(
    item: &'a Value,
    path: &str,
    mut visit: impl FnMut(&'a Value) -> Result<(), Error>,
) -> Result<(), Error> {
    for (index, element) in list(item, path)?.iter().enumerate() {
        let outcome = if element.is_object() { visit(element) } else { Err(wrong_type("", element, "an object")) };
        outcome.map_err(|error| error.within(&format!("{path}[{index}]")))?;
    }
    Ok(())
}

/// Visits each element of the list at `path` to change it; all must be objects.
pub(crate) fn each_mut(
    item: &mut Value,
    path: &str,
    mut visit: impl FnMut(&mut Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(list) = list_mut(item, path)? else { return Ok(()) };
    for (index, element) in list.iter_mut().enumerate() {
        let outcome = if element.is_object() { visit(element) } else { Err(wrong_type("", element, "an object")) };
        outcome.map_err(|error| error.within(&format!("{path}[{index}]")))?;
    }
    Ok(())
}

/// Splits a path into that of the object and the key in it.
fn split(path: &str) -> (Option<&str>, &str) {
    path.rsplit_once('.').map_or((None, path), |(parent, key)| (Some(parent), key))
}

/// Removes the field at `path`, if it is there.
pub(crate) fn remove(item: &mut Value, path: &str) -> Result<Option<Value>, Error> {
    let object = match split(path).0 {
        Some(parent) => object_mut(item, parent)?,
        None => Some(root(item)?),
    };
    Ok(object.and_then(|object| object.remove(split(path).1)))
}

/// Sets the field at `path`, making the objects on the way.
pub(crate) fn set(item: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    ensure(item, split(path).0)?.insert(split(path).1.to_owned(), value);
    Ok(())
}

fn root(item: &mut Value) -> Result<&mut Object, Error> {
    match item {
        Value::Object(object) => Ok(object),
        other => Err(wrong_type("", other, "an object")),
    }
}

/// The object at `path` (the item itself for `None`), made where it is absent.
pub(crate) fn ensure<'a>(item: &'a mut Value, path: Option<&str>) -> Result<&'a mut Object, Error> {
    let mut object = root(item)?;
    for key in path.into_iter().flat_map(|path| path.split('.')) {
        let value = object.entry(key.to_owned()).or_insert(Value::Null);
        if value.is_null() {
            *value = Value::Object(Object::new());
        }
        match value {
            Value::Object(inner) => object = inner,
            other => return Err(wrong_type(path.unwrap_or_default(), other, "an object")),
        }
    }
    Ok(object)
}

/// Removes the field at `path` when it holds an empty list or object, as Go's `omitempty` does.
pub(crate) fn remove_if_empty(item: &mut Value, path: &str) -> Result<(), Error> {
    let empty = match get(item, path)? {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        _ => false,
    };
    if empty {
        remove(item, path)?;
    }
    Ok(())
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(item: &'a Value, key: &str) -> Result<Option<&'a str>, Error> {
    match object(item, "metadata.annotations")?.and_then(|annotations| annotations.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(other) => Err(wrong_type(&format!("metadata.annotations[{key:?}]"), other, "a string")),
    }
}

/// Removes annotations, and the empty rest of them.
pub(crate) fn remove_annotations(item: &mut Value, keys: &[&str]) -> Result<(), Error> {
    remove_keys(item, "metadata.annotations", keys)
}

/// Removes keys from the object at `path`, and the object too if this leaves it empty.
pub(crate) fn remove_keys(item: &mut Value, path: &str, keys: &[&str]) -> Result<(), Error> {
    let Some(object) = object_mut(item, path)? else { return Ok(()) };
    let before = object.len();
    object.retain(|key, _| !keys.contains(&key.as_str()));
    if object.is_empty() && before > 0 {
        remove(item, path)?;
    }
    Ok(())
}

/// `metadata.name`, empty where there is none.
pub(crate) fn name(item: &Value) -> Result<&str, Error> {
    text_or_empty(item, "metadata.name")
}

/// `metadata.namespace`, empty where there is none.
pub(crate) fn namespace(item: &Value) -> Result<&str, Error> {
    text_or_empty(item, "metadata.namespace")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_type_names_the_field_it_is_found_in() {
        let item = json!({"spec": {"containers": "none", "list": [{"image": 1}], "deep": [3]}});
        assert_eq!(
            list(&item, "spec.containers").unwrap_err().to_string(),
            "cannot convert the item: spec.containers is a string, want a list"
        );
        assert!(get(&item, "spec.containers.x").unwrap_err().to_string().contains(" spec.containers is a string"));
        let error = each(&item, "spec.list", |element| text(element, "image").map(|_| ())).unwrap_err();
        assert!(error.to_string().contains("spec.list[0].image is a number"), "{error}");
        let error = each(&item, "spec.deep", |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("spec.deep[0] is a number"), "{error}");
        assert!(set(&mut item.clone(), "spec.containers.x", json!(1)).is_err());
        assert!(get(&json!("text"), "spec").is_err());
    }

    #[test]
    fn null_and_absent_are_the_same_and_paths_are_made_on_demand() {
        let mut item = json!({"spec": null});
        assert_eq!(text(&item, "spec.a.b").unwrap(), None);
        assert!(list(&item, "spec").unwrap().is_empty());
        set(&mut item, "spec.a.b", json!("x")).unwrap();
        assert_eq!(item, json!({"spec": {"a": {"b": "x"}}}));
        assert_eq!(remove(&mut item, "spec.a.b").unwrap(), Some(json!("x")));
        assert_eq!(remove(&mut item, "spec.none.b").unwrap(), None);
        remove_if_empty(&mut item, "spec.a").unwrap();
        assert_eq!(item, json!({"spec": {}}));
    }
}
