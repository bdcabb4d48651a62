//! Tests of the tracker by properties, and of the streams under a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod streams;
mod tracker;

use std::time::Duration;

use crate::engine::events::{Finished, KnownItem, VeleroCount};
use crate::model::{ItemId, ItemKey, Origin, Outcome, Reason, Stage};

fn known(id: u32, origin: Origin) -> KnownItem {
    let (resource, kind) =
        [("pods", "Pod"), ("secrets", "Secret"), ("customresourcedefinitions", "CRD")][id as usize % 3];
    let stage = if kind == "CRD" { Stage::CustomResourceDefinitions } else { Stage::Items };
    let namespace = if kind == "CRD" { String::new() } else { format!("ns-{}", id % 4) };
    KnownItem {
        id: ItemId(id),
        group_resource: resource.into(),
        key: ItemKey::new("v1", kind, &namespace, &format!("item-{id}")),
        stage,
        origin,
    }
}

fn planned(ids: std::ops::Range<u32>) -> Vec<KnownItem> {
    ids.map(|id| known(id, Origin::Planned)).collect()
}

fn ended(id: u32, outcome: Outcome, velero: VeleroCount) -> Finished {
    Finished {
        id: ItemId(id),
        outcome,
        reason: (outcome == Outcome::Failed).then_some(Reason::Quota),
        message: None,
        attempts: 1,
        duration: Duration::from_millis(3),
        velero,
    }
}

fn created(id: u32) -> Finished {
    ended(id, Outcome::Created, VeleroCount::Restored)
}
