//! The doors: gRPC, and REST with Server-Sent Events, on one port; health and metrics on another.
//!
//! A handler parses, calls the façade ([`crate::service::Restores`]) and converts. Protobuf messages stay in
//! [`grpc`], JSON bodies in [`http`]; the two do not know each other, and none knows the engine or the cluster.

pub mod admin;
pub mod code;
pub mod context;
pub mod grpc;
pub mod http;
pub mod plan;
pub mod readiness;
pub mod server;
pub mod watch;

pub use context::Context;
pub use readiness::Readiness;
pub use server::Server;
