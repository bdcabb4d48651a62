//! Opening the object storage of a location, with its credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::records::Records;
use super::source::message;
use crate::model::error_chain;
use crate::storage::credentials::{self, CredentialsSource};
use crate::storage::s3::customer_key_secret;
use crate::storage::{self, BackupStore, ClientConfig, Inputs, Layout};
use crate::velero::{BackupStorageLocation, BackupStorageLocationSpec, SecretKeySelector};

/// Opens locations; the environment is an argument, so that tests need not change theirs.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    environment: Arc<BTreeMap<String, String>>,
}

impl Stores {
    /// With this environment, where ambient credentials are looked for.
    #[must_use]
    pub fn new(environment: BTreeMap<String, String>) -> Self {
        Self { environment: Arc::new(environment) }
    }

    /// Opens the object storage of a location.
    ///
    /// # Errors
    /// A message that names the location and what is wrong with it.
    pub async fn open(&self, records: &Records, location: &BackupStorageLocation) -> Result<OpenLocation, String> {
        let name = location.metadata.name.clone().unwrap_or_default();
        match self.try_open(records, &location.spec).await {
            Ok((store, config)) => {
                Ok(OpenLocation { name, store, layout: config.layout(), read_only: config.read_only })
            }
            Err(error) => Err(format!("error opening backup storage location {name:?}: {error}")),
        }
    }

    async fn try_open(
        &self,
        records: &Records,
        location: &BackupStorageLocationSpec,
    ) -> Result<(Arc<dyn BackupStore>, ClientConfig), String> {
        let credentials = self.credentials(records, location).await?;
        let ca_cert = match &location.object_storage.ca_cert_ref {
            Some(selector) => secret_text(records, selector).await?,
            None => None,
        };
        let customer_key = match customer_key_secret(&location.config).map_err(|error| error_chain(&error))? {
            Some(selector) => secret(records, &selector).await?,
            None => None,
        };
        let inputs = Inputs {
            credentials: credentials.as_deref(),
            ca_cert: ca_cert.as_deref(),
            customer_key: customer_key.as_deref(),
            env: &self.environment,
        };
        let config = ClientConfig::from_location(location, inputs).map_err(|error| error_chain(&error))?;
        let store = storage::open(&config).await.map_err(|error| error_chain(&error))?;
        Ok((store, config))
    }

    /// The text of the first source of credentials that is there.
    async fn credentials(
        &self,
        records: &Records,
        location: &BackupStorageLocationSpec,
    ) -> Result<Option<String>, String> {
        for source in credentials::sources(location, &self.environment) {
            let (found, optional, what) = match source {
                CredentialsSource::Secret { selector, optional } => {
                    let what = format!("key {:?} of Secret {:?}", selector.key, selector.name);
                    (secret_text(records, &selector).await?, optional, what)
                }
                CredentialsSource::File { path, optional } => {
                    let found = tokio::fs::read_to_string(&path).await;
                    (found.ok(), optional, format!("credentials file {path:?}"))
                }
            };
            match found {
                Some(text) => return Ok(Some(text)),
                None if optional => {}
                None => return Err(format!("{what} cannot be read: create it, or mend the location")),
            }
        }
        Ok(None)
    }
}

/// A location that is open: its store, and where in it things are.
#[derive(Clone, Debug)]
pub struct OpenLocation {
    /// Name of the location.
    pub name: String,
    /// The store.
    pub store: Arc<dyn BackupStore>,
    /// The keys.
    pub layout: Layout,
    /// Whether its owner said that nothing is written to it (`spec.accessMode`); the store refuses it then.
    pub read_only: bool,
}

async fn secret(records: &Records, selector: &SecretKeySelector) -> Result<Option<Vec<u8>>, String> {
    let found = records.secret(&selector.name, &selector.key).await;
    found.map_err(|error| {
        format!("key {:?} of Secret {:?} cannot be read: {}", selector.key, selector.name, message(&error))
    })
}

async fn secret_text(records: &Records, selector: &SecretKeySelector) -> Result<Option<String>, String> {
    let not_text = |_| format!("key {:?} of Secret {:?} is not text", selector.key, selector.name);
    secret(records, selector).await?.map(|bytes| String::from_utf8(bytes).map_err(not_text)).transpose()
}
