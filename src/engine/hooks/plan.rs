//! Which exec hooks a pod has, and when their containers are up (restore-semantics 5.12). Pure.

use std::time::Duration;

use serde_json::Value;

use crate::model::includes::IncludesExcludes;
use crate::model::selector::Selector;
use crate::model::{GoDuration, LabelSelector};

/// How long a command may take that names no timeout (restore-semantics 5.12).
const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_secs(30);

/// What Velero calls the hook of a pod's own annotations.
const FROM_ANNOTATION: &str = "<from-annotation>";

const PREFIX: &str = "post.hook.restore.velero.io/";

/// One command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// Name of the hook of the specification; several commands may share it.
    pub(super) name: String,
    pub(super) command: Vec<String>,
    /// `onError: Fail`: what follows it in the pod is not run when it fails.
    pub(super) stops_on_error: bool,
    /// `None` is without limit.
    pub(super) exec_timeout: Option<Duration>,
    /// Time from the pod's creation after which the hook has failed; `None` is without limit.
    pub(super) wait_timeout: Option<Duration>,
    wait_for_ready: bool,
}

/// The hooks of one container, in the order of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerHooks {
    pub(super) container: String,
    pub(super) hooks: Vec<Hook>,
}

/// The exec hooks of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodHooks {
    /// By container; containers in the order in which the hooks name them.
    pub(super) containers: Vec<ContainerHooks>,
    /// Hook and container, for hooks of containers that the pod does not have: they are never run.
    pub(crate) dropped: Vec<(String, String)>,
    /// What was not understood and passed over.
    pub(crate) notes: Vec<String>,
}

impl PodHooks {
    /// The hooks of a pod of this (target) namespace. Annotations replace the hooks of the specification.
    pub(crate) fn of(specified: &[Value], namespace: &str, pod: &Value) -> Self {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        let names = containers.into_iter().flatten().filter_map(|container| container.get("name")?.as_str());
        let names: Vec<&str> = names.collect();
        let mut this = Self::default();
        let Some(first) = names.first() else { return this };
        let wanted = match this.by_annotations(pod) {
            Some(hook) => vec![hook],
            None => this.by_spec(specified, namespace, pod),
        };
        for (container, hook) in wanted {
            let container = if container.is_empty() { (*first).to_owned() } else { container };
            if !names.contains(&container.as_str()) {
                this.dropped.push((hook.name, container));
                continue;
            }
            match this.containers.iter_mut().find(|known| known.container == container) {
                Some(known) => known.hooks.push(hook),
                None => this.containers.push(ContainerHooks { container, hooks: vec![hook] }),
            }
        }
        this
    }

    /// How many hooks there are to run.
    pub(super) fn count(&self) -> usize {
        self.containers.iter().map(|container| container.hooks.len()).sum()
    }

