//! Token Secrets and ServiceAccounts (restore-semantics 7.1).

use futures::future::{BoxFuture, FutureExt};
use serde_json::Value;

use super::{Error, Input, Output, fields};
use crate::model::Target;

/// Token Secrets: one that the API server made for an account that exists is left to it; another keeps its place,
/// and the token controller fills it anew.
pub(super) fn secret(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let mut item = input.item;
        if fields::text_or_empty(&item, "type")? != "kubernetes.io/service-account-token" {
            return Ok(Output::of(item));
        }
        let target = Target::new("", "v1", "serviceaccounts", fields::namespace(&item)?);
        // Instead of listing all accounts, ask for those whose name can be the beginning of this one.
        let name = fields::name(&item)?.to_owned();
        for account in possible_accounts(&name) {
            let what = format!("get serviceaccount {account}");
            let found = input.context.lookup.cluster().get(&target, account).await;
            if found.map_err(|error| Error::api(what, &error))?.is_some() {
                return Ok(Output::skip(item));
            }
        }
        fields::remove_annotations(&mut item, &["kubernetes.io/service-account.uid"])?;
        fields::remove_keys(&mut item, "data", &["token", "ca.crt"])?;
        Ok(Output::of(item))
    }
    .boxed()
}

/// Every `x` for which the name begins with `x-token-`.
fn possible_accounts(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices("-token-").map(|(at, _)| &name[..at]).filter(|account| !account.is_empty())
}

/// Drops the last listed token Secret, which the token controller replaces by a new one.
pub(super) fn service_account(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    let prefix = format!("{}-token-", fields::name(&item)?);
    fields::each(&item, "secrets", |secret| fields::text(secret, "name").map(|_| ()))?;
    let is_token = |secret: &Value| secret["name"].as_str().is_some_and(|name| name.starts_with(&prefix));
    if let Some(secrets) = fields::list_mut(&mut item, "secrets")?
        && let Some(last) = secrets.iter().rposition(is_token)
    {
        secrets.remove(last);
        fields::remove_if_empty(&mut item, "secrets")?;
    }
    Ok(Output::of(item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;

    fn token(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "app", "annotations":
            {"kubernetes.io/service-account.name": "builder", "kubernetes.io/service-account.uid": "u"}},
            "type": "kubernetes.io/service-account-token", "data": {"token": "dA==", "ca.crt": "Yw==", "x": "eA=="}})
    }

    fn account(name: &str, namespace: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    }

    /// restore-semantics 7.1 `secret`; 5.5, the namespace is still the source
    #[test]
    fn the_token_of_an_account_that_exists_is_skipped_in_the_namespace_of_the_source() {
        let bench = Bench::new().with(account("my-token-reader", "app")).mapping("app", "dst");
        assert!(bench.run("velero.io/secret", token("my-token-reader-token-abc12")).unwrap().skip);
        assert!(!bench.run("velero.io/secret", token("other-token-abc12")).unwrap().skip);
        let elsewhere = Bench::new().with(account("builder", "dst")).mapping("app", "dst");
        assert!(!elsewhere.run("velero.io/secret", token("builder-token-abc12")).unwrap().skip);
    }

    /// restore-semantics 7.1 `secret`
    #[test]
    fn a_token_secret_made_by_hand_keeps_its_place_without_the_token() {
        let output =
            Bench::new().with(account("builder", "app")).run("velero.io/secret", token("builder-manual")).unwrap();
        assert!(!output.skip);
        assert_eq!(output.item["data"], json!({"x": "eA=="}));
        assert_eq!(output.item["metadata"]["annotations"], json!({"kubernetes.io/service-account.name": "builder"}));
    }

    /// restore-semantics 7.1 `secret`
    #[test]
    fn other_secrets_are_not_touched_and_ask_the_cluster_nothing() {
        let bench = Bench::new();
        let item = json!({"type": "Opaque", "metadata": {"name": "a-token-b"}, "data": {"token": "dA=="}});
        assert_eq!(bench.run("velero.io/secret", item.clone()).unwrap().item, item);
        assert!(bench.requests().is_empty());
    }

    /// restore-semantics 7.1 `service-account`
    #[test]
    fn an_account_loses_its_last_listed_token_only() {
        let account = |secrets: &[&str]| {
            let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
            json!({"metadata": {"name": "fresh"}, "secrets": secrets})
        };
        let run = |item| Bench::new().run("velero.io/service-account", item).unwrap().item;
        assert_eq!(
            run(account(&["fresh-token-1", "fresh-dockercfg-2", "fresh-token-3"])),
            account(&["fresh-token-1", "fresh-dockercfg-2"])
        );
        assert_eq!(run(account(&["other-token-1"])), account(&["other-token-1"]));
        assert_eq!(run(account(&["fresh-token-1"])), json!({"metadata": {"name": "fresh"}}));
    }
}
