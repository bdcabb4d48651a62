//! Credentials for Azure: the file of variables, and which of them hold (plugin-protocol 10.4).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Error;
use super::credentials::Hidden;

/// How requests are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureCredentials {
    /// A key of the storage account.
    AccountKey(Hidden),
    /// A key of the storage account, which Azure is asked for by this identity when the location is opened.
    ListedKey {
        /// Who asks.
        identity: AzureIdentity,
        /// The subscription that the account belongs to.
        subscription_id: String,
        /// Its resource group.
        resource_group: String,
    },
    /// Tokens of this identity.
    Token(AzureIdentity),
}

/// Who gets a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureIdentity {
    /// A service principal with a secret.
    ClientSecret {
        /// The directory it belongs to.
        tenant_id: String,
        /// Its application.
        client_id: String,
        /// Its secret.
        client_secret: Hidden,
    },
    /// A service account of the cluster that stands for a service principal or identity.
    Workload {
        /// The directory it belongs to.
        tenant_id: String,
        /// Its application.
        client_id: String,
        /// The file with the token of the service account.
        token_file: String,
    },
    /// An identity of the machine.
    Managed {
        /// Which of several; absent for the only one.
        client_id: Option<String>,
    },
}

/// What the location says about credentials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// `storageAccountKeyEnvVar`.
    pub(super) account_key_variable: Option<&'a str>,
    /// `useAAD`.
    pub(super) use_aad: bool,
    /// `subscriptionId`.
    pub(super) subscription_id: Option<&'a str>,
    /// `resourceGroup`.
    pub(super) resource_group: Option<&'a str>,
}

/// The credentials that hold.
///
/// # Errors
/// When those that are asked for are not there, or need what is not supported.
pub(super) fn resolve(
    wanted: Wanted<'_>,
    file: &Variables,
    env: &BTreeMap<String, String>,
) -> Result<AzureCredentials, Error> {
    if let Some(name) = wanted.account_key_variable {
        let key = file.get(name).ok_or_else(|| {
            // Those that it has are not listed: a bare key would be taken for a name.
            Error::Misconfigured(format!(
                "the credentials file has no variable {name:?}, which storageAccountKeyEnvVar names; add {name}=<key>"
            ))
        })?;
        if STANDARD.decode(key).is_err() {
            return Err(Error::Misconfigured(format!(
                "the account key in variable {name:?} of the credentials file is not base64"
            )));
        }
        return Ok(AzureCredentials::AccountKey(Hidden(key.to_owned())));
    }
    if wanted.use_aad {
        return identity(file, env).map(AzureCredentials::Token);
    }
    let need = |given: Option<&str>, key: &str, variable: &str| {
        given.or_else(|| file.get(variable)).map(str::to_owned).ok_or_else(|| {
            Error::Misconfigured(format!(
                "neither storageAccountKeyEnvVar nor useAAD is set, so that Azure is to be asked for a key of the storage \
                 account, which needs {key} (or {variable} in the credentials file); set it, or set useAAD to \"true\" \
                 and give the identity the role Storage Blob Data Contributor"
            ))
        })
    };
    let subscription_id = need(wanted.subscription_id, "subscriptionId", "AZURE_SUBSCRIPTION_ID")?;
    let resource_group = need(wanted.resource_group, "resourceGroup", "AZURE_RESOURCE_GROUP")?;
    Ok(AzureCredentials::ListedKey { identity: identity(file, env)?, subscription_id, resource_group })
}

