//! Reprise restores Velero backups into Kubernetes and streams truthful progress while it does.
//!
//! Modules in reading order; data flows one way, from the archive to the doors:
//!
//! ```text
//! storage ─► archive ─► engine::collect ─► Plan ─► engine::restore ─► events ─► progress ─► api (gRPC, REST, SSE)
//!                                              cluster ◄──┘ (ports)                └──────► controller (Restore CR)
//! ```

pub mod api;
pub mod app;
pub mod archive;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod engine;
pub mod model;
pub mod progress;
pub mod sample;
pub mod sandbox;
pub mod service;
pub mod shutdown;
pub mod storage;
pub mod telemetry;
pub mod velero;
