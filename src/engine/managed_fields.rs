//! Putting the backup's managedFields back after a create (restore-semantics 5.11 step 2).

use serde_json::{Value, json};

/// The merge patch that gives the created object the managedFields of the object it was made from; `None` when they
/// are the same.
///
/// A backup without managedFields gives an explicit null, which the API server takes as no change.
#[must_use]
pub fn patch(created: &Value, object: &Value) -> Option<Value> {
    let (present, wanted) = (&created["metadata"]["managedFields"], &object["metadata"]["managedFields"]);
    (present != wanted).then(|| json!({"metadata": {"managedFields": wanted}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// restore-semantics 5.11 step 2
    #[test]
    fn the_created_object_gets_the_managers_of_the_backup() {
        let object = |managers: Value| json!({"metadata": {"name": "n", "managedFields": managers}});
        let (ours, theirs) = (object(json!([{"manager": "us"}])), object(json!([{"manager": "kubectl"}])));
        assert_eq!(patch(&ours, &theirs), Some(json!({"metadata": {"managedFields": [{"manager": "kubectl"}]}})));
        assert_eq!(patch(&theirs, &theirs), None);
        let without = json!({"metadata": {"name": "n"}});
        assert_eq!(patch(&ours, &without), Some(json!({"metadata": {"managedFields": null}})));
        assert_eq!(patch(&without, &without), None);
    }
}
