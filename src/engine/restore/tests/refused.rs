//! What is refused rather than left out in silence; goes when it is done.

use serde_json::{Value, json};

use super::world::{World, namespace};
use crate::archive::testing::Backup;

fn pod(annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i"}]},
        "metadata": {"name": "p", "namespace": "shop", "annotations": annotations}})
}

/// restore-semantics 5.13; velero-differences: pod-volumes-are-refused
#[tokio::test(start_paused = true)]
async fn a_pod_with_pod_volume_backups_is_created_and_its_volumes_are_an_error() {
    let backup = |pod: &str, snapshot: &str| json!({"spec": {"pod": {"namespace": "shop", "name": pod}, "volume": "data"}, "status": {"snapshotID": snapshot}});
    for (backups, errors) in [(vec![backup("p", "s")], 1), (vec![backup("q", "s"), backup("p", "")], 0)] {
        let done = World::of(Backup::new().with(pod(json!({}))))
            .live(&namespace("shop"))
            .job(|job| job.volumes.pod_volume_backups = backups)
            .run()
            .await;
        assert_eq!(done.listed(), ["v1/Pod shop/p(created)"]);
        assert!(done.object("pods", "shop", "p")["spec"].get("initContainers").is_none());
        let found = done.errors();
        assert_eq!(found.len(), errors, "{found:?}");
        assert!(found.iter().all(|(bucket, text)| bucket == "velero" && text.contains("volumes data")), "{found:?}");
    }
}

/// restore-semantics 5.12; velero-differences: exec-hooks-are-refused
#[tokio::test(start_paused = true)]
async fn a_pod_with_exec_hooks_is_created_and_its_hooks_are_an_error() {
    let hook =
        |namespace: &str| json!({"includedNamespaces": [namespace], "postHooks": [{"exec": {"command": ["c"]}}]});
    let command = json!({"post.hook.restore.velero.io/command": "true"});
    for (annotations, hooks, errors) in
        [(command, vec![], 1), (json!({}), vec![hook("shop")], 1), (json!({}), vec![hook("bank")], 0)]
    {
        let done = World::of(Backup::new().with(pod(annotations)))
            .live(&namespace("shop"))
            .spec(|spec| spec.hooks = hooks)
            .run()
            .await;
        assert_eq!(done.listed(), ["v1/Pod shop/p(created)"]);
        let found = done.errors();
        assert_eq!(found.len(), errors, "{found:?}");
        assert!(found.iter().all(|(bucket, text)| bucket == "ns shop" && text.contains("exec hooks")), "{found:?}");
    }
}
