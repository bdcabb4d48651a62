#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::testing::Backup;
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn read(tarball: &[u8]) -> Result<Archive, Error> {
    Archive::read(tarball, &ReadOptions::default())
}

fn config_map(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"a": "1"}})
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn names(archive: &Archive, group_resource: &str, namespace: &str) -> Vec<String> {
    let group_resource = GroupResource::from(group_resource);
    let scope = archive.scopes(&group_resource).find(|(found, _)| *found == namespace);
    scope.map_or_else(Vec::new, |(_, ids)| ids.map(|id| archive.entry(id).name.to_owned()).collect())
}

fn damage(backup: &Backup, name: &str) -> String {
    let archive = backup.read(&ReadOptions::default()).unwrap();
    let id =
        (0..u32::try_from(archive.len()).unwrap()).map(EntryId).find(|&id| archive.entry(id).name == name).unwrap();
    let from_index = archive.entry(id).header.unwrap_err().to_string();
    assert_eq!(archive.load(id).unwrap_err().to_string(), from_index);
    from_index
}

// What a backup is.

#[test]
fn a_backup_is_listed_sorted_whatever_the_order_of_its_entries() {
    let archive = Backup::new()
        .with(config_map("b", "a"))
        .with(config_map("a", "a"))
        .with(namespace("b"))
        .with(config_map("b", "a-b"))
        .with_as(
            "deployments.apps",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "b"}}),
        )
        .with(config_map("b", "Z"))
        .read(&ReadOptions::default())
        .unwrap();
    let group_resources: Vec<_> = archive.group_resources().map(GroupResource::as_str).collect();
    assert_eq!(group_resources, ["configmaps", "deployments.apps", "namespaces"]);
    let scopes: Vec<_> = archive.scopes(&"configmaps".into()).map(|(namespace, ids)| (namespace, ids.len())).collect();
    assert_eq!(scopes, [("a", 1), ("b", 3)]);
    // restore-semantics 2.3: with the suffix, `-` sorts before `.`.
    assert_eq!(names(&archive, "configmaps", "b"), ["Z", "a-b", "a"]);
    assert_eq!(archive.namespaces().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(names(&archive, "namespaces", ""), ["b"]);
    assert_eq!(archive.scopes(&"secrets".into()).len(), 0);
}

/// restore-semantics 2.2 and 2.5
#[test]
fn second_copies_and_other_versions_are_skipped_and_counted() {
    let archive = Backup::new()
        .with(config_map("a", "x"))
        .with_file("resources/configmaps/v2/namespaces/a/y.json", "{}")
        .read(&ReadOptions::default())
        .unwrap();
    assert_eq!(archive.len(), 1);
    let stats = archive.stats();
    assert_eq!((stats.entries, stats.items, stats.skipped_copies), (4, 1, 2));
    assert_eq!(stats.format_version.as_deref(), Some("1.1.0"));
    assert_eq!(stats.spooled_bytes, config_map("a", "x").to_string().len() as u64);
}

/// restore-semantics 2.2
#[test]
fn an_item_comes_back_whole() {
    let archive = Backup::new().with(config_map("a", "x")).read(&ReadOptions::default()).unwrap();
    let id = archive.find(&"configmaps".into(), "a", "x").unwrap();
    assert_eq!(archive.load(id).unwrap(), config_map("a", "x"));
    let entry = archive.entry(id);
    assert_eq!((entry.group_resource.as_str(), entry.namespace, entry.name), ("configmaps", "a", "x"));
    let header = entry.header.unwrap();
    assert_eq!((&*header.api_version, &*header.kind, &header.labels), ("v1", "ConfigMap", &None));
    for (group_resource, namespace, name) in [("configmaps", "a", "y"), ("configmaps", "", "x"), ("secrets", "a", "x")]
    {
        assert_eq!(archive.find(&group_resource.into(), namespace, name), None);
    }
}

