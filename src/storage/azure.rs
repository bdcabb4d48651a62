//! Azure Blob Storage: the settings of Velero's Azure plugin (plugin-protocol 10.4) and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;

use super::azure_credentials::{self, AzureCredentials, AzureIdentity, Variables, Wanted};
use super::azure_keys::{self, Account};
use super::client::{self, Peers};
use super::location::{Inputs, check_keys, flag, misconfigured};
use super::{Error, ObjectBackupStore, Options};

/// Every key that the plugin has.
const KEYS: [&str; 9] = [
    "resourceGroup",
    "storageAccount",
    "storageAccountKeyEnvVar",
    "subscriptionId",
    "blockSizeInBytes",
    "storageAccountURI",
    "useAAD",
    "activeDirectoryAuthorityURI",
    "credentialsFile",
];

/// The largest block that Azure took when the plugin was written, which is what it allows.
const MAX_BLOCK_SIZE: u64 = 100 << 20;

/// How a container of a storage account is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container; Velero calls it the bucket.
    pub container: String,
    /// Address of the account's blobs.
    pub endpoint: String,
    /// Address of the directory service that gives tokens.
    pub authority_host: String,
    /// Address of the resource manager, which knows the keys of the account.
    pub resource_manager: String,
    /// Certificates to trust besides the system's, PEM.
    pub ca_cert: Option<String>,
    /// How requests are authenticated.
    pub credentials: AzureCredentials,
}

/// The addresses of one of Azure's clouds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cloud {
    blob_suffix: &'static str,
    authority_host: &'static str,
    resource_manager: &'static str,
}

impl Cloud {
    /// The cloud of this name, whatever its case; the public one where there is none.
    fn named(name: Option<&str>) -> Result<Self, Error> {
        match name.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "azurecloud" | "azurepubliccloud" => Ok(Self {
                blob_suffix: "blob.core.windows.net",
                authority_host: "https://login.microsoftonline.com",
                resource_manager: "https://management.azure.com",
            }),
            "azurechinacloud" => Ok(Self {
                blob_suffix: "blob.core.chinacloudapi.cn",
                authority_host: "https://login.chinacloudapi.cn",
                resource_manager: "https://management.chinacloudapi.cn",
            }),
            "azureusgovernment" | "azureusgovernmentcloud" => Ok(Self {
                blob_suffix: "blob.core.usgovcloudapi.net",
                authority_host: "https://login.microsoftonline.us",
                resource_manager: "https://management.usgovcloudapi.net",
            }),
            _ => Err(misconfigured(
                "AZURE_CLOUD_NAME in the credentials file is not known; it is one of AzurePublicCloud, AzureChinaCloud \
                 and AzureUSGovernment",
            )),
        }
    }
}

impl AzureConfig {
    /// What `config` says of the storage account that holds `container`.
    pub(super) fn from_map(
        container: &str,
        config: &BTreeMap<String, String>,
        ca_cert: Option<String>,
        inputs: Inputs<'_>,
    ) -> Result<Self, Error> {
        check_keys(config, &KEYS)?;
        if container.is_empty() {
            return Err(misconfigured("objectStorage.bucket is empty; it is the name of the container"));
        }
        let value = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let account =
            value("storageAccount").ok_or_else(|| misconfigured("provider azure needs config.storageAccount"))?;
        // Files are written whole, so that nothing comes of it; but what the plugin refuses is refused.
        if let Some(size) = value("blockSizeInBytes")
            && !size.parse().is_ok_and(|size: u64| (1..=MAX_BLOCK_SIZE).contains(&size))
        {
            return Err(Error::Misconfigured(format!(
                "blockSizeInBytes {size:?} is no number from 1 to {MAX_BLOCK_SIZE}"
            )));
        }
        let variables = Variables::parse(inputs.credentials.unwrap_or_default())?;
        let cloud = Cloud::named(variables.get("AZURE_CLOUD_NAME"))?;
        let endpoint = match value("storageAccountURI") {
            Some(url) => client::endpoint("storageAccountURI", url)?,
            None => client::endpoint("storageAccount", &format!("https://{account}.{}", cloud.blob_suffix))?,
        };
        let authority_host = match value("activeDirectoryAuthorityURI") {
            Some(url) => client::endpoint("activeDirectoryAuthorityURI", url)?,
            None => cloud.authority_host.to_owned(),
        };
        let wanted = Wanted {
            account_key_variable: value("storageAccountKeyEnvVar"),
            use_aad: flag(config, "useAAD")?,
            subscription_id: value("subscriptionId"),
            resource_group: value("resourceGroup"),
        };
        let credentials = azure_credentials::resolve(wanted, &variables, inputs.env)?;
        Ok(Self {
            account: account.to_owned(),
            container: container.to_owned(),
            endpoint,
            authority_host,
            resource_manager: cloud.resource_manager.to_owned(),
            ca_cert,
            credentials,
        })
    }
}

