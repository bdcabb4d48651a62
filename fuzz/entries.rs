//! What the fuzz targets do with their input. Each function takes any bytes and panics only when Reprise is wrong: when a reader
//! panics, takes more than its limits allow, or contradicts itself.
//!
//! `cargo test` runs every one over the files of `corpus/` (see `tests/it/corpus.rs`); `cargo fuzz run NAME` looks for new inputs.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use reprise::api::grpc::{self, pb};
use reprise::api::http;
use reprise::archive::testing::Backup;
use reprise::archive::{Archive, Limits, NameCheck, ReadOptions};
use reprise::cluster::KubeCluster;
use reprise::controller::{convert, validate};
use reprise::engine::modifiers::{Modifiers, Schemas};
use reprise::model::glob::Glob;
use reprise::model::includes::IncludesExcludes;
use reprise::model::selector::Selector;
use reprise::model::{GroupResource, RestoreSpec};
use reprise::sandbox::Sandbox;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A function that takes the input of one target.
pub(crate) type Entry = fn(&[u8]);

/// Every target by name, which is also that of its folder in the corpus.
pub(crate) const ALL: [(&str, Entry); 8] = [
    ("archive", archive),
    ("tar", tar),
    ("item", item),
    ("selector", selector),
    ("glob", glob),
    ("modifiers", modifiers),
    ("rest_request", rest_request),
    ("grpc_request", grpc_request),
];