#[test]
fn labels_are_kept_on_request_and_equal_ones_once() {
    let labelled = |name: &str| {
        let mut object = config_map("a", name);
        object["metadata"]["labels"] = json!({"tier": "web", "app": "shop"});
        object
    };
    let backup = Backup::new().with(labelled("x")).with(config_map("a", "y")).with(labelled("z"));
    let archive = backup.read(&ReadOptions { keep_labels: true, ..ReadOptions::default() }).unwrap();
    let labels = |name: &str| {
        let id = archive.find(&"configmaps".into(), "a", name).unwrap();
        archive.entry(id).header.unwrap().labels.as_ref().unwrap()
    };
    assert_eq!(labels("x").iter().collect::<Vec<_>>(), [("app", "shop"), ("tier", "web")]);
    assert_eq!((labels("x").get("tier"), labels("x").get("none")), (Some("web"), None));
    assert!(labels("y").is_empty());
    assert!(std::ptr::eq(labels("x"), labels("z")));
}

/// restore-semantics 5.3 step 4
#[test]
fn pods_and_jobs_that_are_done_are_known() {
    let pod = |name: &str, phase: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "status": {"phase": phase}});
    let job = |name: &str, status: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "a"}, "status": status});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "a"}, "status": {"phase": "Failed"}});
    let archive = Backup::new()
        .with_all([pod("failed", "Failed"), pod("running", "Running"), pod("succeeded", "Succeeded"), claim])
        .with_all([
            job("done", json!({"completionTime": "2026-01-01T00:00:00Z"})),
            job("no", json!({"completionTime": ""})),
        ])
        .with(job("none", json!({"active": 1})))
        .read(&ReadOptions::default())
        .unwrap();
    let completed: Vec<_> = (0..u32::try_from(archive.len()).unwrap())
        .map(|id| archive.entry(EntryId(id)))
        .filter(|entry| entry.header.unwrap().completed)
        .map(|entry| entry.name)
        .collect();
    assert_eq!(completed, ["done", "failed", "succeeded"]);
}

/// restore-semantics 2.2
#[test]
fn the_last_entry_of_a_path_wins() {
    let backup = Backup::new()
        .with_file("resources/configmaps/namespaces/a/x.json", "broken")
        .with(config_map("a", "x"))
        .with_file("resources/configmaps/namespaces/a/y.json", config_map("a", "y").to_string())
        .with_file("./resources//configmaps/namespaces/a/y.json", "broken");
    let archive = backup.read(&ReadOptions::default()).unwrap();
    assert_eq!(archive.len(), 2);
    assert!(archive.load(archive.find(&"configmaps".into(), "a", "x").unwrap()).is_ok());
    assert!(archive.load(archive.find(&"configmaps".into(), "a", "y").unwrap()).is_err());
}

#[test]
fn long_names_work_in_both_extensions_of_tar() {
    let long = "n".repeat(253);
    let pax_path = format!("resources/configmaps/namespaces/{}/pax.json", "p".repeat(100));
    let record = format!(" path={pax_path}\n");
    let len = (0..).find(|len| record.len() + len_of(*len) == *len).unwrap();
    let archive = Backup::new()
        .with(config_map(&long, &long))
        .with_type(b'x', "PaxHeaders/x", format!("{len}{record}"))
        .with_entry("short", config_map(&"p".repeat(100), "pax").to_string())
        .with_type(b'g', "pax_global_header", "52 comment=0123456789012345678901234567890123456789\n")
        .with(namespace("after"))
        .read(&ReadOptions::default())
        .unwrap();
    assert!(archive.load(archive.find(&"configmaps".into(), &long, &long).unwrap()).is_ok());
    assert!(archive.load(archive.find(&"configmaps".into(), &"p".repeat(100), "pax").unwrap()).is_ok());
    assert_eq!(archive.len(), 3);
}

fn len_of(number: usize) -> usize {
    number.to_string().len()
}

#[test]
fn loads_happen_on_many_threads_at_once() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let archive = Backup::new()
        .with_all((0..64).map(|n| config_map("a", &format!("x{n}"))))
        .read(&ReadOptions::default())
        .unwrap();
    is_shared(&archive);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (_, ids) in archive.scopes(&"configmaps".into()) {
                    for id in ids {
                        assert_eq!(archive.load(id).unwrap()["metadata"]["name"], archive.entry(id).name);
                    }
                }
            });
        }
    });
}

