//! Reprise.
