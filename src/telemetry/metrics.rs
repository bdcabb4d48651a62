//! The metrics of the service: Velero's own names (restore-semantics 10) and those that Velero lacks.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::model::{Outcome, Phase};

/// Label of Velero's counters: `spec.scheduleName` after completion, empty for a manual restore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScheduleLabel {
    schedule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabel {
    door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    door: &'static str,
    code: String,
}

/// The way a caller came in: the closed set of values of the label `door`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// gRPC.
    Grpc,
    /// REST and Server-Sent Events.
    Http,
}

impl Door {
    /// The value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What a restore did that one of Velero's counters counts (restore-semantics 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestoreEvent {
    /// A new restore was processed, valid or not.
    Attempt,
    /// It ended `FailedValidation`.
    ValidationFailed,
    /// It ended `Failed` by an error of the run.
    Failed,
    /// It ended `PartiallyFailed`.
    PartialFailure,
    /// It ended `Completed`.
    Success,
}

impl RestoreEvent {
    const ALL: [Self; 5] = [Self::Attempt, Self::ValidationFailed, Self::Failed, Self::PartialFailure, Self::Success];

    /// The event of a terminal phase; `None` while a restore goes on.
    #[must_use]
    pub const fn of_end(phase: Phase) -> Option<Self> {
        match phase {
            Phase::FailedValidation => Some(Self::ValidationFailed),
            Phase::Failed => Some(Self::Failed),
            Phase::PartiallyFailed => Some(Self::PartialFailure),
            Phase::Completed => Some(Self::Success),
            Phase::New
            | Phase::InProgress
            | Phase::WaitingForPluginOperations
            | Phase::WaitingForPluginOperationsPartiallyFailed
            | Phase::Finalizing
            | Phase::FinalizingPartiallyFailed => None,
        }
    }
}

/// All metrics; cheap to clone, and every clone counts into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    restores: Gauge,
    attempt: Family<ScheduleLabel, Counter>,
    validation_failed: Family<ScheduleLabel, Counter>,
    failed: Family<ScheduleLabel, Counter>,
    partial_failure: Family<ScheduleLabel, Counter>,
    success: Family<ScheduleLabel, Counter>,
    items: Family<OutcomeLabel, Counter>,
    running: Gauge,
    queued: Gauge,
    duration: Family<PhaseLabel, Histogram>,
    subscribers: Family<DoorLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            restores: Gauge::default(),
            attempt: Family::default(),
            validation_failed: Family::default(),
            failed: Family::default(),
            partial_failure: Family::default(),
            success: Family::default(),
            items: Family::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            // 1 s to 9 h by factors of two: a small restore takes seconds, a cluster minutes, volumes hours.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 16))),
            subscribers: Family::default(),
            requests: Family::default(),
        }
    }
}

impl Metrics {
    /// Metrics that are registered with `registry`, with all series of closed label sets at 0.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        // The registry adds `_total` to the name of a counter, and nothing to that of a gauge.
        registry.register("velero_restore_total", "Current number of existent restores", this.restores.clone());
        let velero = [
            ("velero_restore_attempt", "Total number of attempted restores", &this.attempt),
            ("velero_restore_validation_failed", "Total number of failed validations", &this.validation_failed),
            ("velero_restore_failed", "Total number of failed restores", &this.failed),
            ("velero_restore_partial_failure", "Total number of partially failed restores", &this.partial_failure),
            ("velero_restore_success", "Total number of successful restores", &this.success),
        ];
        for (name, help, family) in velero {
            registry.register(name, help, family.clone());
        }
        registry.register("reprise_items", "Items whose outcome is known", this.items.clone());
        registry.register("reprise_restores_running", "Restores that run now", this.running.clone());
        registry.register("reprise_restores_queued", "Restores that wait for their turn", this.queued.clone());
        registry.register(
            "reprise_restore_duration_seconds",
            "Time from the start of a restore to its terminal phase",
            this.duration.clone(),
        );
        registry.register("reprise_stream_subscribers", "Open streams", this.subscribers.clone());
        registry.register("reprise_requests", "Answered requests, by gRPC code or HTTP status", this.requests.clone());

