//! The two-phase engine: collect a plan from the archive, then restore it.
//!
//! It knows neither kube nor tonic nor axum: what it needs from outside stands in [`ports`], what it tells
//! the outside in [`events`].

pub mod actions;
pub mod compare;
pub mod discovery;
pub mod events;
pub mod managed_fields;
pub mod merge;
pub mod patterns;
pub mod plan;
pub mod ports;
pub mod strip;
