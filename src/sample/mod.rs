//! A believable backup of a made-up company, the same each time: what `reprise demo` restores, and what benches take.
//!
//! The objects look as an API server stores them (uid, times, `managedFields`, status) and are valid for Kubernetes 1.36. They
//! follow from [`SampleOptions`] alone; nothing here looks at the clock.
//!
//! ```
//! use reprise::sample::{SampleOptions, objects};
//! let options = SampleOptions { items: 500, ..SampleOptions::default() };
//! assert_eq!(objects(&options).count(), 500);
//! ```

mod cluster;
mod company;
mod draft;
mod random;
mod service;
mod store;

use std::vec;

use serde_json::Value;

use self::company::TEAMS;
use self::draft::Forge;
use self::service::Site;
use crate::model::GroupResource;

pub use store::{Error, SampleSummary, write_backup};

/// What a sample follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// Changes ids, ages, contents and counts, but not the names of teams and services.
    pub seed: u64,
    /// How many objects there are: exactly so many, from about 100 up, which is what the smallest sample has.
    pub items: usize,
    /// Name of the backup.
    pub name: String,
    /// When the backup was taken, in seconds since 1970; all times in it are before.
    pub taken_at: i64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        // 2026-03-02T02:00:00Z, a Monday, when nightly backups run.
        Self { seed: 1, items: 3000, name: "fernhill-nightly".to_owned(), taken_at: 1_772_416_800 }
    }
}

/// All objects of the sample, made as they are taken: cluster-scoped ones first, then namespace by namespace.
pub fn objects(options: &SampleOptions) -> impl Iterator<Item = (GroupResource, Value)> {
    Objects {
        forge: Forge { seed: options.seed, taken_at: options.taken_at },
        wanted: options.items,
        made: 0,
        ready: Vec::new().into_iter(),
        place: Place::Cluster,
    }
}

/// Why an object of the sample is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Create it before the restore with other data, and it is a conflict.
    ConflictsIfChanged,
    /// Create it before the restore as it is, and it is unchanged.
    UnchangedIfPresent,
    /// A job that has completed: skipped.
    Completed,
    /// A volume that its class will provision anew: skipped (restore-semantics 5.4).
    DynamicVolume,
    /// Its fields belong to several managers, so that `managedFields` need a second request.
    SeveralManagers,
    /// A custom resource, restored after its CRD is ready.
    CustomResource,
}

/// An object of the sample that shows something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Highlight {
    /// What it shows.
    pub lesson: Lesson,
    /// Its group-resource.
    pub group_resource: GroupResource,
    /// Its namespace; empty for cluster scope.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The objects that show something; they are in every sample. (A dynamic volume is only in those that reach a staging namespace,
/// from about 3,000 items.)
#[must_use]
pub fn highlights(options: &SampleOptions) -> Vec<Highlight> {
    let mut highlights: Vec<Highlight> = Vec::new();
    for (group_resource, object) in objects(options) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let lesson = match group_resource.as_str() {
            "configmaps" if name == "environment" => Lesson::ConflictsIfChanged,
            "configmaps" if name.ends_with("-config") => Lesson::SeveralManagers,
            "secrets" if name.ends_with("-credentials") => Lesson::UnchangedIfPresent,
            "jobs.batch" => Lesson::Completed,
            "persistentvolumes" if text("/spec/persistentVolumeReclaimPolicy") == "Delete" => Lesson::DynamicVolume,
            "featureflags.platform.fernhill.example" => Lesson::CustomResource,
            _ => continue,
        };
        if highlights.iter().all(|known| known.lesson != lesson) {
            highlights.push(Highlight {
                lesson,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                group_resource,
            });
        }
    }
    highlights
}

/// What is made next.
#[derive(Clone, Copy)]
enum Place {
    Cluster,
    Namespace { number: usize },
    Service { number: usize, service: usize },
}

struct Objects {
    forge: Forge,
    wanted: usize,
    made: usize,
    ready: vec::IntoIter<(GroupResource, Value)>,
    place: Place,
}

impl Iterator for Objects {
    type Item = (GroupResource, Value);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(object) = self.ready.next() {
                return Some(object);
            }
            // The cluster, the first namespace and its first service are in every sample.
            let is_smallest = !matches!(self.place, Place::Service { number, service } if number + service > 0)
                && !matches!(self.place, Place::Namespace { number } if number > 0);
            if self.made >= self.wanted && !is_smallest {
                return None;
            }
            let mut batch = self.batch();
            if self.made + batch.len() > self.wanted && !is_smallest {
                batch = self.filler();
            }
            self.made += batch.len();
            self.ready = batch.into_iter();
        }
    }
}

impl Objects {
    /// The objects of the next place; goes on to the one after.
    fn batch(&mut self) -> Vec<(GroupResource, Value)> {
        match self.place {
            Place::Cluster => {
                self.place = Place::Namespace { number: 0 };
                cluster::objects(&self.forge)
            }
            Place::Namespace { number } => {
                self.place = Place::Service { number, service: 0 };
                let team = &TEAMS[number % TEAMS.len()];
                let (namespace, environment) = company::namespace(team, number / TEAMS.len());
                cluster::namespace(&self.forge, team, &namespace, environment)
            }
            Place::Service { number, service } => {
                let team = &TEAMS[number % TEAMS.len()];
                let (namespace, environment) = company::namespace(team, number / TEAMS.len());
                let is_last = service + 1 == team.services.len();
                self.place = if is_last {
                    Place::Namespace { number: number + 1 }
                } else {
                    Place::Service { number, service: service + 1 }
                };
                let site = Site {
                    forge: &self.forge,
                    team,
                    namespace: &namespace,
                    environment,
                    service: &team.services[service],
                    is_complete: number == 0 && service == 0,
                };
                site.objects()
            }
        }
    }

    /// ConfigMaps, as many as are missing, in the first namespace.
    fn filler(&self) -> Vec<(GroupResource, Value)> {
        let (namespace, _) = company::namespace(&TEAMS[0], 0);
        let missing = self.wanted.saturating_sub(self.made);
        (1..=missing).map(|number| service::filler(&self.forge, &namespace, &TEAMS[0], number)).collect()
    }
}

#[cfg(test)]
mod tests;
