//! What readers are told, and when, under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::engine::events::{Event, Events, LogLevel};
use crate::model::{Bucket, Finding, ItemFilter, Phase, RestoreName, Severity};
use crate::progress::{Error, Hub, NamedUpdate, Options, RestoreProgress, Subscription, Update};

fn name(text: &str) -> RestoreName {
    text.parse().unwrap()
}

fn hub(options: Options) -> (Hub, CancellationToken) {
    let shutdown = CancellationToken::new();
    (Hub::new(options, shutdown.clone()), shutdown)
}

/// A restore of `items` items that is running.
fn run(hub: &Hub, called: &str, items: u32) -> Arc<RestoreProgress> {
    let progress = hub.create(&name(called)).unwrap();
    progress.set_phase(Phase::InProgress);
    progress.emit(Event::Planned(planned(0..items)));
    progress.emit(Event::Stage(Stage::Items));
    progress
}

async fn rest(mut reader: Subscription) -> Vec<Update> {
    let mut all = Vec::new();
    while let Some(update) = reader.next().await {
        all.push(update);
    }
    all
}

/// `item N`, `gap N-M`, or the kind of an update, without repeated progress.
fn told(updates: &[Update]) -> Vec<String> {
    let words = updates.iter().filter_map(|update| match update {
        Update::Snapshot(progress) => Some(format!("snapshot {}", progress.sequence)),
        Update::Progress(_) => None,
        Update::Item { sequence, .. } => Some(format!("item {sequence}")),
        Update::Gap { from, to } => Some(format!("gap {from}-{to}")),
        Update::Ended(progress) => Some(format!("ended {}", progress.phase.as_str())),
        Update::Deleted => Some("deleted".to_owned()),
        Update::ShuttingDown => Some("shutting down".to_owned()),
    });
    words.collect()
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_a_snapshot_each_item_once_and_one_end() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 5);
    let reader = tokio::spawn(rest(progress.subscribe(None)));
    for id in 0..5 {
        tokio::time::sleep(Duration::from_millis(70)).await;
        progress.emit(Event::Finished(created(id)));
    }
    assert!(progress.finish(Phase::Completed, None));
    assert!(!progress.finish(Phase::Failed, None));
    let updates = reader.await.unwrap();
    assert_eq!(told(&updates), ["snapshot 0", "item 1", "item 2", "item 3", "item 4", "item 5", "ended Completed"]);
    let Some(Update::Ended(end)) = updates.last() else { panic!("no end") };
    assert_eq!((end.outcomes.created, end.percent()), (5, 100));
    // The items up to a value's number are sent before the value.
    let mut last = 0;
    for update in &updates {
        match update {
            Update::Item { sequence, .. } => last = *sequence,
            Update::Progress(progress) => assert_eq!(progress.sequence, last),
            _ => {}
        }
    }
    // Whoever comes later gets the state, and the end at once.
    assert_eq!(told(&rest(progress.subscribe(None)).await), ["snapshot 5", "ended Completed"]);
    assert_eq!(told(&rest(progress.subscribe(Some(3))).await), ["snapshot 3", "item 4", "item 5", "ended Completed"]);
    assert_eq!(told(&rest(progress.subscribe_counts()).await), ["snapshot 5", "ended Completed"]);
}

