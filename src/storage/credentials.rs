//! Where credentials are looked for (plugin-protocol 10.5), and those for S3-compatible stores: which of them hold, and AWS's
//! ini format (10.2).

use std::collections::BTreeMap;
use std::fmt;

use super::Error;
use super::location::provider;
use crate::velero::{BackupStorageLocationSpec, SecretKeySelector};

/// The Secret that `velero install` makes, and its key.
const DEFAULT_SECRET: (&str, &str) = ("cloud-credentials", "cloud");

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// A place to take the text of the credentials from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsSource {
    /// A key of a Secret in Velero's namespace.
    Secret {
        /// Name and key.
        selector: SecretKeySelector,
        /// Whether the next source holds when it is missing; otherwise that is an error.
        optional: bool,
    },
    /// A file.
    File {
        /// Its path.
        path: String,
        /// Whether the next source holds when it is missing; otherwise that is an error.
        optional: bool,
    },
}

/// Where the credentials of a location are to be looked for, in this order; when none of them is there, those of the
/// surroundings hold (plugin-protocol 10.5).
#[must_use]
pub fn sources(location: &BackupStorageLocationSpec, env: &BTreeMap<String, String>) -> Vec<CredentialsSource> {
    if let Some(selector) = &location.credential {
        return vec![CredentialsSource::Secret { selector: selector.clone(), optional: false }];
    }
    if let Some(path) = location.config.get("credentialsFile").filter(|path| !path.is_empty()) {
        return vec![CredentialsSource::File { path: path.clone(), optional: false }];
    }
    let set = |name: &str| env.get(name).filter(|path| !path.is_empty()).cloned();
    let file = |path| CredentialsSource::File { path, optional: true };
    let (name, key) = DEFAULT_SECRET;
    let selector = SecretKeySelector { name: name.to_owned(), key: key.to_owned(), optional: None };
    let secret = CredentialsSource::Secret { selector, optional: true };
    match provider(location) {
        // A folder asks for none.
        "filesystem" => Vec::new(),
        "gcp" => {
            // Where gcloud keeps the login of a user.
            let of_user = set("HOME").map(|home| format!("{home}/.config/gcloud/application_default_credentials.json"));
            let named = set("GOOGLE_APPLICATION_CREDENTIALS").map(file);
            named.into_iter().chain([secret]).chain(of_user.map(file)).collect()
        }
        "azure" => set("AZURE_CREDENTIALS_FILE").map(file).into_iter().chain([secret]).collect(),
        _ => set("AWS_SHARED_CREDENTIALS_FILE").map(file).into_iter().chain([secret]).collect(),
    }
}

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Credentials {
    /// A key pair.
    Static {
        /// The access key's id.
        access_key_id: String,
        /// The access key itself.
        secret_access_key: Hidden,
        /// The session it belongs to.
        session_token: Option<Hidden>,
    },
    /// A role taken on with a token from a file, as a service account has it.
    WebIdentity {
        /// The role.
        role_arn: String,
        /// The file with the token.
        token_file: String,
        /// Name of the session.
        session_name: Option<String>,
    },
    /// The credentials of the container.
    Container {
        /// Address of the service that gives them, or its path.
        uri: String,
        /// Whether `uri` is only a path.
        relative: bool,
        /// File with the token that the service asks for.
        token_file: Option<String>,
    },
    /// The credentials of the machine.
    Instance,
}

/// Credentials, and the region that stood beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The credentials.
    pub credentials: S3Credentials,
    /// Region of the profile.
    pub region: Option<String>,
}

