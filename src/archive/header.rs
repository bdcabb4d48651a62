//! What selection needs of an item, taken from its JSON without building a value, while all of it is checked to be JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Damage;

/// The parts of an item that are looked at; borrowed from its text where there is nothing to unescape.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Skimmed<'a> {
    pub(super) api_version: Cow<'a, str>,
    pub(super) kind: Cow<'a, str>,
    pub(super) name: Option<Cow<'a, str>>,
    /// In the order of the text, the last of equal keys counting; empty when not asked for.
    pub(super) labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(super) phase: Option<Cow<'a, str>>,
    pub(super) completion_time: Option<Cow<'a, str>>,
}

/// Reads the header of an item.
pub(super) fn skim(text: &str, keep_labels: bool, max_depth: usize) -> Result<Skimmed<'_>, Damage> {
    if is_deeper_than(text.as_bytes(), max_depth) {
        return Err(Damage::TooDeep { limit: max_depth });
    }
    let parsed = if keep_labels {
        serde_json::from_str::<Item<'_, true>>(text).map(Item::into_skimmed)
    } else {
        serde_json::from_str::<Item<'_, false>>(text).map(Item::into_skimmed)
    };
    let skimmed = parsed.map_err(|error| json_damage(text, &error))?.map_err(|found| Damage::NotAnObject { found })?;
    if skimmed.kind.is_empty() {
        return Err(Damage::NoKind { shortened: shortened(text) });
    }
    Ok(skimmed)
}

