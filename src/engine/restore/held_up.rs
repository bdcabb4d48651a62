//! Items whose namespace is being deleted: they wait for it, and nobody else does (restore-semantics 5.2).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::Run;
use crate::engine::plan::PlannedItem;
use crate::model::{GroupResource, ItemId};

/// Namespaces that are being deleted, in the order in which items met them.
#[derive(Default)]
pub(super) struct HeldUp(Mutex<Vec<Namespace>>);

struct Namespace {
    target: Arc<str>,
    /// Ends when the namespace is there, or will not be.
    ensured: JoinHandle<()>,
    items: Vec<(GroupResource, PlannedItem)>,
}

impl Run {
    /// Puts an item off until its namespace is gone, where that is being deleted; says whether it did. The wait begins at
    /// once, beside all other work.
    pub(super) async fn put_off(
        self: &Arc<Self>,
        group_resource: &GroupResource,
        source: &Arc<str>,
        item: &PlannedItem,
    ) -> bool {
        if !self.is_terminating(&item.target_namespace).await {
            return false;
        }
        let held_up = (group_resource.clone(), item.clone());
        let mut namespaces = self.held_up.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = namespaces.iter_mut().find(|known| known.target == item.target_namespace) {
            known.items.push(held_up);
            return true;
        }
        let (run, source, target) = (Arc::clone(self), Arc::clone(source), Arc::clone(&item.target_namespace));
        let ensured = tokio::spawn(async move {
            // Each item asks for the answer once more, and has it as its own.
            let _ = run.ensure_namespace(&source, &target).await;
        });
        namespaces.push(Namespace { target: Arc::clone(&item.target_namespace), ensured, items: vec![held_up] });
        true
    }

    /// Restores what was put off, when everything else is done. A namespace does not wait for another; within one the
    /// order is that of the tiers.
    pub(in crate::engine) async fn restore_held_up(self: &Arc<Self>) {
        let namespaces = std::mem::take(&mut *self.held_up.0.lock().unwrap_or_else(PoisonError::into_inner));
        let slots = Arc::new(Semaphore::new(self.job.settings.concurrency.max(1)));
        let (mut tasks, mut first) = (JoinSet::new(), 0_u32);
        for namespace in namespaces {
            let (run, slots) = (Arc::clone(self), Arc::clone(&slots));
            // Items at work at the same time are told apart by their numbers.
            let next = first.saturating_add(u32::try_from(namespace.items.len()).unwrap_or(u32::MAX));
            tasks.spawn(async move { run.restore_in(namespace, first, &slots).await });
            first = next;
        }
        while let Some(ended) = tasks.join_next().await {
            self.survive(ended);
        }
    }

    async fn restore_in(self: &Arc<Self>, mut namespace: Namespace, first: u32, slots: &Arc<Semaphore>) {
        tokio::select! {
            ended = &mut namespace.ensured => self.survive(ended),
            () = self.stop.cancelled() => namespace.ensured.abort(),
        }
        // Items of a tier come here as they were met; the plan numbers them. Namespaces, which have no number, come first.
        let number = |item: &PlannedItem| self.ids.get(&item.entry).map_or(0, |&ItemId(number)| u64::from(number) + 1);
        namespace.items.sort_by_key(|(_, item)| number(item));
        let mut first = first;
        for tier in namespace.items.chunk_by(|(one, _), (another, _)| one == another) {
            let Some((group_resource, _)) = tier.first() else { continue };
            let items = (first..).zip(tier.iter().map(|(_, item)| item));
            self.restore_all(group_resource, items, slots, false).await;
            first = first.saturating_add(u32::try_from(tier.len()).unwrap_or(u32::MAX));
        }
    }
}