    /// Whether there is nothing to run, and nothing that was dropped.
    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.dropped.is_empty()
    }

    /// How long the pod is waited for: the longest of the hooks' timeouts, without limit if one has none.
    pub(super) fn wait_limit(&self) -> Option<Duration> {
        let hooks = self.containers.iter().flat_map(|container| &container.hooks);
        let limits: Option<Vec<Duration>> = hooks.map(|hook| hook.wait_timeout).collect();
        limits?.into_iter().max()
    }

    fn by_annotations(&mut self, pod: &Value) -> Option<(String, Hook)> {
        let annotations = pod.pointer("/metadata/annotations");
        let annotation = |key: &str| {
            let value = annotations?.get(format!("{PREFIX}{key}"))?.as_str()?;
            (!value.is_empty()).then_some(value)
        };
        let command = parse_command(annotation("command")?);
        let mut duration = |key: &str| {
            let what = format!("annotation {PREFIX}{key}");
            annotation(key).and_then(|text| self.duration(&what, text))
        };
        let (exec_timeout, wait_timeout) = (duration("exec-timeout"), duration("wait-timeout"));
        let wait_for_ready = annotation("wait-for-ready").is_some_and(|text| {
            parse_bool(text).unwrap_or_else(|| {
                self.notes.push(format!(
                    "annotation {PREFIX}wait-for-ready: {text:?} is neither true nor false; taken for false"
                ));
                false
            })
        });
        let hook = Hook {
            name: FROM_ANNOTATION.to_owned(),
            command,
            stops_on_error: annotation("on-error") == Some("Fail"),
            exec_timeout: exec_limit(exec_timeout),
            wait_timeout: wait_limit(wait_timeout),
            wait_for_ready,
        };
        Some((annotation("container").unwrap_or_default().to_owned(), hook))
    }

    fn by_spec(&mut self, specified: &[Value], namespace: &str, pod: &Value) -> Vec<(String, Hook)> {
        let mut hooks = Vec::new();
        for specified in specified.iter().filter(|hook| applies_to(hook, namespace, pod)) {
            let name = specified.get("name").and_then(Value::as_str).unwrap_or_default();
            let posts = specified.get("postHooks").and_then(Value::as_array).into_iter().flatten();
            for exec in posts.filter_map(|post| post.get("exec")).filter(|exec| exec.is_object()) {
                let text = |key: &str| exec.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
                let mut duration =
                    |key: &str| text(key).and_then(|value| self.duration(&format!("{key} of hook {name:?}"), value));
                let (exec_timeout, wait_timeout) = (duration("execTimeout"), duration("waitTimeout"));
                let command = exec.get("command").and_then(Value::as_array).into_iter().flatten();
                let hook = Hook {
                    name: name.to_owned(),
                    command: command.filter_map(Value::as_str).map(str::to_owned).collect(),
                    stops_on_error: text("onError") == Some("Fail"),
                    exec_timeout: exec_limit(exec_timeout),
                    wait_timeout: wait_limit(wait_timeout),
                    wait_for_ready: exec.get("waitForReady").and_then(Value::as_bool).unwrap_or_default(),
                };
                hooks.push((text("container").unwrap_or_default().to_owned(), hook));
            }
        }
        hooks
    }

    fn duration(&mut self, what: &str, text: &str) -> Option<GoDuration> {
        match text.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.notes.push(format!("{what} is ignored: {error}"));
                None
            }
        }
    }
}

/// None asked for, or zero, is the default; a negative one is no limit.
fn exec_limit(asked: Option<GoDuration>) -> Option<Duration> {
    match asked {
        None | Some(GoDuration::ZERO) => Some(DEFAULT_EXEC_TIMEOUT),
        Some(limit) => limit.to_std(),
    }
}

/// None asked for, or zero, is no limit. A negative one has passed when the pod is created; Velero waits for the pod
/// all the same, for ever, and then finds the hook expired.
fn wait_limit(asked: Option<GoDuration>) -> Option<Duration> {
    asked.filter(|limit| *limit != GoDuration::ZERO).map(|limit| limit.to_std().unwrap_or_default())
}

/// A JSON list of texts, or else one text as it stands.
fn parse_command(text: &str) -> Vec<String> {
    let list = text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten();
    list.unwrap_or_else(|| vec![text.to_owned()])
}

/// As Go's `strconv.ParseBool` has it.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether a hook of the specification is for this pod: its namespaces are target namespaces, its resources are not
/// looked at (restore-semantics 5.12).
fn applies_to(hook: &Value, namespace: &str, pod: &Value) -> bool {
    let texts = |key: &str| hook.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let namespaces = IncludesExcludes::new(texts("includedNamespaces"), texts("excludedNamespaces"));
    let selector = hook.get("labelSelector").filter(|selector| selector.is_object());
    let selector = selector.and_then(|selector| serde_json::from_value::<LabelSelector>(selector.clone()).ok());
    // Validation refused selectors that do not parse.
    let selects = |selector: LabelSelector| Selector::new(&selector).is_ok_and(|selector| selector.matches_object(pod));
    namespaces.should_include(namespace) && selector.is_none_or(selects)
}

impl ContainerHooks {
    /// Whether the container is up: ready if one of its hooks asks for that, else running.
    pub(super) fn is_up(&self, pod: &PodState) -> bool {
        let waits_for_ready = self.hooks.iter().any(|hook| hook.wait_for_ready);
        let state = pod.containers.iter().find(|state| state.name == self.container);
        state.is_some_and(|state| if waits_for_ready { state.ready } else { state.running })
    }
}

