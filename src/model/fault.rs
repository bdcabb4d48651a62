//! Which failures of a request pass, and which reason those have that do not: the one rule for the API server, Velero's own
//! objects and backup locations alike.

use super::Reason;

/// How a request ended that did not go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The server answered, with a code.
    Answer,
    /// No answer in time.
    Timeout,
    /// The connection failed or broke, maybe in the middle of an answer.
    Connection,
    /// The answer could not be understood, or the request could not be built.
    Protocol,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lasting {
    /// Nobody answers, or the server is only starting: it passes for all requests together, when the server is back.
    Outage,
    /// The server, or something it depends on, has a moment of trouble.
    Moment,
    /// Somebody else wrote in between: it passes for requests without a precondition.
    Conflict,
    /// The same request would fail in the same way.
    Forever,
}

impl Lasting {
    /// Whether it is worth trying again.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        !matches!(self, Self::Forever)
    }
}

/// What a failure is: how long it lasts, and the typed reason of whoever fails by it in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Whether the same request may succeed later.
    pub lasting: Lasting,
    /// The typed reason.
    pub reason: Reason,
}

/// An API server that is only starting, in its own words; with 403 these are admission plugins that have read nothing yet.
const STARTING: [&str; 3] = [
    "before all known HTTP paths have been installed",
    "not yet ready to handle request",
    "apiserver is shutting down",
];

/// Troubles behind the server that some parts of it report with a code that sounds final. A quota is unknown until its
/// controller has counted for the first time.
const MOMENTS: [&str; 9] = [
    "failed calling webhook",
    "connection refused",
    "connection reset by peer",
    "i/o timeout",
    "TLS handshake timeout",
    "etcdserver: ",
    "context deadline exceeded",
    "the server is currently unable to handle the request",
    "status unknown for quota",
];

/// What of it means that something took too long.
const TIMEOUTS: [&str; 5] =
    ["context deadline exceeded", "request timed out", "i/o timeout", "TLS handshake timeout", "Timeout: "];

/// A refusal by admission; there is no code for it.
const ADMISSION: [&str; 5] =
    ["admission webhook", "ValidatingAdmissionPolicy", "violates PodSecurity", "denied the request", "denied request"];

/// What a failed request means. `code`, `reason` (of a Status, such as `AlreadyExists`) and `message` are those of an answer.
#[must_use]
pub fn classify(ending: Ending, code: u16, reason: &str, message: &str) -> Fault {
    Fault { lasting: lasting(ending, code, reason, message), reason: typed(ending, code, message) }
}

fn says(message: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| message.contains(phrase))
}

fn lasting(ending: Ending, code: u16, reason: &str, message: &str) -> Lasting {
    match (ending, code) {
        (Ending::Connection, _) => Lasting::Outage,
        (Ending::Timeout, _) => Lasting::Moment,
        (Ending::Protocol, _) => Lasting::Forever,
        (Ending::Answer, 403 | 503) if says(message, &STARTING) => Lasting::Outage,
        (Ending::Answer, 409) if reason == "Conflict" => Lasting::Conflict,
        // Some storage layers of the API server wrap a 404 in a 500.
        (Ending::Answer, 500) if reason == "NotFound" => Lasting::Forever,
        // Neither is a passing one: not implemented, and a version of HTTP that is not spoken.
        (Ending::Answer, 501 | 505) => Lasting::Forever,
        (Ending::Answer, 408 | 429 | 500..=599) => Lasting::Moment,
        // Whoever decided, decided; what it says is its own text.
        (Ending::Answer, _) if says(message, &["denied the request", "denied request"]) => Lasting::Forever,
        (Ending::Answer, 400 | 403) if says(message, &MOMENTS) => Lasting::Moment,
        (Ending::Answer, _) => Lasting::Forever,
    }
}

