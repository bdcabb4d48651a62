//! That a restore is cancelled: by whom, and why.

/// Most bytes of [`Cancellation::by`]: a user's or a tool's name.
const MOST_BY: usize = 128;

/// Most bytes of [`Cancellation::reason`]: a sentence or two, as it becomes part of `failureReason`.
const MOST_REASON: usize = 1024;

/// How the `failureReason` of a cancelled restore begins, by which it is told from a failure.
const BEGIN: &str = "cancelled by ";

/// Who cancelled a restore, and why. Both are short and on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    by: String,
    reason: String,
}

/// A text that a caller may not send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidCancellation {
    /// The field of the request: `by` or `reason`.
    pub field: &'static str,
    problem: String,
}

impl Cancellation {
    /// What a caller sent.
    ///
    /// # Errors
    /// When a text is too long or has control characters.
    ///
    /// ```
    /// use reprise::model::Cancellation;
    /// assert!(Cancellation::new("alice", "wrong backup").is_ok());
    /// assert!(Cancellation::new("alice", "two\nlines").is_err());
    /// assert!(Cancellation::new(&"a".repeat(129), "").is_err());
    /// ```
    pub fn new(by: &str, reason: &str) -> Result<Self, InvalidCancellation> {
        for (field, text, most) in [("by", by, MOST_BY), ("reason", reason, MOST_REASON)] {
            let problem = if text.len() > most {
                format!("has {} bytes: it may have {most}", text.len())
            } else if text.chars().any(char::is_control) {
                "has control characters: it must be one line of text".to_owned()
            } else {
                continue;
            };
            return Err(InvalidCancellation { field, problem });
        }
        Ok(Self::lenient(by, reason))
    }

    /// What was found, made to fit: control characters become spaces, and what is too long is cut.
    #[must_use]
    pub fn lenient(by: &str, reason: &str) -> Self {
        Self { by: fitting(by, MOST_BY), reason: fitting(reason, MOST_REASON) }
    }

    /// Who: as the caller says, which nobody checks.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Why; may be empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The `failureReason` of a restore that was cancelled when so many of so many items were done.
    #[must_use]
    pub fn failure_reason(&self, done: u64, total: u64) -> String {
        let Self { by, reason } = self;
        let at = match total {
            0 => "before any item was restored".to_owned(),
            _ => format!("after {done} of {total} items"),
        };
        let colon = if reason.is_empty() { "" } else { ": " };
        format!("{BEGIN}{by} {at}{colon}{reason}")
    }

    /// Whether a restore with this `failureReason` was cancelled.
    #[must_use]
    pub fn is_told_by(failure_reason: &str) -> bool {
        failure_reason.starts_with(BEGIN)
    }
}

fn fitting(text: &str, most: usize) -> String {
    let text: String = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_failure_reason_says_by_whom_at_what_count_and_why() {
        let cancelled = Cancellation::new("alice", "wrong backup").unwrap();
        assert_eq!(cancelled.failure_reason(3, 9), "cancelled by alice after 3 of 9 items: wrong backup");
        assert_eq!(
            Cancellation::lenient("alice", "").failure_reason(0, 0),
            "cancelled by alice before any item was restored"
        );
        assert!(Cancellation::is_told_by(&cancelled.failure_reason(0, 0)));
        assert!(!Cancellation::is_told_by("error downloading backup: not found"));
    }

    #[test]
    fn what_is_found_is_cut_at_a_character_and_put_on_one_line() {
        let found = Cancellation::lenient(&"ä".repeat(100), "one\ntwo ");
        assert_eq!((found.by().len(), found.reason()), (128, "one two"));
    }

    #[test]
    fn what_a_caller_sends_is_refused_when_it_does_not_fit() {
        let refused = Cancellation::new("a", &"x".repeat(1025)).unwrap_err();
        assert_eq!(
            (refused.field, refused.to_string().as_str()),
            ("reason", "reason has 1025 bytes: it may have 1024")
        );
        assert_eq!(Cancellation::new("a\tb", "").unwrap_err().field, "by");
    }
}
