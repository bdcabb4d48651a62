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
    let json = match text.strip_prefix('"') {
        // A quote at both ends is taken off once; a lone one is both.
        Some(rest) if text.ends_with('"') => quoted(rest.strip_suffix('"').unwrap_or(rest)),
        _ if is_raw(text) => text.to_owned(),
        _ => quoted(text),
    };
    serde_json::from_str(&json).map_err(|error| format!("value {text:?} gives {json}, which is no JSON ({error})"))
}

/// Whether the text stands for something other than a string.
fn is_raw(text: &str) -> bool {
    let is_literal = text == "null" || text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    is_literal || text.starts_with(['{', '[']) || is_go_float(text)
}

/// Whether Go parses the text as a float: Rust does the same, but that Go refuses numbers beyond the range and a NaN with a
/// sign, and takes hexadecimal numbers, which are no JSON in any case. Underscores neither takes here.
fn is_go_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    let is_in_range = |number: f64| match unsigned.as_str() {
        "nan" => text.len() == 3,
        "inf" | "infinity" => true,
        _ => number.is_finite(),
    };
    text.parse::<f64>().is_ok_and(is_in_range) || (unsigned.starts_with("0x") && unsigned.contains('p'))
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

    /// restore-semantics 8, quoting
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
            ("\"", json!("")),
            ("1e999", json!("1e999")),
            ("-nan", json!("-nan")),
        ] {
            assert_eq!(typed(text), Ok(value), "{text}");
        }
        for broken in ["True", "FALSE", "NaN", "Inf", "say \"hi\"", "-Infinity", "{broken", "+1", ".5", "0x1p4", "a\nb"]
        {
            assert!(typed(broken).is_err(), "{broken}");
        }
    }

    fn patch(operation: &str, from: &str, path: &str, value: &str) -> JsonPatch {
        let [operation, from, path, value] = [operation, from, path, value].map(str::to_owned);
        JsonPatch { operation, from, path, value }
    }

    /// restore-semantics 8, JSON patches
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

    /// restore-semantics 8, validation
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

    /// restore-semantics 8, `matches` and `test`
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

    /// Go's floats without their special names: a sign, digits with at most one point, an exponent; none beyond the range.
    fn naive_float(text: &str) -> bool {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let exponent = exponent.is_none_or(|exponent| is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_in_range = || text.parse::<f64>().is_ok_and(f64::is_finite);
        exponent && is_digits(&format!("{whole}{fraction}")) && is_in_range()
    }

    /// A value as the text of 8 has it: what stands in the patch, and then what JSON makes of it.
    fn naive_value(text: &str) -> Option<Value> {
        let is_literal = text == "null" || ["true", "false"].contains(&text.to_lowercase().as_str());
        let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
        let starts_raw = text.starts_with('{') || text.starts_with('[');
        let json = match text {
            "\"" => "\"\"".to_owned(),
            _ if is_quoted || is_literal || starts_raw || naive_float(text) => text.to_owned(),
            _ => format!("\"{text}\""),
        };
        serde_json::from_str(&json).ok()
    }

    type Failed = ();

    /// The container at a path's parent, and the path's last part.
    fn parent<'a>(document: &'a mut Value, path: &[String]) -> Result<(&'a mut Value, String), Failed> {
        let (last, way) = path.split_last().ok_or(())?;
        let mut at = document;
        for part in way {
            at = match at {
                Value::Object(members) => members.get_mut(part).ok_or(())?,
                Value::Array(elements) => elements.get_mut(part.parse::<usize>().map_err(drop)?).ok_or(())?,
                _ => return Err(()),
            };
        }
        Ok((at, last.clone()))
    }

    fn naive_remove(document: &mut Value, path: &[String]) -> Result<Value, Failed> {
        match parent(document, path)? {
            (Value::Object(members), key) => members.remove(&key).ok_or(()),
            (Value::Array(elements), at) => {
                let at = at.parse::<usize>().map_err(drop)?;
                if at < elements.len() { Ok(elements.remove(at)) } else { Err(()) }
            }
            _ => Err(()),
        }
    }

    fn naive_add(document: &mut Value, path: &[String], value: Value) -> Result<(), Failed> {
        match parent(document, path)? {
            (Value::Object(members), key) => _ = members.insert(key, value),
            (Value::Array(elements), at) => {
                let at = if at == "-" { elements.len() } else { at.parse::<usize>().map_err(drop)? };
                if at > elements.len() {
                    return Err(());
                }
                elements.insert(at, value);
            }
            _ => return Err(()),
        }
        Ok(())
    }

    /// RFC 6902, operation by operation.
    fn naive_patch(document: &mut Value, (operation, from, path, value): &Step) -> Result<(), Failed> {
        match *operation {
            "add" => naive_add(document, path, value.clone()),
            "remove" => naive_remove(document, path).map(drop),
            "replace" => {
                naive_remove(document, path)?;
                naive_add(document, path, value.clone())
            }
            "move" => {
                let value = naive_remove(document, from)?;
                naive_add(document, path, value)
            }
            _ => {
                let value = naive_remove(&mut document.clone(), from)?;
                naive_add(document, path, value)
            }
        }
    }

    /// Operation, from, path and value.
    type Step = (&'static str, Vec<String>, Vec<String>, Value);

    fn paths() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(prop_oneof![4 => "[a-c]", 2 => "[0-2]", 1 => Just("-".to_owned())], 1..4)
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let operation = prop_oneof![Just("add"), Just("remove"), Just("replace"), Just("move"), Just("copy")];
        let value = prop_oneof![Just(json!("x")), Just(json!({"a": 1})), Just(json!([2])), Just(Value::Null)];
        proptest::collection::vec((operation, paths(), paths(), value), 1..4)
    }

    proptest! {
        /// restore-semantics 8, quoting: against the text of the rule.
        #[test]
        fn values_are_what_the_quoting_rule_makes_of_them(
            text in prop_oneof![
                3 => "[0-9+.eE-]{1,7}", 2 => "[a-z \"{}\\[\\],:1]{0,6}",
                1 => "(null|NULL|[tT]rue|false|FALSE|\"[0-9a-z]{0,3}\"|)",
            ],
        ) {
            let typed = typed(&text);
            prop_assert_eq!(typed.clone().ok(), naive_value(&text), "{:?} {:?}", text, typed);
        }

        /// restore-semantics 8, JSON patches: against the RFC, and all or none.
        #[test]
        fn patches_do_what_the_rfc_says_all_or_none(
            object in crate::engine::compare::strategies::object(false), steps in steps(),
        ) {
            let pointer = |path: &[String]| path.iter().map(|part| format!("/{part}")).collect::<String>();
            let patches: Vec<JsonPatch> = steps
                .iter()
                .map(|(operation, from, path, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    patch(operation, &pointer(from), &pointer(path), &value)
                })
                .collect();
            let mut expected = Ok(object.clone());
            for step in &steps {
                expected = expected.and_then(|mut document| naive_patch(&mut document, step).map(|()| document));
            }
            prop_assert_eq!(apply(&object, &patches).ok(), expected.ok(), "{} {:?}", object, patches);
        }

        #[test]
        fn no_text_panics_and_plain_words_stand_for_themselves(text in "\\PC{0,20}", word in "[g-m][a-m ]{0,9}") {
            let _ = typed(&text);
            prop_assert_eq!(typed(&word), Ok(json!(word)));
        }
    }
}
