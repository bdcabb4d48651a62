//! Contracts about CRDs and the objects of their kinds.

use super::*;

/// A CRD of a group of its own, so that tests do not meet.
fn thing_crd(group: &str, status: bool) -> Value {
    let mut version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": { "type": "object", "required": ["size"], "properties": {
                "size": { "type": "integer", "minimum": 1 },
                "color": { "type": "string", "enum": ["red", "blue"], "default": "red" },
                "names": { "type": "array", "items": { "type": "string", "pattern": "^[a-z]+$" } },
                "maybe": { "type": "string", "nullable": true },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            } },
            "status": { "type": "object", "properties": { "phase": { "type": "string" } } },
        } } },
    });
    if status {
        version["subresources"] = json!({ "status": {} });
    }
    json!({
        "metadata": { "name": format!("things.{group}") },
        "spec": { "group": group, "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [version] },
    })
}

struct Things {
    api: Api<DynamicObject>,
    resource: ApiResource,
    group: String,
}

impl Things {
    /// Installs the CRD and waits until its objects can be listed.
    async fn install(client: &Client, status: bool) -> Self {
        let namespace = fresh_namespace(client).await;
        // The namespace's random suffix makes the group unique.
        let group = format!("{namespace}.example.com");
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        crds.create(&PostParams::default(), &object(thing_crd(&group, status))).await.unwrap();
        eventually("an established CRD", async || {
            let crd = crds.get(&format!("things.{group}")).await.unwrap();
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|one| one.type_ == "Established" && one.status == "True").then_some(())
        })
        .await;
        let gvk = kube::core::GroupVersionKind::gvk(&group, "v1", "Thing");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "things");
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
        eventually("a served kind", async || api.list(&ListParams::default()).await.ok()).await;
        Self { api, resource, group }
    }

    fn thing(&self, name: &str, spec: Value) -> DynamicObject {
        DynamicObject::new(name, &self.resource).data(json!({ "spec": spec, "status": { "phase": "Sent" } }))
    }

    async fn create(&self, name: &str, spec: Value) -> Result<DynamicObject, kube::Error> {
        self.api.create(&PostParams::default(), &self.thing(name, spec)).await
    }
}

pub(super) async fn a_crd_brings_a_kind_at_run_time(client: Client) {
    let things = Things::install(&client, true).await;
    eventually("the kind in discovery", async || {
        let found = kube::discovery::group(&client, &things.group).await.ok()?;
        found.recommended_kind("Thing").map(|(resource, _)| assert_eq!(resource.plural, "things"))
    })
    .await;
    eventually("the kind in aggregated discovery", async || {
        let found = client.list_api_groups_aggregated().await.ok()?;
        let named = |group: &kube::core::discovery::v2::APIGroupDiscovery| {
            group.metadata.as_ref().and_then(|own| own.name.as_deref()) == Some(things.group.as_str())
        };
        found.items.iter().any(named).then_some(())
    })
    .await;
    let created = things.create("a", json!({ "size": 3, "unknown": 1, "free": { "any": 1 } })).await.unwrap();
    let wanted = json!({ "size": 3, "color": "red", "free": { "any": 1 } });
    assert_eq!(created.data["spec"], wanted, "unknown fields are pruned, defaults filled in");
    assert_eq!(created.metadata.generation, Some(1));
    let listed = things.api.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].types.as_ref().unwrap().kind, "Thing", "items of custom lists name their kind");
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("things.{}", things.group);
    crds.delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the end of the CRD", async || crds.get_opt(&name).await.unwrap().is_none().then_some(())).await;
    eventually("the end of its kind", async || {
        things.api.list(&ListParams::default()).await.err().map(|error| assert_eq!(refusal::<()>(Err(error)).code, 404))
    })
    .await;
}

pub(super) async fn custom_objects_are_validated_by_their_schema(client: Client) {
    let things = Things::install(&client, true).await;
    let group = &things.group;
    for (spec, words) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({ "size": "3" }),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({ "size": 0 }), "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        (
            json!({ "size": 1, "color": "green" }),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({ "size": 1, "names": ["A"] }),
            "spec.names[0]: Invalid value: \"A\": spec.names[0] in body should match '^[a-z]+$'",
        ),
    ] {
        let refused = things.create("a", spec).await;
        assert_refused(refused, 422, "Invalid", &format!("Thing.{group} \"a\" is invalid: {words}"));
    }
    let status = refusal(things.create("a", json!({})).await);
    let causes = status.details.unwrap().causes;
    assert_eq!((causes[0].reason.as_str(), causes[0].field.as_str()), ("FieldValueRequired", "spec.size"));
    things.create("a", json!({ "size": 1, "maybe": null })).await.unwrap();
    let mut wrong = things.thing("b", json!({ "size": 1 }));
    wrong.types.as_mut().unwrap().kind = "Other".to_owned();
    let refused = things.api.create(&PostParams::default(), &wrong).await;
    assert_refused(
        refused,
        422,
        "Invalid",
        &format!("Other.{group} \"b\" is invalid: kind: Invalid value: \"Other\": must be Thing"),
    );
    let mut wrong = things.thing("b", json!({ "size": 1 }));
    wrong.types.as_mut().unwrap().api_version = "example.com/v9".to_owned();
    let refused = things.api.create(&PostParams::default(), &wrong).await;
    assert_refused(refused, 400, "BadRequest", "the API version in the data (example.com/v9) does not match");
}

pub(super) async fn a_custom_kind_with_a_status_subresource_keeps_it_apart(client: Client) {
    let things = Things::install(&client, true).await;
    let created = things.create("a", json!({ "size": 1 })).await.unwrap();
    assert!(created.data.get("status").is_none(), "dropped on create");
    let patch = merge(json!({ "spec": { "size": 2 }, "status": { "phase": "Done" } }));
    let main = things.api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((&main.data["spec"]["size"], main.data.get("status")), (&json!(2), None));
    assert_eq!(main.metadata.generation, Some(2));
    let patch = merge(json!({ "spec": { "size": 3 }, "status": { "phase": "Done" } }));
    let status = things.api.patch_status("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((&status.data["spec"]["size"], &status.data["status"]["phase"]), (&json!(2), &json!("Done")));
    assert_eq!(status.metadata.generation, Some(2));
}

/// Velero's Restore is such a kind.
pub(super) async fn a_custom_kind_without_a_status_subresource_takes_it_like_any_field(client: Client) {
    let things = Things::install(&client, false).await;
    let created = things.create("a", json!({ "size": 1 })).await.unwrap();
    assert_eq!(created.data["status"]["phase"], "Sent");
    let patch = merge(json!({ "status": { "phase": "Done" } }));
    let patched = things.api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((&patched.data["status"]["phase"], patched.metadata.generation), (&json!("Done"), Some(2)));
    assert_eq!(refusal(things.api.patch_status("a", &PatchParams::default(), &patch).await).code, 404);
}

pub(super) async fn a_custom_kind_is_replaced_at_a_revision_and_takes_no_strategic_patch(client: Client) {
    let things = Things::install(&client, true).await;
    things.create("a", json!({ "size": 1 })).await.unwrap();
    let blind = things.api.replace("a", &PostParams::default(), &things.thing("a", json!({ "size": 2 }))).await;
    let status = refusal(blind);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(status.message.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"));
    let patch = Patch::Strategic(json!({ "spec": { "size": 2 } }));
    let refused = things.api.patch("a", &PatchParams::default(), &patch).await;
    assert_refused(refused, 415, "UnsupportedMediaType", "the body of the request was in an unknown format");
}