/// The credentials that hold. `text` is the content of the credentials file, when there is one.
///
/// # Errors
/// When there is a file and it yields no usable credentials: it is never passed over for those of the surroundings.
pub fn resolve(text: Option<&str>, profile: Option<&str>, env: &BTreeMap<String, String>) -> Result<Resolved, Error> {
    let variable = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
    let of_env = || {
        let (access_key_id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
        let session_token = variable("AWS_SESSION_TOKEN").map(Hidden);
        Some(S3Credentials::Static { access_key_id, secret_access_key: Hidden(secret), session_token })
    };
    let of_profile = |text| of_profile(&Profiles::parse(text)?, profile, variable("AWS_PROFILE").as_deref());

    match (text, profile, of_env()) {
        // The environment beats the file, but not a profile that was asked for by name; the region stays the file's.
        (text, None, Some(credentials)) => {
            let region = text.and_then(|text| Profiles::parse(text).ok()).and_then(|profiles| {
                profiles.get(variable("AWS_PROFILE").as_deref().unwrap_or("default"))?.get("region").cloned()
            });
            Ok(Resolved { credentials, region })
        }
        (Some(text), ..) => of_profile(text),
        (None, Some(profile), _) => Err(Error::Misconfigured(format!(
            "profile {profile:?} is set and there is no credentials file; set spec.credential to a Secret that holds one"
        ))),
        (None, None, None) => Ok(Resolved { credentials: of_surroundings(variable), region: None }),
    }
}

fn of_surroundings(variable: impl Fn(&str) -> Option<String>) -> S3Credentials {
    if let (Some(role_arn), Some(token_file)) = (variable("AWS_ROLE_ARN"), variable("AWS_WEB_IDENTITY_TOKEN_FILE")) {
        return S3Credentials::WebIdentity { role_arn, token_file, session_name: variable("AWS_ROLE_SESSION_NAME") };
    }
    if let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return S3Credentials::Container { uri, relative: true, token_file: None };
    }
    if let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
        let token_file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        return S3Credentials::Container { uri, relative: false, token_file };
    }
    S3Credentials::Instance
}

fn of_profile(profiles: &Profiles, asked: Option<&str>, preset: Option<&str>) -> Result<Resolved, Error> {
    let name = asked.or(preset).unwrap_or("default");
    let Some(profile) = profiles.get(name) else {
        return Err(Error::Misconfigured(format!(
            "the credentials file has no profile {name:?}; it has [{}]",
            profiles.names().collect::<Vec<_>>().join(", ")
        )));
    };
    let value = |key: &str| profile.get(key).filter(|value| !value.is_empty()).cloned();
    let region = value("region");
    if let (Some(access_key_id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) {
        if value("role_arn").is_none() {
            let session_token = value("aws_session_token").map(Hidden);
            let credentials = S3Credentials::Static { access_key_id, secret_access_key: Hidden(secret), session_token };
            return Ok(Resolved { credentials, region });
        }
    } else if let (Some(role_arn), Some(token_file)) = (value("role_arn"), value("web_identity_token_file")) {
        let credentials = S3Credentials::WebIdentity { role_arn, token_file, session_name: value("role_session_name") };
        return Ok(Resolved { credentials, region });
    }
    let unsupported = ["role_arn", "credential_process", "sso_session", "sso_start_url"];
    let found = unsupported.into_iter().find(|key| profile.contains_key(*key));
    Err(Error::Misconfigured(found.map_or_else(
        || format!("profile {name:?} of the credentials file has no aws_access_key_id and aws_secret_access_key"),
        |key| {
            format!(
                "{key} in profile {name:?} of the credentials file is not supported; what works is aws_access_key_id \
                 with aws_secret_access_key, or role_arn with web_identity_token_file"
            )
        },
    )))
}

/// The profiles of an ini file. Keys are lower case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Profiles(BTreeMap<String, BTreeMap<String, String>>);

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Profiles {
    /// Reads a credentials file, `[name]`, or a configuration file, `[profile name]`; of both kinds in one text, the
    /// former wins.
    ///
    /// # Errors
    /// When a line is neither section, setting nor comment. The message has its number and not its text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |number: usize, what: &str| {
            Error::Misconfigured(format!("line {} of the credentials file {what}", number + 1))
        };
        let (mut plain, mut prefixed) = (Self::default(), Self::default());
        let mut section: Option<&mut BTreeMap<String, String>> = None;
        let mut holds_nested = false;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let nested = line.starts_with([' ', '\t']) && holds_nested;
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) || nested {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let (name, _) = rest.split_once(']').ok_or_else(|| wrong(number, "opens a section with no ]"))?;
                let name = name.trim();
                let (profiles, name) = match name.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])) {
                    Some(rest) => (&mut prefixed, rest.trim()),
                    None => (&mut plain, name),
                };
                section = Some(profiles.0.entry(name.trim_matches(['"', '\'']).to_owned()).or_default());
                holds_nested = false;
                continue;
            }
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong(number, "is neither section nor key = value"))?;
            let section = section.as_mut().ok_or_else(|| wrong(number, "stands before the first section"))?;
            let value = without_comment(value);
            holds_nested = value.is_empty();
            section.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
        for (name, settings) in plain.0 {
            prefixed.0.entry(name).or_default().extend(settings);
        }
        Ok(prefixed)
    }

    /// The settings of a profile.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.0.get(name)
    }

    /// The names of all profiles.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A value without the comment after it, which begins with white space so that keys may hold `#` and `;`.