/// The client of a container. Asks Azure for a key of the account where that is how it is to be authorized.
pub(super) async fn open(config: &AzureConfig) -> Result<ObjectBackupStore, Error> {
    let unusable = |error: object_store::Error| Error::Unusable { key: config.container.clone(), source: error.into() };
    let options = client::options(&Peers {
        endpoints: [Some(&config.endpoint), None],
        ca_cert: config.ca_cert.as_deref(),
        insecure_skip_tls_verify: false,
    })?;
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&config.account)
        .with_container_name(&config.container)
        .with_endpoint(config.endpoint.clone())
        .with_authority_host(&config.authority_host)
        .with_client_options(options)
        .with_retry(client::retry());
    let with_key =
        |builder: MicrosoftAzureBuilder, key: &str| builder.with_access_key(key).with_credential_type("access_key");
    let builder = match &config.credentials {
        AzureCredentials::AccountKey(key) => with_key(builder, &key.0),
        AzureCredentials::ListedKey { identity, subscription_id, resource_group } => {
            let account = Account {
                name: &config.account,
                subscription_id,
                resource_group,
                identity,
                authority_host: &config.authority_host,
                resource_manager: &config.resource_manager,
                ca_cert: config.ca_cert.as_deref(),
                pause: azure_keys::PAUSE,
            };
            with_key(builder, &azure_keys::account_key(&account).await?.0)
        }
        AzureCredentials::Token(identity) => with_identity(builder, identity),
    };
    let store = Arc::new(builder.build().map_err(unusable)?);
    Ok(ObjectBackupStore::new(store.clone(), Options::default()).with_signer(store))
}