/// What of a pod's state matters to hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodState {
    pub(super) uid: String,
    pub(super) phase: String,
    containers: Vec<ContainerState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ContainerState {
    name: String,
    running: bool,
    ready: bool,
}

impl PodState {
    pub(super) fn of(pod: &Value) -> Self {
        let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
        let container = |status: &Value| ContainerState {
            name: text(status, "/name").unwrap_or_default(),
            running: status.pointer("/state/running").is_some_and(Value::is_object),
            ready: status.get("ready").and_then(Value::as_bool).unwrap_or_default(),
        };
        Self {
            uid: text(pod, "/metadata/uid").unwrap_or_default(),
            phase: text(pod, "/status/phase").unwrap_or_default(),
            containers: statuses.map(container).collect(),
        }
    }

    /// The pod has come to its end: nothing can be run in it any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(annotations: &Value) -> Value {
        json!({"metadata": {"labels": {"app": "db"}, "annotations": annotations},
            "spec": {"containers": [{"name": "main"}, {"name": "side"}], "initContainers": [{"name": "init"}]}})
    }

    fn spec(name: &str, scope: Value, execs: Value) -> Value {
        let posts: Vec<Value> = execs.as_array().unwrap().iter().map(|exec| json!({"exec": exec})).collect();
        let mut hook = json!({"name": name, "postHooks": posts});
        hook.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        hook
    }

    fn annotations(pairs: &[(&str, &str)]) -> Value {
        pairs
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Container, hook and first word of each command.
    fn summary(hooks: &PodHooks) -> Vec<String> {
        let of = |container: &ContainerHooks| {
            let hooks = container.hooks.iter();
            let words = hooks.map(|hook| format!("{} {} {}", container.container, hook.name, hook.command[0]));
            words.collect::<Vec<_>>()
        };
        hooks.containers.iter().flat_map(of).collect()
    }

    // restore-semantics 5.12: "Exec hooks: annotations …".
    #[test]
    fn annotations_make_one_hook_of_the_first_container_and_replace_the_specification() {
        let specified = [spec("spec", json!({}), json!([{"command": ["x"]}]))];
        let hooks = PodHooks::of(&specified, "app", &pod(&annotations(&[("command", r#"["/bin/sh", "-c"]"#)])));
        let hook = Hook {
            name: "<from-annotation>".to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            stops_on_error: false,
            exec_timeout: Some(Duration::from_secs(30)),
            wait_timeout: None,
            wait_for_ready: false,
        };
        assert_eq!(hooks.containers, [ContainerHooks { container: "main".to_owned(), hooks: vec![hook] }]);

        let all = annotations(&[
            ("command", "[broken"),
            ("container", "side"),
            ("on-error", "Fail"),
            ("exec-timeout", "1m30s"),
            ("wait-timeout", "5m"),
            ("wait-for-ready", "T"),
        ]);
        let hooks = PodHooks::of(&specified, "app", &pod(&all));
        let hook = &hooks.containers[0].hooks[0];
        assert_eq!(
            (hooks.containers[0].container.as_str(), hook.command.as_slice()),
            ("side", &["[broken".to_owned()][..])
        );
        assert!(hook.stops_on_error && hook.wait_for_ready && hooks.notes.is_empty());
        assert_eq!(
            (hook.exec_timeout, hook.wait_timeout),
            (Some(Duration::from_secs(90)), Some(Duration::from_secs(300)))
        );
    }

    #[test]
    fn annotations_that_make_no_sense_are_noted_and_have_their_defaults() {
        let odd = annotations(&[
            ("command", "x"),
            ("on-error", "fail"),
            ("exec-timeout", "5"),
            ("wait-timeout", "soon"),
            ("wait-for-ready", "yes"),
        ]);
        let hooks = PodHooks::of(&[], "app", &pod(&odd));
        let hook = &hooks.containers[0].hooks[0];
        assert!(!hook.stops_on_error && !hook.wait_for_ready);
        assert_eq!((hook.exec_timeout, hook.wait_timeout), (Some(Duration::from_secs(30)), None));
        assert_eq!(hooks.notes.len(), 3, "{:?}", hooks.notes);
        assert!(hooks.notes[0].contains("exec-timeout is ignored: time: missing unit"), "{:?}", hooks.notes);
        assert!(PodHooks::of(&[], "app", &pod(&annotations(&[("command", ""), ("container", "side")]))).is_empty());
    }

    // restore-semantics 5.12: target namespace, pod labels, resource lists without meaning, per container in spec order.
    #[test]
    fn hooks_of_the_specification_are_grouped_by_container_in_their_order() {
        let specified = [
            spec(
                "a",
                json!({"includedNamespaces": ["d*"]}),
                json!([{"command": ["1"]}, {"command": ["2"], "container": "side"}]),
            ),
            spec(
                "b",
                json!({"includedResources": ["deployments"], "excludedResources": ["pods"]}),
                json!([{"command": ["3"]}]),
            ),
            spec("source", json!({"excludedNamespaces": ["dst"]}), json!([{"command": ["4"]}])),
            spec("labels", json!({"labelSelector": {"matchLabels": {"app": "web"}}}), json!([{"command": ["5"]}])),
            spec(
                "a",
                json!({"labelSelector": {"matchLabels": {"app": "db"}}}),
                json!([{"command": ["6"], "container": "main"}]),
            ),
            json!({"name": "init", "postHooks": [{"init": {"initContainers": []}}]}),
        ];
        let hooks = PodHooks::of(&specified, "dst", &pod(&json!({})));
        assert_eq!(summary(&hooks), ["main a 1", "main b 3", "main a 6", "side a 2"]);
        assert_eq!((hooks.count(), hooks.dropped.len()), (4, 0));
        assert!(PodHooks::of(&specified, "dst", &json!({"spec": {}})).is_empty(), "a pod without containers has none");
    }

    #[test]
    fn hooks_of_unknown_containers_are_dropped_and_init_containers_are_unknown() {
        let specified = [spec(
            "h",
            json!({}),
            json!([
            {"command": ["1"], "container": "init"}, {"command": ["2"]}, {"command": ["3"], "container": "nobody"}]),
        )];
        let hooks = PodHooks::of(&specified, "app", &pod(&json!({})));
        assert_eq!(summary(&hooks), ["main h 2"]);
        let dropped = [("h", "init"), ("h", "nobody")].map(|(hook, container)| (hook.to_owned(), container.to_owned()));
        assert_eq!(hooks.dropped, dropped);
    }

    #[test]
    fn the_pod_is_waited_for_as_long_as_the_most_patient_hook() {
        let limit = |waits: Value| {
            let execs = waits.as_array().unwrap().iter().map(|wait| json!({"command": ["x"], "waitTimeout": wait}));
            PodHooks::of(&[spec("h", json!({}), execs.collect())], "app", &pod(&json!({}))).wait_limit()
        };
        assert_eq!(limit(json!(["1m", "2m"])), Some(Duration::from_secs(120)));
        assert_eq!(limit(json!(["1m", null])), None);
        assert_eq!(limit(json!(["1m", "0s"])), None);
        assert_eq!(limit(json!(["-1s"])), Some(Duration::ZERO));
        assert_eq!(exec_limit(Some(GoDuration::from_nanos(-1))), None);
        assert_eq!(exec_limit(Some(GoDuration::ZERO)), Some(DEFAULT_EXEC_TIMEOUT));
    }

    #[test]
    fn a_container_is_up_when_it_runs_or_is_ready_if_a_hook_asks_for_that() {
        let of = |execs: Value| {
            let hooks = PodHooks::of(&[spec("h", json!({}), execs)], "app", &pod(&json!({})));
            hooks.containers[0].clone()
        };
        let state = |name: &str, running: bool, ready: bool| {
            let state = if running { json!({"running": {}}) } else { json!({"waiting": {}}) };
            let status = json!({"name": name, "state": state, "ready": ready});
            PodState::of(&json!({"status": {"containerStatuses": [status]}}))
        };
        let running = of(json!([{"command": ["1"]}]));
        let ready = of(json!([{"command": ["1"]}, {"command": ["2"], "waitForReady": true}]));
        assert!(running.is_up(&state("main", true, false)) && !running.is_up(&state("main", false, false)));
        assert!(!ready.is_up(&state("main", true, false)) && ready.is_up(&state("main", true, true)));
        assert!(!running.is_up(&state("side", true, true)) && !running.is_up(&PodState::default()));
    }
}
