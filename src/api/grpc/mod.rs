//! The gRPC door: `proto/reprise/v1/restore.proto` over the façade.

pub mod convert;
mod details;
mod health;
pub mod plan;
mod server;
pub mod spec;

use tonic::service::Routes;

use super::Context;

/// The messages, client and server generated from `proto/reprise/v1/restore.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("reprise.v1");
}

pub use details::{field_of, status, violations_of};

/// The file descriptors that reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reprise.bin"));

/// Largest request that is taken, in bytes: a specification with many hooks has some kilobytes.
pub const MAX_REQUEST: usize = 4 << 20;

/// The restore service, health and reflection (v1, and v1alpha for older clients).
///
/// # Errors
/// When the descriptors built into the program cannot be read.
pub fn routes(context: &Context) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let restores = pb::restore_service_server::RestoreServiceServer::new(server::Server::new(context.clone()))
        .max_decoding_message_size(MAX_REQUEST);
    let health = tonic_health::pb::health_server::HealthServer::new(health::Health::new(context));
    Ok(Routes::new(restores)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
