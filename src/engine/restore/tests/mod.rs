//! The rules of restore-semantics 5 and 6 over whole runs: a small backup, and a fake of the port `Cluster`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod created;
mod existing;
mod items;
mod namespaces;
mod stopped;
mod volumes;
mod world;
