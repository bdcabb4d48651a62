//! The flags of `velero restore create`, under their own names, and `--spec`: together they are the `spec` of a Restore.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::spec_file::{self, SpecFile};
use crate::model::selector::{self, Selector};
use crate::model::{GoDuration, InvalidDuration, RestoreName};
use crate::velero::RestoreSpec;

/// What to restore.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What to restore (the flags of `velero restore create`)")]
pub(super) struct RestoreFlags {
    /// Take these namespaces of the backup; comma-separated, globs allowed. All without it
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACES")]
    include_namespaces: Vec<String>,
    /// Leave these namespaces out
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACES")]
    exclude_namespaces: Vec<String>,
    /// Take these resources, such as `pods` or `deployments.apps`. All without it
    #[arg(long, value_delimiter = ',', value_name = "RESOURCES")]
    include_resources: Vec<String>,
    /// Leave these resources out
    #[arg(long, value_delimiter = ',', value_name = "RESOURCES")]
    exclude_resources: Vec<String>,
    /// Restore one namespace into another: `src1:dst1,src2:dst2`
    #[arg(long, value_delimiter = ',', value_name = "SRC:DST")]
    namespace_mappings: Vec<String>,
    /// Take items whose labels match, such as `app=web,tier in (a,b)`
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Take items that match one of these selectors, joined by ` or `
    #[arg(long, value_name = "SELECTOR or SELECTOR")]
    or_selector: Option<String>,
    /// Restore cluster-scoped resources; without it, as far as they are needed
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    include_cluster_resources: Option<String>,
    /// Restore volumes from snapshots
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    restore_volumes: Option<String>,
    /// Keep the node ports of services
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    preserve_nodeports: Option<String>,
    /// What becomes of objects that exist and differ: `none` leaves them, `update` changes them
    #[arg(long, value_name = "none|update")]
    existing_resource_policy: Option<String>,
    /// Restore the status of these resources as well
    #[arg(long, value_delimiter = ',', value_name = "RESOURCES")]
    status_include_resources: Vec<String>,
    /// Do not restore the status of these resources
    #[arg(long, value_delimiter = ',', value_name = "RESOURCES")]
    status_exclude_resources: Vec<String>,
    /// How long to wait for asynchronous operations, such as `4h`
    #[arg(long, value_name = "DURATION")]
    item_operation_timeout: Option<String>,
    /// A ConfigMap with rules that change items before they are created
    #[arg(long, value_name = "NAME")]
    resource_modifier_configmap: Option<String>,
    /// Write files of volumes sparsely
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    write_sparse_files: Option<String>,
    /// How many files of a volume are downloaded at a time
    #[arg(long, value_name = "NUMBER")]
    parallel_files_download: Option<u32>,
    /// Labels of the Restore: `a=b,c=d`
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Annotations of the Restore: `a=b,c=d`
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// A file (YAML or JSON) with the `spec` of a Restore, or a whole Restore; flags go before what it says
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

/// Which backup a Restore is made from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where from")]
pub(super) struct SourceFlags {
    /// The backup to restore
    #[arg(long, value_name = "BACKUP")]
    pub(super) from_backup: Option<String>,
    /// The schedule whose last completed backup is restored
    #[arg(long, value_name = "SCHEDULE")]
    pub(super) from_schedule: Option<String>,
}

/// What flags and file ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// The name that the file gives the Restore.
    pub(super) name: Option<String>,
    /// The specification.
    pub(super) spec: RestoreSpec,
    /// Labels of the Restore.
    pub(super) labels: BTreeMap<String, String>,
    /// Annotations of the Restore.
    pub(super) annotations: BTreeMap<String, String>,
}

