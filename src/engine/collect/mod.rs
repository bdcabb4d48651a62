//! Phase 1: which items of a backup are restored, and in which order (restore-semantics 4).
//!
//! Nothing is asked of the API server here but what discovery told before, and nothing is written: the same archive, specification,
//! discovery and priorities give the same [`Plan`].
//!
//! Where the plan knowingly differs from Velero's collection:
//! - CustomResourceDefinitions are planned once, in a stage of their own. Velero collects them twice and drops the second time.
//! - Namespaces of a group-resource follow each other byte by byte. Velero's order is random.
//! - A namespace wildcard that matches nothing takes nothing. Velero takes everything then.
//! - Completed pods and jobs are left out here. Velero passes over them in phase 2, after it has ensured their namespace;
//!   [`Plan::namespaces`] has that namespace too.

mod filters;
mod priorities;

use std::collections::HashSet;
use std::sync::Arc;

pub use filters::{FilterError, Filters, needs_labels, resolve_resources};
pub use priorities::{InvalidPriorities, Priorities};

use super::discovery::Discovery;
use super::plan::{LeftOut, Plan, PlannedItem, PlannedNamespace, Tier};
use super::versions::Chosen;
use crate::archive::{Archive, Damage, Entry, EntryId, EntryIds, Header};
use crate::model::{Bucket, Finding, GroupResource, Reason, RestoreSpec, Severity, Stage};

/// Stands for the directory that Velero extracts a backup into. There is none here, and the texts that name it are kept.
const EXTRACTED: &str = "<extracted>";

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct CollectInput<'a> {
    /// The backup; with labels if [`needs_labels`] says so, else each item is loaded for them.
    pub archive: &'a Archive,
    /// What the restore is asked to do.
    pub spec: &'a RestoreSpec,
    /// What the API server serves, before anything is restored.
    pub discovery: &'a Discovery,
    /// The order of group-resources.
    pub priorities: &'a Priorities,
    /// The version directories that items are taken from (restore-semantics 2.5); their names still come from outside.
    pub versions: &'a Chosen,
}

/// The outcome of phase 1.
#[derive(Clone, Debug)]
pub struct Collected {
    /// What will be done.
    pub plan: Plan,
    /// What phase 2 asks about additional items; `None` when a list or selector is not valid, so that there is nothing to restore.
    pub filters: Option<Filters>,
}

impl Collected {
    /// Nothing is restored, for this reason.
    pub(super) fn aborted(message: String, reason: Reason) -> Self {
        let finding = Finding { severity: Severity::Error, bucket: Bucket::Velero, message };
        Self { plan: Plan { findings: vec![(finding, reason)], aborted: true, ..Plan::default() }, filters: None }
    }
}

/// Makes the plan of a restore.
///
/// A selector or a wildcard that is not valid aborts the plan. An item that cannot be decoded is left out with an error, and
/// the others are planned.
#[must_use]
pub fn collect(input: &CollectInput<'_>) -> Collected {
    let CollectInput { archive, spec, discovery, versions, .. } = *input;
    let has_items = archive.has_resources_directory();
    let filters = match Filters::new(spec, discovery, archive.namespaces()) {
        Ok(filters) => filters,
        // Velero looks at the namespaces after it has found items.
        Err(FilterError::Wildcard(_)) if !has_items => return Collected { plan: zero_items(), filters: None },
        Err(error) => return Collected::aborted(error.to_string(), Reason::Invalid),
    };
    if !has_items {
        return Collected { plan: zero_items(), filters: Some(filters) };
    }
    let mut collection = Collection {
        archive,
        spec,
        filters: &filters,
        versions,
        visited: HashSet::new(),
        targets: HashSet::new(),
        plan: Plan::default(),
    };
    collection.visit(discovery.resolve("customresourcedefinitions"), Stage::CustomResourceDefinitions);
    let refreshed = discovery.with_custom_resources(&collection.definitions());
    for name in input.priorities.order(archive.group_resources()) {
        collection.visit(refreshed.resolve(name), Stage::Items);
    }
    let plan = collection.plan;
    Collected { plan, filters: Some(filters) }
}

fn zero_items() -> Plan {
    let message = format!("zero items to be restored: directory \"{EXTRACTED}/resources\": does not exist");
    let finding = Finding { severity: Severity::Warning, bucket: Bucket::Velero, message };
    Plan { findings: vec![(finding, Reason::Archive)], ..Plan::default() }
}

struct Collection<'a> {
    archive: &'a Archive,
    spec: &'a RestoreSpec,
    filters: &'a Filters,
    versions: &'a Chosen,
    visited: HashSet<GroupResource>,
    targets: HashSet<Arc<str>>,
    plan: Plan,
}