/// Who gets tokens: a principal of the file, a workload, the machine.
fn identity(file: &Variables, env: &BTreeMap<String, String>) -> Result<AzureIdentity, Error> {
    if let Some(secret) = file.get("AZURE_CLIENT_SECRET") {
        let need = |name: &str| {
            file.get(name).map(str::to_owned).ok_or_else(|| {
                Error::Misconfigured(format!("the credentials file has AZURE_CLIENT_SECRET and no {name}"))
            })
        };
        let (tenant_id, client_id) = (need("AZURE_TENANT_ID")?, need("AZURE_CLIENT_ID")?);
        return Ok(AzureIdentity::ClientSecret { tenant_id, client_id, client_secret: Hidden(secret.to_owned()) });
    }
    let certificates = ["AZURE_CLIENT_CERTIFICATE", "AZURE_CLIENT_CERTIFICATE_PATH"];
    if let Some(name) = certificates.into_iter().find(|name| file.get(name).is_some()) {
        return Err(Error::Misconfigured(format!(
            "{name} in the credentials file is not supported; what works is AZURE_CLIENT_SECRET, an account key, \
             workload identity or a managed identity"
        )));
    }
    let of_env = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
    if let Some(token_file) = of_env("AZURE_FEDERATED_TOKEN_FILE") {
        let need = |name: &str| {
            of_env(name).or_else(|| file.get(name).map(str::to_owned)).ok_or_else(|| {
                Error::Misconfigured(format!(
                    "AZURE_FEDERATED_TOKEN_FILE is set and {name} is not; see workload identity"
                ))
            })
        };
        let (tenant_id, client_id) = (need("AZURE_TENANT_ID")?, need("AZURE_CLIENT_ID")?);
        return Ok(AzureIdentity::Workload { tenant_id, client_id, token_file });
    }
    Ok(AzureIdentity::Managed { client_id: file.get("AZURE_CLIENT_ID").map(str::to_owned) })
}

/// The variables of a credentials file: `KEY=value`, `KEY: value`, `export`, comments, quotes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

impl Variables {
    /// Reads a credentials file. A value in quotes may go over several lines; variables in values are not replaced.
    ///
    /// # Errors
    /// When something is no variable. The message has the number of its line and not its text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |number: usize, what: &str| {
            Error::Misconfigured(format!("line {} of the credentials file {what}", number + 1))
        };
        let mut variables = BTreeMap::new();
        let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = match line.strip_prefix("export") {
                Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
                _ => line,
            };
            let (name, value) = line.split_once(['=', ':']).ok_or_else(|| wrong(number, "is not KEY=value"))?;
            let (name, value) = (name.trim(), value.trim_start());
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(wrong(number, "is not KEY=value"));
            }
            let value = match value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
                None => without_comment(value).to_owned(),
                Some(quote) => {
                    let mut quoted = value[1..].to_owned();
                    loop {
                        if let Some(end) = closing(&quoted, quote) {
                            quoted.truncate(end);
                            break if quote == '"' { unescaped(&quoted) } else { quoted };
                        }
                        let (_, next) = lines.next().ok_or_else(|| wrong(number, "opens a quote that does not end"))?;
                        quoted.push('\n');
                        quoted.push_str(next);
                    }
                }
            };
            variables.insert(name.to_owned(), value);
        }
        Ok(Self(variables))
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Where a quote ends; a backslash before it makes it part of the value.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (letter, false) => plain.push(letter),
        }
    }
    plain
}

/// A value without the comment after it, which begins with white space: secrets may hold `#`.
fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    for (at, letter) in value.char_indices() {
        if letter == '#' && before.is_whitespace() {
            return value[..at].trim_end();
        }
        before = letter;
    }
    value.trim_end()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_dotenv_forms_are_read() {
        let text = "\u{feff}# by hand\r\nA=1\r\nexport B = two words  # more\n C: c#c=d \nD=\"a\\\"b\\nc\" # x\nE='$x\\n'\n\
            F=\nG=#none\nexporter=y\nH=\"one\ntwo\"\nI=last";
        let variables = Variables::parse(text).unwrap();
        for (name, value) in [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("c#c=d")),
            ("D", Some("a\"b\nc")),
            ("E", Some("$x\\n")),
            ("F", None),
            ("G", None),
            ("exporter", Some("y")),
            ("H", Some("one\ntwo")),
            ("I", Some("last")),
            ("J", None),
        ] {
            assert_eq!(variables.get(name), value, "{name}");
        }
        assert_eq!(format!("{variables:?}"), "10 variables");
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_alone() {
        for (text, line) in
            [("A=1\nsecret", "line 2"), ("se cret=1", "line 1"), ("\nA=\"secret\nx", "line 2"), ("=x", "line 1")]
        {
            let message = Variables::parse(text).unwrap_err().to_string();
            assert!(message.contains(line) && !message.contains("secret"), "{message}");
        }
    }
}
