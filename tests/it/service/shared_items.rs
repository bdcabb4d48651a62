//! Items that many others want (restore-semantics 5.5).

use std::time::Duration;

use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::json;

use super::client::Creates;
use super::served::Served;
use super::world::World;

const PODS: usize = 100;

/// A hundred pods with the same claim, volume and priority class.
fn pods() -> Backup {
    let pods = (0..PODS).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{number:03}"), "namespace": "shop"},
            "spec": {
                "priorityClassName": "urgent",
                "containers": [{"name": "web", "image": "web:1"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        })
    });
    Backup::new()
        .with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .with(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "shop"},
            "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "fast",
                "resources": {"requests": {"storage": "1Gi"}}}}))
        .with(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": "urgent"}, "value": 1000}))
        .with_all(pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_that_want_the_same_claim_restore_it_once() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &pods()).await;
    let creates = Creates::default();
    // Slow enough that all who want an item ask for it while it is being created.
    let mut options = world.options(creates.counting(&world.client, Duration::from_millis(100)));
    options.settings.concurrency = PODS;
    // Pods go first, so that each of them finds its claim missing.
    options.settings.priorities = "namespaces,pods".parse().unwrap();
    let served = Served::start(options).await;
    let ended = served.run("nightly").await;
    let failed = served.items("nightly", &[pb::Outcome::Failed]).await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{failed:#?}");
    assert_eq!(creates.of("/api/v1/namespaces/shop/persistentvolumeclaims"), 1);
    assert_eq!(creates.of("/apis/scheduling.k8s.io/v1/priorityclasses"), 1);
    assert_eq!(creates.of("/api/v1/namespaces"), 1);
    assert_eq!(creates.of("/api/v1/namespaces/shop/pods"), PODS);
    let items = served.items("nightly", &[pb::Outcome::Created]).await;
    let of = |resource: &str| items.iter().filter(|item| item.group_resource == resource).count();
    assert_eq!((of("persistentvolumeclaims"), of("priorityclasses.scheduling.k8s.io"), of("pods")), (1, 1, PODS));
    assert_eq!(world.names("/api/v1/namespaces/shop/pods").await.len(), PODS);
    // Namespace, claim, class and pods: each counts once.
    let total = PODS + 3;
    assert_eq!(
        world.restore("nightly").await["status"]["progress"],
        json!({"totalItems": total, "itemsRestored": total})
    );
}