/// A flag that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Not `true` or `false`.
    #[error("--{flag}: {value:?} is neither true nor false")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// An entry of a mapping without its separator, or with an empty half.
    #[error("--{flag}: {entry:?} is not of the form {form}")]
    Pair {
        /// The flag.
        flag: &'static str,
        /// The entry.
        entry: String,
        /// What it should look like.
        form: &'static str,
    },
    /// The same key twice, with different values.
    #[error("--{flag}: {key:?} is given two values, {first:?} and {second:?}; keep one")]
    Twice {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
        /// The first value.
        first: String,
        /// The second value.
        second: String,
    },
    /// A selector that Kubernetes would not take.
    #[error("--{flag}: {text:?} is no label selector")]
    Selector {
        /// The flag.
        flag: &'static str,
        /// The text.
        text: String,
        /// What is wrong with it.
        #[source]
        source: selector::Error,
    },
    /// Both kinds of selector.
    #[error("--selector and --or-selector exclude each other: give one of them")]
    BothSelectors,
    /// Neither `none` nor `update`.
    #[error("--existing-resource-policy: {0:?} is neither none nor update")]
    Policy(String),
    /// No Go duration.
    #[error("--item-operation-timeout")]
    Duration(#[source] InvalidDuration),
    /// An empty name among others.
    #[error("--{flag}: an empty name; check the commas")]
    EmptyName {
        /// The flag.
        flag: &'static str,
    },
    /// No backup is named, or two are.
    #[error("name the backup by --from-backup or --from-schedule (or in --spec), one of them and not both")]
    Source,
    /// A name that Kubernetes would not take.
    #[error(transparent)]
    Name(#[from] crate::model::InvalidName),
    /// The file of `--spec`.
    #[error(transparent)]
    SpecFile(#[from] spec_file::Error),
}

impl RestoreFlags {
    /// Reads `--spec`, and puts the flags on top of it.
    ///
    /// # Errors
    /// With the name of the flag that is wrong.
    pub(super) fn read(&self) -> Result<Wanted, Error> {
        let file = self.spec.as_deref().map(spec_file::read).transpose()?;
        self.over(file.unwrap_or_default())
    }

    /// The flags on top of what a file says.
    fn over(&self, file: SpecFile) -> Result<Wanted, Error> {
        let SpecFile { name, spec, mut labels, mut annotations } = file;
        let mut spec = Spec(spec);
        spec.names("includedNamespaces", "include-namespaces", &self.include_namespaces)?;
        spec.names("excludedNamespaces", "exclude-namespaces", &self.exclude_namespaces)?;
        spec.names("includedResources", "include-resources", &self.include_resources)?;
        spec.names("excludedResources", "exclude-resources", &self.exclude_resources)?;
        if !self.namespace_mappings.is_empty() {
            let mapping = pairs("namespace-mappings", &self.namespace_mappings, ':', "SOURCE:TARGET")?;
            spec.put("namespaceMapping", json!(mapping));
        }
        self.selectors(&mut spec)?;
        spec.flag("includeClusterResources", "include-cluster-resources", self.include_cluster_resources.as_deref())?;
        spec.flag("restorePVs", "restore-volumes", self.restore_volumes.as_deref())?;
        spec.flag("preserveNodePorts", "preserve-nodeports", self.preserve_nodeports.as_deref())?;
        if let Some(policy) = &self.existing_resource_policy {
            if !matches!(policy.as_str(), "none" | "update") {
                return Err(Error::Policy(policy.clone()));
            }
            spec.put("existingResourcePolicy", json!(policy));
        }
        spec.names_in(
            "restoreStatus",
            "includedResources",
            "status-include-resources",
            &self.status_include_resources,
        )?;
        spec.names_in(
            "restoreStatus",
            "excludedResources",
            "status-exclude-resources",
            &self.status_exclude_resources,
        )?;
        if let Some(timeout) = &self.item_operation_timeout {
            let timeout: GoDuration = timeout.parse().map_err(Error::Duration)?;
            spec.put("itemOperationTimeout", json!(timeout.to_string()));
        }
        if let Some(name) = &self.resource_modifier_configmap {
            spec.put("resourceModifier", json!({"kind": "configmap", "name": name}));
        }
        if let Some(value) = &self.write_sparse_files {
            spec.put_in("uploaderConfig", "writeSparseFiles", json!(boolean("write-sparse-files", value)?));
        }
        if let Some(number) = self.parallel_files_download {
            spec.put_in("uploaderConfig", "parallelFilesDownload", json!(number));
        }
        labels.extend(pairs("labels", &self.labels, '=', "KEY=VALUE")?);
        annotations.extend(pairs("annotations", &self.annotations, '=', "KEY=VALUE")?);
        let spec = spec_file::typed(Value::Object(spec.0))?;
        Ok(Wanted { name, spec, labels, annotations })
    }

    /// One kind of selector takes the place of the other in the file.
    fn selectors(&self, spec: &mut Spec) -> Result<(), Error> {
        match (&self.selector, &self.or_selector) {
            (Some(_), Some(_)) => return Err(Error::BothSelectors),
            (Some(text), None) => {
                spec.0.remove("orLabelSelectors");
                spec.put("labelSelector", label_selector("selector", text)?);
            }
            (None, Some(text)) => {
                let selectors = text.split(" or ").map(|text| label_selector("or-selector", text));
                spec.0.remove("labelSelector");
                spec.put("orLabelSelectors", Value::Array(selectors.collect::<Result<_, _>>()?));
            }
            (None, None) => {}
        }
        Ok(())
    }
}

impl SourceFlags {
    /// Whether none is given.
    pub(super) const fn is_empty(&self) -> bool {
        self.from_backup.is_none() && self.from_schedule.is_none()
    }

    /// Puts the source into the specification; it must have exactly one in the end.
    ///
    /// # Errors
    /// [`Error::Source`].
    pub(super) fn apply(&self, spec: &mut RestoreSpec) -> Result<(), Error> {
        match (&self.from_backup, &self.from_schedule) {
            (Some(_), Some(_)) => return Err(Error::Source),
            (Some(backup), None) => {
                spec.backup_name.clone_from(backup);
                spec.schedule_name.clear();
            }
            (None, Some(schedule)) => {
                spec.schedule_name.clone_from(schedule);
                spec.backup_name.clear();
            }
            (None, None) => {}
        }
        if spec.backup_name.is_empty() == spec.schedule_name.is_empty() {
            return Err(Error::Source);
        }
        Ok(())
    }
}

/// The name of a Restore: the one that was given, or as Velero makes one, `<backup>-<YYYYMMDDhhmmss>`.
///
/// # Errors
/// When it is no Kubernetes name.
pub(super) fn restore_name(given: Option<&str>, source: &str, now: jiff::Timestamp) -> Result<RestoreName, Error> {
    let made = || format!("{source}-{}", now.strftime("%Y%m%d%H%M%S"));
    Ok(given.map_or_else(made, str::to_owned).parse()?)
}

/// A specification as it is put together.
struct Spec(Map<String, Value>);

impl Spec {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Sets a field of an object within; what the file has in its place and is none is replaced.
    fn put_in(&mut self, outer: &str, key: &str, value: Value) {
        if let Some(Value::Object(inner)) = self.0.get_mut(outer) {
            inner.insert(key.to_owned(), value);
        } else {
            self.put(outer, json!({ key: value }));
        }
    }

    fn names(&mut self, key: &str, flag: &'static str, names: &[String]) -> Result<(), Error> {
        if !names.is_empty() {
            self.put(key, json!(trimmed(flag, names)?));
        }
        Ok(())
    }

    fn names_in(&mut self, outer: &str, key: &str, flag: &'static str, names: &[String]) -> Result<(), Error> {
        if !names.is_empty() {
            let names = trimmed(flag, names)?;
            self.put_in(outer, key, json!(names));
        }
        Ok(())
    }

    fn flag(&mut self, key: &str, flag: &'static str, value: Option<&str>) -> Result<(), Error> {
        if let Some(value) = value {
            self.put(key, json!(boolean(flag, value)?));
        }
        Ok(())
    }
}

fn trimmed<'a>(flag: &'static str, names: &'a [String]) -> Result<Vec<&'a str>, Error> {
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    if names.iter().any(|name| name.is_empty()) { Err(Error::EmptyName { flag }) } else { Ok(names) }
}

/// The spellings that Go's `strconv.ParseBool` takes.
fn boolean(flag: &'static str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::Flag { flag, value: value.to_owned() }),
    }
}

fn pairs(
    flag: &'static str,
    entries: &[String],
    separator: char,
    form: &'static str,
) -> Result<BTreeMap<String, String>, Error> {
    let mut map = BTreeMap::new();
    for entry in entries {
        let wrong = || Error::Pair { flag, entry: entry.clone(), form };
        let (key, value) = entry.split_once(separator).ok_or_else(wrong)?;
        let (key, value) = (key.trim(), value.trim());
        // An empty value is a fine label; an empty namespace is nothing.
        if key.is_empty() || (separator == ':' && (value.is_empty() || value.contains(separator))) {
            return Err(wrong());
        }
        match map.insert(key.to_owned(), value.to_owned()) {
            Some(first) if first != value => {
                return Err(Error::Twice { flag, key: key.to_owned(), first, second: value.to_owned() });
            }
            _ => {}
        }
    }
    Ok(map)
}

fn label_selector(flag: &'static str, text: &str) -> Result<Value, Error> {
    let wrong = |source| Error::Selector { flag, text: text.to_owned(), source };
    let structured = Selector::parse(text).map_err(wrong)?.to_label_selector().map_err(wrong)?;
    Ok(json!(structured))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::Parser;

    use super::*;
    use crate::model::error_chain;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        flags: RestoreFlags,
        #[command(flatten)]
        source: SourceFlags,
    }

    fn parse(arguments: &[&str]) -> Flags {
        Flags::try_parse_from(["reprise"].iter().chain(arguments)).unwrap()
    }

    fn spec(arguments: &[&str]) -> Value {
        serde_json::to_value(parse(arguments).flags.read().unwrap().spec).unwrap()
    }

    fn refusal(arguments: &[&str]) -> String {
        error_chain(&parse(arguments).flags.read().unwrap_err())
    }

    #[test]
    fn every_flag_of_velero_sets_the_field_that_velero_sets() {
        let wanted = parse(&[
            "--include-namespaces=a,b-*",
            "--exclude-namespaces=c",
            "--include-resources",
            "pods,deployments.apps",
            "--exclude-resources=secrets",
            "--namespace-mappings=a:z,b:y",
            "-l",
            "app=web,tier in (x,y)",
            "--include-cluster-resources",
            "--restore-volumes=false",
            "--preserve-nodeports=T",
            "--existing-resource-policy=update",
            "--status-include-resources=pods",
            "--status-exclude-resources=jobs",
            "--item-operation-timeout=90m",
            "--resource-modifier-configmap=rules",
            "--write-sparse-files",
            "--parallel-files-download=4",
            "--labels=team=blue,empty=",
            "--annotations=why=drill",
        ])
        .flags
        .read()
        .unwrap();
        assert_eq!(
            serde_json::to_value(&wanted.spec).unwrap(),
            json!({
                "includedNamespaces": ["a", "b-*"],
                "excludedNamespaces": ["c"],
                "includedResources": ["pods", "deployments.apps"],
                "excludedResources": ["secrets"],
                "namespaceMapping": {"a": "z", "b": "y"},
                "labelSelector": {
                    "matchLabels": {"app": "web"},
                    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x", "y"]}],
                },
                "includeClusterResources": true,
                "restorePVs": false,
                "preserveNodePorts": true,
                "existingResourcePolicy": "update",
                "restoreStatus": {"includedResources": ["pods"], "excludedResources": ["jobs"]},
                "itemOperationTimeout": "1h30m0s",
                "resourceModifier": {"kind": "configmap", "name": "rules"},
                "uploaderConfig": {"writeSparseFiles": true, "parallelFilesDownload": 4},
                "hooks": {},
            })
        );
        assert_eq!(wanted.labels, BTreeMap::from([("team".into(), "blue".into()), ("empty".into(), String::new())]));
        assert_eq!(wanted.annotations, BTreeMap::from([("why".into(), "drill".into())]));
    }

    #[test]
    fn without_flags_nothing_is_set() {
        assert_eq!(spec(&[]), json!({"hooks": {}, "itemOperationTimeout": "0s"}));
    }

    #[test]
    fn alternatives_are_joined_by_the_word_or() {
        let selectors = spec(&["--or-selector", "app=web or tier=db,app!=old"])["orLabelSelectors"].clone();
        assert_eq!(selectors[0], json!({"matchLabels": {"app": "web"}}));
        assert_eq!(selectors[1]["matchLabels"], json!({"tier": "db"}));
        assert_eq!(selectors[1]["matchExpressions"][0]["operator"], "NotIn");
    }

    #[test]
    fn a_refusal_names_the_flag_and_the_value() {
        for (arguments, message) in [
            (&["--restore-volumes=maybe"][..], "--restore-volumes: \"maybe\" is neither true nor false"),
            (&["--namespace-mappings=a"], "--namespace-mappings: \"a\" is not of the form SOURCE:TARGET"),
            (&["--namespace-mappings=a:"], "--namespace-mappings: \"a:\" is not of the form SOURCE:TARGET"),
            (&["--namespace-mappings=a:b:c"], "--namespace-mappings: \"a:b:c\" is not of the form SOURCE:TARGET"),
            (
                &["--namespace-mappings=a:b,a:c"],
                "--namespace-mappings: \"a\" is given two values, \"b\" and \"c\"; keep one",
            ),
            (&["--labels=x"], "--labels: \"x\" is not of the form KEY=VALUE"),
            (
                &["--existing-resource-policy=replace"],
                "--existing-resource-policy: \"replace\" is neither none nor update",
            ),
            (&["--include-resources=pods,,secrets"], "--include-resources: an empty name; check the commas"),
            (&["--item-operation-timeout=4"], "--item-operation-timeout: time: missing unit in duration \"4\""),
            (
                &["-l", "a=b", "--or-selector", "c=d"],
                "--selector and --or-selector exclude each other: give one of them",
            ),
        ] {
            assert_eq!(refusal(arguments), message);
        }
        assert!(refusal(&["-l", "tier in front"]).starts_with("--selector: \"tier in front\" is no label selector: "));
    }

    #[test]
    fn flags_go_before_what_the_file_says() {
        let file = SpecFile {
            name: Some("again".to_owned()),
            spec: json!({
                "backupName": "nightly",
                "includedNamespaces": ["a"],
                "orLabelSelectors": [{"matchLabels": {"a": "b"}}],
                "restoreStatus": {"includedResources": ["pods"]},
                "existingResourcePolicy": "none",
            })
            .as_object()
            .unwrap()
            .clone(),
            labels: BTreeMap::from([("a".into(), "file".into()), ("b".into(), "file".into())]),
            annotations: BTreeMap::new(),
        };
        let flags = parse(&[
            "--include-namespaces=x",
            "--selector=c=d",
            "--status-exclude-resources=jobs",
            "--labels=a=flag",
            "--from-backup=weekly",
        ]);
        let mut wanted = flags.flags.over(file).unwrap();
        flags.source.apply(&mut wanted.spec).unwrap();
        assert_eq!(wanted.spec.backup_name, "weekly");
        assert_eq!(wanted.spec.included_namespaces, ["x"]);
        assert_eq!(wanted.spec.or_label_selectors, None);
        assert!(wanted.spec.label_selector.is_some());
        let status = wanted.spec.restore_status.unwrap();
        assert_eq!((status.included_resources, status.excluded_resources), (vec!["pods".into()], vec!["jobs".into()]));
        assert_eq!(wanted.spec.existing_resource_policy, "none");
        assert_eq!(wanted.labels["a"], "flag");
        assert_eq!(wanted.labels["b"], "file");
        assert_eq!(wanted.name.as_deref(), Some("again"));
    }

    #[test]
    fn a_restore_has_one_source() {
        let apply = |arguments: &[&str]| {
            let mut spec = RestoreSpec::default();
            parse(arguments).source.apply(&mut spec).map(|()| (spec.backup_name, spec.schedule_name))
        };
        assert_eq!(apply(&["--from-backup=b"]).unwrap(), ("b".to_owned(), String::new()));
        assert_eq!(apply(&["--from-schedule=s"]).unwrap(), (String::new(), "s".to_owned()));
        assert!(apply(&[]).is_err());
        assert!(apply(&["--from-backup=b", "--from-schedule=s"]).is_err());
    }

    #[test]
    fn an_unnamed_restore_is_called_after_backup_and_time() {
        let now = "2026-03-02T04:05:06Z".parse().unwrap();
        assert_eq!(restore_name(None, "nightly", now).unwrap().as_str(), "nightly-20260302040506");
        assert_eq!(restore_name(Some("mine"), "nightly", now).unwrap().as_str(), "mine");
        assert!(restore_name(Some("Mine"), "nightly", now).is_err());
    }
}
