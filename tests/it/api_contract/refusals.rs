//! Contracts about requests that are refused for what they say.

use super::*;

pub(super) async fn bad_names_and_labels_are_refused(client: Client) {
    let (api, namespace) = config_maps(&client).await;
    let refused = api.create(&PostParams::default(), &config_map("Bad_Name", json!({}))).await;
    let message =
        "ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain";
    assert_refused(refused, 422, "Invalid", message);
    let refused = api.create(&PostParams::default(), &config_map("a", json!({ "x": "-y" }))).await;
    let message = "ConfigMap \"a\" is invalid: metadata.labels: Invalid value: \"-y\": a valid label";
    assert_refused(refused, 422, "Invalid", message);
    let long = "a".repeat(64);
    let refused = api.create(&PostParams::default(), &config_map("a", json!({ "x": long }))).await;
    assert_eq!(refusal(refused).code, 422);
    let refused = api.create(&PostParams::default(), &object(json!({ "metadata": {} }))).await;
    let message = "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_refused(refused, 422, "Invalid", message);
    let elsewhere = object(json!({ "metadata": { "name": "a", "namespace": "elsewhere" } }));
    let refused = api.create(&PostParams::default(), &elsewhere).await;
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    assert_refused(refused, 400, "BadRequest", message);
    let namespaces: Api<Namespace> = Api::all(client);
    let dotted = namespaces.create(&PostParams::default(), &object(json!({ "metadata": { "name": "a.b" } }))).await;
    assert_refused(
        dotted,
        422,
        "Invalid",
        "Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain dots",
    );
    drop(namespace);
}

pub(super) async fn bodies_that_are_no_object_of_the_kind_are_refused(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let json_type = "application/json";
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap)";
    assert_refused(raw(&client, "POST", &path, json_type, "{").await, 400, "BadRequest", unrecognized);
    assert_refused(raw(&client, "POST", &path, json_type, "[]").await, 400, "BadRequest", unrecognized);
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } }).to_string();
    let message = "Secret in version \"v1\" cannot be handled as a ConfigMap";
    assert_refused(raw(&client, "POST", &path, json_type, &secret).await, 400, "BadRequest", message);
    let labels = json!({ "metadata": { "name": "a", "labels": { "x": 1 } } }).to_string();
    let message = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal";
    assert_refused(raw(&client, "POST", &path, json_type, &labels).await, 400, "BadRequest", message);
    let data = json!({ "metadata": { "name": "a" }, "data": { "x": 1 } }).to_string();
    assert_refused(raw(&client, "POST", &path, json_type, &data).await, 400, "BadRequest", message);
    let text = raw(&client, "POST", &path, "text/plain", "{}").await;
    assert_refused(text, 415, "UnsupportedMediaType", "the body of the request was in an unknown format");
    let yaml = raw(&client, "POST", &path, "application/yaml", "metadata:\n  name: from-yaml\n").await.unwrap();
    assert_eq!(yaml["metadata"]["name"], "from-yaml");
}

pub(super) async fn unserved_paths_and_methods_are_refused(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let core = raw(&client, "GET", &format!("/api/v1/namespaces/{namespace}/foos"), "", "").await;
    assert_refused(core, 404, "NotFound", "the server could not find the requested resource");
    let group = refusal(raw(&client, "GET", "/apis/nothing.example.com/v1/foos", "", "").await);
    assert_eq!((group.code, group.message.as_str()), (404, "404 page not found"));
    let method =
        raw(&client, "POST", &format!("/api/v1/namespaces/{namespace}/configmaps/a"), "application/json", "{}").await;
    assert_refused(method, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
}
