//! Backups and restores in object storage.
//!
//! ```text
//! BackupStorageLocation ─► location::ClientConfig (data) ─► open ─► dyn BackupStore
//!                                     └─► Layout (keys) ──────────────┴─► files (what is read and written back)
//! ```
//!
//! Keys and formats are Velero's (restore-semantics 2.1 and 9), so that its own tools read what is written here.

pub mod azure;
pub mod azure_credentials;
mod azure_keys;
mod client;
pub mod credentials;
mod error;
pub mod files;
pub mod gcs;
pub mod layout;
pub mod location;
mod objects;
mod read_only;
pub mod s3;
mod store;
mod stream;
pub mod testing;

pub use error::{Error, Source};
pub use layout::Layout;
pub use location::{Backend, ClientConfig, Inputs, open};
pub use objects::{ObjectBackupStore, Options};
pub use read_only::ReadOnlyStore;
pub use store::{BackupStore, ObjectStream};
