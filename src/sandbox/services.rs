//! Cluster IPs and node ports of Services.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::status::Cause;

/// 10.0.0.0/16, the range of cluster IPs.
const IP_BASE: u32 = 0x0A00_0000;
const IP_COUNT: u32 = 0x1_0000;
const PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;

/// What Services hold, by the key of the Service.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    ips: HashMap<u32, String>,
    ports: HashMap<u64, String>,
    next_ip: u32,
    next_port: u64,
}

fn text<'a>(spec: &'a Map<String, Value>, key: &str) -> &'a str {
    spec.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Allocator {
    fn free_ip(&mut self) -> Option<u32> {
        // The lower part is left to addresses chosen by hand, as the API server does.
        for _ in 0..IP_COUNT {
            self.next_ip = if self.next_ip < 256 || self.next_ip >= IP_COUNT - 2 { 256 } else { self.next_ip + 1 };
            let ip = IP_BASE + self.next_ip;
            if !self.ips.contains_key(&ip) {
                return Some(ip);
            }
        }
        None
    }

    fn free_port(&mut self, taken: &HashSet<u64>) -> Option<u64> {
        for _ in PORTS {
            self.next_port = if PORTS.contains(&(self.next_port + 1)) { self.next_port + 1 } else { 30_086 };
            if !self.ports.contains_key(&self.next_port) && !taken.contains(&self.next_port) {
                return Some(self.next_port);
            }
        }
        PORTS.into_iter().find(|port| !self.ports.contains_key(port) && !taken.contains(port))
    }

    /// Gives up everything a Service holds.
    pub(super) fn release(&mut self, owner: &str) {
        self.ips.retain(|_, holder| holder != owner);
        self.ports.retain(|_, holder| holder != owner);
    }

    /// Fills in and reserves the addresses and ports of a Service; nothing is reserved when there are faults.
    pub(super) fn allocate(&mut self, owner: &str, service: &mut Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return causes };
        let kind = text(spec, "type").to_owned();
        let ip = if kind == "ExternalName" { None } else { self.ip(owner, spec, &mut causes) };
        let ports = if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            self.ports(owner, spec, &kind, &mut causes)
        } else {
            HashSet::new()
        };
        if causes.is_empty() {
            self.release(owner);
            if let Some(ip) = ip {
                self.ips.insert(ip, owner.to_owned());
            }
            self.ports.extend(ports.into_iter().map(|port| (port, owner.to_owned())));
        }
        causes
    }

    fn ip(&mut self, owner: &str, spec: &mut Map<String, Value>, causes: &mut Vec<Cause>) -> Option<u32> {
        let listed = spec.get("clusterIPs").and_then(|ips| ips.get(0)).and_then(Value::as_str).unwrap_or_default();
        let asked = match text(spec, "clusterIP") {
            "" => listed.to_owned(),
            asked => asked.to_owned(),
        };
        let mut refuse = |why: &str| {
            causes.push(Cause::invalid(
                "spec.clusterIPs",
                &json!([asked]),
                &format!("failed to allocate IP {asked}: {why}"),
            ));
        };
        let (ip, shown) = match asked.as_str() {
            "None" => (None, "None".to_owned()),
            "" => match self.free_ip() {
                Some(ip) => (Some(ip), Ipv4Addr::from(ip).to_string()),
                None => {
                    refuse("range is full");
                    return None;
                }
            },
            _ => {
                let Ok(address) = asked.parse::<Ipv4Addr>() else {
                    // An IPv6 address: kept as sent, since the sandbox has one IPv4 range only.
                    if asked.parse::<std::net::Ipv6Addr>().is_ok() {
                        spec.insert("clusterIPs".to_owned(), json!([asked]));
                    } else {
                        let why = "must be empty, 'None', or a valid IP address";
                        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!([asked]), why));
                    }
                    return None;
                };
                let ip = u32::from(address);
                if !(IP_BASE..IP_BASE + IP_COUNT).contains(&ip) {
                    refuse("the provided network does not match the current range");
                    return None;
                }
                if self.ips.get(&ip).is_some_and(|holder| holder != owner) {
                    refuse("provided IP is already allocated");
                    return None;
                }
                (Some(ip), asked.clone())
            }
        };
        spec.insert("clusterIP".to_owned(), json!(shown));
        spec.insert("clusterIPs".to_owned(), json!([shown]));
        ip
    }

    fn ports(
        &mut self,
        owner: &str,
        spec: &mut Map<String, Value>,
        kind: &str,
        causes: &mut Vec<Cause>,
    ) -> HashSet<u64> {
        let mut own = HashSet::new();
        let fills =
            kind == "NodePort" || spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true);
        let health = kind == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
        let mut check = |allocator: &Self, field: String, port: u64, own: &mut HashSet<u64>| {
            if !PORTS.contains(&port) {
                let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                causes.push(Cause::invalid(field, &json!(port), why));
            } else if allocator.ports.get(&port).is_some_and(|holder| holder != owner) {
                causes.push(Cause::invalid(field, &json!(port), "provided port is already allocated"));
            } else {
                own.insert(port);
            }
        };
        let asked = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|port| *port != 0);
        if let Some(Value::Array(ports)) = spec.get("ports") {
            for (at, port) in ports.iter().enumerate() {
                if let Some(wanted) = asked(port.get("nodePort")) {
                    check(self, format!("spec.ports[{at}].nodePort"), wanted, &mut own);
                }
            }
        }
        let checked_health = asked(spec.get("healthCheckNodePort"));
        if let Some(wanted) = checked_health.filter(|_| health) {
            check(self, "spec.healthCheckNodePort".to_owned(), wanted, &mut own);
        }
        if fills {
            // One port number may serve TCP and UDP of the same service port.
            let mut by_port: HashMap<u64, u64> = HashMap::new();
            let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter(|port| port.is_object()) {
                let number = port.get("port").and_then(Value::as_u64).unwrap_or_default();
                let node_port = match asked(port.get("nodePort")) {
                    Some(node_port) => Some(node_port),
                    None => by_port.get(&number).copied().or_else(|| self.free_port(&own)),
                };
                if let Some(node_port) = node_port {
                    own.insert(node_port);
                    by_port.insert(number, node_port);
                    port["nodePort"] = json!(node_port);
                }
            }
        }
        if health
            && checked_health.is_none()
            && let Some(port) = self.free_port(&own)
        {
            own.insert(port);
            spec.insert("healthCheckNodePort".to_owned(), json!(port));
        }
        own
    }
}