// What a backup may be, too.

/// restore-semantics 2.3
#[test]
fn an_empty_backup_has_no_resources_directory() {
    for tarball in [gzip(b""), gzip(&[0; 1024]), gzip(&[0; 10240]), Backup::new().tarball().unwrap()] {
        let archive = read(&tarball).unwrap();
        assert!(!archive.has_resources_directory());
        assert!(archive.is_empty());
    }
    let only_directory = Backup::new().with_directory("resources/").read(&ReadOptions::default()).unwrap();
    assert!(only_directory.has_resources_directory());
    assert!(only_directory.is_empty());
}

#[test]
fn several_gzip_members_are_one_stream() {
    let plain = gunzip(&Backup::new().with(config_map("a", "x")).tarball().unwrap());
    let (first, second) = plain.split_at(700);
    let tarball = [gzip(first), gzip(b""), gzip(second)].concat();
    assert_eq!(read(&tarball).unwrap().len(), 1);
}

#[test]
fn what_follows_the_archive_is_ignored_and_told() {
    let mut tarball = Backup::new().with(config_map("a", "x")).tarball().unwrap();
    tarball.extend_from_slice(b"garbage");
    let archive = read(&tarball).unwrap();
    assert!(archive.stats().trailing_garbage);
    assert_eq!(archive.len(), 1);
}

/// restore-semantics 2.2
#[test]
fn links_are_ignored_and_counted() {
    let archive = Backup::new()
        .with_link("resources/configmaps/namespaces/a/link.json")
        .with_type(b'3', "resources/configmaps/namespaces/a/device.json", [])
        .with(config_map("a", "x"))
        .read(&ReadOptions::default())
        .unwrap();
    assert_eq!((archive.len(), archive.stats().links), (1, 2));
}

/// restore-semantics 2.3
#[test]
fn unexpected_files_are_ignored_and_counted() {
    let archive = Backup::new()
        .with_file("resources/README", "x")
        .with_file("resources/configmaps/README", "x")
        .with_file("resources/configmaps/namespaces/README", "x")
        .with_file("elsewhere", "x")
        .read(&ReadOptions::default())
        .unwrap();
    assert!(archive.has_resources_directory());
    assert_eq!((archive.len(), archive.stats().unexpected), (0, 3));
}

/// restore-semantics 2.2
#[test]
fn paths_that_stay_inside_are_cleaned() {
    let archive = Backup::new()
        .with_entry("a/../resources/./configmaps/namespaces//a/x.json", config_map("a", "x").to_string())
        .with_entry("/resources/configmaps/namespaces/a/y.json", config_map("a", "y").to_string())
        .read(&ReadOptions::default())
        .unwrap();
    assert_eq!(names(&archive, "configmaps", "a"), ["x", "y"]);
}

// Damaged items.

/// restore-semantics 2.3
#[test]
fn a_file_without_the_suffix_is_an_item_that_is_not_found() {
    let backup = Backup::new().with_file("resources/configmaps/namespaces/a/README.txt", "not an item");
    assert_eq!(
        damage(&backup, "README.txt"),
        "open resources/configmaps/namespaces/a/README.txt.json: no such file or directory"
    );
    let archive = backup.read(&ReadOptions::default()).unwrap();
    assert_eq!(archive.find(&"configmaps".into(), "a", "README.txt"), None);
}

/// restore-semantics 2.3; velero-differences: a-file-beside-its-namesake
#[test]
fn a_file_beside_its_namesake_with_the_suffix_is_no_second_item() {
    let archive = Backup::new()
        .with_file("resources/configmaps/namespaces/a/x", "not an item")
        .with(config_map("a", "x"))
        .read(&ReadOptions::default())
        .unwrap();
    assert_eq!(names(&archive, "configmaps", "a"), ["x"]);
    assert!(archive.find(&"configmaps".into(), "a", "x").is_some());
}

