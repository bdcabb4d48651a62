//! Plans against the live cluster, through the whole service.

use std::collections::BTreeMap;

use http::Method;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::plan_event::Event;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::client::{Fate, acting_as, tampered};
use super::real_cluster::strict_namespace;
use super::served::Served;
use super::world::{World, config_maps};
use crate::support::random_suffix;

/// The lines of an answer, which must be a plan.
async fn lines(answer: reqwest::Response) -> Vec<Value> {
    let (code, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(code, 200, "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn post(served: &Served, path: &str, body: Value) -> reqwest::Response {
    reqwest::Client::new().post(served.url(path)).json(&body).send().await.unwrap()
}

/// What a plan says of each item, by kind and name; and its last line.
async fn planned(served: &Served, path: &str, spec: Value) -> (BTreeMap<String, Value>, Value) {
    let mut told = lines(post(served, path, json!({"spec": spec})).await).await;
    let ended = told.pop().unwrap();
    assert_eq!(ended["event"], "ended", "{ended}");
    let entries = told.into_iter().filter(|line| line["event"] == "entry");
    let entries = entries.map(|entry| {
        let kind = entry["apiVersionKind"].as_str().unwrap().rsplit('/').next().unwrap();
        (format!("{kind}/{}", entry["name"].as_str().unwrap()), entry.clone())
    });
    (entries.collect(), ended)
}

fn config(namespace: &str, name: &str, more: Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}});
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_and_then_its_restore_are_planned_and_nothing_is_written() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 12)).await;
    // The test's own objects are written by another client.
    let reading = tampered(&world.client, |method, path| match *method {
        Method::GET => Fate::Pass,
        Method::POST if path.contains("subjectaccessreviews") => Fate::Pass,
        // The controller's.
        _ if path.starts_with("/apis/velero.io/") => Fate::Pass,
        _ => Fate::Refused(503, None),
    });
    let served = world.serve_through(reading).await;
    // A dry run is a POST as well, so that without them nothing but questions are left.
    let body = json!({"spec": {"backupName": "nightly"}});
    let told = lines(post(&served, "/api/v1/plan?dryRun=false", body).await).await;
    let [begun, entries @ .., ended] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&begun["event"], &begun["items"], &begun["backup"]), (&json!("begun"), &json!(12), &json!("nightly")));
    assert!(begun["restore"].as_str().unwrap().starts_with("nightly-20"), "{begun}");
    assert_eq!(ended["actions"], json!({"create": 13}));
    assert_eq!((&entries[0]["name"], &entries[0]["origin"]), (&json!("shop"), &json!("namespace")));
    served.stop().await;

    let served = world.serve().await;
    served.create("again", json!({"backupName": "nightly"})).await;
    served.ended("again").await;
    let before = world.get("/api/v1/namespaces/shop/configmaps").await.unwrap();
    let request = pb::PlanRestoreRequest { name: "again".to_owned(), ..Default::default() };
    let mut events = served.grpc().await.plan_restore(request).await.unwrap().into_inner();
    let mut actions = Vec::new();
    let ended = loop {
        match events.message().await.unwrap().and_then(|message| message.event) {
            Some(Event::Begun(begun)) => assert_eq!((begun.restore.as_str(), begun.dry_run), ("again", true)),
            Some(Event::Entry(entry)) => actions.push(entry.action()),
            Some(Event::Ended(ended)) => break ended,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((actions, ended.items), (vec![pb::PlanAction::Unchanged; 12], 12));
    let after = world.get("/api/v1/namespaces/shop/configmaps").await.unwrap();
    assert_eq!(before, after, "resourceVersions and all");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_plan_is_told_before_it_begins_and_all_of_it() {
    let world = World::sandbox().await;
    world.add_tarball("damaged", b"this is no tarball").await;
    let served = world.serve().await;
    let spec = json!({"backupName": "none", "includedResources": ["nodes"], "existingResourcePolicy": "perhaps"});
    let answer = post(&served, "/api/v1/plan", json!({"spec": spec})).await;
    let problem: Value = answer.json().await.unwrap();
    let violations = problem["violations"].to_string();
    assert_eq!(
        (&problem["status"], problem["violations"].as_array().map(Vec::len)),
        (&json!(400), Some(4)),
        "{problem}"
    );
    for part in ["nodes are non-restorable", "Invalid included/excluded resource", "perhaps", "velero/none"] {
        assert!(violations.contains(part), "{part:?} is missing in {violations}");
    }
    // The same of a Restore that is there: it does not fit, and what is asked for is right.
    served.create("wrong", spec).await;
    served.ended("wrong").await;
    let (code, problem) = served.get("/api/v1/restores/wrong/plan").await;
    assert_eq!((code, &problem["code"]), (409, &json!("FAILED_PRECONDITION")), "{problem}");
    assert_eq!(problem["violations"].as_array().map(Vec::len), Some(4));

    let (code, _) = served.get("/api/v1/restores/nope/plan").await;
    assert_eq!(code, 404);
    // A backup is read when the answer has begun: that may take longer than an answer may.
    let told = lines(post(&served, "/api/v1/plan", json!({"spec": {"backupName": "damaged"}})).await).await;
    let [failed] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&failed["event"], &failed["code"]), (&json!("failed"), &json!("FAILED_PRECONDITION")), "{failed}");
    assert!(failed["detail"].as_str().unwrap().contains("damaged"), "{failed}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_for_a_few_plans_and_one_that_is_dropped_makes_room() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3000)).await;
    let served = world.serve().await;
    let request = || pb::PlanRestoreRequest {
        spec: Some(pb::RestoreSpec { backup_name: "nightly".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let mut open = Vec::new();
    for _ in 0..reprise::controller::preview::AT_ONCE {
        // A connection each: what is not read of one must not hold up the others.
        let mut events = served.grpc().await.plan_restore(request()).await.unwrap().into_inner();
        assert!(events.message().await.unwrap().is_some());
        open.push(events);
    }
    let refused = served.grpc().await.plan_restore(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("plans are being made"), "{refused}");
    let (code, _) = served.get("/api/v1/restores/nope/plan").await;
    assert_eq!(code, 429, "there is room for no other");
    drop(open);
    super::served::until("there is room again", async || {
        served.grpc().await.plan_restore(request()).await.is_ok().then_some(())
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_api_server_says_by_dry_run_what_it_would_refuse() {
    let Some(world) = World::cluster("plan").await else { return };
    let namespace = format!("plan-{}", random_suffix());
    strict_namespace(&world, &namespace).await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let live = |name: &str, more: Value| config(&namespace, name, more);
    for object in [
        live("same", json!({"data": {"a": "b"}})),
        live("changed", json!({"data": {"a": "c"}})),
        live("frozen", json!({"data": {"a": "c"}, "immutable": true})),
    ] {
        world.create(&path, &object).await;
    }
    let backup = Backup::new().with_all([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        live("same", json!({"data": {"a": "b"}})),
        live("changed", json!({"data": {"a": "b"}})),
        live("frozen", json!({"data": {"a": "b"}, "immutable": true})),
        live("fine", json!({"data": {"a": "b"}})),
        live("denied", json!({"data": {"forbidden": "x"}})),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "too-many", "namespace": namespace}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "invalid", "namespace": namespace},
            "spec": {"ports": [{"port": 70000}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fine", "namespace": namespace},
            "spec": {"ports": [{"port": 80}]}}),
        config(&format!("{namespace}-new"), "first", json!({})),
    ]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let before = world.get(&path).await.unwrap();
    let (none, ended) = planned(&served, "/api/v1/plan", json!({"backupName": "nightly"})).await;
    let new_namespace = format!("Namespace/{namespace}-new");
    for (key, action, reason, dry_run) in [
        ("ConfigMap/same", "unchanged", Value::Null, false),
        ("ConfigMap/changed", "conflict", json!("conflict"), false),
        ("ConfigMap/frozen", "conflict", json!("conflict"), false),
        ("ConfigMap/fine", "create", Value::Null, true),
        ("ConfigMap/denied", "invalid", json!("denied-by-admission"), false),
        ("Secret/too-many", "invalid", json!("quota"), false),
        ("Service/invalid", "invalid", json!("invalid"), false),
        ("Service/fine", "create", Value::Null, true),
        (&new_namespace, "create", Value::Null, true),
        ("ConfigMap/first", "create", Value::Null, false),
    ] {
        let entry = &none[key];
        assert_eq!((&entry["action"], &entry["reason"]), (&json!(action), &reason), "{entry}");
        assert_eq!(entry["dryRun"], dry_run, "{entry}");
    }
    assert_eq!(none.len(), 10, "{none:?}");
    assert_eq!(none["ConfigMap/changed"]["differences"], json!(["/data/a"]));
    assert!(none["ConfigMap/denied"]["message"].as_str().unwrap().contains("no forbidden keys"));
    assert_eq!((&ended["errors"], &ended["warnings"]), (&json!(3), &json!(2)), "{ended}");

    let update = json!({"backupName": "nightly", "existingResourcePolicy": "update"});
    let (update, _) = planned(&served, "/api/v1/plan", update).await;
    assert_eq!(
        (&update["ConfigMap/changed"]["action"], &update["ConfigMap/changed"]["dryRun"]),
        (&json!("update"), &json!(true))
    );
    let frozen = &update["ConfigMap/frozen"];
    assert_eq!((&frozen["action"], &frozen["reason"]), (&json!("invalid"), &json!("invalid")), "{frozen}");
    assert!(frozen["message"].as_str().unwrap().contains("immutable"), "{frozen}");

    assert_eq!(world.get(&path).await.unwrap()["items"], before["items"], "nothing is written");
    for path in [format!("/api/v1/namespaces/{namespace}/services/fine"), format!("/api/v1/namespaces/{namespace}-new")]
    {
        assert!(world.get(&path).await.is_none(), "{path}");
    }
    served.stop().await;
    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{namespace}");
        world.ask(Method::DELETE, &path, None).await.unwrap();
    }
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

/// What a service needs beside what it restores: Velero's objects, and a look at the namespaces.
async fn limited_user(world: &World, user: &str, target: &str) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let own = json!([rule("velero.io", &["*"], &["*"]), rule("", &["secrets", "configmaps"], &["get", "list"])]);
    let wide = json!([rule("", &["namespaces"], &["get", "list", "watch"])]);
    // ConfigMaps may be made but not changed, Secrets only be looked at.
    let there =
        json!([rule("", &["configmaps"], &["get", "list", "create"]), rule("", &["secrets"], &["get", "list"]),]);
    for (namespace, name, rules) in
        [(Some(world.namespace()), "own", own), (None, "wide", wide), (Some(target), "there", there)]
    {
        let (kind, prefix) = match namespace {
            Some(namespace) => ("Role", format!("{rbac}/namespaces/{namespace}/role")),
            None => ("ClusterRole", format!("{rbac}/clusterrole")),
        };
        let name = format!("{user}-{name}");
        let version = "rbac.authorization.k8s.io/v1";
        let role = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "rules": rules});
        world.create(&format!("{prefix}s"), &role).await;
        let binding = json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        world.create(&format!("{prefix}bindings"), &binding).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_account_may_not_do_is_forbidden_by_name_and_the_restore_agrees() {
    let Some(world) = World::cluster("plan-rbac").await else { return };
    let suffix = random_suffix();
    let (namespace, user) = (format!("plan-rbac-{suffix}"), format!("limited-{suffix}"));
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    world.create("/api/v1/namespaces", &object).await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    world.create(&path, &config(&namespace, "changed", json!({"data": {"a": "c"}}))).await;
    limited_user(&world, &user, &namespace).await;
    let secret =
        |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}});
    let elsewhere = format!("{namespace}-elsewhere");
    let backup = Backup::new().with_all([
        config(&namespace, "fine", json!({"data": {"a": "b"}})),
        config(&namespace, "changed", json!({"data": {"a": "b"}})),
        secret("one"),
        secret("two"),
        config(&elsewhere, "nowhere", json!({})),
    ]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve_through(acting_as(&world.client, &user)).await;
    let spec = json!({"backupName": "nightly", "existingResourcePolicy": "update"});
    for path in ["/api/v1/plan", "/api/v1/plan?dryRun=false"] {
        let (told, ended) = super::served::until("the permissions are known everywhere", async || {
            let (told, ended) = planned(&served, path, spec.clone()).await;
            (told["ConfigMap/fine"]["action"] == "create").then_some((told, ended))
        })
        .await;
        for (key, action) in [
            ("ConfigMap/fine", "create"),
            ("ConfigMap/changed", "forbidden"),
            ("Secret/one", "forbidden"),
            ("Secret/two", "forbidden"),
            ("ConfigMap/nowhere", "fail"),
        ] {
            assert_eq!(told[key]["action"], action, "{path}: {}", told[key]);
        }
        assert_eq!(told["ConfigMap/nowhere"]["reason"], "namespace", "it cannot be made");
        let denied = |verb: &str, resource: &str, namespace: &str| json!({"verb": verb, "groupResource": resource, "namespace": namespace});
        let wanted = [
            denied("create", "namespaces", ""),
            denied("create", "secrets", &namespace),
            denied("patch", "configmaps", &namespace),
        ];
        assert_eq!(ended["denied"], json!(wanted), "{path}");
    }
    served.create("nightly", spec).await;
    served.ended("nightly").await;
    let failed = served.items("nightly", &[pb::Outcome::Failed]).await;
    let failed: BTreeMap<&str, pb::Reason> = failed.iter().map(|item| (item.name.as_str(), item.reason())).collect();
    let forbidden = pb::Reason::Forbidden;
    let wanted = [("changed", forbidden), ("nowhere", pb::Reason::Namespace), ("one", forbidden), ("two", forbidden)];
    assert_eq!(failed, BTreeMap::from(wanted));
    served.stop().await;
    for kind in ["clusterroles", "clusterrolebindings"] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{kind}/{user}-wide");
        world.ask(Method::DELETE, &path, None).await.unwrap();
    }
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}
