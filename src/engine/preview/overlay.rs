//! The cluster as a restore would leave it, as far as the restore itself looks: the live one, and over it what the
//! preview has pretended to create.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Options, ReadOnly};
use crate::engine::discovery::Discovery;
use crate::engine::events::Untried;
use crate::engine::merge;
use crate::engine::ports::{ApiError, Change, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::selector::Selector;
use crate::model::{Denied, Reason, Target};

const NAMESPACES: &str = "namespaces";
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Kinds that other items are looked up in: of these the whole object is kept, of others only that it would be there.
const KEPT: [&str; 4] =
    [NAMESPACES, DEFINITIONS, "storageclasses.storage.k8s.io", "volumesnapshotclasses.snapshot.storage.k8s.io"];

/// Kinds that an API server demands to be there before it takes an object that names one of them.
const DEMANDED: [&str; 7] = [
    NAMESPACES,
    "serviceaccounts",
    "priorityclasses.scheduling.k8s.io",
    "runtimeclasses.node.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "storageclasses.storage.k8s.io",
];

/// A cluster on which the engine can restore, and nothing is written.
pub(in crate::engine) struct Overlay {
    cluster: ReadOnly,
    options: Options,
    state: Mutex<State>,
    /// What was asked about permissions: one cell for each question, so that a thousand items ask once.
    access: Mutex<HashMap<Denied, Arc<OnceCell<bool>>>>,
}

#[derive(Default)]
struct State {
    /// What would have been created, with the object where it is kept.
    made: HashMap<String, Option<Arc<Value>>>,
    /// Names of what would have been created and that an API server may demand.
    demanded: HashSet<String>,
    /// Creates that no dry run speaks for.
    untried: HashMap<String, Untried>,
    /// Objects that were found where a create would have been; taken by the look that follows.
    found: HashMap<String, Value>,
    /// What is being deleted, and taken as gone.
    leaving: HashSet<String>,
    denied: BTreeSet<Denied>,
}

/// Whether a kind is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The API server serves it.
    Served,
    /// A definition of the restore brings it.
    Brought,
    /// Neither, as far as discovery tells.
    Unknown,
}

