//! Jobs (restore-semantics 7.1, `job`).

use super::{Error, Input, Output, fields};

const CONTROLLER_UIDS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Removes the UID of the old job from selector and template; the new job gets its own. That in `metadata.labels`
/// stays, as with Velero.
pub(super) fn job(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    fields::remove_keys(&mut item, "spec.selector.matchLabels", &CONTROLLER_UIDS)?;
    fields::remove_keys(&mut item, "spec.template.metadata.labels", &CONTROLLER_UIDS)?;
    Ok(Output::of(item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;

    /// restore-semantics 7.1 `job`
    #[test]
    fn the_uid_of_the_old_job_leaves_selector_and_template_but_not_the_labels() {
        let item = json!({"metadata": {"labels": {"controller-uid": "u"}}, "spec": {
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {"metadata": {"labels": {"app": "x", "controller-uid": "u", "job-name": "j"}}}}});
        assert_eq!(
            Bench::new().run("velero.io/job", item).unwrap().item,
            json!({"metadata": {"labels": {"controller-uid": "u"}}, "spec": {"selector": {},
                "template": {"metadata": {"labels": {"app": "x", "job-name": "j"}}}}})
        );
    }

    /// restore-semantics 7.1 `job`
    #[test]
    fn a_job_without_selector_and_one_with_a_selector_of_its_own_stay() {
        for spec in [json!({}), json!({"selector": {"matchLabels": {"job": "mine"}}}), json!({"selector": null})] {
            let item = json!({"spec": spec});
            assert_eq!(Bench::new().run("velero.io/job", item.clone()).unwrap().item, item);
        }
    }

    #[test]
    fn labels_of_a_wrong_type_fail_the_item() {
        let error = Bench::new().run("velero.io/job", json!({"spec": {"selector": {"matchLabels": []}}})).unwrap_err();
        assert!(error.to_string().contains("spec.selector.matchLabels is a list"), "{error}");
    }
}
