//! A run that is stopped in its midst, for whatever cause.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::world::{World, config, namespace};
use crate::archive::testing::Backup;
use crate::model::{Outcome, Reason};

/// velero-differences: restores-can-be-cancelled
#[tokio::test(start_paused = true)]
async fn items_in_flight_are_finished_and_the_others_are_skipped() {
    let stop = CancellationToken::new();
    let fire = stop.clone();
    let backup = Backup::new().with(namespace("shop")).with_all(["a", "b", "c", "d", "e"].map(config));
    let world =
        World::of(backup).stopped_by(stop).job(|job| job.settings.concurrency = 2).meddled(move |request, _| {
            if request == "create configmaps/shop/b" {
                fire.cancel();
            }
        });
    let done = world.run().await;
    assert!(done.report.cancelled && done.is_clean(), "to be stopped is no error of an item");
    let created: Vec<_> = done.requested("create configmaps");
    for item in ["a", "b", "c", "d", "e"] {
        let ended = done.ended(&format!("v1/ConfigMap shop/{item}"));
        let was_tried = created.contains(&format!("create configmaps/shop/{item}"));
        let expected = if was_tried { (Outcome::Created, None) } else { (Outcome::Skipped, Some(Reason::Cancelled)) };
        assert_eq!((ended.outcome, ended.reason), expected, "{item}: {created:?}");
    }
    assert!((2..=3).contains(&created.len()), "{created:?}");
    assert_eq!(done.report.never_begun, 5 - created.len());
    assert_eq!(done.report.restored, created.len() + 1, "and the namespace");
    assert_eq!(done.listed().len(), done.report.restored);
}

#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_is_no_longer_waited_for() {
    let stop = CancellationToken::new();
    let mut shop = namespace("shop");
    shop["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let backup = Backup::new().with_all([namespace("shop"), config("a"), config("b")]);
    let world = World::of(backup).live(&shop).stopped_by(stop.clone());
    let patience = world.job.settings.terminating_resource_timeout;
    let done = world
        .run_while(async |_| {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            stop.cancel();
        })
        .await;
    assert!(done.took < patience, "{:?}", done.took);
    assert!(done.is_clean(), "{:?}", done.errors());
    for item in ["a", "b"] {
        let ended = done.ended(&format!("v1/ConfigMap shop/{item}"));
        assert_eq!((ended.outcome, ended.reason), (Outcome::Skipped, Some(Reason::Cancelled)));
    }
    assert_eq!((done.report.never_begun, done.report.restored), (2, 0));
}
