//! Services (restore-semantics 7.3): cluster IPs are allocated anew, ports only where nobody asked for them.

use serde_json::Value;

use super::service_ports::{Applied, Chosen, owns_health_check_port};
use super::{Error, Input, Output, fields};

/// Clears what the API server allocates.
pub(super) fn service(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    fields::object(&item, "spec")?;
    if fields::text_or_empty(&item, "spec.clusterIP")? != "None" {
        fields::remove(&mut item, "spec.clusterIP")?;
        fields::remove(&mut item, "spec.clusterIPs")?;
    }
    if input.context.spec.preserve_node_ports != Some(true) {
        clear_node_ports(&mut item)?;
        clear_health_check_port(&mut item)?;
    }
    Ok(Output::of(item))
}

/// Clears every node port that nobody chose: neither last-applied nor, in its absence, a field manager owns it.
fn clear_node_ports(item: &mut Value) -> Result<(), Error> {
    if fields::text_or_empty(item, "spec.type")? == "ExternalName" {
        return Ok(());
    }
    let chosen = Chosen::of(item)?;
    fields::each_mut(item, "spec.ports", |port| {
        if !chosen.has(port)? {
            fields::remove(port, "nodePort")?;
        }
        Ok(())
    })
}

/// The same for the port that a load balancer checks nodes by.
fn clear_health_check_port(item: &mut Value) -> Result<(), Error> {
    let is_local = fields::text_or_empty(item, "spec.externalTrafficPolicy")? == "Local"
        && fields::text_or_empty(item, "spec.type")? == "LoadBalancer";
    let has_port = fields::integer(item, "spec.healthCheckNodePort")?.is_some_and(|port| port != 0);
    if !is_local || !has_port {
        return Ok(());
    }
    let applied = Applied::of(item)?.map(|applied| applied.has_health_check_port()).transpose()?.unwrap_or(false);
    if !applied && !owns_health_check_port(item)? {
        fields::remove(item, "spec.healthCheckNodePort")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;

    fn run(item: Value) -> Value {
        Bench::new().run("velero.io/service", item).unwrap().item
    }

    fn node_ports(item: &Value) -> Vec<Option<i64>> {
        item["spec"]["ports"].as_array().unwrap().iter().map(|port| port["nodePort"].as_i64()).collect()
    }

    fn with_applied(applied: &Value, ports: Value) -> Value {
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()},
                "managedFields": [{"fieldsV1": {"f:spec": {"f:healthCheckNodePort": {}, "f:ports": {
                    "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}}}]},
            "spec": {"type": "NodePort", "ports": ports}})
    }

    fn with_managers(spec: Value, fields: &[Value]) -> Value {
        let entries: Vec<_> = fields.iter().map(|spec| json!({"fieldsV1": {"f:spec": spec}})).collect();
        json!({"metadata": {"managedFields": entries}, "spec": spec})
    }

    /// restore-semantics 7.3
    #[test]
    fn cluster_ips_go_unless_the_service_is_headless() {
        let service = |ip: &str| json!({"spec": {"clusterIP": ip, "clusterIPs": [ip]}});
        assert_eq!(run(service("10.0.0.1")), json!({"spec": {}}));
        assert_eq!(run(service("None")), service("None"));
    }

    /// restore-semantics 7.3
    #[test]
    fn preserve_node_ports_keeps_everything_but_the_cluster_ip() {
        let ports = json!([{"port": 80, "nodePort": 30001}]);
        let service = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": ports}});
        let kept = Bench::new().preserve_node_ports().run("velero.io/service", service).unwrap().item;
        assert_eq!(kept, json!({"spec": {"type": "NodePort", "ports": ports}}));
    }

    /// restore-semantics 7.3
    #[test]
    fn last_applied_keeps_named_ports_by_name_and_unnamed_ones_by_number() {
        let applied = json!({"spec": {"ports": [{"name": "fixed", "port": 80, "nodePort": 30012},
            {"name": "auto", "port": 81}, {"name": "zero", "nodePort": 0}, {"port": 82, "nodePort": "30016"}]}});
        let ports = json!([{"name": "fixed", "port": 80, "nodePort": 31111}, {"name": "auto", "nodePort": 30013},
            {"name": "zero", "nodePort": 30014}, {"port": 82, "nodePort": 30016}, {"port": 83, "nodePort": 30017}]);
        let restored = run(with_applied(&applied, ports));
        assert_eq!(node_ports(&restored), [Some(31111), None, None, Some(30016), None]);
    }

    /// restore-semantics 7.3
    #[test]
    fn last_applied_without_node_ports_wins_over_field_managers() {
        let applied = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30015}]);
        assert_eq!(node_ports(&run(with_applied(&applied, ports))), [None]);
    }

    /// restore-semantics 7.3
    #[test]
    fn without_last_applied_a_field_manager_of_port_and_protocol_keeps_the_node_port() {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30010},
            {"port": 80, "protocol": "UDP", "nodePort": 30011}, {"port": 81, "protocol": "TCP", "nodePort": 30012},
            {"port": 82, "protocol": "TCP", "nodePort": 30013}]});
        let managers = [
            json!({"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}, "f:port": {}}}}),
            json!({"f:ports": {"k:{\"port\":81,\"protocol\":\"TCP\"}": {"f:port": {}},
                "k:{\"port\":82,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}),
            json!({"f:type": {}}),
        ];
        assert_eq!(node_ports(&run(with_managers(spec, &managers))), [Some(30010), None, None, Some(30013)]);
    }

    /// restore-semantics 7.3
    #[test]
    fn the_health_check_port_stays_where_somebody_chose_it() {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30018});
        let port = |item: Value| run(item)["spec"].get("healthCheckNodePort").cloned();
        assert_eq!(port(json!({"spec": spec})), None);
        assert_eq!(port(with_managers(spec.clone(), &[json!({"f:healthCheckNodePort": {}})])), Some(json!(30018)));
        let annotated = |applied: Value| {
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()}},
                "spec": spec})
        };
        assert_eq!(port(annotated(json!({"spec": {"healthCheckNodePort": 30020}}))), Some(json!(30018)));
        assert_eq!(port(annotated(json!({"spec": {"healthCheckNodePort": 0}}))), None);
        // Unlike with node ports, managers count beside last-applied.
        let mut both = annotated(json!({"spec": {}}));
        both["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:spec": {"f:healthCheckNodePort": {}}}}]);
        assert_eq!(port(both), Some(json!(30018)));
        let mut cluster = spec.clone();
        cluster["externalTrafficPolicy"] = json!("Cluster");
        assert_eq!(port(json!({"spec": cluster})), Some(json!(30018)), "only Local has it cleared");
    }

    /// restore-semantics 7.3
    #[test]
    fn an_external_name_and_a_service_without_ports_stay() {
        for spec in [json!({"type": "ExternalName", "externalName": "db", "ports": [{"nodePort": 1}]}), json!({})] {
            assert_eq!(run(json!({"spec": spec})), json!({"spec": spec}));
        }
    }

    /// restore-semantics 7.3
    #[test]
    fn texts_that_do_not_parse_fail_the_item_and_say_which() {
        let annotated = |text: &str| {
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}},
                "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30017}]}})
        };
        let node_port = |port: Value| json!({"spec": {"ports": [{"nodePort": port}]}}).to_string();
        for text in ["{not json", "[]", &node_port(json!("thirty")), r#"{"spec": {"ports": 1}}"#] {
            let error = Bench::new().run("velero.io/service", annotated(text)).unwrap_err().to_string();
            assert!(error.contains("last-applied-configuration"), "{text}: {error}");
        }
        let broken_key = with_managers(
            json!({"type": "NodePort", "ports": [{"port": 80}]}),
            &[json!({"f:ports": {"k:{broken": {"f:nodePort": {}}}})],
        );
        let error = Bench::new().run("velero.io/service", broken_key).unwrap_err().to_string();
        assert!(error.contains("managedFields"), "{error}");
        let wrong = json!({"spec": {"type": "NodePort", "ports": [{"port": "eighty"}]}});
        let error = Bench::new().run("velero.io/service", wrong).unwrap_err().to_string();
        assert!(error.contains("spec.ports[0].port is a string"), "{error}");
    }
}