        this.ensure_schedule("");
        for outcome in Outcome::ALL.into_iter().filter(|&outcome| outcome != Outcome::Pending) {
            this.items.get_or_create_owned(&OutcomeLabel { outcome: outcome.as_str() });
        }
        for door in [Door::Grpc, Door::Http] {
            this.subscribers.get_or_create_owned(&DoorLabel { door: door.as_str() });
        }
        this
    }

    fn velero(&self, event: RestoreEvent) -> &Family<ScheduleLabel, Counter> {
        match event {
            RestoreEvent::Attempt => &self.attempt,
            RestoreEvent::ValidationFailed => &self.validation_failed,
            RestoreEvent::Failed => &self.failed,
            RestoreEvent::PartialFailure => &self.partial_failure,
            RestoreEvent::Success => &self.success,
        }
    }

    /// Makes Velero's series of a schedule exist at 0.
    pub fn ensure_schedule(&self, schedule: &str) {
        let label = ScheduleLabel { schedule: schedule.to_owned() };
        for event in RestoreEvent::ALL {
            self.velero(event).get_or_create_owned(&label);
        }
    }

    /// Takes away Velero's series of a schedule that was deleted; those of manual restores stay.
    pub fn forget_schedule(&self, schedule: &str) {
        if schedule.is_empty() {
            return;
        }
        let label = ScheduleLabel { schedule: schedule.to_owned() };
        for event in RestoreEvent::ALL {
            self.velero(event).remove(&label);
        }
    }

    /// Counts what a restore did.
    pub fn restore(&self, event: RestoreEvent, schedule: &str) {
        self.velero(event).get_or_create_owned(&ScheduleLabel { schedule: schedule.to_owned() }).inc();
    }

    /// Sets the number of Restore objects.
    pub fn set_restores(&self, count: usize) {
        self.restores.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many restores run and how many wait.
    pub fn set_active(&self, running: usize, queued: usize) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    /// Counts an item whose outcome is known.
    pub fn item(&self, outcome: Outcome) {
        self.items.get_or_create_owned(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// Records how long a restore took until its terminal phase.
    pub fn restore_took(&self, phase: Phase, duration: Duration) {
        self.duration.get_or_create_owned(&PhaseLabel { phase: phase.as_str() }).observe(duration.as_secs_f64());
    }

    /// Counts a stream for as long as the guard lives.
    #[must_use]
    pub fn subscriber(&self, door: Door) -> Subscriber {
        let gauge = self.subscribers.get_or_create_owned(&DoorLabel { door: door.as_str() });
        gauge.inc();
        Subscriber(gauge)
    }

    /// How many streams are open now.
    #[must_use]
    pub fn subscribers(&self, door: Door) -> i64 {
        self.subscribers.get_or_create_owned(&DoorLabel { door: door.as_str() }).get()
    }

    /// Counts a request as `CANCELLED` unless it is told otherwise before the guard is dropped.
    #[must_use]
    pub fn request(&self, door: Door) -> RequestGuard {
        RequestGuard {
            requests: self.requests.clone(),
            labels: RequestLabels { door: door.as_str(), code: "CANCELLED".into() },
        }
    }
}

/// An open stream; dropping it is its end.
#[derive(Debug)]
pub struct Subscriber(Gauge);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request under way; dropping it counts it.
#[derive(Debug)]
pub struct RequestGuard {
    requests: Family<RequestLabels, Counter>,
    labels: RequestLabels,
}

impl RequestGuard {
    /// The request was answered with this gRPC code or HTTP status.
    pub fn answered(mut self, code: &str) {
        self.labels.code = code.to_owned();
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.requests.get_or_create_owned(&self.labels).inc();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn veleros_series_stand_at_zero_under_veleros_names() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry);
        let text = text(&registry);
        for line in [
            "velero_restore_total 0",
            "velero_restore_attempt_total{schedule=\"\"} 0",
            "velero_restore_validation_failed_total{schedule=\"\"} 0",
            "velero_restore_failed_total{schedule=\"\"} 0",
            "velero_restore_partial_failure_total{schedule=\"\"} 0",
            "velero_restore_success_total{schedule=\"\"} 0",
            "reprise_items_total{outcome=\"failed\"} 0",
            "reprise_stream_subscribers{door=\"grpc\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("pending"), "{text}");
    }

    #[test]
    fn a_schedules_series_go_with_the_schedule() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.restore(RestoreEvent::Success, "nightly");
        assert!(text(&registry).contains("velero_restore_success_total{schedule=\"nightly\"} 1"));
        metrics.forget_schedule("nightly");
        metrics.forget_schedule("");
        let text = text(&registry);
        assert!(!text.contains("nightly") && text.contains("velero_restore_success_total{schedule=\"\"} 0"), "{text}");
    }

    #[test]
    fn a_request_that_was_dropped_counts_as_cancelled_and_a_stream_ends_with_its_guard() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        drop(metrics.request(Door::Grpc));
        metrics.request(Door::Http).answered("201");
        let subscriber = metrics.subscriber(Door::Http);
        assert_eq!(metrics.subscribers(Door::Http), 1);
        drop(subscriber);
        assert_eq!(metrics.subscribers(Door::Http), 0);
        let text = text(&registry);
        assert!(text.contains("reprise_requests_total{door=\"grpc\",code=\"CANCELLED\"} 1"), "{text}");
        assert!(text.contains("reprise_requests_total{door=\"http\",code=\"201\"} 1"), "{text}");
    }

    #[test]
    fn only_a_terminal_phase_is_an_end() {
        for phase in Phase::ALL {
            assert_eq!(RestoreEvent::of_end(phase).is_some(), phase.is_terminal(), "{phase:?}");
        }
    }
}
