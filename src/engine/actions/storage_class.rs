//! Storage classes by plugin configuration (restore-semantics 7.1, `change-storage-class`).

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};

use super::config::{Lookup, PluginConfig};
use super::{Error, Input, Output, fields};

pub(super) const NAME: &str = "velero.io/change-storage-class";

/// Where a class stands.
const CLASS: &str = "spec.storageClassName";

/// Gives claims, volumes and claim templates the class that the configuration maps theirs to.
pub(super) fn change_storage_class(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let mut item = input.item;
        let lookup = input.context.lookup;
        let Some(config) = lookup.config(NAME)? else { return Ok(Output::of(item)) };
        let mut notes = Vec::new();
        if fields::text_or_empty(&item, "kind")? == "StatefulSet" {
            const TEMPLATES: &str = "spec.volumeClaimTemplates";
            fields::each(&item, TEMPLATES, |template| fields::text(template, CLASS).map(|_| ()))?;
            for template in fields::list_mut(&mut item, TEMPLATES)?.into_iter().flatten() {
                change(template, config, lookup, &mut notes).await?;
            }
        } else {
            change(&mut item, config, lookup, &mut notes).await?;
        }
        Ok(Output { notes, ..Output::of(item) })
    }
    .boxed()
}

async fn change(
    object: &mut Value,
    config: &PluginConfig,
    lookup: &Lookup,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let class = fields::text_or_empty(object, CLASS)?;
    if class.is_empty() {
        return Ok(());
    }
    if let Some(new_class) = config.get(class) {
        lookup.require_storage_class(new_class).await?;
        notes.push(format!("changing the storage class {class} to {new_class}"));
        fields::set(object, CLASS, json!(new_class))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::{Bench, plugin_config};
    use super::*;
    use crate::model::Reason;

    fn bench() -> Bench {
        Bench::new()
            .with(plugin_config("classes", NAME, json!({"old": "new", "gone": "missing"})))
            .with(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "new"}}))
    }

    fn claim(class: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "spec": {"storageClassName": class}})
    }

    /// restore-semantics 7.1 `change-storage-class`
    #[test]
    fn claims_volumes_and_claim_templates_get_the_mapped_class() {
        assert_eq!(bench().run(NAME, claim("old")).unwrap().item, claim("new"));
        assert_eq!(bench().run(NAME, claim("unrelated")).unwrap().item, claim("unrelated"));
        assert_eq!(bench().run(NAME, claim("")).unwrap().item, claim(""));
        let set = |class: &str| {
            json!({"kind": "StatefulSet", "spec": {"volumeClaimTemplates":
                [{"spec": {"storageClassName": class}}, {"spec": {"storageClassName": "unrelated"}}, {"spec": {}}]}})
        };
        assert_eq!(bench().run(NAME, set("old")).unwrap().item, set("new"));
    }

    /// restore-semantics 7.1 `change-storage-class`
    #[test]
    fn a_class_that_is_not_there_fails_the_item_with_veleros_words() {
        let error = bench().run(NAME, claim("gone")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error getting storage class missing from API: storageclasses.storage.k8s.io \"missing\" not found"
        );
        assert_eq!(error.reason(), Reason::NotFound);
    }

    #[test]
    fn the_same_class_is_asked_for_once() {
        let bench = bench();
        let items = [claim("old"), claim("old"), claim("old")];
        bench.run_all(NAME, &items).into_iter().for_each(|output| assert_eq!(output.unwrap().item, claim("new")));
        assert_eq!(bench.requests().iter().filter(|request| request.contains("storageclasses")).count(), 1);
    }
}
