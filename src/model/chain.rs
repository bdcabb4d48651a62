//! Printing an error with its causes.

use std::error::Error;

/// The error and its causes, outermost first, as one sentence: `read the backup tarball: connection reset`.
///
/// Errors here print either their cause or return it as `source`, never both; so nothing is said twice.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Libraries do not all keep to it.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read the backup")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_their_error() {
        assert_eq!(error_chain(&Outer(std::io::Error::other("disk on fire"))), "read the backup: disk on fire");
    }
}
