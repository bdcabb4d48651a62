//! Health and metrics.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use reprise::api::{Readiness, admin};
use reprise::telemetry::metrics::{Door, Metrics, RestoreEvent};
use tokio::net::TcpListener;

#[tokio::test]
async fn health_and_metrics_stand_on_a_port_of_their_own() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(admin::serve(listener, readiness.clone(), Arc::new(registry)));
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    assert_eq!(get("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()));
    readiness.ready("storage");
    readiness.not_ready("cluster", "no answer from the API server yet");
    let wanted = "- cluster: no answer from the API server yet\n+ storage\nnot ready\n";
    assert_eq!(get("/readyz").await, (503, wanted.to_owned()));
    assert_eq!(get("/livez").await.0, 200);
    readiness.ready("cluster");
    assert_eq!(get("/readyz").await.0, 200);

    metrics.restore(RestoreEvent::Attempt, "nightly");
    let _open = metrics.subscriber(Door::Http);
    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "velero_restore_attempt_total{schedule=\"\"} 0",
        "velero_restore_attempt_total{schedule=\"nightly\"} 1",
        "velero_restore_total 0",
        "reprise_stream_subscribers{door=\"http\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(get("/nothing").await.0, 404);
    server.abort();
}
