//! A restore as it goes by: a bar on a terminal, lines in a pipe, or events as JSON.

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::output::{self, Format};
use super::text;
use crate::api::http::json;
use crate::api::watch::Numbered;
use crate::model::{ItemState, Outcome, Phase, Progress, Stage};
use crate::service::{RestoreView, WatchEvent};

/// In a pipe a progress is told at most this often, but each stage at once.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// So many failures are told as they happen; all of them are there at the end.
const FAILURES_SHOWN: usize = 10;

/// How a restore is shown.
pub(super) struct Display {
    style: Style,
    failures: usize,
    greeted: bool,
}

enum Style {
    Json,
    Lines { last: Option<(Instant, Stage)> },
    Bar(ProgressBar),
}

impl Display {
    /// A bar where there is a terminal.
    pub(super) fn new(format: Format) -> Self {
        let style = match format {
            Format::Json => Style::Json,
            Format::Text if output::has_terminal() => Style::Bar(bar()),
            Format::Text => Style::Lines { last: None },
        };
        Self { style, failures: 0, greeted: false }
    }

    /// Whether events are written as JSON.
    pub(super) const fn is_json(&self) -> bool {
        matches!(self.style, Style::Json)
    }

    /// Shows an event.
    pub(super) fn event(&mut self, numbered: &Numbered) -> io::Result<()> {
        if self.is_json() {
            return output::line(&json::event(numbered.clone()));
        }
        match &numbered.event {
            WatchEvent::Snapshot(view) => {
                // A watch that was taken up again begins with another.
                if !std::mem::replace(&mut self.greeted, true) {
                    self.above(&greeting(view))?;
                }
                self.progress(&view.progress)
            }
            WatchEvent::Progress { progress, .. } => self.progress(progress),
            WatchEvent::Item { item, .. } if item.outcome == Outcome::Failed => self.failure(item),
            WatchEvent::Ended(view) => {
                self.progress(&view.progress)?;
                self.close();
                Ok(())
            }
            WatchEvent::Item { .. }
            | WatchEvent::Gap { .. }
            | WatchEvent::Deleted { .. }
            | WatchEvent::ShuttingDown => Ok(()),
        }
    }

    /// A line of text above the bar; nothing where events are JSON.
    pub(super) fn above(&self, text: &str) -> io::Result<()> {
        match &self.style {
            Style::Json => Ok(()),
            Style::Lines { .. } => output::line(text),
            Style::Bar(bar) => bar.suspend(|| output::line(text)),
        }
    }

    /// Says something about the run itself, without tearing the bar.
    pub(super) fn notice(&self, text: &str) {
        match &self.style {
            Style::Bar(bar) => bar.suspend(|| output::notice(text)),
            Style::Json | Style::Lines { .. } => output::notice(text),
        }
    }

    /// Takes the bar away.
    pub(super) fn close(&self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        match &mut self.style {
            Style::Json => Ok(()),
            Style::Bar(bar) => {
                bar.set_length(100);
                bar.set_position(u64::from(progress.percent()));
                bar.set_prefix(format!(
                    "{:>3} %  {}  {}",
                    progress.percent(),
                    text::stage(progress.stage),
                    if progress.outcomes.total() > 0 || !progress.outcomes_known() {
                        text::done(progress)
                    } else {
                        String::new()
                    },
                ));
                let counts = progress.outcomes_known().then(|| text::counts(&progress.outcomes));
                let pace = Some(text::pace(progress)).filter(|pace| !pace.is_empty());
                bar.set_message(counts.into_iter().chain(pace).collect::<Vec<_>>().join("; "));
                bar.tick();
                Ok(())
            }
            Style::Lines { last } => {
                let now = Instant::now();
                let due =
                    last.is_none_or(|(at, stage)| stage != progress.stage || now.duration_since(at) >= LINE_EVERY);
                if !due || matches!(progress.phase, Phase::New | Phase::FailedValidation) {
                    return Ok(());
                }
                *last = Some((now, progress.stage));
                output::line(&text::line(progress))
            }
        }
    }

    fn failure(&mut self, item: &ItemState) -> io::Result<()> {
        self.failures += 1;
        match self.failures {
            ..=FAILURES_SHOWN => self.above(&format!("  failed: {}", failure(item))),
            number if number == FAILURES_SHOWN + 1 => self.above("  more failures are told at the end"),
            _ => Ok(()),
        }
    }
}

/// An item that failed, and why.
pub(super) fn failure(item: &ItemState) -> String {
    let reason = item.reason.map_or("other", |reason| reason.as_str());
    match &item.message {
        Some(message) => format!("{}: {reason}: {message}", item.key),
        None => format!("{}: {reason}", item.key),
    }
}

fn greeting(view: &RestoreView) -> String {
    let place = if view.sandbox { " (sandbox: an in-memory Kubernetes API, not a cluster)" } else { "" };
    let from = if view.backup_name.is_empty() { String::new() } else { format!(" from backup {}", view.backup_name) };
    let queue = match view.queue_position {
        Some(position) if !view.phase.is_terminal() => format!(", number {position} in the queue"),
        _ => String::new(),
    };
    format!("Restore {}{from}{place}{queue}", view.name)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
    // The template is a constant; should it not parse, the default bar serves as well.
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {prefix}\n  {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;
    use crate::model::Reason;

    #[test]
    fn a_greeting_says_that_it_is_a_sandbox() {
        assert_eq!(
            greeting(&testing::view()),
            "Restore again from backup nightly (sandbox: an in-memory Kubernetes API, not a cluster), number 2 in the queue"
        );
        let real = RestoreView { sandbox: false, queue_position: None, ..testing::view() };
        assert_eq!(greeting(&real), "Restore again from backup nightly");
    }

    #[test]
    fn a_failure_names_the_item_the_reason_and_the_message() {
        let item = testing::item("web", Outcome::Failed, Some(Reason::Quota));
        assert_eq!(failure(&item), "v1/ConfigMap shop/web: quota: the API server said no");
    }
}
