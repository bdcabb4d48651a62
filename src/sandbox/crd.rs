//! CustomResourceDefinitions: their rules, and the resources they bring.

use std::sync::Arc;

use serde_json::{Value, json};

use super::names;
use super::registry::{Resource, TableId, Version, priority};
use super::schema::Schema;
use super::state::State;
use super::status::Cause;

/// Group and plural of the resource that defines others.
pub(super) const GROUP: &str = "apiextensions.k8s.io";
/// The plural of CRDs.
pub(super) const PLURAL: &str = "customresourcedefinitions";
/// The finalizer that holds a CRD until its objects are gone.
pub(super) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Fills in the names and the conversion that may be left out.
pub(super) fn fill(crd: &mut Value) {
    let kind = text(crd, "/spec/names/kind").to_owned();
    if kind.is_empty() {
        return;
    }
    if let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
        names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    }
    if let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    }
}

/// The status of a CRD nobody has looked at yet.
pub(super) fn first_status(crd: &Value) -> Value {
    json!({ "acceptedNames": { "kind": "", "plural": "" }, "conditions": null, "storedVersions": storage_versions(crd) })
}

fn storage_versions(crd: &Value) -> Vec<&str> {
    list(crd, "/spec/versions")
        .iter()
        .filter(|version| flag(version, "storage"))
        .map(|one| text(one, "/name"))
        .collect()
}

/// The faults of a CRD.
pub(super) fn check(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (text(crd, "/spec/group"), text(crd, "/spec/names/plural"));
    for (pointer, field) in [
        ("/spec/names/singular", "spec.names.singular"),
        ("/spec/names/listKind", "spec.names.listKind"),
        ("/spec/group", "spec.group"),
        ("/spec/scope", "spec.scope"),
        ("/spec/names/plural", "spec.names.plural"),
        ("/spec/names/kind", "spec.names.kind"),
    ] {
        if text(crd, pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let name = text(crd, "/metadata/name");
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    if !group.is_empty() {
        causes.extend(names::subdomain(group).iter().map(|why| Cause::invalid("spec.group", &json!(group), why)));
        if !group.contains('.') {
            causes.push(Cause::invalid("spec.group", &json!(group), "should be a domain with at least one dot"));
        }
    }
    let scope = text(crd, "/spec/scope");
    if !matches!(scope, "" | "Namespaced" | "Cluster") {
        let allowed = ["Cluster".to_owned(), "Namespaced".to_owned()];
        causes.push(Cause::unsupported("spec.scope", &json!(scope), &allowed));
    }
    let versions = list(crd, "/spec/versions");
    if storage_versions(crd).len() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!(versions), why));
    }
    for (at, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        match version.pointer("/schema/openAPIV3Schema") {
            Some(schema) => {
                let root = format!("{path}.schema.openAPIV3Schema");
                if text(schema, "/type") != "object" {
                    let why = "must be object at the root";
                    causes.push(Cause::invalid(format!("{root}.type"), &json!(text(schema, "/type")), why));
                }
                if let Err(why) = Schema::parse(schema, &root) {
                    causes.push(Cause::invalid(root, &json!(""), &why));
                }
            }
            None => causes.push(Cause::required(format!("{path}.schema.openAPIV3Schema"), "")),
        }
    }
    causes
}

/// The resource a CRD describes; schemas that do not parse were refused before.
fn resource(crd: &Value, table: TableId) -> Resource {
    let mut versions: Vec<Version> = list(crd, "/spec/versions")
        .iter()
        .filter(|version| flag(version, "served"))
        .map(|version| Version {
            name: text(version, "/name").to_owned(),
            status: version.pointer("/subresources/status").is_some(),
            schema: version
                .pointer("/schema/openAPIV3Schema")
                .and_then(|schema| Schema::parse(schema, "").ok())
                .map(Arc::new),
            selectable: list(version, "/selectableFields")
                .iter()
                .map(|one| text(one, "/jsonPath").trim_start_matches('.').to_owned())
                .collect(),
        })
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    Resource {
        group: text(crd, "/spec/group").to_owned(),
        plural: text(crd, "/spec/names/plural").to_owned(),
        singular: text(crd, "/spec/names/singular").to_owned(),
        kind: text(crd, "/spec/names/kind").to_owned(),
        list_kind: text(crd, "/spec/names/listKind").to_owned(),
        namespaced: text(crd, "/spec/scope") == "Namespaced",
        short: texts(crd, "/spec/names/shortNames"),
        categories: texts(crd, "/spec/names/categories"),
        versions,
        generation: true,
        review: false,
        custom: true,
        table,
    }
}

fn condition(kind: &str, yes: bool, reason: &str, message: &str, now: &str) -> Value {
    json!({ "type": kind, "status": if yes { "True" } else { "False" }, "reason": reason, "message": message,
        "lastTransitionTime": now })
}

