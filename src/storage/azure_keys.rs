//! Asking Azure's resource manager for the key of a storage account (plugin-protocol 10.4): what Velero's plugin does where
//! a location names neither a key nor `useAAD`. The client knows tokens for blobs only, so that this is ours.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, ReqwestConnector};
use serde_json::Value;

use super::azure_credentials::AzureIdentity;
use super::client::{self, Peers};
use super::credentials::Hidden;
use super::{Error, Source};

/// A version of the resource manager's interface that all of Azure's clouds have.
const API_VERSION: &str = "2019-06-01";

/// Where a machine gets tokens for its identity.
const MACHINE: &str = "http://169.254.169.254";

/// How often a request is tried, and the pause after the first failure; each further one doubles it.
const TRIES: u32 = 4;
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The account that a key is wanted for.
#[derive(Clone, Debug)]
pub(super) struct Account<'a> {
    pub(super) name: &'a str,
    pub(super) subscription_id: &'a str,
    pub(super) resource_group: &'a str,
    pub(super) identity: &'a AzureIdentity,
    /// Address of the directory service.
    pub(super) authority_host: &'a str,
    /// Address of the resource manager.
    pub(super) resource_manager: &'a str,
    /// Certificates to trust besides the system's, PEM.
    pub(super) ca_cert: Option<&'a str>,
    /// The first pause between tries, [`PAUSE`] but for tests.
    pub(super) pause: Duration,
}

/// The first key of an account that may do everything.
///
/// # Errors
/// When there is no token or no key, with what the service says about it. Neither is ever part of it.
pub(super) async fn account_key(account: &Account<'_>) -> Result<Hidden, Error> {
    let is_machine = matches!(account.identity, AzureIdentity::Managed { .. });
    let machine = if is_machine { MACHINE } else { account.authority_host };
    let peers = Peers {
        endpoints: [Some(machine), Some(account.resource_manager)],
        ca_cert: account.ca_cert,
        insecure_skip_tls_verify: false,
    };
    let connected = ReqwestConnector::default().connect(&client::options(&peers)?);
    let asking = Asking {
        client: connected.map_err(|error| Error::Unusable { key: account.name.to_owned(), source: error.into() })?,
        account: account.name,
        pause: account.pause,
    };
    let token = asking.token(account).await?;
    let Account { name, subscription_id, resource_group, resource_manager, .. } = account;
    let url = format!(
        "{resource_manager}/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Storage/storageAccounts/{}/listKeys\
         ?api-version={API_VERSION}&$expand=kerb",
        encoded(subscription_id),
        encoded(resource_group),
        encoded(name)
    );
    let authorization = format!("Bearer {}", token.0);
    let headers = [(header::AUTHORIZATION.as_str(), authorization.as_str())];
    let answer = asking.ask(Method::POST, &url, &headers, String::new()).await?;
    let keys = answer["keys"].as_array().into_iter().flatten();
    let is_full = |key: &&Value| key["permissions"].as_str().is_some_and(|text| text.eq_ignore_ascii_case("full"));
    let key = keys.filter(is_full).find_map(|key| key["value"].as_str());
    key.map(|key| Hidden(key.to_owned())).ok_or_else(|| {
        Error::Misconfigured(format!(
            "storage account {name:?} has no key with full permission; enable its keys, or set useAAD to \"true\""
        ))
    })
}

/// Requests about one account.
struct Asking<'a> {
    client: HttpClient,
    account: &'a str,
    pause: Duration,
}

