//! From the engine's events to the entries of a plan, in the plan's order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::{Options, Overlay};
use crate::engine::events::{Event, Events, Finished, Foreseen, KnownItem, Untried};
use crate::engine::run::Report;
use crate::model::{
    GroupResource, ItemId, Origin, Outcome, PlanAction, PlanCounts, PlanEntry, PlanStep, PlanSummary, Reason,
    TypedFinding,
};

/// Makes entries of events. Items of one resource are done concurrently and told in order; one that another item wanted
/// before its turn is told at once, in front of that other.
pub(super) struct Entries {
    overlay: Arc<Overlay>,
    steps: mpsc::UnboundedSender<PlanStep>,
    options: Options,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<ItemId, KnownItem>,
    /// The group-resource of each planned item, in order.
    planned: Vec<GroupResource>,
    /// The first planned item that was not told yet.
    next: usize,
    /// Entries that wait for those before them; `None` for those that were told before their turn.
    done: HashMap<usize, Option<Box<PlanEntry>>>,
    foreseen: HashMap<ItemId, Vec<Foreseen>>,
    begun: bool,
    summary: PlanSummary,
}

impl Entries {
    pub(super) fn new(overlay: Arc<Overlay>, steps: mpsc::UnboundedSender<PlanStep>, options: Options) -> Self {
        Self { overlay, steps, options, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run that was aborted planned nothing.
    pub(super) fn close(&self) {
        if !self.state().begun {
            self.begin(Vec::new());
        }
    }

    /// What all of it comes to, when the run is over.
    pub(super) fn summary(&self, report: &Report) -> PlanSummary {
        let mut state = self.state();

        PlanSummary {
            denied: self.overlay.denied(),
            warnings: u64::try_from(report.results.warnings.count()).unwrap_or(u64::MAX),
            errors: u64::try_from(report.results.errors.count()).unwrap_or(u64::MAX),
            ..std::mem::take(&mut state.summary)
        }
    }

    fn tell(&self, state: &mut State, entry: Box<PlanEntry>) {
        let summary = &mut state.summary;
        summary.items += 1;
        *summary.actions.entry(entry.action).or_default() += 1;
        let counts: &mut PlanCounts = summary.resources.entry(entry.group_resource.clone()).or_default();
        *counts.entry(entry.action).or_default() += 1;
        // Nobody listens any more where the stream was dropped.
        let _ = self.steps.send(PlanStep::Entry(entry));
    }

    fn begin(&self, items: Vec<KnownItem>) {
        let mut state = self.state();
        state.begun = true;
        let _ = self.steps.send(PlanStep::Begun(u64::try_from(items.len()).unwrap_or(u64::MAX)));
        state.planned = items.iter().map(|item| item.group_resource.clone()).collect();
        state.known.extend(items.into_iter().map(|item| (item.id, item)));
    }

    fn finish(&self, finished: Finished) {
        let mut state = self.state();
        let Some(item) = state.known.remove(&finished.id) else { return };
        let mut foreseen = state.foreseen.remove(&finished.id).unwrap_or_default();
        if item.origin == Origin::Namespace {
            foreseen.extend(self.overlay.untried_namespace(&item.key.name).map(Foreseen::Untried));
        }
        let entry = Box::new(entry(item, finished, foreseen, self.options));
        let place = usize::try_from(entry.id.0).unwrap_or(usize::MAX);
        let turn = state.planned.get(state.next);
        match state.planned.get(place) {
            Some(resource) if Some(resource) == turn => {
                state.done.insert(place, Some(entry));
            }
            Some(_) => {
                state.done.insert(place, None);
                self.tell(&mut state, entry);
            }
            None => self.tell(&mut state, entry),
        }
        loop {
            let next = state.next;
            let Some(done) = state.done.remove(&next) else { break };
            state.next += 1;
            if let Some(entry) = done {
                self.tell(&mut state, entry);
            }
        }
    }
}

impl Events for Entries {
    fn emit(&self, event: Event) {
        match event {
            Event::Planned(items) => self.begin(items),
            Event::Added(item) => {
                self.state().known.insert(item.id, item);
            }
            Event::Finished(finished) => self.finish(finished),
            Event::Foreseen(id, foreseen) => self.state().foreseen.entry(id).or_default().push(foreseen),
            Event::Finding(finding, reason) => {
                let mut state = self.state();
                // Later ones are those of items, whose entries tell them.
                if !state.begun {
                    let finding = TypedFinding { bucket: finding.bucket, reason, message: finding.message };
                    state.summary.findings.push(finding);
                }
            }
            Event::Stage(_)
            | Event::Counts(..)
            | Event::Started(_)
            | Event::Wait(_)
            | Event::WaitOver(_)
            | Event::Log(..) => {}
        }
    }
}

/// What an outcome that an item would have says in a plan.
fn entry(item: KnownItem, finished: Finished, foreseen: Vec<Foreseen>, options: Options) -> PlanEntry {
    let KnownItem { id, group_resource, key, stage: _, origin } = item;
    let Finished { outcome, mut reason, mut message, .. } = finished;
    let mut action = action(outcome, reason);
    let mut dry_run = options.dry_run && matches!(action, PlanAction::Create | PlanAction::Update);
    let mut differences = Vec::new();
    for foreseen in foreseen {
        match foreseen {
            Foreseen::Differs(places) => differences = places,
            Foreseen::Untried(untried) => {
                dry_run = false;
                if is_unknown(&untried) {
                    action = PlanAction::Unknown;
                }
                message = message.or_else(|| why(&untried));
            }
        }
    }
    if action == PlanAction::Unknown {
        reason = reason.or(Some(Reason::Other));
    }
    PlanEntry { id, group_resource, key, origin, action, reason, message, differences, dry_run }
}

fn action(outcome: Outcome, reason: Option<Reason>) -> PlanAction {
    match outcome {
        Outcome::Created => PlanAction::Create,
        Outcome::Updated => PlanAction::Update,
        Outcome::Unchanged => PlanAction::Unchanged,
        Outcome::Skipped if reason == Some(Reason::Cancelled) => PlanAction::Unknown,
        Outcome::Skipped => PlanAction::Skip,
        // It is never the outcome of a finished item.
        Outcome::Pending => PlanAction::Unknown,
        Outcome::Failed => match reason {
            Some(Reason::Conflict) => PlanAction::Conflict,
            Some(Reason::Forbidden) => PlanAction::Forbidden,
            Some(Reason::DeniedByAdmission | Reason::Quota | Reason::Invalid) => PlanAction::Invalid,
            // It could not be asked, which says nothing of the restore.
            Some(Reason::Timeout | Reason::Unavailable | Reason::Cancelled) => PlanAction::Unknown,
            _ => PlanAction::Fail,
        },
    }
}

/// In a new namespace nothing can be in the way; of a new kind nobody knows what it demands.
const fn is_unknown(untried: &Untried) -> bool {
    match untried {
        Untried::NewKind | Untried::Lacks(_) => true,
        Untried::NotAsked | Untried::NewNamespace | Untried::Leaving => false,
    }
}

fn why(untried: &Untried) -> Option<String> {
    let text = match untried {
        Untried::NotAsked => return None,
        Untried::NewNamespace => "its namespace is not there yet, so that no dry run could be made",
        Untried::Leaving => "an object of this name is being deleted; the restore waits until it is gone",
        Untried::NewKind => "its kind is served only when the CustomResourceDefinition of the backup is restored",
        Untried::Lacks(refusal) => {
            return Some(format!(
                "the API server refuses it now, for lack of what the restore brings first: {refusal}"
            ));
        }
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_an_action_and_what_could_not_be_asked_is_unknown() {
        for (outcome, reason, wanted) in [
            (Outcome::Created, None, PlanAction::Create),
            (Outcome::Created, Some(Reason::ResourceModifier), PlanAction::Create),
            (Outcome::Updated, None, PlanAction::Update),
            (Outcome::Unchanged, None, PlanAction::Unchanged),
            (Outcome::Skipped, Some(Reason::MirrorPod), PlanAction::Skip),
            (Outcome::Skipped, Some(Reason::Cancelled), PlanAction::Unknown),
            (Outcome::Failed, Some(Reason::Conflict), PlanAction::Conflict),
            (Outcome::Failed, Some(Reason::Forbidden), PlanAction::Forbidden),
            (Outcome::Failed, Some(Reason::Quota), PlanAction::Invalid),
            (Outcome::Failed, Some(Reason::Unavailable), PlanAction::Unknown),
            (Outcome::Failed, Some(Reason::Archive), PlanAction::Fail),
        ] {
            assert_eq!(action(outcome, reason), wanted, "{outcome:?} {reason:?}");
        }
    }
}
