//! Webhook configurations and API services (restore-semantics 7.1).

use serde_json::{Value, json};

use super::{Error, Input, Output, fields};

/// Side effects that `admissionregistration.k8s.io/v1` does not take any more become `None`.
pub(super) fn webhook_configuration(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    if fields::text_or_empty(&item, "apiVersion")? == "admissionregistration.k8s.io/v1" {
        fields::each_mut(&mut item, "webhooks", |webhook| {
            if !matches!(fields::text_or_empty(webhook, "sideEffects")?, "None" | "NoneOnDryRun") {
                fields::set(webhook, "sideEffects", json!("None"))?;
            }
            Ok(())
        })?;
    }
    Ok(Output::of(item))
}

/// API services that the API server makes on its own are left to it; the table selects them by label.
#[allow(clippy::unnecessary_wraps, reason = "the table wants one signature")]
pub(super) fn api_service(input: Input<'_>) -> Result<Output, Error> {
    let item: Value = input.item;
    Ok(Output::skip(item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;

    /// restore-semantics 7.1 `admission-webhook-configuration`
    #[test]
    fn side_effects_unknown_to_v1_become_none() {
        let item = |version: &str, effects: [&str; 3]| {
            let hooks: Vec<_> = effects.iter().map(|effect| json!({"name": "w", "sideEffects": effect})).collect();
            json!({"apiVersion": format!("admissionregistration.k8s.io/{version}"), "webhooks": hooks})
        };
        let run = |item| Bench::new().run("velero.io/admission-webhook-configuration", item).unwrap().item;
        let before = ["Some", "NoneOnDryRun", "Unknown"];
        assert_eq!(run(item("v1", before)), item("v1", ["None", "NoneOnDryRun", "None"]));
        assert_eq!(run(item("v1beta1", before)), item("v1beta1", before));
        let absent = json!({"apiVersion": "admissionregistration.k8s.io/v1", "webhooks": [{"name": "w"}]});
        assert_eq!(run(absent)["webhooks"][0]["sideEffects"], "None");
        let none = json!({"apiVersion": "admissionregistration.k8s.io/v1"});
        assert_eq!(run(none.clone()), none);
    }

    #[test]
    fn webhooks_of_a_wrong_type_fail_the_item() {
        let item = json!({"apiVersion": "admissionregistration.k8s.io/v1", "webhooks": {"a": 1}});
        let error = Bench::new().run("velero.io/admission-webhook-configuration", item).unwrap_err();
        assert_eq!(error.to_string(), "cannot convert the item: webhooks is an object, want a list");
    }

    /// restore-semantics 7.1 `apiservice`
    #[test]
    fn an_api_service_is_skipped() {
        assert!(Bench::new().run("velero.io/apiservice", json!({"kind": "APIService"})).unwrap().skip);
    }
}
