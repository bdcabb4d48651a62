#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn structured(selector: serde_json::Value) -> Result<Selector, Error> {
    Selector::new(&serde_json::from_value(selector).expect("a label selector"))
}

fn refusal(selector: serde_json::Value) -> String {
    structured(selector).expect_err("it is refused").to_string()
}

#[test]
fn an_empty_selector_matches_everything() {
    for selector in [structured(json!({})).unwrap(), Selector::parse("").unwrap(), Selector::parse(" \t").unwrap()] {
        assert!(selector.is_everything());
        assert!(selector.matches([]));
        assert!(selector.matches([("a", "b")]));
    }
}

/// restore-semantics 1.4, last sentence, and 1.7
#[test]
fn bad_selectors_are_refused_in_kubernetes_words() {
    // Recorded: conformance case 26, restores c26-bad-selector and c26-bad-or-selector.
    assert_eq!(
        refusal(json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]})),
        "\"Near\" is not a valid label selector operator"
    );
    assert_eq!(
        refusal(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
        "values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty"
    );
    assert_eq!(
        refusal(json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]})),
        "values: Invalid value: [\"b\"]: values set must be empty for exists and does not exist"
    );
    assert_eq!(
        refusal(json!({"matchLabels": {"a/b/c": "d"}})),
        "key: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
    );
    assert_eq!(
        refusal(json!({"matchLabels": {"a": "-"}})),
        "values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
         or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    );
    let both = refusal(json!({"matchExpressions": [{"key": "", "operator": "In"}]}));
    assert!(
        both.starts_with("[key: Invalid value: \"\": name part must be non-empty; name part must consist of"),
        "{both}"
    );
    assert!(
        both.ends_with(", values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty]"),
        "{both}"
    );
}

#[test]
fn keys_and_values_have_the_lengths_that_labels_may_have() {
    let long = |n: usize| "x".repeat(n);
    assert!(structured(json!({"matchLabels": {long(63): long(63)}})).is_ok());
    assert!(refusal(json!({"matchLabels": {long(64): ""}})).contains("name part must be no more than 63 bytes"));
    assert!(refusal(json!({"matchLabels": {"a": long(64)}})).contains("must be no more than 63 bytes"));
    assert!(structured(json!({"matchLabels": {format!("{}/a", long(253)): ""}})).is_ok());
    let too_long = refusal(json!({"matchLabels": {format!("{}/a", long(254)): ""}}));
    assert!(too_long.ends_with("prefix part must be no more than 253 bytes"), "{too_long}");
    for prefix in ["", "Upper", "a..b", "-a"] {
        assert!(structured(json!({"matchLabels": {format!("{prefix}/a"): ""}})).is_err(), "{prefix}");
    }
}

/// restore-semantics 4.6
#[test]
fn each_operator_sees_absent_labels_in_its_own_way() {
    for (text, without, with_x, with_other) in [
        ("k", false, true, true),
        ("!k", true, false, false),
        ("k=x", false, true, false),
        ("k==x", false, true, false),
        ("k!=x", true, false, true),
        ("k in (x,y)", false, true, false),
        ("k notin (x,y)", true, false, true),
        ("k=", false, false, false),
        ("k in ()", false, false, false),
        ("k in (x,)", false, true, false),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.matches([]), without, "{text}");
        assert_eq!(selector.matches([("k", "x")]), with_x, "{text}");
        assert_eq!(selector.matches([("k", "other")]), with_other, "{text}");
    }
    assert!(Selector::parse("k=").unwrap().matches([("k", "")]));
    assert!(Selector::parse("k>3,k<10").unwrap().matches([("k", "7")]));
    assert!(!Selector::parse("k>3").unwrap().matches([("k", "seven")]));
    assert!(!Selector::parse("k>3").unwrap().matches([]));
}

#[test]
fn text_prints_in_one_form() {
    for (text, printed) in [
        ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
        ("b=1,a==2", "a==2,b=1"),
        (" ! a , b  !=  c ", "!a,b!=c"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("notin", "notin"),
        ("k in (x,x)", "k in (x)"),
        ("k in (,)", "k in ()"),
        ("example.com/k=v", "example.com/k=v"),
        ("k>1", "k>1"),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), printed, "{text:?}");
    }
}