/// restore-semantics 4.6
#[test]
fn an_item_that_is_not_json_is_damaged_in_gos_words() {
    let path = "resources/configmaps/namespaces/a/x.json";
    let truncated = Backup::new().with_file(path, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":"#);
    assert_eq!(damage(&truncated, "x"), "unexpected end of JSON input");
    let xml = Backup::new().with_file(path, "<xml/>");
    assert_eq!(damage(&xml, "x"), "invalid character '<' looking for beginning of value");
    let array = Backup::new().with_file(path, "[1]");
    assert_eq!(damage(&array, "x"), "json: cannot unmarshal array into Go value of type map[string]interface {}");
}

/// restore-semantics 4.6
#[test]
fn an_item_without_kind_is_damaged() {
    let backup = Backup::new().with_file("resources/configmaps/namespaces/a/x.json", "{}");
    assert_eq!(damage(&backup, "x"), "Object 'Kind' is missing in '{}'");
}

#[test]
fn an_item_whose_name_disagrees_with_its_path_is_damaged_or_reported() {
    let backup =
        Backup::new().with_file("resources/configmaps/namespaces/a/x.json", config_map("a", "inner").to_string());
    assert_eq!(damage(&backup, "x"), r#"metadata.name is "inner", but the file is that of "x""#);
    let archive = backup.read(&ReadOptions { names: NameCheck::Report, ..ReadOptions::default() }).unwrap();
    let id = archive.find(&"configmaps".into(), "a", "x").unwrap();
    assert_eq!(archive.entry(id).inner_name, Some("inner"));
    assert_eq!(archive.load(id).unwrap(), config_map("a", "inner"));
}

#[test]
fn missing_metadata_is_no_damage_here() {
    let archive = Backup::new()
        .with_file("resources/configmaps/namespaces/a/x.json", r#"{"apiVersion":"v1","kind":"ConfigMap"}"#)
        .read(&ReadOptions::default())
        .unwrap();
    assert!(archive.entry(archive.find(&"configmaps".into(), "a", "x").unwrap()).header.is_ok());
}

#[test]
fn an_item_nested_too_deep_is_damaged_and_harmless() {
    let deep = format!(r#"{{"kind":"A","x":{}"#, "[".repeat(100_000));
    let backup = Backup::new().with_file("resources/configmaps/namespaces/a/x.json", deep);
    assert_eq!(damage(&backup, "x"), "exceeded max depth: the JSON is nested deeper than 127 levels");
}

#[test]
fn what_is_not_utf8_in_an_item_is_replaced_as_in_go() {
    let json =
        b"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"},\"data\":{\"a\":\"\xff\"}}";
    let archive = Backup::new()
        .with_file("resources/configmaps/namespaces/a/x.json", json)
        .read(&ReadOptions::default())
        .unwrap();
    let object = archive.load(archive.find(&"configmaps".into(), "a", "x").unwrap()).unwrap();
    assert_eq!(object["data"]["a"], "\u{fffd}");
}

// Broken and hostile tarballs.

#[test]
fn what_is_not_gzip_is_refused() {
    for input in [&b"hello"[..], &[0; 4096], b"PK\x03\x04 a zip", b"\x1f\x00 not gzip either"] {
        assert!(matches!(read(input), Err(Error::NotGzip)), "{input:?}");
    }
}

#[test]
fn a_tarball_cut_off_anywhere_is_truncated() {
    let tarball = Backup::new().with_all((0..9).map(|n| config_map("a", &format!("x{n}")))).tarball().unwrap();
    for len in 0..tarball.len() {
        let error = read(&tarball[..len]).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{len}: {error:?}");
        assert!(error.to_string().contains("unexpected EOF"), "{error}");
    }
}

#[test]
fn a_tar_stream_cut_off_is_truncated_unless_it_ends_with_an_entry() {
    let plain = gunzip(&Backup::new().with(config_map("a", "x")).without_copies().tarball().unwrap());
    assert_eq!(plain.len(), 512 * 2 + 512 * 2 + 1024);
    for len in 0..2048 {
        let result = read(&gzip(&plain[..len]));
        if matches!(len, 0 | 1024) {
            assert!(result.is_ok(), "{len}");
        } else {
            assert!(matches!(result, Err(Error::Truncated { .. })), "{len}: {result:?}");
        }
    }
}

#[test]
fn what_is_not_tar_is_refused() {
    assert!(matches!(read(&gzip(&b"not a tar archive ".repeat(100))), Err(Error::NotTar)));
}

#[test]
fn a_tar_header_that_is_broken_is_told_with_where() {
    let mut plain = gunzip(&Backup::new().with(config_map("a", "x")).tarball().unwrap());
    plain[1024 + 3] ^= 1;
    let error = read(&gzip(&plain)).unwrap_err();
    assert!(matches!(&error, Error::Corrupt(message) if message.contains("metadata/version")), "{error}");
}

#[test]
fn a_flipped_bit_is_found_by_the_checksum() {
    let mut tarball = Backup::new().with(config_map("a", "x")).tarball().unwrap();
    let crc = tarball.len() - 8;
    tarball[crc] ^= 1;
    assert!(matches!(read(&tarball), Err(Error::Corrupt(_))));
}

/// restore-semantics 2.2
#[test]
fn an_entry_that_leaves_the_root_is_an_error_with_its_name() {
    let escape = Backup::new().with(config_map("a", "x")).with_entry("../escape.json", "{}");
    let error = escape.read(&ReadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), r#"invalid archive path "../escape.json": escapes target directory"#);
    assert!(matches!(error, Error::EscapesRoot { .. }));
    let link = Backup::new().with_link("resources/../../x");
    assert!(matches!(link.read(&ReadOptions::default()), Err(Error::EscapesRoot { .. })));
}

#[test]
fn a_path_that_is_not_utf8_is_an_error_with_its_name() {
    let error = Backup::new().with_entry(b"resources/caf\xe9", "{}").read(&ReadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "invalid archive path \"resources/caf\u{fffd}\": not UTF-8");
}

#[test]
fn every_limit_is_kept_and_named() {
    let backup = Backup::new().with(config_map("namespace", &"x".repeat(200))).with_file("big", vec![0; 2_000_000]);
    for (which, limits) in [
        ("compressed_bytes", Limits { compressed_bytes: 100, ..Limits::default() }),
        ("uncompressed_bytes", Limits { uncompressed_bytes: 1000, ..Limits::default() }),
        ("ratio", Limits { ratio: 20, ratio_from_bytes: 1_000_000, ..Limits::default() }),
        ("entries", Limits { entries: 2, ..Limits::default() }),
        ("item_bytes", Limits { item_bytes: 100, ..Limits::default() }),
        ("path_bytes", Limits { path_bytes: 200, ..Limits::default() }),
        ("index_bytes", Limits { index_bytes: 100, ..Limits::default() }),
    ] {
        match backup.read(&ReadOptions { limits, ..ReadOptions::default() }) {
            Err(Error::Limit { which: named, .. }) => assert_eq!(named, which),
            other => panic!("{which}: {other:?}"),
        }
    }
    assert!(backup.read(&ReadOptions::default()).is_ok());
}

#[test]
fn a_disk_that_would_get_too_full_ends_the_reading_and_says_so() {
    let limits = Limits { free_bytes: u64::MAX, ..Limits::default() };
    let error = Backup::new().read(&ReadOptions { limits, ..ReadOptions::default() }).unwrap_err();
    assert!(matches!(error, Error::DiskFull { reserve: u64::MAX, .. }), "{error}");
    assert!(error.to_string().contains("TMPDIR"), "{error}");
}

#[test]
fn an_extended_header_is_not_taken_at_any_size() {
    let backup = Backup::new().with_type(b'L', "././@LongLink", vec![b'x'; 100_000]).with_entry("short", "");
    let error = backup.read(&ReadOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Limit { which: "path_bytes", .. }), "{error}");
}

#[test]
fn trouble_with_the_input_is_told_apart_from_a_broken_backup() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            }
            self.0.read(into)
        }
    }
    let tarball = Backup::new().with(config_map("a", "x")).tarball().unwrap();
    for len in [0, 5, 100, tarball.len() - 3] {
        match Archive::read(Failing(&tarball[..len]), &ReadOptions::default()) {
            Err(Error::Source(error)) => assert_eq!(error.to_string(), "the connection was closed"),
            other => panic!("{len}: {other:?}"),
        }
    }
}

