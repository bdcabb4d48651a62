//! Whether the service can do its work, and if not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Named conditions, all of which must hold for the service to be ready. Without any it is ready.
///
/// ```
/// use reprise::api::Readiness;
/// let readiness = Readiness::default();
/// readiness.not_ready("cluster", "no answer from the API server yet");
/// assert!(!readiness.is_ready());
/// readiness.ready("cluster");
/// assert!(readiness.is_ready());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    fn set(&self, condition: &'static str, reason: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, reason);
    }

    /// This condition holds.
    pub fn ready(&self, condition: &'static str) {
        self.set(condition, None);
    }

    /// This condition does not hold, for this reason.
    pub fn not_ready(&self, condition: &'static str, reason: impl Into<String>) {
        self.set(condition, Some(reason.into()));
    }

    /// Whether all conditions hold.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().all(Option::is_none)
    }
}

/// One line for each condition, `+` or `-`, with the reason where it does not hold.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (condition, reason) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match reason {
                None => writeln!(f, "+ {condition}")?,
                Some(reason) => writeln!(f, "- {condition}: {reason}")?,
            }
        }
        Ok(())
    }
}