/// Whether the CRD has the condition with status `True`.
pub(super) fn has_condition(crd: &Value, kind: &str) -> bool {
    list(crd, "/status/conditions").iter().any(|one| text(one, "/type") == kind && text(one, "/status") == "True")
}

impl State {
    /// Accepts a CRD's names and serves its resource, as the API server's controllers do after the create.
    pub(super) fn establish(&mut self, name: &str) {
        let Some(table) = self.crd_table() else { return };
        let Some(stored) = self.store.get(table, &super::store::key(None, name)) else { return };
        let mut crd = (*stored).clone();
        let now = self.now();
        let (group, plural) = (text(&crd, "/spec/group").to_owned(), text(&crd, "/spec/names/plural").to_owned());
        let kind = text(&crd, "/spec/names/kind").to_owned();
        let rival = self.registry.group(&group).and_then(|group| {
            group.resources.values().find(|one| one.plural != plural && (one.kind == kind || one.list_kind == kind))
        });
        if let Some(rival) = rival {
            let message = format!("\"{kind}\" is already in use by {}", rival.plural);
            crd["status"]["conditions"] = json!([
                condition("NamesAccepted", false, "KindConflict", &message, &now),
                condition("Established", false, "NotAccepted", "not all names are accepted", &now),
            ]);
        } else {
            if !has_condition(&crd, "Established") {
                crd["status"]["conditions"] = json!([
                    condition("NamesAccepted", true, "NoConflicts", "no conflicts found", &now),
                    condition(
                        "Established",
                        true,
                        "InitialNamesAccepted",
                        "the initial names have been accepted",
                        &now
                    ),
                ]);
            }
            crd["status"]["acceptedNames"] = crd["spec"]["names"].clone();
            let mut kept = texts(&crd, "/status/storedVersions");
            let new = storage_versions(&crd).into_iter().map(str::to_owned).collect::<Vec<_>>();
            kept.extend(new.into_iter().filter(|one| !texts(&crd, "/status/storedVersions").contains(one)));
            crd["status"]["storedVersions"] = json!(kept);
            let objects = self.registry.table(&group, &plural);
            self.registry.add(resource(&crd, objects), false);
        }
        if crd != *stored {
            self.store.put(table, super::store::key(None, name), crd);
        }
    }

    /// The table of CRDs.
    pub(super) fn crd_table(&self) -> Option<TableId> {
        self.registry.resource(GROUP, PLURAL).map(|resource| resource.table)
    }

    /// Whether the CRD of a custom resource is on its way out.
    pub(super) fn crd_is_terminating(&self, group: &str, plural: &str) -> bool {
        let key = super::store::key(None, &format!("{plural}.{group}"));
        let crd = self.crd_table().and_then(|table| self.store.get(table, &key));
        crd.is_some_and(|crd| crd.pointer("/metadata/deletionTimestamp").is_some())
    }

    /// Removes a terminating CRD whose objects are gone.
    pub(super) fn finish_crd(&mut self, group: &str, plural: &str) {
        let Some(table) = self.crd_table() else { return };
        let key = super::store::key(None, &format!("{plural}.{group}"));
        let Some(crd) = self.store.get(table, &key) else { return };
        let objects = self.registry.table(group, plural);
        if crd.pointer("/metadata/deletionTimestamp").is_none() || !self.store.is_empty(objects, None) {
            return;
        }
        let others: Vec<String> =
            texts(&crd, "/metadata/finalizers").into_iter().filter(|one| one != CLEANUP).collect();
        self.registry.remove(group, plural);
        if others.is_empty() {
            self.store.remove(table, &key);
        } else if others.len() < list(&crd, "/metadata/finalizers").len() {
            let mut held = (*crd).clone();
            held["metadata"]["finalizers"] = json!(others);
            self.store.put(table, key, held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        json!({
            "metadata": { "name": "things.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
                "versions": [{ "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object" } }, "subresources": { "status": {} } }] },
        })
    }

    #[test]
    fn names_are_completed_and_the_resource_derived() {
        let mut crd = crd();
        fill(&mut crd);
        assert!(check(&crd).is_empty());
        let resource = resource(&crd, 1);
        assert_eq!((resource.singular.as_str(), resource.list_kind.as_str()), ("thing", "ThingList"));
        assert!(resource.namespaced && resource.versions[0].status);
    }

    #[test]
    fn a_crd_is_named_by_plural_and_group_and_has_schemas() {
        let mut crd = crd();
        fill(&mut crd);
        crd["metadata"]["name"] = json!("other.example.com");
        crd["spec"]["versions"][0]["schema"] = json!(null);
        let causes = check(&crd);
        assert_eq!(causes.len(), 2, "{causes:?}");
    }
}
