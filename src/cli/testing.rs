//! Values for the tests of the command line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::model::{
    Counts, GroupResource, ItemId, ItemKey, ItemState, Origin, Outcome, Phase, Progress, Reason, Stage, TimeLeft,
};
use crate::service::RestoreView;

/// A restore of 3,000 items, at three fifths.
pub(super) fn progress() -> Progress {
    let outcomes = Counts { pending: 1_200, created: 1_700, updated: 0, unchanged: 40, skipped: 50, failed: 10 };
    Progress {
        sequence: 1_800,
        phase: Phase::InProgress,
        stage: Stage::Items,
        total_items: 2_950,
        items_restored: 1_750,
        outcomes,
        added: 3,
        stages: BTreeMap::from([(Stage::Items, outcomes)]),
        resources: BTreeMap::from([(GroupResource::parse("configmaps"), outcomes)]),
        namespaces: BTreeMap::from([("shop".to_owned(), outcomes)]),
        failures: BTreeMap::from([(Reason::Conflict, 10)]),
        warnings: 10,
        errors: 1,
        items_per_second: Some(450.0),
        started_at: "2026-03-02T04:05:06Z".parse().ok(),
        elapsed_seconds: 4.5,
        last_progress_at: "2026-03-02T04:05:10.5Z".parse().ok(),
        time_left: Some(TimeLeft { low_seconds: 2, high_seconds: 4 }),
        waiting_for: Vec::new(),
        failure_reason: None,
    }
}

/// Its Restore.
pub(super) fn view() -> RestoreView {
    let map = |key: &str| BTreeMap::from([(key.to_owned(), "b".to_owned())]);
    RestoreView {
        name: "again".to_owned(),
        namespace: "velero".to_owned(),
        uid: "u".to_owned(),
        backup_name: "nightly".to_owned(),
        spec: json!({"backupName": "nightly", "includedNamespaces": ["shop"]}),
        labels: map("l"),
        annotations: map("a"),
        phase: Phase::InProgress,
        validation_errors: Vec::new(),
        failure_reason: None,
        warnings: 10,
        errors: 1,
        created_at: "2026-03-02T04:05:05Z".parse().ok(),
        started_at: "2026-03-02T04:05:06Z".parse().ok(),
        completed_at: None,
        progress: Arc::new(progress()),
        queue_position: Some(2),
        sandbox: true,
    }
}

/// One of its items, a ConfigMap.
pub(super) fn item(name: &str, outcome: Outcome, reason: Option<Reason>) -> ItemState {
    ItemState {
        id: ItemId(7),
        group_resource: GroupResource::parse("configmaps"),
        key: ItemKey::new("v1", "ConfigMap", "shop", name),
        origin: Origin::Planned,
        outcome,
        reason,
        message: reason.map(|_| "the API server said no".to_owned()),
        attempts: 1,
        duration: Duration::from_millis(12),
    }
}
