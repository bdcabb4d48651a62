//! The stubs of VolumeGroupSnapshotContents that a restore made: deleted once the snapshots that needed them are ready
//! (restore-semantics 5.14 step 4).

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use crate::engine::events::{Event, Events};
use crate::engine::ports::{ApiError, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Bucket, Finding, Severity, Target, Waiting, label};

/// The pause before looking again where a watch ended, which it does on shutdown alone.
const WATCH_ENDED_PAUSE: Duration = Duration::from_secs(1);

fn stubs() -> Target {
    Target::new("groupsnapshot.storage.k8s.io", "v1beta2", "volumegroupsnapshotcontents", "")
}

fn contents() -> Target {
    Target::new("snapshot.storage.k8s.io", "v1", "volumesnapshotcontents", "")
}

/// Velero files these under a namespace that it calls `cluster`.
fn warning(message: String) -> Finding {
    Finding { severity: Severity::Warning, bucket: Bucket::Namespace("cluster".to_owned()), message }
}

/// Deletes the stubs of this restore; gives warnings. Where the kind is not served that is one, as in Velero.
pub(super) async fn clean_up(
    cluster: &dyn Cluster,
    events: &dyn Events,
    restore: &str,
    patience: Duration,
) -> Vec<Finding> {
    // The plain name, which is no label value when it is too long: Velero warns then, too.
    let selector = format!("{}={restore}", label::RESTORE_NAME);
    let stubs = stubs();
    let listed = retrying(Backoff::default(), &mut Attempts::default(), || cluster.list(&stubs, &selector)).await;
    let found = match listed {
        Ok(found) => found,
        Err(error) => {
            return vec![warning(format!(
                "failed to list stub VolumeGroupSnapshotContents: {error} \
                 (get volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io)"
            ))];
        }
    };
    let mut warnings = Vec::new();
    for stub in &found {
        let name = stub["metadata"]["name"].as_str().unwrap_or_default();
        let handles = &stub["spec"]["source"]["groupSnapshotHandles"]["volumeSnapshotHandles"];
        let handles: BTreeSet<&str> = handles.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !handles.is_empty() && !are_ready_in_time(cluster, events, (restore, name), &handles, patience).await {
            let message = format!("timed out waiting for VSCs related to VGSC {name}: context deadline exceeded");
            warnings.push(warning(message));
        }
        let delete = || cluster.delete(&stubs, name);
        if let Err(error) = retrying(Backoff::default(), &mut Attempts::default(), delete).await {
            warnings.push(warning(format!("failed to delete stub VolumeGroupSnapshotContent {name}: {error}")));
        }
    }
    warnings
}

/// Whether the restored contents with these handles get ready in time.
async fn are_ready_in_time(
    cluster: &dyn Cluster,
    events: &dyn Events,
    (restore, stub): (&str, &str),
    handles: &BTreeSet<&str>,
    patience: Duration,
) -> bool {
    let selector = format!("{}={restore}", label::RESTORE_NAME);
    let ready = async {
        if are_ready(cluster, &selector, handles).await {
            return;
        }
        let _announced = Announced::begin(events, stub);
        // A watch begins with what is there now, so nothing that happened since the look is missed.
        let mut changes = cluster.watch(&contents(), None);
        loop {
            match changes.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(%error, "watching VolumeSnapshotContents failed; going on"),
                None => tokio::time::sleep(WATCH_ENDED_PAUSE).await,
            }
            if are_ready(cluster, &selector, handles).await {
                return;
            }
        }
    };
    tokio::time::timeout(patience, ready).await.is_ok()
}

async fn are_ready(cluster: &dyn Cluster, selector: &str, handles: &BTreeSet<&str>) -> bool {
    let listed: Result<Vec<Value>, ApiError> = cluster.list(&contents(), selector).await;
    let is_related = |content: &&Value| {
        let handle = content["spec"]["source"]["snapshotHandle"].as_str();
        handle.is_some_and(|handle| handles.contains(handle))
    };
    match listed {
        Ok(found) => found.iter().filter(is_related).all(|content| content["status"]["readyToUse"] == true),
        Err(error) => {
            tracing::debug!(%error, "VolumeSnapshotContents cannot be listed; waiting");
            false
        }
    }
}

/// Ends an announced wait when it goes out of scope, whatever the way.
struct Announced<'a> {
    events: &'a dyn Events,
    object: String,
}

impl<'a> Announced<'a> {
    fn begin(events: &'a dyn Events, stub: &str) -> Self {
        let object = format!("volumegroupsnapshotcontent {stub}");
        events.emit(Event::Wait(Waiting {
            object: object.clone(),
            request: "wait until its snapshots are ready".to_owned(),
            reason: Some("the snapshot controller needs it until then; it is deleted afterwards".to_owned()),
        }));
        Self { events, object }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.events.emit(Event::WaitOver(std::mem::take(&mut self.object)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::actions::testing::FakeCluster;

    struct Deaf;

    impl Events for Deaf {
        fn emit(&self, _: Event) {}
    }

    fn stub(handles: Value) -> Value {
        json!({"kind": "VolumeGroupSnapshotContent", "metadata": {"name": "stub", "labels": {"velero.io/restore-name": "r"}},
            "spec": {"source": {"groupSnapshotHandles": {"volumeSnapshotHandles": handles}}}})
    }

    fn content(handle: &str, ready: bool) -> Value {
        json!({"kind": "VolumeSnapshotContent", "metadata": {"name": handle, "labels": {"velero.io/restore-name": "r"}},
            "spec": {"source": {"snapshotHandle": handle}}, "status": {"readyToUse": ready}})
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_stub_goes_when_the_contents_of_its_group_are_ready() {
        let cluster =
            FakeCluster::new([stub(json!(["a", "b"])), content("a", true), content("b", true), content("c", false)]);
        assert_eq!(clean_up(&*cluster, &Deaf, "r", MINUTE).await, []);
        assert_eq!(cluster.requests().last().unwrap(), "delete volumegroupsnapshotcontents stub");
        let nothing = FakeCluster::new([]);
        assert_eq!(clean_up(&*nothing, &Deaf, "r", MINUTE).await, []);
        assert_eq!(nothing.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_content_that_does_not_get_ready_is_a_warning_and_the_stub_goes_all_the_same() {
        let cluster = FakeCluster::new([stub(json!(["a"])), content("a", false)]);
        let [warning] = clean_up(&*cluster, &Deaf, "r", MINUTE).await.try_into().unwrap();
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.message.contains("timed out waiting for VSCs related to VGSC stub"), "{}", warning.message);
        assert_eq!(cluster.requests().last().unwrap(), "delete volumegroupsnapshotcontents stub");
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_kind_cannot_be_listed_there_is_one_warning() {
        let warnings = clean_up(&*FakeCluster::failing("no such kind"), &Deaf, "r", MINUTE).await;
        let [warning] = warnings.try_into().unwrap();
        assert_eq!(warning.bucket, Bucket::Namespace("cluster".to_owned()));
        assert!(warning.message.starts_with("failed to list stub VolumeGroupSnapshotContents: no such kind"));
    }
}
