//! Conversion between the served versions of the few built-in kinds that have several shapes.
//!
//! Everything else is stored as it was sent, and only its `apiVersion` follows the request: strategy `None`, which
//! is also what custom resources get (conversion webhooks are not called).

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::registry::View;

/// Fields of `events.k8s.io/v1` and what `v1` calls them.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// An annotation in which `autoscaling/v1` carries a whole v2 metrics list.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// Brings an object of the request's version into the stored shape.
pub(super) fn to_stored(view: &View, object: &mut Value) {
    let resource = &view.resource;
    let version = view.version().name.as_str();
    if resource.is("events.k8s.io", "events") {
        if let Some(fields) = object.as_object_mut() {
            EVENT_FIELDS.iter().for_each(|(new, core)| rename(fields, new, core));
            fields.insert("apiVersion".to_owned(), json!("v1"));
        }
    } else if resource.is("autoscaling", "horizontalpodautoscalers") && version == "v1" {
        object["apiVersion"] = json!("autoscaling/v2");
        let carried = object
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
            .and_then(|all| all.remove(METRICS))
            .and_then(|text| serde_json::from_str::<Vec<Value>>(text.as_str()?).ok());
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            let mut metrics = carried.unwrap_or_default();
            if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
                let target = json!({ "type": "Utilization", "averageUtilization": percent });
                metrics.insert(0, json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
            }
            if !metrics.is_empty() {
                spec.insert("metrics".to_owned(), Value::Array(metrics));
            }
        }
    }
}

/// Shows a stored object at the request's version; borrowed where nothing changes.
pub(super) fn to_view<'a>(view: &View, stored: &'a Value) -> Cow<'a, Value> {
    let resource = &view.resource;
    let wanted = view.api_version();
    if stored.get("apiVersion").and_then(Value::as_str) == Some(wanted.as_str()) {
        return Cow::Borrowed(stored);
    }
    let mut object = stored.clone();
    if resource.is("events.k8s.io", "events") {
        if let Some(fields) = object.as_object_mut() {
            EVENT_FIELDS.iter().for_each(|(new, core)| rename(fields, core, new));
        }
    } else if resource.is("autoscaling", "horizontalpodautoscalers") {
        metrics_to_v1(&mut object);
    }
    object["apiVersion"] = Value::from(wanted);
    Cow::Owned(object)
}

fn metrics_to_v1(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let Some(Value::Array(mut metrics)) = spec.remove("metrics") else { return };
    let percent = |metric: &Value| {
        let resource = metric.get("resource")?;
        let cpu = resource.get("name")?.as_str()? == "cpu";
        resource.pointer("/target/averageUtilization").filter(|_| cpu).cloned()
    };
    if let Some(at) = metrics.iter().position(|metric| percent(metric).is_some())
        && let Some(value) = percent(&metrics.remove(at))
    {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), value);
    }
    if !metrics.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[METRICS] = Value::from(Value::Array(metrics).to_string());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::registry::Registry;

    #[test]
    fn an_autoscaler_keeps_its_meaning_in_both_versions() {
        let registry = Registry::builtin();
        let v1 = registry.view("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v2 = registry.view("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        let sent = json!({ "apiVersion": "autoscaling/v1", "metadata": {},
            "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 80 } });
        let mut stored = sent.clone();
        to_stored(&v1, &mut stored);
        assert_eq!(to_view(&v2, &stored)["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(*to_view(&v1, &stored), sent);
    }

    #[test]
    fn an_event_is_seen_through_both_groups() {
        let registry = Registry::builtin();
        let new = registry.view("events.k8s.io", "v1", "events").unwrap();
        let stored = json!({ "apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": { "name": "p" } });
        let shown = to_view(&new, &stored).into_owned();
        assert_eq!((&shown["note"], &shown["regarding"]["name"]), (&json!("m"), &json!("p")));
        let mut back = shown;
        to_stored(&new, &mut back);
        assert_eq!(back, stored);
    }
}
