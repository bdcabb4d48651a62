//! What is dropped from or replaced in what a run left behind, because no two runs agree on it.
//!
//! - N1 dropped from metadata: `uid`, `resourceVersion`, `generation`, `creationTimestamp`, `selfLink`.
//! - N2 `managedFields` are apart; `time` is dropped from each entry; entries are sorted by manager, operation, subresource,
//!   version; a manager that is neither in the case's backups nor one of the runner's nor `kube-apiserver` is `<engine>`.
//! - N3 `status` is dropped, unless a Restore of the case has `spec.restoreStatus` or an object has the annotation
//!   `velero.io/restore-status`; always dropped for CustomResourceDefinition, Namespace, APIService.
//! - N4 a kept condition time not found in the case's inputs is `<time>`.
//! - N5 `clusterIP`, `clusterIPs`, `nodePort`, `healthCheckNodePort` not found in the case's inputs are `<allocated>`.
//! - N6 `uid` values and the controller-uid labels not found in the case's inputs are `<uid>`.
//! - N7 `deletionTimestamp` is `<set>`.
//! - N8 generated names are replaced, in objects, managed fields, keys and resource lists.
//! - N9 left out: `kube-root-ca.crt` unless the backup has it, automanaged APIServices, IPAddresses, ComponentStatuses, group
//!   `events.k8s.io` (the same objects as core events); Events in which the API server tells of its own repairs of service
//!   addresses and ports: it writes one when it sees a Service before the address that it gave it, which is up to chance.
//! - N10 messages: the folder of the extracted backup, UUIDs and Go pointers are replaced; sorted within a bucket.
//! - N11 Restore: timestamps only as set or unset.
//! - N12 resource lists: entries sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::values::{canonical, entries, items, load_yaml, or_empty, text};
use crate::support::control_plane::Listable;