#[tokio::test(start_paused = true)]
async fn values_come_at_most_ten_a_second_and_the_last_one_always() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 2_000);
    let mut reader = progress.subscribe_counts();
    let counted = tokio::spawn(async move {
        let mut values = Vec::new();
        while let Some(update) = reader.next().await {
            if let Update::Progress(progress) = update {
                values.push(progress.outcomes.created);
            }
        }
        values
    });
    for id in 0..1_000 {
        progress.emit(Event::Finished(created(id)));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A last burst that no event follows.
    progress.emit(Event::Finished(created(1_000)));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(progress.latest().outcomes.created, 1_001);
    hub.remove("r");
    let values = counted.await.unwrap();
    assert!((8..=14).contains(&values.len()), "{values:?}");
    assert_eq!(values.last(), Some(&1_001));
    assert!(values.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_running_restore_is_refreshed_each_second_and_a_waiting_one_never() {
    let (hub, _shutdown) = hub(Options::default());
    let waiting = hub.create(&name("waiting")).unwrap();
    let running = run(&hub, "running", 3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (first, idle) = (running.latest(), waiting.latest());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(Arc::ptr_eq(&idle, &waiting.latest()));
    let later = running.latest();
    let passed = later.elapsed_seconds - first.elapsed_seconds;
    assert!((58.9..=61.1).contains(&passed), "{passed}");
    // The stall shows without an event, too.
    running.emit(Event::Started(ItemId(1)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(running.latest().waiting_for.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_of_the_gap_and_delays_nobody() {
    let (hub, _shutdown) = hub(Options { item_log: 10, ..Options::default() });
    let progress = run(&hub, "r", 1_000);
    let mut slow = progress.subscribe(None);
    assert!(matches!(slow.next().await, Some(Update::Snapshot(_))));
    let before = Instant::now();
    for id in 0..1_000 {
        progress.emit(Event::Finished(created(id)));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    progress.finish(Phase::Completed, None);
    let expected: Vec<_> = ["gap 1-990".to_owned()]
        .into_iter()
        .chain((991..=1_000).map(|number| format!("item {number}")))
        .chain(["ended Completed".to_owned()])
        .collect();
    assert_eq!(told(&rest(slow).await), expected);
    assert_eq!(progress.gaps(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_number_of_another_life_brings_all_that_is_known() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 2);
    progress.emit(Event::Finished(created(0)));
    progress.emit(Event::Finished(created(1)));
    progress.finish(Phase::Completed, None);
    let updates = rest(progress.subscribe(Some(4_711))).await;
    assert_eq!(told(&updates), ["snapshot 0", "item 1", "item 2", "ended Completed"]);
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_readers_get_the_last_value_and_are_told() {
    let (hub, shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 3);
    let reader = tokio::spawn(rest(progress.subscribe(None)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    progress.emit(Event::Finished(created(0)));
    shutdown.cancel();
    let updates = tokio::time::timeout(Duration::from_secs(1), reader).await.unwrap().unwrap();
    assert_eq!(told(&updates), ["snapshot 0", "item 1", "shutting down"]);
    tokio::time::timeout(Duration::from_secs(1), hub.closed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_is_unregistered() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 3);
    let readers: Vec<_> = (0..100).map(|_| progress.subscribe(None)).collect();
    assert_eq!(progress.subscribers(), 100);
    drop(readers);
    assert_eq!(progress.subscribers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_restore_ends_its_streams_and_its_publisher() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 3);
    let reader = tokio::spawn(rest(progress.subscribe(None)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(hub.remove("r").is_some());
    assert_eq!(told(&reader.await.unwrap()).last().map(String::as_str), Some("deleted"));
    assert!(hub.get("r").is_none());
    tokio::time::timeout(Duration::from_secs(1), hub.closed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_until_its_restore_has_ended() {
    let (hub, _shutdown) = hub(Options::default());
    let first = run(&hub, "r", 1);
    assert_eq!(hub.create(&name("r")).unwrap_err(), Error::Running("r".to_owned()));
    first.finish(Phase::Failed, Some("why".to_owned()));
    let second = hub.create(&name("r")).unwrap();
    assert!(Arc::ptr_eq(&second, &hub.get("r").unwrap()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(Arc::ptr_eq(&second, &hub.get("r").unwrap()));
}

#[tokio::test(start_paused = true)]
async fn only_the_last_restores_that_ended_are_kept() {
    let (hub, _shutdown) = hub(Options { keep_finished: 3, keep_finished_items: 100, ..Options::default() });
    let names = |hub: &Hub| hub.all().iter().map(|progress| progress.name().to_string()).collect::<Vec<_>>();
    let _running = run(&hub, "still-running", 5);
    for number in 0..5 {
        run(&hub, &format!("r{number}"), 10).finish(Phase::Completed, None);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(names(&hub), ["r2", "r3", "r4", "still-running"]);
    run(&hub, "large", 1_000).finish(Phase::Completed, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(names(&hub), ["large", "still-running"]);
}

#[tokio::test(start_paused = true)]
async fn an_older_restore_that_ended_has_its_items_by_pages_only() {
    let (hub, _shutdown) = hub(Options::default());
    for number in 0..5 {
        let progress = run(&hub, &format!("r{number}"), 2);
        progress.emit(Event::Finished(created(0)));
        progress.emit(Event::Finished(created(1)));
        progress.finish(Phase::Completed, None);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (oldest, next) = (hub.get("r0").unwrap(), hub.get("r1").unwrap());
    assert_eq!(told(&rest(oldest.subscribe(Some(0))).await), ["snapshot 0", "gap 1-2", "ended Completed"]);
    assert_eq!(told(&rest(next.subscribe(Some(1))).await), ["snapshot 1", "item 2", "ended Completed"]);
    assert_eq!(oldest.items(&ItemFilter::default(), None, 10).items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn watching_all_tells_of_those_that_are_there_and_those_that_come() {
    let (hub, shutdown) = hub(Options::default());
    run(&hub, "over", 1).finish(Phase::Completed, None);
    let first = run(&hub, "first", 1);
    let reader = tokio::spawn(hub.watch_all(true).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = run(&hub, "second", 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.emit(Event::Finished(created(0)));
    second.finish(Phase::Failed, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.finish(Phase::Completed, None);
    let third = run(&hub, "third", 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(third);
    shutdown.cancel();
    let updates = tokio::time::timeout(Duration::from_secs(1), reader).await.unwrap().unwrap();
    let of = |wanted: &str| {
        let mine = updates.iter().filter(|update| update.name.as_deref() == Some(wanted));
        told(&mine.map(|update| update.update.clone()).collect::<Vec<_>>())
    };
    assert_eq!(of("over"), ["snapshot 1"]);
    assert_eq!(of("first"), ["snapshot 0", "item 1", "ended Completed"]);
    assert_eq!(of("second"), ["snapshot 0", "item 1", "ended Failed"]);
    assert_eq!(of("third"), ["snapshot 0"]);
    assert_eq!(updates.last(), Some(&NamedUpdate { name: None, update: Update::ShuttingDown }));
}

#[tokio::test(start_paused = true)]
async fn the_log_carries_the_findings_at_its_end_and_debug_lines_only_when_asked() {
    let (hub, _shutdown) = hub(Options::default());
    let progress = run(&hub, "r", 1);
    let follower = tokio::spawn(progress.log_lines(true).into_stream().collect::<Vec<_>>());
    progress.emit(Event::Log(LogLevel::Debug, "hidden".to_owned()));
    progress.emit(Event::Log(LogLevel::Info, "restored 1 item".to_owned()));
    let finding = |bucket| Finding { severity: Severity::Error, bucket, message: "exceeded quota".to_owned() };
    progress.emit(Event::Finding(finding(Bucket::of("shop")), Reason::Quota));
    progress.emit(Event::Finding(finding(Bucket::Cluster), Reason::Quota));
    progress.seal_log();
    progress.log(LogLevel::Error, "controller", "too late for the file");
    progress.finish(Phase::PartiallyFailed, None);
    let lines = follower.await.unwrap();
    let messages: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split_once(" msg=\"")?.1.split_once("\" logSource="))
        .map(|(message, _)| message)
        .collect();
    assert_eq!(
        messages,
        [
            "restored 1 item",
            "Cluster resource restore error: exceeded quota",
            "Namespace shop, resource restore error: exceeded quota",
        ]
    );
    assert!(lines.iter().all(|line| line.ends_with(" restore=velero/r")), "{lines:?}");
    assert_eq!(progress.late_log_lines(), 1);
    assert_eq!(progress.latest().errors, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_reaches_every_reader_or_stands_in_a_gap_while_many_threads_emit() {
    let (hub, _shutdown) = hub(Options { publish_every: Duration::from_millis(1), item_log: 64, ..Options::default() });
    let progress = run(&hub, "r", 20_000);
    let readers: Vec<_> = (0..8).map(|_| tokio::spawn(rest(progress.subscribe(Some(0))))).collect();
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (progress, next) = (Arc::clone(&progress), Arc::clone(&next));
            tokio::task::spawn_blocking(move || {
                while let Ok(id) = u32::try_from(next.fetch_add(1, Ordering::Relaxed))
                    && id < 20_000
                {
                    progress.emit(Event::Started(ItemId(id)));
                    progress.emit(Event::Finished(created(id)));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    progress.finish(Phase::Completed, None);
    assert_eq!(progress.anomalies(), 0);
    for reader in readers {
        let mut position = 0;
        let updates = reader.await.unwrap();
        for update in &updates {
            match update {
                Update::Item { sequence, .. } => {
                    assert_eq!(*sequence, position + 1);
                    position = *sequence;
                }
                Update::Gap { from, to } => {
                    assert!(*from == position + 1 && from <= to);
                    position = *to;
                }
                Update::Snapshot(_) | Update::Progress(_) => {}
                Update::Ended(_) => assert_eq!(position, 20_000),
                Update::Deleted | Update::ShuttingDown => panic!("{update:?}"),
            }
        }
        assert!(matches!(updates.last(), Some(Update::Ended(_))));
    }
}