/// The defaults of a Service, before anything is allocated.
pub(super) fn defaults(spec: &mut Map<String, Value>) {
    let mut set = |key: &str, value: Value| {
        spec.entry(key).or_insert(value);
    };
    set("type", json!("ClusterIP"));
    set("sessionAffinity", json!("None"));
    let kind = text(spec, "type").to_owned();
    // Headless and without a selector: the endpoints are somebody else's and may be of both families.
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    let unbound = text(spec, "clusterIP") == "None" && !selects;
    let mut set = |key: &str, value: Value| {
        spec.entry(key).or_insert(value);
    };
    if kind != "ExternalName" {
        set("internalTrafficPolicy", json!("Cluster"));
        if unbound {
            set("ipFamilyPolicy", json!("RequireDualStack"));
            set("ipFamilies", json!(["IPv4", "IPv6"]));
        }
        set("ipFamilyPolicy", json!("SingleStack"));
        set("ipFamilies", json!(["IPv4"]));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set("externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set("allocateLoadBalancerNodePorts", json!(true));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.entry("protocol").or_insert(json!("TCP"));
            let number = port.get("port").cloned().unwrap_or(json!(0));
            port.entry("targetPort").or_insert(number);
        }
    }
}

/// The rules of a Service that do not depend on others.
pub(super) fn check(spec: &Map<String, Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = spec.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let kind = text(spec, "type");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let allowed = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].map(str::to_owned);
        causes.push(Cause::unsupported("spec.type", &json!(kind), &allowed));
    }
    if ports.is_empty() && kind != "ExternalName" && text(spec, "clusterIP") != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (at, port) in ports.iter().enumerate() {
        let number = port.get("port").cloned().unwrap_or(json!(0));
        if !number.as_u64().is_some_and(|number| (1..=65_535).contains(&number)) {
            let why = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("spec.ports[{at}].port"), &number, why));
        }
        if ports.len() > 1 && port.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.ports[{at}].name"), ""));
        }
    }
    causes
}

/// Carries over what the client left out of an update and the server had allocated.
pub(super) fn carry_over(old: &Map<String, Value>, new: &mut Map<String, Value>) {
    let (before, after) = (text(old, "type").to_owned(), text(new, "type").to_owned());
    if before != "ExternalName" && after != "ExternalName" && text(new, "clusterIP").is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(key) {
                new.insert(key.to_owned(), value.clone());
            }
        }
    }
    let exposed = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if exposed(&before) && exposed(&after) {
        let held = old.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
        let ports = new.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter(|port| port.is_object()) {
            let same =
                |one: &&Value| one.get("port") == port.get("port") && one.get("protocol") == port.get("protocol");
            let kept = held.iter().find(same).and_then(|one| one.get("nodePort")).cloned();
            if let (Some(kept), None) = (kept, port.get("nodePort")) {
                port["nodePort"] = kept;
            }
        }
    }
    if before == after
        && let (Some(port), None) = (old.get("healthCheckNodePort"), new.get("healthCheckNodePort"))
    {
        new.insert("healthCheckNodePort".to_owned(), port.clone());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({ "spec": spec });
        defaults(service["spec"].as_object_mut().unwrap());
        service
    }

    #[test]
    fn addresses_are_given_out_once() {
        let mut allocator = Allocator::default();
        let mut first = service(json!({ "ports": [{ "port": 80 }] }));
        assert!(allocator.allocate("a/x", &mut first).is_empty());
        let ip = first["spec"]["clusterIP"].clone();
        let mut second = service(json!({ "clusterIP": ip, "ports": [{ "port": 80 }] }));
        assert_eq!(allocator.allocate("a/y", &mut second).len(), 1);
        assert!(allocator.allocate("a/x", &mut first).is_empty(), "its own address is no conflict");
        allocator.release("a/x");
        assert!(allocator.allocate("a/y", &mut second).is_empty());
    }

    #[test]
    fn a_taken_node_port_is_refused_and_reserves_nothing() {
        let mut allocator = Allocator::default();
        let spec = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] });
        assert!(allocator.allocate("a/x", &mut service(spec.clone())).is_empty());
        let causes = allocator.allocate("a/y", &mut service(spec));
        let why = "provided port is already allocated";
        assert_eq!(causes, [Cause::invalid("spec.ports[0].nodePort", &json!(30080), why)]);
        assert_eq!(allocator.ips.len(), 1);
    }

    #[test]
    fn headless_and_external_services_hold_nothing() {
        let mut allocator = Allocator::default();
        let mut headless = service(json!({ "clusterIP": "None" }));
        allocator.allocate("a/x", &mut headless);
        allocator.allocate("a/y", &mut service(json!({ "type": "ExternalName", "externalName": "x.example" })));
        assert!(allocator.ips.is_empty());
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    }
}
