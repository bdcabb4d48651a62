//! The definitions of Velero's kinds, for API servers that lack them (the sandbox).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The definitions of every kind in this module, as near to Velero's own as matters for accepting and refusing.
///
/// Prefer it to `Kind::crd()`: Velero's kinds have **no status subresource** and require no `spec`, which kube's derive
/// cannot express.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        super::Backup::crd(),
        super::BackupRepository::crd(),
        super::BackupStorageLocation::crd(),
        super::DataDownload::crd(),
        super::DataUpload::crd(),
        super::DownloadRequest::crd(),
        super::PodVolumeBackup::crd(),
        super::PodVolumeRestore::crd(),
        super::Restore::crd(),
        super::VolumeSnapshotLocation::crd(),
    ]
    .into_iter()
    .map(as_velero_defines_it)
    .collect()
}

fn as_velero_defines_it(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        version.subresources = None;
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema.required = None;
            let properties = schema.properties.get_or_insert_default();
            for (name, type_) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
                let property = JSONSchemaProps { type_: Some(type_.to_owned()), ..JSONSchemaProps::default() };
                properties.insert(name.to_owned(), property);
            }
            if let Some(status) = properties.get_mut("status") {
                status.nullable = None;
            }
            simplify(schema);
        }
    }
    crd
}

/// Drops what the derive adds and Velero's schemas do not have: defaults, which the API server would write into
/// objects, and bounds that come from the width of Rust's integers.
fn simplify(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.title = None;
    if schema.type_.as_deref() == Some("integer") {
        schema.format = None;
        schema.minimum = None;
        schema.maximum = None;
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(simplify);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => simplify(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(simplify),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        simplify(values);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::{Map, Value};

    use super::*;

    /// Velero's own definitions, without their descriptions.
    const REAL: [&str; 10] = [
        include_str!("../../tests/data/velero-crds/backups.yaml"),
        include_str!("../../tests/data/velero-crds/backuprepositories.yaml"),
        include_str!("../../tests/data/velero-crds/backupstoragelocations.yaml"),
        include_str!("../../tests/data/velero-crds/datadownloads.yaml"),
        include_str!("../../tests/data/velero-crds/datauploads.yaml"),
        include_str!("../../tests/data/velero-crds/downloadrequests.yaml"),
        include_str!("../../tests/data/velero-crds/podvolumebackups.yaml"),
        include_str!("../../tests/data/velero-crds/podvolumerestores.yaml"),
        include_str!("../../tests/data/velero-crds/restores.yaml"),
        include_str!("../../tests/data/velero-crds/volumesnapshotlocations.yaml"),
    ];

    /// What decides whether an object is accepted; the order of lists that are sets is evened out.
    fn essence(schema: &Value) -> Value {
        let Value::Object(schema) = schema else { return schema.clone() };
        let mut kept = Map::new();
        for (key, value) in schema {
            let value = match key.as_str() {
                "properties" => {
                    let properties = value.as_object().unwrap();
                    properties.iter().map(|(name, schema)| (name.clone(), essence(schema))).collect()
                }
                "items" | "additionalProperties" => essence(value),
                "required" | "enum" => {
                    let mut values = value.as_array().unwrap().clone();
                    values.sort_by_key(ToString::to_string);
                    values.into()
                }
                "format" if schema.get("type").is_some_and(|type_| type_ == "integer") => continue,
                "format" | "type" | "nullable" | "minItems" | "x-kubernetes-preserve-unknown-fields" => value.clone(),
                // Said of server-side apply, or by the API server's own types; it refuses nothing.
                "description" | "default" | "x-kubernetes-map-type" | "x-kubernetes-list-type" => continue,
                other => panic!("{other} is not looked at by this test"),
            };
            kept.insert(key.clone(), value);
        }
        Value::Object(kept)
    }

    #[test]
    fn derived_definitions_accept_and_refuse_what_velero_s_own_do() {
        let derived = crds();
        assert_eq!(derived.len(), REAL.len());
        for (derived, real) in derived.iter().zip(REAL) {
            let real: Value = serde_yaml_ng::from_str(real).unwrap();
            let derived = serde_json::to_value(derived).unwrap();
            let name = derived["metadata"]["name"].as_str().unwrap();
            assert_eq!(derived["metadata"]["name"], real["metadata"]["name"]);
            for part in ["group", "names", "scope"] {
                assert_eq!(derived["spec"][part], real["spec"][part], "{part} of {name}");
            }
            let (derived, real) = (&derived["spec"]["versions"], &real["spec"]["versions"]);
            assert_eq!((derived.as_array().unwrap().len(), real.as_array().unwrap().len()), (1, 1), "{name}");
            for part in ["name", "served", "storage", "additionalPrinterColumns"] {
                assert_eq!(derived[0][part], real[0][part], "{part} of {name}");
            }
            assert!(derived[0].get("subresources").is_none_or(|subresources| subresources == &serde_json::json!({})));
            let essence = |version: &Value| essence(&version["schema"]["openAPIV3Schema"]);
            let text = |value: Value| serde_json::to_string_pretty(&value).unwrap();
            similar(&text(essence(&derived[0])), &text(essence(&real[0])), name);
        }
    }

    /// Compares line by line, so that a failure names the property and not two pages of JSON.
    fn similar(derived: &str, real: &str, name: &str) {
        for (number, (derived, real)) in derived.lines().zip(real.lines()).enumerate() {
            assert_eq!(derived, real, "schema of {name}, line {number}");
        }
        assert_eq!(derived.lines().count(), real.lines().count(), "schema of {name}");
    }
}
