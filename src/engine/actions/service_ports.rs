//! Who chose a service's ports: what `kubectl apply` remembers, and what field managers own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Error;
use super::fields::{self, Object};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object that `kubectl apply` last applied.
pub(super) struct Applied(Value);

/// The ports whose node port the applied object gives.
#[derive(Default)]
pub(super) struct NodePorts {
    /// Names of named ports.
    named: BTreeSet<String>,
    /// Node ports of unnamed ports.
    unnamed: BTreeSet<i64>,
}

fn unreadable(message: impl ToString) -> Error {
    Error::Unreadable { what: format!("annotation {LAST_APPLIED}"), message: message.to_string() }
}

impl Applied {
    /// Reads the annotation, if the item has it.
    pub(super) fn of(item: &Value) -> Result<Option<Self>, Error> {
        let Some(text) = fields::annotation(item, LAST_APPLIED)? else { return Ok(None) };
        let applied: Object = serde_json::from_str(text).map_err(unreadable)?;
        Ok(Some(Self(Value::Object(applied))))
    }

    /// The ports that were given a positive node port, as a number or as a text.
    fn node_ports(&self) -> Result<NodePorts, Error> {
        let mut ports = NodePorts::default();
        for port in fields::list(&self.0, "spec.ports").map_err(unreadable)?.iter().filter(|port| port.is_object()) {
            let number = match &port["nodePort"] {
                Value::Null => continue,
                Value::String(text) => {
                    text.parse().map_err(|_| unreadable(format!("node port {text:?} is not a number")))?
                }
                // Go truncates; a port with a fraction does not get into a cluster.
                Value::Number(number) => number.as_i64().unwrap_or_default(),
                other => return Err(unreadable(format!("node port {other} is not a number"))),
            };
            if number > 0 {
                match &port["name"] {
                    Value::String(name) => {
                        ports.named.insert(name.clone());
                    }
                    Value::Null => {
                        ports.unnamed.insert(number);
                    }
                    other => return Err(unreadable(format!("port name {other} is not a text"))),
                }
            }
        }
        Ok(ports)
    }

    /// Whether a health check port other than 0 was given.
    pub(super) fn has_health_check_port(&self) -> Result<bool, Error> {
        match fields::get(&self.0, "spec.healthCheckNodePort").map_err(unreadable)? {
            None => Ok(false),
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(other) => Err(unreadable(format!("healthCheckNodePort {other} is not a number"))),
        }
    }
}

/// The ports whose node port somebody chose.
pub(super) enum Chosen {
    /// By last-applied, whose word is final.
    Applied(NodePorts),
    /// By owning it, where nothing was applied.
    Owned(BTreeSet<PortKey>),
}

impl Chosen {
    /// Asks last-applied, or else the field managers.
    pub(super) fn of(item: &Value) -> Result<Self, Error> {
        match Applied::of(item)? {
            Some(applied) => applied.node_ports().map(Self::Applied),
            None => owned_node_ports(item).map(Self::Owned),
        }
    }

    /// Whether this port of the service is among them.
    pub(super) fn has(&self, port: &Value) -> Result<bool, Error> {
        let node_port = fields::integer(port, "nodePort")?;
        Ok(match self {
            Self::Owned(owned) => owned.contains(&port_key(port)?),
            Self::Applied(applied) => match fields::text_or_empty(port, "name")? {
                "" => node_port.is_some_and(|number| applied.unnamed.contains(&number)),
                name => applied.named.contains(name),
            },
        })
    }
}

/// Port and protocol: what tells the ports of a service apart.
pub(super) type PortKey = (i64, String);

/// The key of a port of the service.
fn port_key(port: &Value) -> Result<PortKey, Error> {
    let protocol = fields::text_or_empty(port, "protocol")?;
    Ok((fields::integer(port, "port")?.unwrap_or_default(), protocol.to_owned()))
}

/// `f:spec` of each field manager's entry.
fn managed_specs(item: &Value) -> Result<Vec<&Value>, Error> {
    let mut specs = Vec::new();
    fields::each(item, "metadata.managedFields", |entry| {
        specs.extend(fields::get(entry, "fieldsV1.f:spec")?);
        Ok(())
    })?;
    Ok(specs)
}

/// The ports whose node port some field manager owns.
fn owned_node_ports(item: &Value) -> Result<BTreeSet<PortKey>, Error> {
    let mut owned = BTreeSet::new();
    for spec in managed_specs(item)? {
        for (key, port) in fields::object(spec, "f:ports")?.into_iter().flatten() {
            if port.get("f:nodePort").is_none() {
                continue;
            }
            let json = key.strip_prefix("k:").unwrap_or(key);
            let parsed: Value = serde_json::from_str(json).map_err(|error| Error::Unreadable {
                what: format!("key {key} in managedFields"),
                message: error.to_string(),
            })?;
            owned.insert(port_key(&parsed).map_err(|error| error.within(&format!("managedFields key {key}")))?);
        }
    }
    Ok(owned)
}

/// Whether some field manager owns the health check port.
pub(super) fn owns_health_check_port(item: &Value) -> Result<bool, Error> {
    Ok(managed_specs(item)?.into_iter().any(|spec| spec.get("f:healthCheckNodePort").is_some()))
}