/// Resource, namespace and name in one text.
fn key(target: &Target, name: &str) -> String {
    format!("{}/{}/{name}", target.group_resource(), target.namespace.as_deref().unwrap_or_default())
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn namespaces() -> Target {
    Target::new("", "v1", NAMESPACES, "")
}

impl Overlay {
    pub(super) fn new(cluster: ReadOnly, options: Options) -> Self {
        Self { cluster, options, state: Mutex::default(), access: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each step is one insert or remove, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no dry run speaks for a create that was answered well; told once.
    pub(in crate::engine) fn untried(&self, target: &Target, name: &str) -> Option<Untried> {
        self.state().untried.remove(&key(target, name))
    }

    /// The same of a namespace.
    pub(super) fn untried_namespace(&self, name: &str) -> Option<Untried> {
        self.untried(&namespaces(), name)
    }

    /// What the service may not do, as far as it came up.
    pub(super) fn denied(&self) -> Vec<Denied> {
        self.state().denied.iter().cloned().collect()
    }

    /// Whether the namespace of the target comes with the restore.
    fn is_in_new_namespace(&self, target: &Target) -> bool {
        let namespace = target.namespace.as_deref();
        namespace.is_some_and(|namespace| self.state().made.contains_key(&key(&namespaces(), namespace)))
    }

    /// Whether the kind of the target can be created now, or when the definitions of the restore are there.
    async fn kind_of(&self, target: &Target) -> Result<Kind, ApiError> {
        if self.cluster.discovery(false).await?.served(&target.group, &target.version, &target.resource).is_some() {
            return Ok(Kind::Served);
        }
        let definitions = Target::new("apiextensions.k8s.io", "v1", "customresourcedefinitions", "");
        let name = target.group_resource();
        let made = self.state().made.get(&key(&definitions, name.as_str())).cloned().flatten();
        let versions = made.as_ref().and_then(|definition| definition.pointer("/spec/versions")?.as_array());
        let is_brought = versions.is_some_and(|versions| {
            versions.iter().any(|version| version["name"] == target.version.as_str() && version["served"] == true)
        });
        Ok(if is_brought { Kind::Brought } else { Kind::Unknown })
    }

    /// Whether the service may do this. Where that cannot be asked, the dry run has to tell.
    async fn may(&self, verb: &str, target: &Target) -> bool {
        let everywhere = Target { namespace: None, ..target.clone() };
        if self.asked(verb, &everywhere).await {
            return true;
        }
        if target.namespace.is_some() && self.asked(verb, target).await {
            return true;
        }
        self.deny(verb, target);
        false
    }

    async fn asked(&self, verb: &str, target: &Target) -> bool {
        let cell = {
            let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(access.entry(question(verb, target)).or_default())
        };
        let ask = || async {
            let mut attempts = Attempts::default();
            let answer = retrying(Backoff::default(), &mut attempts, || self.cluster.may(verb, target)).await;
            answer.unwrap_or(true)
        };
        *cell.get_or_init(ask).await
    }

    fn deny(&self, verb: &str, target: &Target) {
        self.state().denied.insert(question(verb, target));
    }

    /// The API server's refusal of a dry run, written down where it is one of permissions.
    fn note(&self, verb: &str, target: &Target, error: &ApiError) {
        if error.typed_reason() == Reason::Forbidden && error.message.contains("cannot ") {
            self.deny(verb, target);
        }
    }

    /// Takes the object as created, and gives it back with the name it would have.
    fn make(&self, target: &Target, object: &Value, untried: Option<Untried>) -> Value {
        let mut object = object.clone();
        let group_resource = target.group_resource();
        let mut state = self.state();
        // A generated name is known to nobody: who wants the object looks for its labels, so that it is kept.
        let is_generated = object.pointer("/metadata/generateName").is_some_and(|prefix| *prefix != "");
        if name_of(&object).is_empty() {
            let prefix = object.pointer("/metadata/generateName").and_then(Value::as_str).unwrap_or_default();
            let name = format!("{prefix}{}", state.made.len());
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("name".to_owned(), Value::from(name));
            }
        }
        let (key, name) = (key(target, name_of(&object)), name_of(&object).to_owned());
        let is_kept = is_generated || KEPT.contains(&group_resource.as_str());
        state.made.insert(key.clone(), is_kept.then(|| Arc::new(object.clone())));
        if DEMANDED.contains(&group_resource.as_str()) {
            state.demanded.insert(name);
        }
        if let Some(untried) = untried {
            state.untried.insert(key, untried);
        }
        object
    }

    /// Whether a refusal says that something is missing which the restore would have brought by now.
    fn lacks(&self, refusal: &ApiError) -> bool {
        let says_missing = ["not found", "no PriorityClass", "looking up"];
        if refusal.is_retryable() || !says_missing.iter().any(|phrase| refusal.message.contains(phrase)) {
            return false;
        }
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | ':');
        let state = self.state();
        refusal.message.split(|letter| !is_part(letter)).any(|word| state.demanded.contains(word))
    }

    /// Without dry runs: is something there already?
    async fn look(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let name = name_of(object);
        if name.is_empty() {
            return Ok(self.make(target, object, Some(Untried::NotAsked)));
        }
        match self.cluster.get(target, name).await? {
            Some(live) => {
                self.state().found.insert(key(target, name), live);
                let message = format!("{} {name:?} already exists", target.group_resource());
                Err(ApiError::status(409, "AlreadyExists", message))
            }
            None => Ok(self.make(target, object, Some(Untried::NotAsked))),
        }
    }

    /// The definitions that the restore would have created, as ready as an API server makes them.
    fn ready_definitions(&self) -> Vec<Result<Change, ApiError>> {
        let prefix = format!("{DEFINITIONS}/");
        let state = self.state();
        let definitions =
            state.made.iter().filter(|(key, _)| key.starts_with(&prefix)).filter_map(|(_, kept)| kept.clone());
        let ready = definitions.map(|definition| {
            let mut definition = (*definition).clone();
            let holds = |condition: &str| json!({"type": condition, "status": "True"});
            definition["status"] = json!({"conditions": [holds("NamesAccepted"), holds("Established")]});
            Ok(Change::Is(definition))
        });
        ready.collect()
    }
}

fn question(verb: &str, target: &Target) -> Denied {
    Denied {
        verb: verb.to_owned(),
        group_resource: target.group_resource(),
        namespace: target.namespace.clone().unwrap_or_default(),
    }
}

/// In the words of an API server, which would say so.
fn forbidden(verb: &str, target: &Target, name: &str) -> ApiError {
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let message = format!(
        "{} {name:?} is forbidden: this service cannot {verb} resource {:?} in API group {:?} {place}",
        target.group_resource(),
        target.resource,
        target.group
    );
    ApiError::status(403, "Forbidden", message)
}

#[async_trait]
impl Cluster for Overlay {
    async fn discovery(&self, refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        self.cluster.discovery(refresh).await
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        let key = key(target, name);
        {
            let mut state = self.state();
            if let Some(found) = state.found.remove(&key) {
                return Ok(Some(found));
            }
            if let Some(kept) = state.made.get(&key) {
                let whole = kept.as_ref().map(|kept| (**kept).clone());
                return Ok(Some(
                    whole.unwrap_or_else(|| json!({"metadata": {"name": name, "namespace": target.namespace}})),
                ));
            }
            if state.leaving.contains(&key) {
                return Ok(None);
            }
        }
        if self.is_in_new_namespace(target) {
            return Ok(None);
        }
        self.cluster.get(target, name).await
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        let mut objects = self.cluster.list(target, label_selector).await?;
        if let Ok(selector) = Selector::parse(label_selector) {
            let prefix = key(target, "");
            let state = self.state();
            let made =
                state.made.iter().filter(|(key, _)| key.starts_with(&prefix)).filter_map(|(_, kept)| kept.as_ref());
            objects.extend(made.filter(|kept| selector.matches_object(kept)).map(|kept| (**kept).clone()));
        }
        Ok(objects)
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let name = name_of(object);
        if !self.may("create", target).await {
            return Err(forbidden("create", target, name));
        }
        let (kind, is_new_namespace) = (self.kind_of(target).await?, self.is_in_new_namespace(target));
        if kind == Kind::Brought {
            return Ok(self.make(target, object, Some(Untried::NewKind)));
        }
        // Discovery may have missed a kind, so the API server is asked where it can be.
        if kind == Kind::Unknown && (is_new_namespace || !self.options.dry_run) {
            return Err(ApiError::status(404, "NotFound", "the server could not find the requested resource"));
        }
        if is_new_namespace {
            return Ok(self.make(target, object, Some(Untried::NewNamespace)));
        }
        if self.state().leaving.contains(&key(target, name)) {
            return Ok(self.make(target, object, Some(Untried::Leaving)));
        }
        if !self.options.dry_run {
            return self.look(target, object).await;
        }
        match self.cluster.try_create(target, object).await {
            Ok(created) => {
                // What the API server made of it has the generated name; what was asked for is what is looked up.
                self.make(target, if name.is_empty() { &created } else { object }, None);
                Ok(created)
            }
            Err(refusal) if self.lacks(&refusal) => {
                Ok(self.make(target, object, Some(Untried::Lacks(refusal.message))))
            }
            Err(refusal) => {
                self.note("create", target, &refusal);
                Err(refusal)
            }
        }
    }

    async fn merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        let made = self.state().made.get(&key(target, name)).cloned();
        if let Some(kept) = made {
            let mut object = kept.map_or_else(|| json!({}), |kept| (*kept).clone());
            merge::apply_merge_patch(&mut object, patch);
            return Ok(object);
        }
        if !self.options.dry_run {
            return if self.may("patch", target).await {
                Ok(patch.clone())
            } else {
                Err(forbidden("patch", target, name))
            };
        }
        match self.cluster.try_merge_patch(target, name, patch).await {
            Ok(patched) => {
                // It may bring a version that is not served yet.
                if target.group_resource() == DEFINITIONS {
                    self.make(target, &patched, None);
                }
                Ok(patched)
            }
            Err(refusal) => {
                self.note("patch", target, &refusal);
                Err(refusal)
            }
        }
    }

    /// What the engine deletes is its own, and nothing of it was made.
    async fn delete(&self, _target: &Target, _name: &str) -> Result<(), ApiError> {
        Ok(())
    }

    async fn delete_collection(&self, _target: &Target, _label_selector: &str) -> Result<(), ApiError> {
        Ok(())
    }

    /// A status is put on what was created, and nothing was.
    async fn replace_status(&self, _target: &Target, _name: &str, object: &Value) -> Result<Value, ApiError> {
        Ok(object.clone())
    }

    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        self.cluster.openapi(group, version).await
    }

    /// A preview waits for nothing: a named object that somebody watches is one that is going, and taken as gone; all of
    /// a kind are the definitions that have to get ready.
    fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        let first = match name {
            Some(name) => {
                self.state().leaving.insert(key(target, name));
                vec![Ok(Change::Gone(name.to_owned()))]
            }
            None if target.group_resource() == DEFINITIONS => self.ready_definitions(),
            None => return self.cluster.watch(target, None),
        };
        stream::iter(first).chain(stream::pending()).boxed()
    }
}