#[test]
fn reading_ends_when_it_is_cancelled() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let options = ReadOptions { cancelled: Some(Arc::clone(&cancelled)), ..ReadOptions::default() };
    let backup = Backup::new().with(config_map("a", "x"));
    assert!(backup.read(&options).is_ok());
    cancelled.store(true, Ordering::Relaxed);
    assert!(matches!(backup.read(&options), Err(Error::Cancelled)));
}

#[test]
fn a_spool_that_cannot_be_made_is_an_error_of_the_spool() {
    let options = ReadOptions { spool_dir: Some("/nowhere/at/all".into()), ..ReadOptions::default() };
    assert!(matches!(Backup::new().read(&options), Err(Error::Spool(_))));
}

#[test]
fn an_item_larger_than_the_buffer_comes_back_whole() {
    let mut large = config_map("a", "large");
    large["data"]["a"] = json!("0123456789".repeat(200_000));
    let archive = Backup::new()
        .with(large.clone())
        .with_all((0..50).map(|n| config_map("a", &format!("x{n}"))))
        .read(&ReadOptions::default())
        .unwrap();
    assert_eq!(archive.load(archive.find(&"configmaps".into(), "a", "large").unwrap()).unwrap(), large);
    assert_eq!(archive.len(), 51);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read_in_listing_order(
        items in proptest::collection::btree_map(("[ab]{0,2}", "[a-c.-]{1,4}"), "[ -~é]{0,40}", 0..40),
        shuffle in any::<prop::sample::Index>(),
    ) {
        let object = |(namespace, name): &(String, String), data: &String| {
            let mut object = config_map(namespace, name);
            object["data"]["a"] = json!(data);
            object
        };
        let mut entries: Vec<_> = items.iter().collect();
        if !entries.is_empty() {
            let at = shuffle.index(entries.len());
            entries.rotate_left(at);
        }
        let archive = Backup::new()
            .with_all(entries.iter().map(|(key, data)| object(key, data)))
            .read(&ReadOptions::default())
            .unwrap();
        let mut expected: Vec<_> = items.iter().map(|(key, data)| (key.0.clone(), format!("{}.json", key.1), object(key, data))).collect();
        expected.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let mut found = Vec::new();
        for (namespace, ids) in archive.scopes(&"configmaps".into()) {
            for id in ids {
                let entry = archive.entry(id);
                prop_assert_eq!(entry.namespace, namespace);
                prop_assert_eq!(archive.find(entry.group_resource, namespace, entry.name), Some(id));
                found.push((namespace.to_owned(), format!("{}.json", entry.name), archive.load(id).unwrap()));
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(archive.len(), items.len());
    }

    #[test]
    fn no_bytes_make_it_panic(tar in proptest::collection::vec(any::<u8>(), 0..3000), raw in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&gzip(&tar));
        let _ = read(&raw);
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut plain = gunzip(&Backup::new().with(config_map("a", &"x".repeat(150))).with_link("l").tarball().unwrap());
        let at = at.index(plain.len());
        plain[at] = byte;
        let _ = read(&gzip(&plain));
    }
}

/// restore-semantics 2.2, 2.5: three directories, and an item that only one of them has.
fn versioned() -> Backup {
    let widget = |version: &str, from: &str| {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget",
            "metadata": {"name": "w", "namespace": "shop", "labels": {"from": from}}})
    };
    Backup::new()
        .with(widget("v1", "v1"))
        .with_file("resources/widgets.example.com/v2/namespaces/shop/w.json", widget("v2", "v2").to_string())
        .with_file("resources/widgets.example.com/v2/namespaces/shop/broken.json", "{")
        .with_file("resources/widgets.example.com/v2/namespaces/shop/README.txt", "x")
        .with_file("resources/widgets.example.com/v2/README.txt", "x")
        .with(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "bank"}}))
}