fn with_identity(builder: MicrosoftAzureBuilder, identity: &AzureIdentity) -> MicrosoftAzureBuilder {
    match identity {
        AzureIdentity::ClientSecret { tenant_id, client_id, client_secret } => builder
            .with_client_secret_authorization(client_id, &client_secret.0, tenant_id)
            .with_credential_type("client_secret"),
        AzureIdentity::Workload { tenant_id, client_id, token_file } => builder
            .with_client_id(client_id)
            .with_tenant_id(tenant_id)
            .with_federated_token_file(token_file)
            .with_credential_type("workload_identity"),
        AzureIdentity::Managed { client_id } => {
            let builder = builder.with_credential_type("managed_identity");
            match client_id {
                Some(client_id) => builder.with_client_id(client_id),
                None => builder,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::BackupStore as _;
    use crate::storage::credentials::Hidden;

    /// `hushhush`, in the form of an account key.
    const KEY: &str = "aHVzaGh1c2g=";
    const PRINCIPAL: &str = "AZURE_TENANT_ID=t\nAZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=hush\n";
    const WORKLOAD: &[(&str, &str)] =
        &[("AZURE_FEDERATED_TOKEN_FILE", "/t"), ("AZURE_TENANT_ID", "et"), ("AZURE_CLIENT_ID", "ec")];

    fn read(config: &[(&str, &str)], file: Option<&str>, env: &[(&str, &str)]) -> Result<AzureConfig, Error> {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        let env = map(env);
        AzureConfig::from_map("c", &map(config), None, Inputs { credentials: file, ..Inputs::of(&env) })
    }

    fn expected(credentials: AzureCredentials) -> AzureConfig {
        AzureConfig {
            account: "a".into(),
            container: "c".into(),
            endpoint: "https://a.blob.core.windows.net".into(),
            authority_host: "https://login.microsoftonline.com".into(),
            resource_manager: "https://management.azure.com".into(),
            ca_cert: None,
            credentials,
        }
    }

    // plugin-protocol 10.4
    #[test]
    fn credentials_are_taken_in_the_plugin_s_order() {
        let key = AzureCredentials::AccountKey(Hidden(KEY.into()));
        let principal = || AzureIdentity::ClientSecret {
            tenant_id: "t".into(),
            client_id: "c".into(),
            client_secret: Hidden("hush".into()),
        };
        let token = AzureCredentials::Token;
        let listed = |identity, subscription: &str, group: &str| AzureCredentials::ListedKey {
            identity,
            subscription_id: subscription.into(),
            resource_group: group.into(),
        };
        let workload = |tenant: &str, client: &str| AzureIdentity::Workload {
            tenant_id: tenant.into(),
            client_id: client.into(),
            token_file: "/t".into(),
        };
        let managed = |client: Option<&str>| AzureIdentity::Managed { client_id: client.map(str::to_owned) };
        let in_file = format!("{PRINCIPAL}AZURE_SUBSCRIPTION_ID=fs\nAZURE_RESOURCE_GROUP=fg\n");
        let in_config = &[("storageAccount", "a"), ("subscriptionId", "s"), ("resourceGroup", "g")][..];
        let with_key = format!("{PRINCIPAL}MY_KEY={KEY}\n");
        let by_key = &[("storageAccount", "a"), ("storageAccountKeyEnvVar", "MY_KEY")][..];
        let aad = &[("storageAccount", "a"), ("useAAD", "true")][..];
        for (config, file, env, credentials) in [
            (by_key, Some(with_key.as_str()), &[][..], key.clone()),
            (&[by_key, &[("useAAD", "true")]].concat(), Some(&with_key), WORKLOAD, key.clone()),
            (aad, Some(PRINCIPAL), &[], token(principal())),
            (aad, Some(PRINCIPAL), WORKLOAD, token(principal())),
            (in_config, Some(&in_file), &[], listed(principal(), "s", "g")),
            (&in_config[..1], Some(&in_file), &[], listed(principal(), "fs", "fg")),
            (&[in_config, &[("useAAD", "false")]].concat(), None, WORKLOAD, listed(workload("et", "ec"), "s", "g")),
            (in_config, None, &[], listed(managed(None), "s", "g")),
            (aad, None, WORKLOAD, token(workload("et", "ec"))),
            (aad, Some("AZURE_TENANT_ID=t\nAZURE_CLIENT_ID=c"), &WORKLOAD[..1], token(workload("t", "c"))),
            (aad, Some("AZURE_CLIENT_ID=c"), &[], token(managed(Some("c")))),
            (aad, None, &[], token(managed(None))),
        ] {
            assert_eq!(read(config, file, env).unwrap(), expected(credentials), "{config:?} {env:?}");
        }
    }

    #[test]
    fn addresses_follow_the_cloud_unless_they_are_given() {
        let of = |extra: &[(&str, &str)], file: &str| {
            let config = [&[("storageAccount", "a"), ("useAAD", "1")], extra].concat();
            let config = read(&config, Some(file), &[]).unwrap();
            (config.endpoint, config.authority_host)
        };
        for (extra, file, endpoint, authority) in [
            (&[][..], "", "https://a.blob.core.windows.net", "https://login.microsoftonline.com"),
            (
                &[],
                "AZURE_CLOUD_NAME=AzureCloud",
                "https://a.blob.core.windows.net",
                "https://login.microsoftonline.com",
            ),
            (
                &[],
                "AZURE_CLOUD_NAME=AZUREPUBLICCLOUD",
                "https://a.blob.core.windows.net",
                "https://login.microsoftonline.com",
            ),
            (
                &[],
                "AZURE_CLOUD_NAME=AzureChinaCloud",
                "https://a.blob.core.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
            ),
            (
                &[],
                "AZURE_CLOUD_NAME=AzureUSGovernment",
                "https://a.blob.core.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            ),
            (
                &[],
                "AZURE_CLOUD_NAME=azureusgovernmentcloud",
                "https://a.blob.core.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            ),
            (
                &[("storageAccountURI", "https://a.z1.blob.storage.azure.net/")],
                "AZURE_CLOUD_NAME=AzureChinaCloud",
                "https://a.z1.blob.storage.azure.net",
                "https://login.chinacloudapi.cn",
            ),
            (
                &[("activeDirectoryAuthorityURI", "https://login.example.com/")],
                "",
                "https://a.blob.core.windows.net",
                "https://login.example.com",
            ),
            // What only a key that is asked for needs, and writing in blocks, changes no address.
            (
                &[
                    ("resourceGroup", "g"),
                    ("subscriptionId", "s"),
                    ("blockSizeInBytes", "1048576"),
                    ("credentialsFile", "/f"),
                ],
                "AZURE_RESOURCE_GROUP=x\nAZURE_SUBSCRIPTION_ID=y",
                "https://a.blob.core.windows.net",
                "https://login.microsoftonline.com",
            ),
        ] {
            assert_eq!(of(extra, file), (endpoint.to_owned(), authority.to_owned()), "{extra:?} {file}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_way_out() {
        let aad =
            |extra: &[(&'static str, &'static str)]| [&[("storageAccount", "a"), ("useAAD", "true")], extra].concat();
        let by_key = vec![("storageAccount", "a"), ("storageAccountKeyEnvVar", "MY_KEY")];
        for (config, file, env, part) in [
            (vec![], "", &[][..], "provider azure needs config.storageAccount"),
            (vec![("storageAccount", "a")], PRINCIPAL, &[], "which needs subscriptionId (or AZURE_SUBSCRIPTION_ID"),
            (vec![("storageAccount", "a"), ("subscriptionId", "s")], PRINCIPAL, &[], "set useAAD to \"true\""),
            (
                vec![("storageAccount", "a"), ("useAAD", "false")],
                PRINCIPAL,
                &[],
                "neither storageAccountKeyEnvVar nor useAAD is set",
            ),
            (aad(&[("container", "x")]), "", &[], "config has invalid keys [container]; valid keys are [activeD"),
            (
                vec![("storageAccount", "a"), ("useAAD", "yes")],
                "",
                &[],
                "could not parse useAAD (expected bool): \"yes\"",
            ),
            (by_key.clone(), PRINCIPAL, &[], "has no variable \"MY_KEY\""),
            (
                by_key,
                "MY_KEY=hush!",
                &[],
                "the account key in variable \"MY_KEY\" of the credentials file is not base64",
            ),
            (aad(&[]), "AZURE_CLIENT_SECRET=hush", &[], "has AZURE_CLIENT_SECRET and no AZURE_TENANT_ID"),
            (
                aad(&[]),
                "AZURE_CLIENT_CERTIFICATE_PATH=/hush",
                &[],
                "AZURE_CLIENT_CERTIFICATE_PATH in the credentials file",
            ),
            (
                aad(&[]),
                "AZURE_CLIENT_CERTIFICATE=\"hush\nhush\"",
                &[],
                "AZURE_CLIENT_CERTIFICATE in the credentials file",
            ),
            (aad(&[]), "", &WORKLOAD[..1], "AZURE_FEDERATED_TOKEN_FILE is set and AZURE_TENANT_ID is not"),
            (aad(&[]), "AZURE_CLOUD_NAME=hush", &[], "AZURE_CLOUD_NAME in the credentials file is not known"),
            (aad(&[("storageAccountURI", "a.blob")]), "", &[], "storageAccountURI \"a.blob\" is no address"),
            (aad(&[("activeDirectoryAuthorityURI", "x")]), "", &[], "activeDirectoryAuthorityURI \"x\" is no address"),
            (aad(&[("blockSizeInBytes", "0")]), "", &[], "blockSizeInBytes \"0\" is no number from 1 to 104857600"),
            (aad(&[("blockSizeInBytes", "many")]), "", &[], "blockSizeInBytes \"many\""),
            (vec![("storageAccount", "a b"), ("useAAD", "t")], "", &[], "storageAccount \"https://a b."),
        ] {
            let message = read(&config, Some(file), env).unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains("hush"), "{message}");
        }
        let config = BTreeMap::from([("storageAccount".to_owned(), "a".to_owned())]);
        let error = AzureConfig::from_map("", &config, None, Inputs::of(&BTreeMap::new())).unwrap_err();
        assert_eq!(error.to_string(), "objectStorage.bucket is empty; it is the name of the container");
    }

    #[tokio::test]
    async fn every_kind_of_credentials_can_be_opened_and_an_account_key_signs_addresses() {
        let aad = &[("storageAccount", "a"), ("useAAD", "true")][..];
        for (file, env) in [(Some(PRINCIPAL), &[][..]), (None, WORKLOAD), (Some("AZURE_CLIENT_ID=c"), &[]), (None, &[])]
        {
            let store = open(&read(aad, file, env).unwrap()).await.unwrap();
            assert!(!format!("{store:?}").contains("hush"));
        }
        let config = [("storageAccount", "a"), ("storageAccountKeyEnvVar", "K")];
        let store = open(&read(&config, Some(&format!("K={KEY}")), &[]).unwrap()).await.unwrap();
        let url = store.presign_get("backups/b/b.tar.gz", std::time::Duration::from_mins(10)).await.unwrap();
        assert!(url.starts_with("https://a.blob.core.windows.net/c/backups/b/b.tar.gz?"), "{url}");
        assert!(url.contains("sig=") && !url.contains(KEY), "{url}");
    }
}