/// Small enough that a bomb is found by a test and not by the machine.
fn limits() -> Limits {
    Limits {
        compressed_bytes: 1 << 20,
        uncompressed_bytes: 1 << 20,
        entries: 4096,
        item_bytes: 256 << 10,
        index_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// Reads a tarball, and everything in it in every way.
fn read(input: &[u8]) {
    for names in [NameCheck::Refuse, NameCheck::Report] {
        let options = ReadOptions { limits: limits(), keep_labels: true, names, ..ReadOptions::default() };
        let Ok(archive) = Archive::read(input, &options) else { continue };
        let stats = archive.stats();
        assert!(stats.compressed_bytes <= limits().compressed_bytes);
        assert!(stats.uncompressed_bytes <= limits().uncompressed_bytes);
        assert!(stats.entries <= limits().entries);
        let mut found = 0;
        for group_resource in archive.group_resources() {
            for (namespace, entries) in archive.scopes(group_resource) {
                for id in entries {
                    found += 1;
                    let entry = archive.entry(id);
                    assert_eq!(entry.group_resource, group_resource);
                    assert_eq!(entry.namespace, namespace);
                    let path = entry.path();
                    assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
                    match archive.load(id) {
                        Ok(value) => assert!(value.is_object(), "{path}"),
                        Err(error) => assert!(!error.to_string().is_empty()),
                    }
                }
            }
        }
        assert_eq!(found, archive.len());
    }
}

/// A backup tarball: the gzip layer, and what is below it.
pub(crate) fn archive(input: &[u8]) {
    read(input);
}

/// A tar stream, so that a fuzzer need not get past gzip's checksum.
pub(crate) fn tar(input: &[u8]) {
    read(&gzip(input));
}

/// One item of a backup.
pub(crate) fn item(input: &[u8]) {
    let path = "resources/pods/namespaces/shop/web.json";
    if let Ok(tarball) = Backup::new().with_file(path, input).tarball() {
        read(&tarball);
    }
}

/// The text form of a label selector: what it prints as is read as the same.
pub(crate) fn selector(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(selector) = Selector::parse(text) else { return };
    let printed = selector.to_string();
    assert_eq!(Selector::parse(&printed).ok().as_ref(), Some(&selector), "{printed:?}");
    assert!(!selector.is_everything() || selector.matches([("any", "label")]));
    if let Ok(structured) = selector.to_label_selector() {
        let again = Selector::new(&structured).ok();
        let labels = [("app", "web"), ("tier", "front"), ("app.kubernetes.io/name", "")];
        assert_eq!(again.map(|again| again.matches(labels)), Some(selector.matches(labels)), "{printed:?}");
    }
}

/// Patterns, and a name to match them against, a line each: first an include, then an exclude, then the name.
pub(crate) fn glob(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut lines = text.lines();
    let (include, exclude) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let name = lines.next().unwrap_or_default();
    for separators in [&[][..], &['.'][..]] {
        let Ok(glob) = Glob::with_separators(include, separators) else { continue };
        let matches = glob.matches(name);
        if let Some(literal) = glob.literal() {
            assert_eq!(matches, literal == name, "{include:?} {name:?}");
        }
    }
    let lists = IncludesExcludes::new([include], [exclude]);
    if Glob::new(exclude).is_ok_and(|glob| glob.matches(name)) {
        assert!(!lists.should_include(name), "{exclude:?} {name:?}");
    }
    let (includes, excludes) = ([include.to_owned()], [exclude.to_owned()]);
    if let Ok(lists) = IncludesExcludes::namespaces(&includes, &excludes, [name]) {
        // An expansion that matched nothing takes nothing (docs/velero-differences.md: namespace-wildcard-without-match).
        let is_wildcard = include.contains(['*', '?', '[']) && include != "*";
        if is_wildcard && !Glob::new(include).is_ok_and(|glob| glob.matches(name)) {
            assert!(!lists.should_include(name) && !lists.include_everything(), "{include:?} {name:?}");
        }
    }
}

/// A file of resource modifiers, applied to a Deployment and to a custom resource.
pub(crate) fn modifiers(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(modifiers) = Modifiers::parse(text) else { return };
    // One runtime for all inputs: the client of the sandbox lives on the one that it was made on.
    static SCHEMAS: OnceLock<Option<(Runtime, Schemas)>> = OnceLock::new();
    let make = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let client = runtime.block_on(async { Sandbox::new(Default::default()).client() });
        Some((runtime, Schemas::new(Arc::new(KubeCluster::new(client)))))
    };
    let Some((runtime, schemas)) = SCHEMAS.get_or_init(make) else { return };
    runtime.block_on(async {
        for (group_resource, item) in [("deployments.apps", deployment()), ("widgets.example.com", widget())] {
            let modified = modifiers.apply(item.clone(), &GroupResource::parse(group_resource), schemas).await;
            // A rule that failed has changed nothing by itself, and says why.
            assert!(modified.errors.iter().all(|error| !error.to_string().is_empty()));
            let again = modifiers.apply(item, &GroupResource::parse(group_resource), schemas).await;
            assert_eq!(again, modified, "the same rules and item give the same result");
        }
    });
}

/// The body of `POST /api/v1/restores`, in JSON and in YAML.
pub(crate) fn rest_request(input: &[u8]) {
    for is_yaml in [false, true] {
        match http::read_create(input, is_yaml) {
            Ok(create) => specification(create.spec),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A `CreateRestoreRequest` on the wire.
pub(crate) fn grpc_request(input: &[u8]) {
    let Ok(request) = pb::CreateRestoreRequest::decode(input) else { return };
    let Ok(create) = grpc::convert::create_restore(request) else { return };
    let there_and_back = grpc::spec::to_json(grpc::spec::from_json(&create.spec));
    assert_eq!(there_and_back, create.spec, "a specification survives the way to the wire and back");
    specification(create.spec);
}

/// What happens to a specification that a door let through: it becomes an object of Velero's, is completed, judged and taken in.
fn specification(spec: Value) {
    let object = json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"}, "spec": spec});
    let Ok(restore) = serde_json::from_value::<reprise::velero::Restore>(object) else { return };
    let mut spec = restore.spec;
    validate::complete(&mut spec, "4h0m0s");
    let verdict = validate::validate(&spec);
    let completed = spec.clone();
    validate::complete(&mut spec, "4h0m0s");
    assert_eq!(
        serde_json::to_value(&spec).ok(),
        serde_json::to_value(&completed).ok(),
        "what is complete is not completed again"
    );
    if verdict.errors.is_empty() {
        let spec: RestoreSpec = convert::restore_spec(&spec);
        assert!(!spec.target_namespace("shop").is_empty() || spec.namespace_mapping.contains_key("shop"));
    }
}

/// Stored, not compressed: the tar layer is what is looked at.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    let written = encoder.write_all(bytes);
    assert!(written.is_ok(), "memory takes all");
    encoder.finish().unwrap_or_default()
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a/b": "c"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {"name": "web", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                     "env": [{"name": "A", "value": "1"}]},
                    {"name": "side", "image": "envoy"},
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        }},
    })
}

fn widget() -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "shop"}, "spec": {"size": 1, "parts": ["a"]}})
}