#[test]
fn version_directories_are_kept_when_they_are_asked_for() {
    let widgets = GroupResource::from("widgets.example.com");
    let plain = versioned().read(&ReadOptions::default()).unwrap();
    assert_eq!((plain.stats().skipped_copies, plain.stats().kept_copies), (6, 0));
    assert_eq!(plain.version_directories(&widgets).count(), 0);
    assert_eq!(plain.find_version(&widgets, "v2", "shop", "w"), None);

    let options = ReadOptions { keep_versions: true, keep_labels: true, ..ReadOptions::default() };
    let archive = versioned().read(&options).unwrap();
    assert_eq!((archive.stats().skipped_copies, archive.stats().kept_copies), (1, 5));
    assert_eq!(archive.version_directories(&widgets).collect::<Vec<_>>(), ["v1-preferredversion", "v2"]);
    assert_eq!(archive.version_directories(&GroupResource::from("widgets")).count(), 0);

    let id = archive.find_version(&widgets, "v2", "shop", "w").unwrap();
    let entry = archive.entry(id);
    assert_eq!((entry.group_resource, entry.namespace, entry.name), (&widgets, "shop", "w"));
    assert_eq!(entry.path(), "resources/widgets.example.com/v2/namespaces/shop/w.json");
    assert_eq!(&*entry.header.unwrap().api_version, "example.com/v2");
    assert_eq!(entry.header.unwrap().labels.as_ref().unwrap().get("from"), Some("v2"));
    assert_eq!(archive.load(id).unwrap()["apiVersion"], "example.com/v2");
    let broken = archive.find_version(&widgets, "v2", "shop", "broken").unwrap();
    assert!(archive.entry(broken).header.is_err() && archive.load(broken).is_err());
    for (directory, namespace, name) in [("v3", "shop", "w"), ("v2", "bank", "w"), ("v2", "shop", "x"), ("v2", "", "w")]
    {
        assert_eq!(archive.find_version(&widgets, directory, namespace, name), None);
    }
}

