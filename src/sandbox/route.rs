//! What a request's path and query address.

/// An address within the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The list of paths at `/`.
    Root,
    /// `/version`.
    Version,
    /// `/livez`, `/readyz`, `/healthz` and what is below them.
    Health,
    /// `/api`.
    Api,
    /// `/apis`.
    Apis,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// `/openapi/v3` (empty) or a group version's document below it.
    OpenApi(String),
    /// A collection, an object or a subresource.
    Resource(Address),
    /// Nothing.
    Nowhere,
}

/// A resource path, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Decodes `%xx` (and `+` in a query).
fn decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) if plus => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes a path apart.
pub(super) fn parse(path: &str) -> Route {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Route::Root,
        ["version"] => Route::Version,
        ["livez" | "readyz" | "healthz", ..] => Route::Health,
        ["api"] => Route::Api,
        ["apis"] => Route::Apis,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", "v1"] => Route::GroupVersion(String::new(), "v1".to_owned()),
        ["apis", group, version] => Route::GroupVersion((*group).to_owned(), (*version).to_owned()),
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        ["api", "v1", rest @ ..] => resource("", "v1", rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Nowhere,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let (namespace, rest) = match rest {
        // `/namespaces/x/status` is about the namespace; `/namespaces/x/pods` about what is in it.
        ["namespaces", _, "status" | "finalize"] if group.is_empty() => (None, rest),
        ["namespaces", namespace, tail @ ..] if !tail.is_empty() => (Some((*namespace).to_owned()), tail),
        _ => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, subresource] => (plural, Some(name), Some(subresource)),
        _ => return Route::Nowhere,
    };
    let owned = |part: &&str| (*part).to_owned();
    Route::Resource(Address {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: (*plural).to_owned(),
        namespace,
        name: name.map(owned),
        subresource: subresource.map(owned),
    })
}

/// The parameters after the question mark.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query apart.
    pub(super) fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// A parameter; empty where absent.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(own, _)| own == key).map_or("", |(_, value)| value)
    }

    /// Whether a parameter is set to a true value.
    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "true" | "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(path: &str) -> Address {
        match parse(path) {
            Route::Resource(address) => address,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let pod = address("/api/v1/namespaces/a/pods/x/status");
        assert_eq!((pod.namespace.as_deref(), pod.plural.as_str()), (Some("a"), "pods"));
        assert_eq!((pod.name.as_deref(), pod.subresource.as_deref()), (Some("x"), Some("status")));
        let namespace = address("/api/v1/namespaces/a");
        assert_eq!((namespace.namespace, namespace.name.as_deref()), (None, Some("a")));
        assert_eq!(address("/api/v1/namespaces/a/finalize").subresource.as_deref(), Some("finalize"));
        let role = address("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(role.name.as_deref(), Some("system:node"));
        assert_eq!(parse("/apis/apps/v1"), Route::GroupVersion("apps".to_owned(), "v1".to_owned()));
        assert_eq!(parse("/nothing"), Route::Nowhere);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch=true&flag");
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch"));
        assert!(!query.flag("flag"));
    }
}