impl Asking<'_> {
    /// A token for the resource manager.
    async fn token(&self, account: &Account<'_>) -> Result<Hidden, Error> {
        let Account { authority_host, resource_manager, .. } = account;
        let scope = format!("{resource_manager}/.default");
        let secret = match account.identity {
            AzureIdentity::ClientSecret { client_secret, .. } => client_secret.0.clone(),
            AzureIdentity::Workload { token_file, .. } => {
                let read = tokio::fs::read_to_string(token_file).await;
                read.map_err(|error| Error::Unusable { key: token_file.clone(), source: error.into() })?
            }
            AzureIdentity::Managed { .. } => String::new(),
        };
        let answer = match account.identity {
            AzureIdentity::ClientSecret { tenant_id, client_id, .. }
            | AzureIdentity::Workload { tenant_id, client_id, .. } => {
                let url = format!("{authority_host}/{}/oauth2/v2.0/token", encoded(tenant_id));
                let is_secret = matches!(account.identity, AzureIdentity::ClientSecret { .. });
                let proof = if is_secret {
                    vec![("client_secret", secret.as_str())]
                } else {
                    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                    vec![("client_assertion_type", kind), ("client_assertion", secret.trim())]
                };
                let asked = [("grant_type", "client_credentials"), ("client_id", client_id), ("scope", &scope)];
                let fields: Vec<String> =
                    asked.iter().chain(&proof).map(|(key, value)| format!("{key}={}", encoded(value))).collect();
                let headers = [(header::CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
                self.ask(Method::POST, &url, &headers, fields.join("&")).await?
            }
            AzureIdentity::Managed { client_id } => {
                let mut url = format!(
                    "{MACHINE}/metadata/identity/oauth2/token?api-version=2019-08-01&resource={}",
                    encoded(resource_manager)
                );
                if let Some(client_id) = client_id {
                    let _ = write!(url, "&client_id={}", encoded(client_id));
                }
                self.ask(Method::GET, &url, &[("metadata", "true")], String::new()).await?
            }
        };
        answer["access_token"].as_str().map(|token| Hidden(token.to_owned())).ok_or_else(|| Error::Denied {
            key: format!("the keys of storage account {}", self.account),
            source: "the directory service gave no token".into(),
        })
    }

    /// The JSON that a request is answered with; tried again where a failure may pass, as a restore must not fail of it.
    async fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)], body: String) -> Result<Value, Error> {
        let mut pause = self.pause;
        let mut tries = 1;
        loop {
            match self.try_ask(&method, url, headers, &body).await {
                Err(error) if error.is_retryable() && tries < TRIES => {
                    tracing::debug!(account = self.account, %error, "asking for the key of a storage account; trying again");
                    tokio::time::sleep(pause).await;
                    (pause, tries) = (pause * 2, tries + 1);
                }
                answered => return answered,
            }
        }
    }

    async fn try_ask(&self, method: &Method, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Value, Error> {
        let key = || format!("the keys of storage account {}", self.account);
        let mut request = http::Request::builder().method(method).uri(url);
        // A POST without a body must say so.
        request = request.header(header::CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request: HttpRequest = request
            .body(Bytes::copy_from_slice(body.as_bytes()).into())
            .map_err(|error| Error::Unusable { key: key(), source: error.into() })?;
        let transient = |source: Source| Error::Transient { key: key(), source };
        let response = self.client.execute(request).await.map_err(|error| transient(error.into()))?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(|error| transient(error.into()))?;
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        // What the directory service says, and what the resource manager says.
        let said = json["error_description"].as_str().or(json["error"]["message"].as_str());
        let source: Source = format!("{status}: {}", said.unwrap_or("no reason is given")).into();
        Err(match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Error::Transient { key: key(), source },
            status if status.is_server_error() => Error::Transient { key: key(), source },
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Denied { key: key(), source }
            }
            _ => Error::Unusable { key: key(), source },
        })
    }
}