impl Collection<'_> {
    /// Plans a group-resource, unless that is done.
    fn visit(&mut self, group_resource: GroupResource, stage: Stage) {
        if !self.visited.insert(group_resource.clone()) || !self.filters.takes_resource(&group_resource) {
            return;
        }
        let mut items = Vec::new();
        for (namespace, entries) in self.archive.scopes(&group_resource) {
            if self.filters.collects_scope(&group_resource, namespace) {
                self.visit_scope(&group_resource, namespace, entries, &mut items);
            }
        }
        if !items.is_empty() {
            self.plan.tiers.push(Tier { group_resource, stage, items });
        }
    }

    fn visit_scope(
        &mut self,
        group_resource: &GroupResource,
        namespace: &str,
        entries: EntryIds,
        items: &mut Vec<PlannedItem>,
    ) {
        let source: Arc<str> = namespace.into();
        // A mapping of the empty name would turn cluster-scoped items into namespaced ones.
        let target: Arc<str> =
            if namespace.is_empty() { Arc::clone(&source) } else { self.spec.target_namespace(namespace).into() };
        for listed in entries {
            let (id, missing) = self.of_version(group_resource, namespace, listed);
            let entry = self.archive.entry(id);
            let mut item = PlannedItem {
                entry: id,
                source_namespace: Arc::clone(&source),
                target_namespace: Arc::clone(&target),
                // Velero goes by the name in the object, but for Namespaces, which it does not read for their name.
                name: entry.inner_name.filter(|_| *group_resource != "namespaces").unwrap_or(entry.name).into(),
                api_version: "".into(),
                kind: "".into(),
            };
            if let Some(path) = missing {
                self.leave_out_damaged(&path, &entry, item, &Damage::NotFound { path: path.clone() });
                continue;
            }
            let header = match entry.header {
                Ok(header) => header,
                Err(damage) => {
                    self.leave_out_damaged(&entry.path(), &entry, item, damage);
                    continue;
                }
            };
            if !self.collects_item(&entry, id, header) {
                continue;
            }
            item.api_version = Arc::clone(&header.api_version);
            item.kind = Arc::clone(&header.kind);
            if *group_resource == "namespaces" {
                item.target_namespace = self.spec.target_namespace(entry.name).into();
                self.ensure(&item.name, &item.target_namespace);
            } else {
                self.ensure(&source, &target);
            }
            if header.completed {
                let message = "it had completed when it was backed up".to_owned();
                let (group_resource, reason) = (group_resource.clone(), Reason::Completed);
                self.plan.left_out.push(LeftOut { group_resource, item, reason, message });
            } else {
                items.push(item);
            }
        }
    }

    fn collects_item(&self, entry: &Entry<'_>, id: EntryId, header: &Header) -> bool {
        let group_resource = entry.group_resource;
        if self.filters.ignores_labels(group_resource) {
            return true;
        }
        if let Some(labels) = &header.labels {
            return self.filters.collects_labels(group_resource, |key| labels.get(key));
        }
        match self.archive.load(id) {
            Ok(object) => {
                let labels = &object["metadata"]["labels"];
                self.filters.collects_labels(group_resource, |key| labels.get(key).and_then(serde_json::Value::as_str))
            }
            // It is planned, so that phase 2 meets the same trouble and reports it.
            Err(_) => true,
        }
    }

    /// The file of a listed item in the chosen version directory, where one is chosen; or the item itself, with the path that there
    /// should have been.
    fn of_version(
        &self,
        group_resource: &GroupResource,
        namespace: &str,
        listed: EntryId,
    ) -> (EntryId, Option<String>) {
        let Some(directory) = self.versions.directory(group_resource) else { return (listed, None) };
        let name = self.archive.entry(listed).name;
        match self.archive.find_version(group_resource, directory, namespace, name) {
            Some(found) => (found, None),
            None => (listed, Some(Archive::version_path(group_resource, directory, namespace, name))),
        }
    }

    fn leave_out_damaged(&mut self, path: &str, entry: &Entry<'_>, item: PlannedItem, damage: &Damage) {
        let text = match damage {
            Damage::NotFound { path } => Damage::NotFound { path: format!("{EXTRACTED}/{path}") }.to_string(),
            other => other.to_string(),
        };
        let message = format!("error decoding {path:?}: {text}");
        let bucket = Bucket::of(&item.target_namespace);
        let finding = Finding { severity: Severity::Error, bucket, message: message.clone() };
        self.plan.findings.push((finding, Reason::Archive));
        let group_resource = entry.group_resource.clone();
        self.plan.left_out.push(LeftOut { group_resource, item, reason: Reason::Archive, message });
    }

    /// Notes that a namespace is needed. The first source of a target gives the target's body.
    fn ensure(&mut self, source: &Arc<str>, target: &Arc<str>) {
        if !target.is_empty() && self.targets.insert(Arc::clone(target)) {
            let (source, target) = (Arc::clone(source), Arc::clone(target));
            self.plan.namespaces.push(PlannedNamespace { source, target });
        }
    }

    /// The planned CustomResourceDefinitions. One that cannot be loaded is missing: phase 2 reports it, and only the place of its
    /// resources in the order may suffer.
    fn definitions(&self) -> Vec<serde_json::Value> {
        let items = self.plan.tiers.iter().flat_map(|tier| &tier.items);
        items.filter_map(|item| self.archive.load(item.entry).ok()).collect()
    }
}

#[cfg(test)]
mod tests;
