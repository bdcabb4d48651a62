//! Reprise restores Velero backups into Kubernetes and streams truthful progress while it does.
//!
//! Modules in reading order; data flows one way, from the archive to the doors:
//!
//! ```text
//! storage ─► archive ─► engine::collect ─► Plan ─► engine::restore ─► events ─► progress ─► api (gRPC, REST, SSE)
//!                                              cluster ◄──┘ (ports)                └──────► controller (Restore CR)
//! ```

pub mod model;
pub mod storage;
pub mod velero;