/// Text as a part of an address or a form.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::error_chain;

    /// Answers each request with the next of these, and gives what was asked.
    async fn scripted(answers: Vec<(u16, &'static str)>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, received) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                let mut buffer = [0; 4096];
                // Head and body may come apart.
                loop {
                    let length = connection.read(&mut buffer).await.unwrap();
                    request.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    let declared = request.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| {
                        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap()
                    });
                    let body = request.split_once("\r\n\r\n").map(|(_, body)| body.len());
                    if length == 0 || body.is_some_and(|body| body >= declared.unwrap_or_default()) {
                        break;
                    }
                }
                let _ = asked.send(request);
                let head = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        (format!("http://{address}"), received)
    }

    async fn key_of(identity: &AzureIdentity, url: &str) -> Result<Hidden, Error> {
        account_key(&Account {
            name: "acc",
            subscription_id: "sub",
            resource_group: "my group",
            identity,
            authority_host: url,
            resource_manager: url,
            ca_cert: None,
            pause: Duration::from_millis(1),
        })
        .await
    }

    fn principal() -> AzureIdentity {
        AzureIdentity::ClientSecret {
            tenant_id: "t".into(),
            client_id: "c".into(),
            client_secret: Hidden("hu&sh=".into()),
        }
    }

    const TOKEN: (u16, &str) = (200, r#"{"access_token": "t0k"}"#);
    const KEYS: (u16, &str) = (
        200,
        r#"{"keys": [{"permissions": "Read", "value": "cmVhZA=="}, {"permissions": "FULL", "value": "ZnVsbA=="}]}"#,
    );

    // plugin-protocol 10.4
    #[tokio::test]
    async fn a_token_is_exchanged_for_the_first_key_with_full_permission() {
        let (url, mut asked) = scripted(vec![TOKEN, KEYS]).await;
        assert_eq!(key_of(&principal(), &url).await.unwrap(), Hidden("ZnVsbA==".into()));
        let (token, keys) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
        assert!(token.starts_with("POST /t/oauth2/v2.0/token HTTP/1.1"), "{token}");
        let form = token.split("\r\n\r\n").nth(1).unwrap();
        let scope = encoded(&format!("{url}/.default"));
        let expected = format!("grant_type=client_credentials&client_id=c&scope={scope}&client_secret=hu%26sh%3D");
        assert_eq!(form, expected);
        let path = "POST /subscriptions/sub/resourceGroups/my%20group/providers/Microsoft.Storage/storageAccounts/acc/listKeys";
        assert!(keys.starts_with(&format!("{path}?api-version={API_VERSION}&$expand=kerb ")), "{keys}");
        assert!(keys.to_ascii_lowercase().contains("authorization: bearer t0k\r\n"), "{keys}");
    }

    #[tokio::test]
    async fn a_workload_shows_the_token_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a.jwt\n").unwrap();
        let token_file = file.path().to_str().unwrap().to_owned();
        let identity = AzureIdentity::Workload { tenant_id: "t".into(), client_id: "c".into(), token_file };
        let (url, mut asked) = scripted(vec![TOKEN, KEYS]).await;
        key_of(&identity, &url).await.unwrap();
        let token = asked.recv().await.unwrap();
        assert!(
            token.contains("&client_assertion_type=urn%3Aietf%3A") && token.ends_with("&client_assertion=a.jwt"),
            "{token}"
        );
    }

    #[tokio::test]
    async fn failures_say_what_azure_says_and_no_secret() {
        let no_client = (401, r#"{"error": "invalid_client", "error_description": "AADSTS7000215: no such secret"}"#);
        let forbidden = (403, r#"{"error": {"code": "AuthorizationFailed", "message": "may not listKeys"}}"#);
        let missing = (404, r#"{"error": {"message": "no such account"}}"#);
        for (answers, kind, part) in [
            (vec![no_client], "denied", "AADSTS7000215"),
            (vec![TOKEN, forbidden], "denied", "may not listKeys"),
            (vec![TOKEN, missing], "other", "no such account"),
            (vec![TOKEN, (200, r#"{"keys": []}"#)], "other", "no key with full permission"),
            (vec![(200, "{}")], "denied", "no token"),
        ] {
            let (url, _asked) = scripted(answers).await;
            let error = key_of(&principal(), &url).await.unwrap_err();
            assert_eq!(matches!(error, Error::Denied { .. }), kind == "denied", "{error:?}");
            let text = format!("{error:?} {}", error_chain(&error));
            assert!(
                text.contains(part) && text.contains("acc") && !text.contains("hu&sh") && !text.contains("t0k"),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_service_that_is_busy_is_asked_again() {
        let (url, mut asked) = scripted(vec![(503, ""), TOKEN, (429, "{}"), KEYS]).await;
        key_of(&principal(), &url).await.unwrap();
        let mut count = 0;
        while asked.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 4);
    }
}
