//! What the clients of all providers have in common: timeouts, tries, and whom they trust.

use std::time::Duration;

use http::Uri;
use object_store::{Certificate, ClientOptions, RetryConfig};

use super::location::misconfigured;
use super::{Error, Options};

/// Whom a client speaks to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peers<'a> {
    /// The addresses that are configured; HTTP is allowed when one of them asks for it.
    pub(super) endpoints: [Option<&'a str>; 2],
    /// Certificates to trust besides the system's, PEM.
    pub(super) ca_cert: Option<&'a str>,
    /// Whether the store's certificate is not looked at.
    pub(super) insecure_skip_tls_verify: bool,
}

/// The options of a client.
///
/// # Errors
/// When the certificates cannot be used.
pub(super) fn options(peers: &Peers<'_>) -> Result<ClientOptions, Error> {
    let http = peers.endpoints.into_iter().flatten().any(|url| url.starts_with("http://"));
    let options = ClientOptions::new()
        // A limit on the whole request would also hold for the body of a tarball, which may take hours.
        .with_timeout_disabled()
        .with_read_timeout(Options::default().read_timeout)
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(http)
        .with_allow_invalid_certificates(peers.insecure_skip_tls_verify);
    let Some(pem) = peers.ca_cert else { return Ok(options) };
    let unusable = |error: object_store::Error| Error::Unusable { key: "caCert".to_owned(), source: error.into() };
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(unusable)?;
    if certificates.is_empty() {
        return Err(misconfigured("caCert holds no certificate in PEM form"));
    }
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

/// How often a request is repeated below us.
pub(super) fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

/// An address of a setting, without slashes at its end.
///
/// # Errors
/// When it is no address of HTTP or HTTPS.
pub(super) fn endpoint(key: &str, text: &str) -> Result<String, Error> {
    let valid = text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if valid {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(Error::Misconfigured(format!("{key} {text:?} is no address that begins with http:// or https://")))
    }
}
