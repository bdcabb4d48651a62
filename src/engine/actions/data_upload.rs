//! DataUploads of a backup (restore-semantics 7.1, `dataupload`): they are not restored, which would start an upload.
//! What they produced is kept in a ConfigMap, for whatever moves the data back.

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Map, Value, json};

use super::ensure::ensure_one;
use super::{Context, Error, Input, Output, data_mover, fields};
use crate::model::{Target, label};

/// Writes the result of a DataUpload down, and leaves the DataUpload out.
pub(super) fn remember(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let context = input.context;
        let config_map = result(input.item_from_backup, context)?;
        let target = Target::new("", "v1", "configmaps", context.velero_namespace);
        let upload = input.item_from_backup;
        let namespace = fields::text_or_empty(upload, "spec.sourceNamespace")?;
        let claim = fields::text_or_empty(upload, "spec.sourcePVC")?;
        // A second one, of an interrupted run or of a create without an answer, would make its claim an error.
        let selector = data_mover::result_selector(context.restore_uid, namespace, claim);
        let created = ensure_one(context.lookup.cluster(), &target, &selector, &config_map).await;
        created.map_err(|error| Error::api("create the ConfigMap of a data upload's result", &error))?;
        Ok(Output::skip(input.item))
    }
    .boxed()
}

fn result(upload: &Value, context: &Context<'_>) -> Result<Value, Error> {
    let namespace = fields::text_or_empty(upload, "spec.sourceNamespace")?;
    let claim = fields::text_or_empty(upload, "spec.sourcePVC")?;
    let location = if context.backup_storage_location.is_empty() {
        fields::text_or_empty(upload, "spec.backupStorageLocation")?
    } else {
        context.backup_storage_location
    };
    let mut data = Map::new();
    data.insert("backupStorageLocation".to_owned(), json!(location));
    data.insert("sourceNamespace".to_owned(), json!(namespace));
    for (key, path) in [
        ("datamover", "spec.datamover"),
        ("snapshotID", "status.snapshotID"),
        ("dataMoverResult", "status.dataMoverResult"),
        ("nodeOS", "status.nodeOS"),
        ("snapshotSize", "status.progress.totalBytes"),
    ] {
        if let Some(value) = fields::get(upload, path)?.filter(|value| *value != "") {
            data.insert(key.to_owned(), value.clone());
        }
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "generateName": format!("{}-", fields::name(upload)?),
            "namespace": context.velero_namespace,
            "labels": {
                label::RESTORE_UID: label::valid_name(context.restore_uid),
                "velero.io/pvc-namespace-name": label::valid_name(&format!("{namespace}.{claim}")),
                "velero.io/resource-usage": "DataUpload",
            },
        },
        "data": {context.restore_uid: Value::Object(data).to_string()},
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Bench;
    use super::*;

    /// restore-semantics 7.1 `dataupload`
    #[test]
    fn a_data_upload_becomes_a_config_map_and_is_skipped() {
        let upload = json!({"metadata": {"name": "b-x1", "namespace": "velero"},
            "spec": {"sourceNamespace": "app", "sourcePVC": "data", "datamover": "", "backupStorageLocation": "old"},
            "status": {"snapshotID": "s1", "nodeOS": "linux", "dataMoverResult": {"k": "v"}}});
        let bench = Bench::new().backed_up_as(upload.clone());
        let output = bench.run("velero.io/dataupload", json!({"metadata": {"name": "b-x1"}})).unwrap();
        assert!(output.skip);
        let created = bench.created().pop().unwrap();
        assert_eq!(created["metadata"]["generateName"], "b-x1-");
        assert_eq!(created["metadata"]["labels"]["velero.io/pvc-namespace-name"], "app.data");
        let uid = "11111111-2222-4333-8444-555555555555";
        assert_eq!(created["metadata"]["labels"]["velero.io/restore-uid"], uid);
        let data: Value = serde_json::from_str(created["data"][uid].as_str().unwrap()).unwrap();
        assert_eq!(
            data,
            json!({"backupStorageLocation": "default", "sourceNamespace": "app", "snapshotID": "s1", "nodeOS": "linux",
                "dataMoverResult": {"k": "v"}})
        );
    }
}
