//! The whole validation of a specification: what it says, and what it names (restore-semantics 1.4).

use super::records::Records;
use super::source::{self, Source};
use super::validate;
use crate::velero::RestoreSpec;

/// Completes the specification as Velero does, and finds what it is restored from. It is valid where there are no errors,
/// which are in the words of `status.validationErrors`.
pub async fn check(
    records: &Records,
    spec: &mut RestoreSpec,
    default_item_operation_timeout: &str,
) -> (Option<Source>, Vec<String>) {
    validate::complete(spec, default_item_operation_timeout);
    let validate::Verdict { mut errors, stop: no_source } = validate::validate(spec);
    let mut source = None;
    if !no_source {
        match source::resolve(records, spec).await {
            Ok(found) => source = Some(found),
            Err(found) => errors.extend(found),
        }
    }
    if source.is_some() {
        errors.extend(source::modifiers(records, spec).await.err());
    }
    (source, errors)
}
