//! STUB
use super::discovery::Discovery;
use super::plan::Plan;
use crate::archive::Archive;
use crate::model::{GroupResource, RestoreSpec};
/// x
#[derive(Clone, Debug, Default)]
pub struct Priorities;
/// x
#[derive(Clone, Debug, Default)]
pub struct Filters;
impl Filters {
    /// x
    pub fn takes_item(&self, _: &GroupResource, _: &str) -> bool {
        true
    }
    /// x
    pub fn takes_status(&self, _: &GroupResource) -> bool {
        true
    }
}
/// x
pub struct CollectInput<'a> {
    /// x
    pub archive: &'a Archive,
    /// x
    pub spec: &'a RestoreSpec,
    /// x
    pub discovery: &'a Discovery,
    /// x
    pub priorities: &'a Priorities,
}
/// x
pub fn collect(_: &CollectInput<'_>) -> (Plan, Filters) {
    Default::default()
}
