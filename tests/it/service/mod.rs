//! The whole service in this process, in front of the sandbox and of the real API server.
//!
//! Each test has a [`world::World`] of its own: a Kubernetes API with a Velero namespace, a backup location and what it
//! puts there; and one or more services ([`served::Served`]) that work on it.

mod api_versions;
mod bad_backups;
mod bad_requests;
mod cancel;
mod client;
mod conclude;
mod deletion;
mod doors;
mod downloads;
mod faults;
mod group_snapshots;
mod hooks;
mod kube_events;
mod last_word;
mod observe;
mod operations;
mod plan;
mod pod_volumes;
mod queue;
mod read_only;
mod real_cluster;
mod restart;
mod sandbox;
mod served;
mod shared_items;
mod transient;
mod world;
