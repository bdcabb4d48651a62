//! RoleBindings and ClusterRoleBindings (restore-semantics 7.1).

use serde_json::json;

use super::{Error, Input, Output, fields};

/// Subjects in a mapped namespace follow it; without a mapping nothing is touched.
pub(super) fn map_subjects(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    let mapping = &input.context.spec.namespace_mapping;
    if !mapping.is_empty() {
        fields::each_mut(&mut item, "subjects", |subject| {
            if let Some(target) = mapping.get(fields::text_or_empty(subject, "namespace")?) {
                fields::set(subject, "namespace", json!(target))?;
            }
            Ok(())
        })?;
    }
    Ok(Output::of(item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;

    /// restore-semantics 7.1 `cluster-role-bindings` and `role-bindings`
    #[test]
    fn subjects_follow_the_namespace_mapping() {
        let binding = |namespace: &str| {
            json!({"subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": namespace},
                {"kind": "ServiceAccount", "name": "a", "namespace": "other"}, {"kind": "User", "name": "u"}]})
        };
        for action in ["velero.io/role-bindings", "velero.io/cluster-role-bindings"] {
            let mapped = Bench::new().mapping("app", "dst").run(action, binding("app")).unwrap().item;
            assert_eq!(mapped, binding("dst"));
            assert_eq!(Bench::new().run(action, binding("app")).unwrap().item, binding("app"));
        }
    }

    #[test]
    fn a_binding_without_subjects_stays() {
        let item = json!({"roleRef": {"name": "r"}});
        let output = Bench::new().mapping("app", "dst").run("velero.io/role-bindings", item.clone()).unwrap();
        assert_eq!(output.item, item);
    }
}
