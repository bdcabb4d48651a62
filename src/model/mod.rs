//! Values and rules without I/O: what a restore is made of, in Velero's and Kubernetes' own terms.

mod cancel;
mod chain;
pub mod duration;
pub mod fault;
pub mod glob;
pub mod includes;
pub mod label;
pub mod names;
pub mod outcome;
pub mod phase;
pub mod preview;
pub mod progress;
pub mod resource;
pub mod results;
pub mod selector;
pub mod spec;

pub use cancel::{Cancellation, InvalidCancellation};
pub use chain::error_chain;
pub use duration::{GoDuration, InvalidDuration};
pub use names::{InvalidName, RestoreName};
pub use outcome::{Outcome, Reason};
pub use phase::Phase;
pub use preview::{Denied, PlanAction, PlanCounts, PlanEntry, PlanStep, PlanSummary};
pub use progress::{Counts, ItemFilter, ItemId, ItemState, Origin, Progress, Stage, TimeLeft, TypedFinding, Waiting};
pub use resource::{ApiVersion, GroupResource, InvalidApiVersion, ItemKey, Target};
pub use results::{Bucket, Finding, Messages, Results, Severity};
pub use spec::{ExistingResourcePolicy, LabelSelector, ResourceLists, RestoreSpec, SelectorRequirement};