fn typed(ending: Ending, code: u16, message: &str) -> Reason {
    match (ending, code) {
        (Ending::Timeout, _) | (_, 408 | 504) => Reason::Timeout,
        (Ending::Connection, _) => Reason::Unavailable,
        (_, 500) if says(message, &TIMEOUTS) => Reason::Timeout,
        (_, 429 | 500..=599) => Reason::Unavailable,
        (_, 409) => Reason::Conflict,
        (_, 404) if message.contains("could not find the requested resource") => Reason::Discovery,
        (_, 404) => Reason::NotFound,
        (_, 403) if message.contains("because it is being terminated") => Reason::Namespace,
        (_, 403) if says(message, &["exceeded quota", "status unknown for quota", "maximum "]) => Reason::Quota,
        (_, 400 | 403 | 422) if says(message, &ADMISSION) => Reason::DeniedByAdmission,
        (_, 400 | 403) if says(message, &STARTING) || says(message, &MOMENTS) => Reason::Unavailable,
        (_, 401 | 403) => Reason::Forbidden,
        (_, 400 | 422) => Reason::Invalid,
        _ => Reason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class there is, in the API server's and its peers' own words.
    #[test]
    fn every_class_of_failure_is_sorted() {
        use Ending::{Answer, Connection, Protocol, Timeout};
        use Lasting::{Conflict, Forever, Moment, Outage};
        let table: &[(Ending, u16, &str, &str, Lasting, Reason)] = &[
            // Without an answer.
            (Connection, 0, "", "tcp connect error: Connection refused (os error 111)", Outage, Reason::Unavailable),
            (Connection, 0, "", "connection closed before message completed", Outage, Reason::Unavailable),
            (Timeout, 0, "", "no answer within 60 seconds", Moment, Reason::Timeout),
            (Protocol, 0, "", "expected value at line 1 column 1", Forever, Reason::Other),
            // The server asks for patience.
            (Answer, 429, "TooManyRequests", "the server has received too many requests", Moment, Reason::Unavailable),
            (
                Answer,
                500,
                "InternalError",
                "Internal error occurred: etcdserver: leader changed",
                Moment,
                Reason::Unavailable,
            ),
            (Answer, 500, "InternalError", "etcdserver: request timed out", Moment, Reason::Timeout),
            (
                Answer,
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v\": dial tcp 10.0.0.1:443: connect: connection refused",
                Moment,
                Reason::Unavailable,
            ),
            (
                Answer,
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v\": context deadline exceeded",
                Moment,
                Reason::Timeout,
            ),
            (Answer, 500, "NotFound", "configmaps \"a\" not found", Forever, Reason::Unavailable),
            (Answer, 502, "", "<html>bad gateway</html>", Moment, Reason::Unavailable),
            (
                Answer,
                503,
                "ServiceUnavailable",
                "the server is currently unable to handle the request",
                Moment,
                Reason::Unavailable,
            ),
            (
                Answer,
                504,
                "Timeout",
                "Timeout: request did not complete within requested timeout - context deadline exceeded",
                Moment,
                Reason::Timeout,
            ),
            (Answer, 408, "", "request timeout", Moment, Reason::Timeout),
            (Answer, 501, "", "not implemented", Forever, Reason::Unavailable),
            // It is only starting, or ending.
            (
                Answer,
                503,
                "ServiceUnavailable",
                "the request has been made before all known HTTP paths have been installed, please retry",
                Outage,
                Reason::Unavailable,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "configmaps \"a\" is forbidden: not yet ready to handle request",
                Outage,
                Reason::Unavailable,
            ),
            (Answer, 503, "ServiceUnavailable", "apiserver is shutting down", Outage, Reason::Unavailable),
            // Codes that sound final, of troubles that pass.
            (
                Answer,
                403,
                "Forbidden",
                "secrets \"a\" is forbidden: status unknown for quota: q, resources: count/secrets",
                Moment,
                Reason::Quota,
            ),
            (
                Answer,
                400,
                "BadRequest",
                "Post \"https://x\": dial tcp: connect: connection refused",
                Moment,
                Reason::Unavailable,
            ),
            // Somebody else was there.
            (Answer, 409, "Conflict", "the object has been modified", Conflict, Reason::Conflict),
            (Answer, 409, "AlreadyExists", "configmaps \"a\" already exists", Forever, Reason::Conflict),
            // Decisions.
            (Answer, 400, "BadRequest", "cannot unmarshal string into Go value", Forever, Reason::Invalid),
            (
                Answer,
                422,
                "Invalid",
                "Service \"a\" is invalid: spec.ports[0].port: Invalid value: 70000",
                Forever,
                Reason::Invalid,
            ),
            (Answer, 401, "Unauthorized", "Unauthorized", Forever, Reason::Forbidden),
            (
                Answer,
                403,
                "Forbidden",
                "configmaps is forbidden: User \"u\" cannot create resource",
                Forever,
                Reason::Forbidden,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "secrets \"a\" is forbidden: exceeded quota: strict, requested: count/secrets=1",
                Forever,
                Reason::Quota,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "pods \"a\" is forbidden: maximum cpu usage per Container is 1, but limit is 2",
                Forever,
                Reason::Quota,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "configmaps \"a\" is forbidden: unable to create new content in namespace shop because it is being terminated",
                Forever,
                Reason::Namespace,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"",
                Forever,
                Reason::DeniedByAdmission,
            ),
            (
                Answer,
                422,
                "Invalid",
                "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no",
                Forever,
                Reason::DeniedByAdmission,
            ),
            (
                Answer,
                403,
                "Forbidden",
                "admission webhook \"v\" denied the request: its database: connection refused",
                Forever,
                Reason::DeniedByAdmission,
            ),
            (Answer, 404, "NotFound", "configmaps \"a\" not found", Forever, Reason::NotFound),
            (Answer, 404, "", "the server could not find the requested resource", Forever, Reason::Discovery),
            (Answer, 405, "MethodNotAllowed", "the server does not allow this method", Forever, Reason::Other),
            (Answer, 413, "RequestEntityTooLarge", "limit is 3145728", Forever, Reason::Other),
        ];
        for &(ending, code, reason, message, lasting, typed) in table {
            let found = classify(ending, code, reason, message);
            assert_eq!(found, Fault { lasting, reason: typed }, "{ending:?} {code} {reason}: {message}");
        }
    }
}
