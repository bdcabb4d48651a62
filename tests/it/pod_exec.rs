//! The adapter of the exec port, through the real API server to a kubelet of the test.

use std::time::Duration;

use http::Request;
use reprise::cluster::KubeCluster;
use reprise::engine::ports::exec::{ExecAnswer, ExecFailure, ExecRequest, OUTPUT_KEPT, PodExec as _};
use serde_json::{Value, json};

use crate::support;
use crate::support::kubelet::{FLOOD, Kubelet};

async fn create_pod(client: &kube::Client, namespace: &str, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]}});
    let request =
        Request::post(format!("/api/v1/namespaces/{namespace}/pods")).header("content-type", "application/json");
    client.request::<Value>(request.body(serde_json::to_vec(&pod).unwrap()).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_output_and_its_status_or_with_what_went_wrong() {
    let Some(cluster) = support::cluster().await else { return };
    let client = cluster.client().await;
    let namespace = support::namespace(&client, "exec").await;
    let kubelet = Kubelet::start(&cluster).await;
    create_pod(&client, namespace.name(), "db").await;
    create_pod(&client, namespace.name(), "homeless").await;
    kubelet.run_pod(namespace.name(), "db", &["main", "side"]).await;
    let exec = KubeCluster::new(client);
    let run = async |pod: &str, container: &str, command: &[&str]| -> ExecAnswer {
        let request = ExecRequest {
            namespace: namespace.name().to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        };
        tokio::time::timeout(Duration::from_secs(60), exec.exec(&request)).await.expect("the command ends")
    };

    let answer = run("db", "side", &["say", "it's \"done\" & 100 % +ä"]).await;
    assert_eq!(answer.outcome, Ok(()));
    assert_eq!(
        (answer.stdout.to_string().as_str(), answer.stderr.to_string().as_str()),
        ("it's \"done\" & 100 % +ä", "beware")
    );
    let place = format!("v5.channel.k8s.io {}/db/side", namespace.name());
    assert_eq!(kubelet.commands(), [format!("{place}: say it's \"done\" & 100 % +ä")], "by websocket, all the way");

    let answer = run("db", "main", &["exit", "3"]).await;
    assert_eq!((answer.outcome, answer.stderr.to_string().as_str()), (Err(ExecFailure::ExitCode(3)), "it went wrong"));
    let broken = |text: &str| Err(ExecFailure::Broken(text.to_owned()));
    assert_eq!(run("db", "main", &["fail"]).await.outcome, broken("no such container runtime"));
    let vanished = run("db", "main", &["vanish"]).await.outcome.unwrap_err().to_string();
    assert!(vanished.starts_with("the connection to the command "), "{vanished}");

    let flood = run("db", "main", &["flood"]).await;
    assert_eq!(flood.outcome, Ok(()));
    let told = flood.stdout.to_string();
    assert!(told.ends_with(&format!("x [… {} more bytes]", FLOOD - OUTPUT_KEPT)), "{}", &told[told.len() - 60..]);

    let request = ExecRequest {
        namespace: namespace.name().to_owned(),
        pod: "db".to_owned(),
        container: "main".to_owned(),
        command: vec!["hang".to_owned()],
    };
    let hanging = tokio::time::timeout(Duration::from_secs(2), exec.exec(&request)).await;
    assert!(hanging.is_err(), "{hanging:?}");

    for (pod, container, text) in [
        ("db", "nobody", "container nobody is not valid for pod db"),
        ("homeless", "main", "does not have a host assigned"),
        ("nobody", "main", "pods \"nobody\" not found"),
    ] {
        let Err(ExecFailure::Refused(error)) = run(pod, container, &["say", "x"]).await.outcome else {
            panic!("{pod} {container} is not refused")
        };
        assert!(error.message.contains(text) && error.code >= 400, "{error:?}");
    }
    kubelet.stop().await;
}
