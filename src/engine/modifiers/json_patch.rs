//! JSON patches with Velero's typing of values (restore-semantics 8).

use serde_json::{Value, json};

use super::JsonPatch;

/// Why a patch did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A `test` did not hold.
    Test,
    /// The path of a `test` does not lead anywhere.
    Missing,
    /// Anything else.
    Other(String),
}

/// What a value that is written as text stands for.
///
/// Velero writes it into JSON text: some texts raw, the others between quotes, without escaping. What is no JSON then is
/// an error.
pub(super) fn typed(text: &str) -> Result<Value, String> {
    let quoted = |text: &str| format!("\"{text}\"");
    let is_quoted = text.starts_with('"') && text.ends_with('"');
    let json = if is_quoted || is_raw(text) { text.to_owned() } else { quoted(text) };
    serde_json::from_str(&json).map_err(|error| format!("value {text:?} gives {json}, which is no JSON ({error})"))
}

/// Whether the text stands for something other than a string.
fn is_raw(text: &str) -> bool {
    let is_literal = text == "null" || text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    is_literal || text.starts_with(['{', '[']) || is_go_float(text)
}

/// Whether Go parses the text as a float: Rust does the same, but for underscores, which neither takes here, and
/// hexadecimal numbers, which are no JSON in any case.
fn is_go_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    text.parse::<f64>().is_ok() || (unsigned.starts_with("0x") && unsigned.contains('p'))
}

/// Applies the operations in order; all or none.
pub(super) fn apply(object: &Value, patches: &[JsonPatch]) -> Result<Value, Failure> {
    let decoded: Vec<Operation> = patches.iter().map(Operation::decode).collect::<Result<_, _>>()?;
    let mut patched = object.clone();
    for operation in &decoded {
        match operation {
            Operation::Test { path, value } => test(&patched, path, value)?,
            Operation::Change(change) => json_patch::patch(&mut patched, std::slice::from_ref(change))
                .map_err(|error| Failure::Other(error.to_string()))?,
        }
    }
    if patched.is_object() { Ok(patched) } else { Err(Failure::Other("the patch leaves no object".to_owned())) }
}

enum Operation {
    Test { path: String, value: Value },
    Change(json_patch::PatchOperation),
}

impl Operation {
    fn decode(patch: &JsonPatch) -> Result<Self, Failure> {
        let value = typed(&patch.value).map_err(Failure::Other)?;
        let operation = json!({"op": patch.operation, "from": patch.from, "path": patch.path, "value": value});
        if patch.operation == "test" {
            return Ok(Self::Test { path: patch.path.clone(), value });
        }
        let unsupported = |error| Failure::Other(format!("invalid operation {operation}: {error}"));
        if !["add", "remove", "replace", "move", "copy"].contains(&patch.operation.as_str()) {
            return Err(unsupported("unsupported operation".to_owned()));
        }
        serde_json::from_value(operation.clone()).map(Self::Change).map_err(|error| unsupported(error.to_string()))
    }
}

/// A `test`: an absent field at the end of the path is null, an absent object on the way is [`Failure::Missing`].
pub(super) fn test(object: &Value, path: &str, value: &Value) -> Result<(), Failure> {
    let Some((parent, _)) = path.rsplit_once('/') else {
        return Err(Failure::Other(format!("path {path:?} is no JSON pointer: begin it with a slash")));
    };
    if !object.pointer(parent).is_some_and(|parent| parent.is_object() || parent.is_array()) {
        return Err(Failure::Missing);
    }
    if object.pointer(path).unwrap_or(&Value::Null) == value { Ok(()) } else { Err(Failure::Test) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_typed_by_veleros_quoting_rule() {
        for (text, value) in [
            ("", json!("")),
            ("text", json!("text")),
            ("hello: world", json!("hello: world")),
            ("\"true\"", json!("true")),
            ("\"1.5\"", json!("1.5")),
            ("\"\"", json!("")),
            ("null", Value::Null),
            ("true", json!(true)),
            ("3", json!(3)),
            ("-1.5e3", json!(-1500.0)),
            ("{\"a\": [1]}", json!({"a": [1]})),
            ("[]", json!([])),
            ("NULL", json!("NULL")),
            (r"a\nb", json!("a\nb")),
        ] {
            assert_eq!(typed(text), Ok(value), "{text}");
        }
        for broken in ["True", "FALSE", "NaN", "Inf", "say \"hi\"", "\"", "{broken", "+1", ".5", "0x1p4", "a\nb"] {
            assert!(typed(broken).is_err(), "{broken}");
        }
    }

    fn patch(operation: &str, from: &str, path: &str, value: &str) -> JsonPatch {
        let [operation, from, path, value] = [operation, from, path, value].map(str::to_owned);
        JsonPatch { operation, from, path, value }
    }

    #[test]
    fn operations_apply_in_order_and_all_or_none() {
        let object = json!({"data": {"a": "1", "b": "2", "c": "3"}, "list": [1]});
        let good = [
            patch("remove", "", "/data/a", ""),
            patch("move", "/data/b", "/data/moved", ""),
            patch("copy", "/data/c", "/data/copied", ""),
            patch("add", "", "/data/new~1key", "v"),
            patch("replace", "", "/data/c", "\"44\""),
            patch("add", "", "/list/-", "2"),
        ];
        assert_eq!(
            apply(&object, &good).unwrap(),
            json!({"data": {"moved": "2", "copied": "3", "c": "44", "new/key": "v"}, "list": [1, 2]})
        );
        for broken in [
            patch("remove", "", "/data/none", ""),
            patch("replace", "", "/data/none", "x"),
            patch("add", "", "/none/x", "x"),
            patch("copy", "/none", "/data/x", ""),
            patch("Add", "", "/data/x", "v"),
            patch("add", "", "no-slash", "v"),
            patch("add", "", "/data/x", "True"),
        ] {
            assert!(matches!(apply(&object, &[good[0].clone(), broken.clone()]), Err(Failure::Other(_))), "{broken:?}");
        }
    }

    #[test]
    fn an_operation_in_capitals_is_named_as_velero_names_it() {
        let Err(Failure::Other(message)) = apply(&json!({"data": {}}), &[patch("Add", "", "/data/b", "v")]) else {
            panic!("it applied");
        };
        assert_eq!(
            message,
            r#"invalid operation {"from":"","op":"Add","path":"/data/b","value":"v"}: unsupported operation"#
        );
    }

    #[test]
    fn a_test_tells_a_wrong_value_from_a_missing_path() {
        let object = json!({"data": {"a": "1"}, "list": [{"b": null}]});
        assert_eq!(test(&object, "/data/a", &json!("1")), Ok(()));
        assert_eq!(test(&object, "/data/a", &json!(1)), Err(Failure::Test));
        assert_eq!(test(&object, "/data/none", &json!("1")), Err(Failure::Test));
        assert_eq!(test(&object, "/data/none", &Value::Null), Ok(()));
        assert_eq!(test(&object, "/none/x", &json!("1")), Err(Failure::Missing));
        assert_eq!(test(&object, "/data/a/x", &json!("1")), Err(Failure::Missing));
        assert!(matches!(test(&object, "data", &json!("1")), Err(Failure::Other(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_plain_words_stand_for_themselves(text in "\\PC{0,20}", word in "[g-m][a-m ]{0,9}") {
            let _ = typed(&text);
            prop_assert_eq!(typed(&word), Ok(json!(word)));
        }
    }
}
