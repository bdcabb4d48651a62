//! The feature `EnableAPIGroupVersions` (restore-semantics 2.5, 3.4): which of several versions of an item is restored.

use http::Method;
use reprise::archive::testing::Backup;
use reprise::engine::versions;
use serde_json::{Value, json};

use super::client::{Fate, tampered};
use super::served::{Served, until};
use super::world::World;
use crate::support::random_suffix;

/// A backup of one widget, made where v1 was preferred and v1beta1 was served too; each file says where it stands.
fn backup(group: &str, namespace: &str) -> Backup {
    let widget = |version: &str| {
        json!({"apiVersion": format!("{group}/{version}"), "kind": "Widget",
            "metadata": {"name": "w", "namespace": namespace}, "spec": {"from": version}})
    };
    Backup::new()
        .with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        .with(widget("v1"))
        .with_file(
            &format!("resources/widgets.{group}/v1beta1/namespaces/{namespace}/w.json"),
            widget("v1beta1").to_string(),
        )
}

fn definition(group: &str) -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

async fn serve(world: &World, feature: bool) -> Served {
    let mut options = world.options(world.client.clone());
    options.settings.features.extend(feature.then(|| versions::FEATURE.to_owned()));
    Served::start(options).await
}

/// The version whose file was restored, by a service with or without the feature.
async fn restored(world: &World, group: &str, name: &str, feature: bool) -> Value {
    let namespace = format!("{name}-{}", random_suffix());
    world.add_backup(name, &backup(group, &namespace)).await;
    let served = serve(world, feature).await;
    served.run(name).await;
    served.stop().await;
    let status = world.restore(name).await["status"].clone();
    assert_eq!(status["phase"], "Completed", "{status}");
    let path = format!("/apis/{group}/v1/namespaces/{namespace}/widgets/w");
    world.get(&path).await.unwrap_or_else(|| panic!("no widget of {name}"))["spec"]["from"].clone()
}

async fn the_user_s_order_chooses(world: &World) {
    let group = format!("{}.example.com", random_suffix());
    world.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(&group)).await;
    for version in ["v1", "v1beta1"] {
        // A new kind is refused for a moment, first as unknown and then as not ready.
        let widgets = format!("/apis/{group}/{version}/widgets");
        until("the widgets are served", async || world.ask(Method::GET, &widgets, None).await.ok()).await;
    }
    let config_maps = format!("/api/v1/namespaces/{}/configmaps", world.namespace());
    let order = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "enableapigroupversions"},
        "data": {"restoreResourcesVersionPriority": format!("nonsense\nwidgets.{group} = v9, v1beta1, v1\n")}});
    // Without a wish the target's own preference holds, which is v1; without the feature nobody asks.
    assert_eq!(restored(world, &group, "no-wish", true).await, "v1");
    world.create(&config_maps, &order).await;
    assert_eq!(restored(world, &group, "no-feature", false).await, "v1");
    assert_eq!(restored(world, &group, "wish", true).await, "v1beta1");

    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{group}");
    world.ask(Method::DELETE, &path, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_s_order_chooses_in_the_sandbox() {
    the_user_s_order_chooses(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_s_order_chooses_on_the_real_api_server() {
    if let Some(world) = World::cluster("versions").await {
        the_user_s_order_chooses(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_cannot_be_read_ends_the_restore_with_an_error() {
    // restore-semantics 3.4, last sentence
    let world = World::sandbox().await;
    world.add_backup("nightly", &backup("example.com", "shop")).await;
    let forbids = |_: &Method, path: &str| {
        if path.ends_with("/configmaps/enableapigroupversions") { Fate::Refused(403, None) } else { Fate::Pass }
    };
    let mut options = world.options(tampered(&world.client, forbids));
    options.settings.features.insert(versions::FEATURE.to_owned());
    let served = Served::start(options).await;
    served.run("nightly").await;
    let status = world.restore("nightly").await["status"].clone();
    assert_eq!((&status["phase"], &status["errors"]), (&json!("PartiallyFailed"), &json!(1)), "{status}");
    let results = served.results("nightly").await;
    let message = &results.errors[0].message;
    assert!(
        message.starts_with("choosing API version to restore: ConfigMap velero/enableapigroupversions"),
        "{message}"
    );
    assert!(world.get("/api/v1/namespaces/shop").await.is_none(), "nothing is restored");
    served.stop().await;
}
