//! CustomResourceDefinitions made before structural schemas (restore-semantics 7.1, `crd-preserve-fields`).

use serde_json::json;

use super::{Error, Input, Output, fields};

/// The one version the action knows.
pub(super) const V1: &str = "apiextensions.k8s.io/v1";

/// `preserveUnknownFields: true` is refused by v1; the same is said by each version's schema.
pub(super) fn preserve_unknown_fields(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    if fields::text_or_empty(&item, "apiVersion")? == V1
        && fields::boolean(&item, "spec.preserveUnknownFields")? == Some(true)
    {
        // False is what is meant by its absence, and how Go's type writes it.
        fields::remove(&mut item, "spec.preserveUnknownFields")?;
        fields::each_mut(&mut item, "spec.versions", |version| {
            let schema = fields::ensure(version, Some("schema.openAPIV3Schema"))?;
            if schema.is_empty() {
                // A version without a schema: v1 wants at least the type of the root.
                schema.insert("type".to_owned(), json!("object"));
            }
            schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
            Ok(())
        })?;
    }
    Ok(Output::of(item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::testing::Bench;

    fn crd(version: &str, preserve: bool) -> Value {
        json!({"apiVersion": format!("apiextensions.k8s.io/{version}"), "spec": {"preserveUnknownFields": preserve,
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}, {"name": "v2"}]}})
    }

    fn run(item: Value) -> Value {
        Bench::new().run("velero.io/crd-preserve-fields", item).unwrap().item
    }

    /// restore-semantics 7.1 `crd-preserve-fields`
    #[test]
    fn preserving_unknown_fields_moves_into_the_root_of_each_schema() {
        let spec = &run(crd("v1", true))["spec"];
        assert!(spec.get("preserveUnknownFields").is_none());
        let root = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(spec["versions"][0]["schema"]["openAPIV3Schema"], root);
        assert_eq!(spec["versions"][1]["schema"]["openAPIV3Schema"], root);
    }

    /// restore-semantics 7.1 `crd-preserve-fields`
    #[test]
    fn other_definitions_stay_as_they_are() {
        assert_eq!(run(crd("v1", false)), crd("v1", false));
        assert_eq!(run(crd("v1beta1", true)), crd("v1beta1", true));
    }
}
