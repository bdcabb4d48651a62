//! Integration tests, all in one binary so that they share one control plane.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance;
mod support;
mod testbed;