const RUNNER_MANAGERS: [&str; 3] = ["conformance-source", "conformance-target", "kube-apiserver"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const TIME_KEYS: [&str; 4] = ["lastTransitionTime", "lastUpdateTime", "lastProbeTime", "lastHeartbeatTime"];
/// What the API server calls itself in Events about services that it repairs.
const API_SERVER_REPAIRS: [&str; 2] = ["ipallocator-repair-controller", "portallocator-repair-controller"];
const DROPPED_METADATA: [&str; 5] = ["uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"];

/// Whether an Event comes from the API server's own repair of service addresses and ports.
fn is_repair(event: &Value) -> bool {
    let who = [text(&event["source"], &["component"]), text(event, &["reportingComponent"])];
    who.iter().any(|component| API_SERVER_REPAIRS.contains(component))
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

static RANDOM_NAMES: LazyLock<[(Regex, &str); 2]> = LazyLock::new(|| {
    [
        (regex(r"velero-restore-init-[0-9a-f]{8}\b"), "velero-restore-init-<random>"),
        (regex(r"velero-clone-[0-9a-f]{8}-[0-9a-f-]{27}"), "velero-clone-<uuid>"),
    ]
});
static EXTRACT_FOLDER: LazyLock<Regex> = LazyLock::new(|| regex(r#"(/[^\s"]*?/[^/\s"]+/resources)(?:[/"\s:]|$)"#));
static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
static POINTER: LazyLock<Regex> = LazyLock::new(|| regex(r"\b0xc[0-9a-f]{9}\b"));

/// Whether `text` has `word` where the characters around it are none of these.
fn has_word(text: &str, word: &str, not_before: fn(char) -> bool, not_after: fn(char) -> bool) -> bool {
    if word.is_empty() {
        return false;
    }
    let mut start = 0;
    while let Some(found) = text[start..].find(word) {
        let (begin, end) = (start + found, start + found + word.len());
        let before = text[..begin].chars().next_back().is_some_and(not_before);
        let after = text[end..].chars().next().is_some_and(not_after);
        if !before && !after {
            return true;
        }
        start = begin + text[begin..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// The token that every namespace and cluster-scoped name of a case carries: `c07` for `07-foo`.
pub(super) fn case_token(case: &str) -> String {
    format!("c{}", super::number(case))
}

/// Whether a name carries a case's token.
pub(super) fn has_token(name: &str, token: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    has_word(name, token, part_of_word, part_of_word)
}

type ItemKey = (String, String, String);

/// What a case's own inputs contain: values found there are kept.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) token: String,
    /// Keys of the backups' items: group-resource, namespace, name.
    backed_up: BTreeSet<ItemKey>,
    ips: BTreeSet<String>,
    ports: BTreeSet<String>,
    uids: BTreeSet<String>,
    times: BTreeSet<String>,
    managers: BTreeSet<String>,
    /// Names of all input objects.
    names: BTreeSet<String>,
    keep_status: bool,
}

impl Context {
    /// Reads a case's inputs.
    pub(super) fn of(case: &str) -> Self {
        let folder = super::folder().join("cases").join(case);
        let mut backed_up = BTreeMap::new();
        for backup in sorted_entries(&folder.join("backup")) {
            for file in sorted_entries(&backup).into_iter().filter(|f| f.to_string_lossy().ends_with(".tar.gz")) {
                backed_up.extend(read_tarball(&file));
            }
        }
        let (backed_up, mut documents): (BTreeSet<ItemKey>, Vec<Value>) = backed_up.into_iter().unzip();
        for file in sorted_entries(&folder).into_iter().filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !["restore.yaml", "backup.yaml", "case.yaml", "backup-edits.yaml"].contains(&name.as_str()) {
                documents.extend(load_yaml(&file));
            }
        }
        let mut this = Self {
            token: case_token(case),
            backed_up,
            ips: BTreeSet::new(),
            ports: BTreeSet::new(),
            uids: BTreeSet::new(),
            times: BTreeSet::new(),
            managers: RUNNER_MANAGERS.iter().map(ToString::to_string).collect(),
            names: BTreeSet::new(),
            keep_status: false,
        };
        for document in &documents {
            this.scan(document);
            let metadata = &document["metadata"];
            if !text(metadata, &["name"]).is_empty() {
                this.names.insert(text(metadata, &["name"]).to_string());
            }
            for entry in items(&metadata["managedFields"]) {
                this.managers.insert(text(entry, &["manager"]).to_string());
            }
            this.keep_status |= metadata["annotations"].get("velero.io/restore-status").is_some();
        }
        for file in ["source.yaml", "target.yaml"] {
            for document in load_yaml(&folder.join(file)) {
                if let Some(manager) = document["x-conformance"]["manager"].as_str() {
                    this.managers.insert(manager.to_string());
                }
            }
        }
        let restores = load_yaml(&folder.join("restore.yaml"));
        this.keep_status |= restores.iter().any(|r| !r["spec"]["restoreStatus"].is_null());
        this
    }

    fn scan(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("managedFields", _) => {}
                        ("clusterIP", Value::String(ip)) => drop(self.ips.insert(ip.clone())),
                        ("clusterIPs", Value::Array(ips)) => {
                            self.ips.extend(ips.iter().filter_map(Value::as_str).map(str::to_string));
                        }
                        ("nodePort" | "healthCheckNodePort", _) => drop(self.ports.insert(value.to_string())),
                        (key, Value::String(uid)) if key == "uid" || UID_LABELS.contains(&key) => {
                            self.uids.insert(uid.clone());
                        }
                        (key, Value::String(time)) if TIME_KEYS.contains(&key) => drop(self.times.insert(time.clone())),
                        _ => self.scan(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|v| self.scan(v)),
            _ => {}
        }
    }

    fn scrub(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter().map(|(key, value)| (random_names(key), self.scrub_entry(key, value))).collect::<Map<_, _>>(),
            ),
            Value::Array(values) => Value::Array(values.iter().map(|v| self.scrub(v)).collect()),
            Value::String(text) => Value::String(random_names(text)),
            other => other.clone(),
        }
    }

    fn scrub_entry(&self, key: &str, value: &Value) -> Value {
        let unless = |keep: bool, placeholder: &str| if keep { value.clone() } else { json!(placeholder) };
        match (key, value) {
            ("clusterIP", Value::String(ip)) => {
                unless(self.ips.contains(ip) || ip.is_empty() || ip == "None", "<allocated>")
            }
            ("clusterIPs", Value::Array(ips)) => Value::Array(
                ips.iter()
                    .map(|ip| match ip.as_str() {
                        Some(text) if self.ips.contains(text) || text == "None" => ip.clone(),
                        _ => json!("<allocated>"),
                    })
                    .collect(),
            ),
            ("nodePort" | "healthCheckNodePort", port) => {
                unless(self.ports.contains(&port.to_string()) || port.as_i64() == Some(0), "<allocated>")
            }
            (key, Value::String(uid)) if key == "uid" || UID_LABELS.contains(&key) => {
                unless(self.uids.contains(uid), "<uid>")
            }
            (key, Value::String(time)) if TIME_KEYS.contains(&key) => unless(self.times.contains(time), "<time>"),
            _ => self.scrub(value),
        }
    }

    /// A key of the dump with its generated names replaced (N8).
    pub(super) fn key(&self, key: &str) -> String {
        random_names(key)
    }

    /// Whether an object of the cluster belongs to this case (N9 included).
    pub(super) fn owns(&self, object: &Value, kind: &Listable) -> bool {
        let metadata = &object["metadata"];
        let (namespace, name) = (text(metadata, &["namespace"]), text(metadata, &["name"]));
        let label = |key: &str| text(&metadata["labels"], &[key]);
        let ours = if kind.namespaced {
            has_token(namespace, &self.token)
        } else {
            has_token(name, &self.token)
                || label("case") == self.token
                || has_token(label("velero.io/restore-name"), &self.token)
        };
        let key = (kind.group_resource(), namespace.to_string(), name.to_string());
        let automanaged = metadata["labels"].get("kube-aggregator.kubernetes.io/automanaged").is_some();
        ours && !(kind.plural == "configmaps" && name == "kube-root-ca.crt" && !self.backed_up.contains(&key))
            && !(kind.plural == "apiservices" && automanaged)
            && !["componentstatuses", "ipaddresses"].contains(&kind.plural.as_str())
            && kind.group != "events.k8s.io"
            && !(kind.plural == "events" && is_repair(object))
    }

    /// The normalised object without its managed fields, and those.
    pub(super) fn object(&self, object: &Value, kind: &Listable) -> (Value, Value) {
        let mut metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        let managed = metadata.remove("managedFields").unwrap_or_default();
        for key in DROPPED_METADATA {
            metadata.remove(key);
        }
        if metadata.contains_key("deletionTimestamp") {
            metadata.insert("deletionTimestamp".into(), json!("<set>"));
        }
        let mut out = Map::new();
        out.insert("apiVersion".into(), json!(kind.api_version()));
        out.insert("kind".into(), json!(kind.kind));
        out.insert("metadata".into(), Value::Object(metadata));
        let without_status = ["CustomResourceDefinition", "Namespace", "APIService"].contains(&kind.kind.as_str());
        for (key, value) in entries(object) {
            if ["apiVersion", "kind", "metadata"].contains(&key.as_str())
                || key == "status" && (!self.keep_status || without_status)
            {
                continue;
            }
            out.insert(key.clone(), value.clone());
        }
        let mut fields: Vec<Value> = items(&managed)
            .map(|entry| {
                let mut entry = entry.clone();
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("time");
                    let known =
                        entry.get("manager").is_some_and(|m| self.managers.contains(m.as_str().unwrap_or_default()));
                    if !known {
                        entry.insert("manager".into(), json!("<engine>"));
                    }
                }
                self.scrub(&entry)
            })
            .collect();
        sort_managed_fields(&mut fields);
        (self.scrub(&Value::Object(out)), Value::Array(fields))
    }

    /// A results file; null for none.
    pub(super) fn results(&self, document: &Value) -> Value {
        if !document.is_object() {
            return document.clone();
        }
        let messages = |list: &Value| {
            let mut list: Vec<String> = items(list).filter_map(Value::as_str).map(message).collect();
            list.sort();
            list
        };
        let mut out = Map::new();
        for severity in ["errors", "warnings"] {
            let found = &document[severity];
            let mut buckets = Map::new();
            for bucket in ["velero", "cluster"] {
                if items(&found[bucket]).next().is_some() {
                    buckets.insert(bucket.into(), json!(messages(&found[bucket])));
                }
            }
            if entries(&found["namespaces"]).next().is_some() {
                let namespaces: Map<_, _> =
                    entries(&found["namespaces"]).map(|(ns, list)| (ns.clone(), json!(messages(list)))).collect();
                buckets.insert("namespaces".into(), Value::Object(namespaces));
            }
            out.insert(severity.into(), Value::Object(buckets));
        }
        self.scrub(&Value::Object(out))
    }

    /// A resource list; null for none.
    pub(super) fn resource_list(&self, document: &Value) -> Value {
        if !document.is_object() {
            return document.clone();
        }
        let sorted = |list: &Value| {
            let mut list: Vec<Value> = items(list).map(|v| self.scrub(v)).collect();
            list.sort_by_key(canonical);
            Value::Array(list)
        };
        Value::Object(entries(document).map(|(kind, list)| (kind.clone(), sorted(list))).collect())
    }

    /// The names of the case's objects that a message mentions, for the loose comparison of messages.
    pub(super) fn subjects(&self, message: &str) -> Vec<&str> {
        let before = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let after = |c: char| c.is_ascii_alphanumeric() || c == '-';
        self.names.iter().map(String::as_str).filter(|name| has_word(message, name, before, after)).collect()
    }
}

/// The order of N2; ties are broken by the whole entry.
pub(super) fn sort_managed_fields(fields: &mut [Value]) {
    fields.sort_by_cached_key(|e| {
        let part = |key: &str| text(e, &[key]).to_string();
        (part("manager"), part("operation"), part("subresource"), part("apiVersion"), canonical(e))
    });
}

/// A volume info file; null for none.
pub(super) fn volumeinfo(document: &Value) -> Value {
    match document {
        Value::Array(volumes) => {
            let mut volumes = volumes.clone();
            volumes.sort_by_cached_key(canonical);
            Value::Array(volumes)
        }
        other => other.clone(),
    }
}

/// What counts of a Restore object (N11), with the names of its files in the bucket.
pub(super) fn restore(restore: Option<&Value>, bucket_keys: &[String]) -> Value {
    let Some(restore) = restore else { return json!({"gone": true, "bucketKeys": bucket_keys}) };
    let (status, metadata) = (&restore["status"], &restore["metadata"]);
    let is_set = |key: &str| !text(status, &[key]).is_empty();
    let number = |key: &str| if status[key].is_null() { json!(0) } else { status[key].clone() };
    let list = |v: &Value| if v.is_array() { v.clone() } else { json!([]) };
    let operations: Map<_, _> = entries(status)
        .filter(|(key, _)| key.starts_with("restoreItemOperations"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    json!({
        "phase": text(status, &["phase"]),
        "warnings": number("warnings"),
        "errors": number("errors"),
        "validationErrors": list(&status["validationErrors"]),
        "failureReason": message(text(status, &["failureReason"])),
        "progress": status["progress"],
        "hookStatus": status["hookStatus"],
        "restoreItemOperations": operations,
        "startTimestampSet": is_set("startTimestamp"),
        "completionTimestampSet": is_set("completionTimestamp"),
        "labels": or_empty(&metadata["labels"]),
        "annotations": or_empty(&metadata["annotations"]),
        "finalizers": list(&metadata["finalizers"]),
        "spec": or_empty(&restore["spec"]),
        "bucketKeys": bucket_keys,
    })
}

/// A message without what differs from run to run (N10).
pub(super) fn message(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    // The character that ends the folder is not part of what is replaced, and may begin the next one.
    while let Some(folder) = EXTRACT_FOLDER.captures(rest).and_then(|c| c.get(1)) {
        out.push_str(&rest[..folder.start()]);
        out.push_str("<extracted>/resources");
        rest = &rest[folder.end()..];
    }
    out.push_str(rest);
    let out = UUID.replace_all(&out, "<uuid>");
    POINTER.replace_all(&out, "0x<pointer>").into_owned()
}

fn random_names(text: &str) -> String {
    RANDOM_NAMES.iter().fold(text.to_string(), |text, (name, to)| match name.replace_all(&text, *to) {
        std::borrow::Cow::Borrowed(_) => text,
        std::borrow::Cow::Owned(replaced) => replaced,
    })
}

fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    paths
}

/// The items of a backup by key; what cannot be read is left out, a damaged backup may end early.
fn read_tarball(path: &Path) -> BTreeMap<ItemKey, Value> {
    let mut found = BTreeMap::new();
    let mut bytes = vec![];
    let Ok(file) = std::fs::File::open(path) else { return found };
    if flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).is_err() {
        return found;
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let Ok(members) = archive.entries() else { return found };
    for member in members {
        let Ok(mut member) = member else { break };
        if !member.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let without_suffix =
            |name: &str| name.get(..name.len().saturating_sub(".json".len())).unwrap_or_default().to_string();
        let key = match parts.as_slice() {
            ["resources", resource, "cluster", name, ..] => ((*resource).into(), String::new(), without_suffix(name)),
            ["resources", resource, "namespaces", namespace, name] => {
                ((*resource).into(), (*namespace).into(), without_suffix(name))
            }
            _ => continue,
        };
        let mut content = vec![];
        if member.read_to_end(&mut content).is_err() {
            break;
        }
        if let Ok(item) = serde_json::from_slice(&content) {
            found.insert(key, item);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_word_of_its_own() {
        assert!(has_token("c07", "c07") && has_token("x-c07-app", "c07") && has_token("crd.c07.example.com", "c07"));
        assert!(!has_token("c070", "c07") && !has_token("abc07", "c07") && !has_token("", "c07"));
        assert!(has_token("xc07-c07", "c07"), "a later place counts");
    }

    #[test]
    fn events_of_the_api_servers_own_repairs_are_no_objects_of_a_case() {
        let context = Context::of("06-existing-none");
        let (version, plural, kind) = ("v1".to_owned(), "events".to_owned(), "Event".to_owned());
        let kind = Listable { group: String::new(), version, plural, kind, namespaced: true };
        let metadata = json!({"namespace": "c06-app", "name": "web.1"});
        let event = |component: &str| json!({"metadata": metadata, "reportingComponent": component, "source": {}});
        let old_event = |component: &str| json!({"metadata": metadata, "source": {"component": component}});
        assert!(!context.owns(&event("ipallocator-repair-controller"), &kind));
        assert!(!context.owns(&old_event("portallocator-repair-controller"), &kind));
        assert!(context.owns(&event("kubelet"), &kind) && context.owns(&old_event("kubelet"), &kind));
    }

    #[test]
    fn messages_lose_folders_uuids_and_pointers_and_nothing_else() {
        let folder = r#"error restoring /tmp/restore-123/sub/resources/pods: "/a/b/resources""#;
        assert_eq!(message(folder), r#"error restoring <extracted>/resources/pods: "<extracted>/resources""#);
        assert_eq!(message("/a/b/resources/c/d/resources"), "<extracted>/resources<extracted>/resources");
        assert_eq!(message("/resources/pods"), "/resources/pods");
        assert_eq!(message("id 0f8fad5b-d9cb-469f-a165-70867728950e at 0xc000123abc"), "id <uuid> at 0x<pointer>");
    }

    #[test]
    fn generated_names_and_allocated_values_are_replaced_and_backed_up_ones_kept() {
        let context = Context::of("11-services");
        let kept = context.ips.iter().find(|ip| ip.starts_with("10.")).expect("a backed-up cluster IP").clone();
        let value = json!({
            "clusterIP": "10.99.99.99", "clusterIPs": [kept, "10.99.99.99", "None"], "nodePort": 1, "healthCheckNodePort": 0,
            "uid": "x", "name": "velero-restore-init-0123abcd", "velero-clone-0f8fad5b-d9cb-469f-a165-70867728950e": {},
            "lastTransitionTime": "2020-01-01T00:00:00Z",
        });
        let wanted = json!({
            "clusterIP": "<allocated>", "clusterIPs": [kept, "<allocated>", "None"], "nodePort": "<allocated>",
            "healthCheckNodePort": 0, "uid": "<uid>", "name": "velero-restore-init-<random>", "velero-clone-<uuid>": {},
            "lastTransitionTime": "<time>",
        });
        assert_eq!(context.scrub(&value), wanted);
    }
}