#[test]
fn what_is_listed_does_not_depend_on_version_directories() {
    let plain = versioned().read(&ReadOptions::default()).unwrap();
    let archive = versioned().read(&ReadOptions { keep_versions: true, ..ReadOptions::default() }).unwrap();
    let listed = |archive: &Archive| -> Vec<String> {
        let groups = archive.group_resources().cloned().collect::<Vec<_>>();
        let ids = groups.iter().flat_map(|group| archive.scopes(group).flat_map(|(_, ids)| ids).collect::<Vec<_>>());
        ids.map(|id| archive.entry(id).path()).collect()
    };
    assert_eq!(listed(&archive), listed(&plain));
    assert_eq!(archive.namespaces().collect::<Vec<_>>(), plain.namespaces().collect::<Vec<_>>());
    assert_eq!((archive.len(), archive.stats().items), (plain.len(), plain.stats().items));
}

#[test]
fn a_mere_copy_is_the_item_itself_and_takes_no_room() {
    let plain = versioned().read(&ReadOptions::default()).unwrap();
    let archive = versioned().read(&ReadOptions { keep_versions: true, ..ReadOptions::default() }).unwrap();
    let widgets = GroupResource::from("widgets.example.com");
    let item = archive.find(&widgets, "shop", "w").unwrap();
    assert_eq!(archive.find_version(&widgets, "v1-preferredversion", "shop", "w"), Some(item));
    let other = archive.find_version(&widgets, "v2", "shop", "w").unwrap();
    assert!(other != item && other > item);
    let more = archive.load_bytes(other).unwrap().len() as u64;
    assert_eq!(archive.stats().spooled_bytes, plain.stats().spooled_bytes + more);
}
