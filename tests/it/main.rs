//! Integration tests, all in one binary so that they share one control plane.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api_admin;
mod api_contract;
mod api_errors;
mod api_grpc;
mod api_plan;
mod api_rest;
mod api_shutdown;
mod api_sse;
mod api_support;
mod architecture;
mod cli;
mod conformance;
mod corpus;
mod pod_exec;
mod service;
mod spec;
mod storage_s3;
mod support;
mod testbed;
mod velero_crds;