/// Whether braces and brackets outside of strings nest deeper than `limit`. Needs no valid JSON.
fn is_deeper_than(bytes: &[u8], limit: usize) -> bool {
    // Most items have fewer openings in all than may be nested: counting them is many times faster than following them.
    if bytes.iter().filter(|&&byte| matches!(byte, b'{' | b'[')).count() <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            rest.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// A decoder's complaint in Go's words, which Velero records (restore-semantics 4.6).
pub(super) fn json_damage(text: &str, error: &serde_json::Error) -> Damage {
    if error.is_eof() || text.trim().is_empty() {
        return Damage::Json("unexpected end of JSON input".to_owned());
    }
    let complaint = error.to_string();
    let context = [
        ("trailing characters", "after top-level value"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("key must be a string", "looking for beginning of object key string"),
        ("expected value", "looking for beginning of value"),
        ("trailing comma", "looking for beginning of value"),
        ("expected ident", "in literal"),
        ("invalid escape", "in string escape code"),
        ("control character", "in string literal"),
        ("invalid number", "in numeric literal"),
    ];
    let found = context.iter().find(|(prefix, _)| complaint.starts_with(prefix));
    let character = character_at(text, error.line(), error.column());
    Damage::Json(match (found, character) {
        (Some((_, context)), Some(character)) => format!("invalid character {character:?} {context}"),
        _ => format!("invalid JSON: {complaint}"),
    })
}

/// The character at a line and a column of bytes, both counted from 1.
fn character_at(text: &str, line: usize, column: usize) -> Option<char> {
    let line = text.split('\n').nth(line.checked_sub(1)?)?;
    let mut at = column.saturating_sub(1).min(line.len());
    while !line.is_char_boundary(at) {
        at -= 1;
    }
    line[at..].chars().next()
}

/// Enough of an item to recognise it by.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 200;
    match text.char_indices().nth(CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A part of an item that may be of any JSON type, as Velero reads it: what is of another type counts as absent.
trait Part<'de>: Sized {
    fn from_text(_text: Cow<'de, str>) -> Self {
        Self::from_other("string")
    }
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::from_other("object"))
    }
    fn from_other(found: &'static str) -> Self;
}

struct PartVisitor<P>(PhantomData<P>);

impl<'de, P: Part<'de>> Visitor<'de> for PartVisitor<P> {
    type Value = P;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<P, E> {
        Ok(P::from_text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<P, E> {
        Ok(P::from_text(Cow::Owned(text.to_owned())))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<P, A::Error> {
        P::from_map(map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<P, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(P::from_other("array"))
    }
    fn visit_bool<E>(self, _: bool) -> Result<P, E> {
        Ok(P::from_other("bool"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<P, E> {
        Ok(P::from_other("number"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<P, E> {
        Ok(P::from_other("number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<P, E> {
        Ok(P::from_other("number"))
    }
    fn visit_unit<E>(self) -> Result<P, E> {
        Ok(P::from_other("null"))
    }
}

/// Lets a part be deserialized; a blanket implementation for parts is not possible.
macro_rules! deserialize_part {
    ($part:ty $(, const $constant:ident)?) => {
        impl<'de $(, const $constant: bool)?> Deserialize<'de> for $part {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(PartVisitor(PhantomData))
            }
        }
    };
}

/// A string, if it is one.
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de> Part<'de> for Text<'de> {
    fn from_text(text: Cow<'de, str>) -> Self {
        Self(Some(text))
    }
    fn from_other(_: &'static str) -> Self {
        Self(None)
    }
}
deserialize_part!(Text<'de>);

/// The pairs of a map of strings; as in Kubernetes' accessors, one value of another type voids them all.
#[derive(Default)]
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Part<'de> for Pairs<'de> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut pairs = Vec::new();
        let mut is_of_strings = true;
        while let Some((key, value)) = map.next_entry::<Text<'_>, Text<'_>>()? {
            match (key.0, value.0) {
                (Some(key), Some(value)) => pairs.push((key, value)),
                _ => is_of_strings = false,
            }
        }
        Ok(Self(if is_of_strings { pairs } else { Vec::new() }))
    }
    fn from_other(_: &'static str) -> Self {
        Self(Vec::new())
    }
}
deserialize_part!(Pairs<'de>);

/// `metadata`; labels only when asked for.
#[derive(Default)]
struct Metadata<'a, const LABELS: bool> {
    name: Option<Cow<'a, str>>,
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'de, const LABELS: bool> Part<'de> for Metadata<'de, LABELS> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut metadata = Self::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_deref() {
                Some("name") => metadata.name = map.next_value::<Text<'_>>()?.0,
                Some("labels") if LABELS => metadata.labels = map.next_value::<Pairs<'_>>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(metadata)
    }
    fn from_other(_: &'static str) -> Self {
        Self::default()
    }
}
deserialize_part!(Metadata<'de, LABELS>, const LABELS);

/// `status`, as far as it says that a pod or job is done.
#[derive(Default)]
struct Status<'a> {
    phase: Option<Cow<'a, str>>,
    completion_time: Option<Cow<'a, str>>,
}

impl<'de> Part<'de> for Status<'de> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut status = Self::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_deref() {
                Some("phase") => status.phase = map.next_value::<Text<'_>>()?.0,
                Some("completionTime") => status.completion_time = map.next_value::<Text<'_>>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(status)
    }
    fn from_other(_: &'static str) -> Self {
        Self::default()
    }
}
deserialize_part!(Status<'de>);

/// The whole item, or what it is instead of an object.
struct Item<'a, const LABELS: bool>(Result<Skimmed<'a>, &'static str>);

impl<'a, const LABELS: bool> Item<'a, LABELS> {
    fn into_skimmed(self) -> Result<Skimmed<'a>, &'static str> {
        self.0
    }
}

impl<'de, const LABELS: bool> Part<'de> for Item<'de, LABELS> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut item = Skimmed::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_deref() {
                Some("apiVersion") => item.api_version = map.next_value::<Text<'_>>()?.0.unwrap_or_default(),
                Some("kind") => item.kind = map.next_value::<Text<'_>>()?.0.unwrap_or_default(),
                Some("metadata") => {
                    let metadata: Metadata<'_, LABELS> = map.next_value()?;
                    (item.name, item.labels) = (metadata.name, metadata.labels);
                }
                Some("status") => {
                    let status: Status<'_> = map.next_value()?;
                    (item.phase, item.completion_time) = (status.phase, status.completion_time);
                }
                Some(_) => {
                    map.next_value::<IgnoredAny>()?;
                }
                None => return Err(A::Error::custom("key must be a string")),
            }
        }
        Ok(Self(Ok(item)))
    }
    fn from_other(found: &'static str) -> Self {
        // Go leaves its target as it is for `null`: an object without a kind.
        Self(if found == "null" { Ok(Skimmed::default()) } else { Err(found) })
    }
}
deserialize_part!(Item<'de, LABELS>, const LABELS);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn damage(text: &str) -> String {
        skim(text, true, 127).unwrap_err().to_string()
    }

    #[test]
    fn identity_labels_and_completion_are_taken_wherever_they_stand() {
        let text = r#"{"status":{"conditions":[{"x":1}],"phase":"Failed","completionTime":"2026-01-01T00:00:00Z"},"spec":{"kind":"no"},
            "metadata":{"managedFields":[{"f":{"k:{\"name\":\"x\"}":{}}}],"labels":{"a":"1","b":"\u00e9"},"name":"n"},"kind":"Pod","apiVersion":"v1"}"#;
        let skimmed = skim(text, true, 127).unwrap();
        assert_eq!((&*skimmed.api_version, &*skimmed.kind, skimmed.name.as_deref()), ("v1", "Pod", Some("n")));
        assert_eq!(skimmed.labels, [("a".into(), "1".into()), ("b".into(), "é".into())]);
        assert_eq!(skimmed.phase.as_deref(), Some("Failed"));
        assert!(skimmed.completion_time.is_some());
        assert!(skim(text, false, 127).unwrap().labels.is_empty());
    }

    #[test]
    fn parts_of_another_type_count_as_absent() {
        let text = r#"{"kind":"X","apiVersion":1,"metadata":{"name":2,"labels":{"a":"1","b":2}},"status":"ready"}"#;
        assert_eq!(skim(text, true, 127).unwrap(), Skimmed { kind: "X".into(), ..Skimmed::default() });
        assert!(skim(r#"{"kind":"X","metadata":null,"status":[1]}"#, true, 127).is_ok());
        assert!(skim(r#"{"kind":"X","metadata":7.5,"status":true}"#, true, 127).is_ok());
    }

    /// restore-semantics 4.6
    #[test]
    fn the_last_of_equal_keys_counts_as_in_go() {
        assert_eq!(skim(r#"{"kind":"A","kind":"B"}"#, true, 127).unwrap().kind, "B");
    }

    #[test]
    fn what_is_no_json_is_named_in_gos_words() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("  \n", "unexpected end of JSON input"),
            (r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":"#, "unexpected end of JSON input"),
            ("<xml>", "invalid character '<' looking for beginning of value"),
            ("{x}", "invalid character 'x' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"kind":"A"} x"#, "invalid character 'x' after top-level value"),
            (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
            ("not an item", "invalid character 'o' in literal"),
        ] {
            assert_eq!(damage(text), message, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_object_says_what_it_is() {
        assert_eq!(damage("[]"), "json: cannot unmarshal array into Go value of type map[string]interface {}");
        assert_eq!(damage("\"x\""), "json: cannot unmarshal string into Go value of type map[string]interface {}");
        assert_eq!(damage("12"), "json: cannot unmarshal number into Go value of type map[string]interface {}");
    }

    #[test]
    fn an_object_without_kind_is_shown_shortened() {
        assert_eq!(damage(r#"{"apiVersion":"v1"}"#), r#"Object 'Kind' is missing in '{"apiVersion":"v1"}'"#);
        assert_eq!(damage("null"), "Object 'Kind' is missing in 'null'");
        let long = format!(r#"{{"data":"{}"}}"#, "é".repeat(300));
        assert!(damage(&long).ends_with("é…'"));
    }

    #[test]
    fn nesting_is_limited_outside_of_strings() {
        let nested = |depth: usize| format!(r#"{{"kind":"A","x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(skim(&nested(127), true, 127).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_ok());
        assert_eq!(skim(&nested(128), true, 127), Err(Damage::TooDeep { limit: 127 }));
        assert_eq!(skim(&"[".repeat(1_000_000), true, 127), Err(Damage::TooDeep { limit: 127 }));
        let in_a_string = format!(r#"{{"kind":"A","x":"\"{}"}}"#, "[".repeat(1000));
        assert!(skim(&in_a_string, true, 127).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in ".{0,64}") {
            let _ = skim(&text, true, 127);
        }

        #[test]
        fn it_takes_what_serde_json_takes(text in r#"[{}\[\]:,"a1 ntruefalse.\\-]{0,24}"#) {
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let is_taken = !matches!(skim(&text, true, 127), Err(Damage::Json(_)));
            // The decoder of values refuses a few escapes and numbers that are only checked for their form here.
            prop_assert!(is_taken || !is_json, "{}", text);
        }
    }
}