#[test]
fn text_that_is_no_selector_is_refused_in_kubernetes_words() {
    for (text, message) in [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        ("a==,b", ""),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        (
            "k>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        let answer = Selector::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(answer, message, "{text:?}");
    }
    let bad_key = Selector::parse("-a=b").unwrap_err().to_string();
    assert!(
        bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
        "{bad_key}"
    );
}

#[test]
fn text_becomes_the_structured_form() {
    let structured = Selector::parse("a=b,c in (e,d),!f,g!=h,i,j notin (x)").unwrap().to_label_selector().unwrap();
    assert_eq!(
        serde_json::to_value(&structured).unwrap(),
        json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["d", "e"]},
                {"key": "f", "operator": "DoesNotExist"},
                {"key": "g", "operator": "NotIn", "values": ["h"]},
                {"key": "i", "operator": "Exists"},
                {"key": "j", "operator": "NotIn", "values": ["x"]},
            ],
        })
    );
    let unsupported = Selector::parse("a>1").unwrap().to_label_selector().unwrap_err();
    assert_eq!(unsupported.to_string(), "\"gt\" isn't supported in label selectors");
    assert!(Selector::parse("a=1,a=2").unwrap().to_label_selector().is_err());
    assert!(Selector::parse("a=1,a=1").unwrap().to_label_selector().is_ok());
}

#[test]
fn an_object_is_matched_by_its_labels() {
    let selector = Selector::parse("a=b").unwrap();
    assert!(selector.matches_object(&json!({"metadata": {"labels": {"a": "b"}}})));
    assert!(!selector.matches_object(&json!({"metadata": {}})));
    assert!(!selector.matches_object(&json!(null)));
    assert!(Selector::default().matches_object(&json!(null)));
}

fn requirements() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]",
        "![ab]",
        "[ab](=|==|!=)[xyz]?",
        "[ab] in \\([xyz](,[xyz]?){0,2}\\)",
        "[ab] notin \\([xyz](,[xyz]){0,2}\\)",
    ]
}

/// A requirement, and whether labels meet it, as Kubernetes' documentation puts it.
fn naive(operator: &str, values: &[String], label: Option<&String>) -> bool {
    match operator {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => !label.is_some_and(|label| values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        other => panic!("{other} is no operator"),
    }
}

proptest! {
    /// restore-semantics 4.6, against the operators one by one.
    #[test]
    fn a_structured_selector_matches_as_its_operators_say(
        expressions in proptest::collection::vec(
            ("[abc]", prop_oneof![Just("In"), Just("NotIn"), Just("Exists"), Just("DoesNotExist")],
                proptest::collection::vec("[xyz]?", 1..3)),
            0..4,
        ),
        equal in proptest::collection::btree_map("[abc]", "[xyz]?", 0..2),
        labels in proptest::collection::btree_map("[abc]", "[xyz]?", 0..4),
    ) {
        let (equal, labels): (BTreeMap<String, String>, BTreeMap<String, String>) = (equal, labels);
        let has_values = |operator: &str| operator.ends_with("In");
        let structured: Vec<_> = expressions
            .iter()
            .map(|(key, operator, values)| {
                let values: &[String] = if has_values(operator) { values } else { &[] };
                json!({"key": key, "operator": operator, "values": values})
            })
            .collect();
        let selector = self::structured(json!({"matchLabels": equal, "matchExpressions": structured})).unwrap();
        let expected = equal.iter().all(|(key, value)| labels.get(key) == Some(value))
            && expressions.iter().all(|(key, operator, values)| naive(operator, values, labels.get(key)));
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        prop_assert_eq!(selector.matches(labels), expected);
    }

    #[test]
    fn reading_never_panics(text in "[ab=!(), in<>\\-é/]{0,20}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn what_is_printed_reads_back_the_same(parts in proptest::collection::vec(requirements(), 0..4)) {
        let selector = Selector::parse(&parts.join(",")).unwrap();
        let again = Selector::parse(&selector.to_string()).unwrap();
        prop_assert_eq!(&again, &selector);
    }

    #[test]
    fn a_selector_is_the_conjunction_of_its_parts_and_of_its_structured_form(
        parts in proptest::collection::vec(requirements(), 0..4),
        labels in proptest::collection::btree_map("[abc]", "[xyz]?", 0..4),
    ) {
        let labels: BTreeMap<String, String> = labels;
        let labels = || labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let whole = Selector::parse(&parts.join(",")).unwrap();
        let each = parts.iter().all(|part| Selector::parse(part).unwrap().matches(labels()));
        prop_assert_eq!(whole.matches(labels()), each);
        if let Ok(structured) = whole.to_label_selector() {
            prop_assert_eq!(Selector::new(&structured).unwrap().matches(labels()), each);
        }
    }
}