fn without_comment(value: &str) -> &str {
    let end = value
        .char_indices()
        .zip(value.chars().skip(1))
        .find(|((_, before), after)| before.is_whitespace() && matches!(after, '#' | ';'))
        .map_or(value.len(), |((at, _), _)| at);
    value[..end].trim()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn pair(id: &str, secret: &str) -> S3Credentials {
        S3Credentials::Static {
            access_key_id: id.into(),
            secret_access_key: Hidden(secret.into()),
            session_token: None,
        }
    }

    const FILE: &str = "\u{feff}# made by hand\r\n[default]\r\naws_access_key_id = A # first\r\n\
        AWS_SECRET_ACCESS_KEY=s#;c/+=\r\n\n[ profile other ]\n  aws_access_key_id=B\n  aws_secret_access_key = t\n\
        region = eu-1\ns3 =\n  max_concurrent_requests = 2\n; end\n[other]\naws_secret_access_key = u\n\
        [irsa]\nrole_arn = arn:r\nweb_identity_token_file = /t\n[role]\nrole_arn = arn:r\nsource_profile = default\n\
        [empty]\n";

    #[test]
    fn the_ini_format_of_aws_is_read() {
        let profiles = Profiles::parse(FILE).unwrap();
        let default = profiles.get("default").unwrap();
        assert_eq!(default["aws_access_key_id"], "A");
        assert_eq!(default["aws_secret_access_key"], "s#;c/+=");
        let other = profiles.get("other").unwrap();
        assert_eq!((&*other["aws_access_key_id"], &*other["aws_secret_access_key"]), ("B", "u"));
        assert!(!other.contains_key("max_concurrent_requests"));
        assert_eq!(profiles.names().collect::<Vec<_>>(), ["default", "empty", "irsa", "other", "role"]);
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_alone() {
        for (text, line) in [("[a]\nsecret", "line 2"), ("key = secret", "line 1"), ("[secret", "line 1")] {
            let message = Profiles::parse(text).unwrap_err().to_string();
            assert!(message.contains(line) && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn neither_profiles_nor_credentials_show_their_secrets() {
        let resolved = resolve(Some(FILE), None, &env(&[])).unwrap();
        let shown = format!("{:?} {resolved:?}", Profiles::parse(FILE).unwrap());
        assert!(!shown.contains("s#;c"), "{shown}");
        assert!(shown.contains("<hidden>"));
    }

    #[test]
    fn the_file_holds_with_its_profile() {
        let nothing = env(&[("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]);
        assert_eq!(resolve(Some(FILE), None, &nothing).unwrap().credentials, pair("A", "s#;c/+="));
        let other = resolve(Some(FILE), Some("other"), &nothing).unwrap();
        assert_eq!(other, Resolved { credentials: pair("B", "u"), region: Some("eu-1".into()) });
        let preset = resolve(Some(FILE), None, &env(&[("AWS_PROFILE", "other")])).unwrap();
        assert_eq!(preset.credentials, pair("B", "u"));
    }

    #[test]
    fn the_environment_beats_the_file_unless_a_profile_is_set() {
        let keys = env(&[("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "x")]);
        assert_eq!(resolve(Some(FILE), None, &keys).unwrap().credentials, pair("E", "x"));
        assert_eq!(resolve(Some(FILE), Some("default"), &keys).unwrap().credentials, pair("A", "s#;c/+="));
        let half = env(&[("AWS_ACCESS_KEY_ID", "E")]);
        assert_eq!(resolve(Some(FILE), None, &half).unwrap().credentials, pair("A", "s#;c/+="));
    }

    #[test]
    fn a_file_without_usable_credentials_is_an_error_and_no_reason_to_look_elsewhere() {
        let role = env(&[("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]);
        for (profile, part) in [("empty", "no aws_access_key_id"), ("role", "role_arn"), ("none", "has no profile")] {
            let message = resolve(Some(FILE), Some(profile), &role).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(resolve(None, Some("p"), &role).is_err());
    }

    #[test]
    fn without_a_file_the_surroundings_hold_in_the_sdk_s_order() {
        let of = |pairs: &[(&str, &str)]| resolve(None, None, &env(pairs)).unwrap().credentials;
        let container = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c");
        let role = [("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), container];
        let identity = S3Credentials::WebIdentity { role_arn: "r".into(), token_file: "/t".into(), session_name: None };
        assert_eq!(of(&role), identity);
        assert_eq!(of(&[container]), S3Credentials::Container { uri: "/c".into(), relative: true, token_file: None });
        assert_eq!(of(&[]), S3Credentials::Instance);
        let irsa = resolve(Some(FILE), Some("irsa"), &env(&[])).unwrap().credentials;
        assert!(matches!(irsa, S3Credentials::WebIdentity { role_arn, .. } if role_arn == "arn:r"));
    }

    #[test]
    fn credentials_are_looked_for_in_velero_s_order() {
        let mut location = BackupStorageLocationSpec::default();
        let surroundings = env(&[("AWS_SHARED_CREDENTIALS_FILE", "/credentials/cloud")]);
        let file = |path: &str, optional| CredentialsSource::File { path: path.into(), optional };
        let secret = |name: &str, key: &str, optional| CredentialsSource::Secret {
            selector: SecretKeySelector { name: name.into(), key: key.into(), optional: None },
            optional,
        };
        let cloud = secret("cloud-credentials", "cloud", true);
        assert_eq!(sources(&location, &env(&[])), std::slice::from_ref(&cloud));
        assert_eq!(sources(&location, &surroundings), [file("/credentials/cloud", true), cloud]);
        location.config.insert("credentialsFile".into(), "/f".into());
        assert_eq!(sources(&location, &surroundings), [file("/f", false)]);
        location.credential = Some(SecretKeySelector { name: "s".into(), key: "k".into(), optional: None });
        assert_eq!(sources(&location, &surroundings), [secret("s", "k", false)]);
    }

    // plugin-protocol 10.5
    #[test]
    fn each_provider_has_its_variable_and_a_folder_none() {
        let names = ["AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CREDENTIALS_FILE", "HOME"];
        let surroundings = env(&[(names[0], "/aws"), (names[1], "/gcp"), (names[2], "/azure"), (names[3], "/home")]);
        let of = |provider: &str| {
            let location =
                BackupStorageLocationSpec { provider: provider.into(), ..BackupStorageLocationSpec::default() };
            let path = |source| match source {
                CredentialsSource::File { path, optional: true } => path,
                CredentialsSource::Secret { selector, optional: true } => format!("{}/{}", selector.name, selector.key),
                other => panic!("{other:?}"),
            };
            sources(&location, &surroundings).into_iter().map(path).collect::<Vec<_>>()
        };
        let cloud = "cloud-credentials/cloud";
        assert_eq!(of("aws"), ["/aws", cloud]);
        assert_eq!(of("example.com/oss"), ["/aws", cloud]);
        assert_eq!(of("velero.io/gcp"), ["/gcp", cloud, "/home/.config/gcloud/application_default_credentials.json"]);
        assert_eq!(of("azure"), ["/azure", cloud]);
        assert_eq!(of("filesystem"), [""; 0]);
    }
}
