//! Running commands in the containers of pods: what exec hooks need from outside.

use std::fmt;

use async_trait::async_trait;

use super::ApiError;

/// Bytes of each of a command's two outputs that are kept: a screenful or two for the log, whatever the command writes.
pub const OUTPUT_KEPT: usize = 16 * 1024;

/// The exec subresource of pods.
#[async_trait]
pub trait PodExec: Send + Sync {
    /// Runs a command without standard input or terminal, and waits for its end as long as it takes.
    ///
    /// # Cancellation
    /// Dropped before its end, the command goes on in the container; nobody waits for it any more.
    async fn exec(&self, request: &ExecRequest) -> ExecAnswer;

    /// Why no command can ever be run here, where that is known beforehand: then nobody waits for a pod to come up.
    fn unavailable(&self) -> Option<&str> {
        None
    }
}

/// A command for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecAnswer {
    /// Whether it went well.
    pub outcome: Result<(), ExecFailure>,
    /// The begin of its standard output.
    pub stdout: Captured,
    /// The begin of its standard error.
    pub stderr: Captured,
}

impl ExecAnswer {
    /// An answer without output.
    #[must_use]
    pub fn silent(outcome: Result<(), ExecFailure>) -> Self {
        Self { outcome, stdout: Captured::default(), stderr: Captured::default() }
    }
}

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecFailure {
    /// It ran, and said so.
    #[error("command terminated with exit code {0}")]
    ExitCode(i32),
    /// The API server did not let it run.
    #[error("{0}")]
    Refused(ApiError),
    /// It could not be started, or its end is not known.
    #[error("{0}")]
    Broken(String),
}

/// The begin of an output, at most [`OUTPUT_KEPT`] bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    kept: Vec<u8>,
    left_out: u64,
}

impl Captured {
    /// Takes more output; what there is no room for is only counted.
    pub fn push(&mut self, bytes: &[u8]) {
        let (kept, rest) = bytes.split_at(bytes.len().min(OUTPUT_KEPT.saturating_sub(self.kept.len())));
        self.kept.extend_from_slice(kept);
        self.left_out += rest.len() as u64;
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl From<&str> for Captured {
    fn from(text: &str) -> Self {
        let mut captured = Self::default();
        captured.push(text.as_bytes());
        captured
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.kept).trim_end())?;
        match self.left_out {
            0 => Ok(()),
            left_out => write!(f, " [… {left_out} more bytes]"),
        }
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A place whose pods have no containers that run, such as the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct NoExec(
    /// Why, and what to do about it.
    pub &'static str,
);

#[async_trait]
impl PodExec for NoExec {
    async fn exec(&self, _request: &ExecRequest) -> ExecAnswer {
        ExecAnswer::silent(Err(ExecFailure::Broken(self.0.to_owned())))
    }

    fn unavailable(&self) -> Option<&str> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_up_to_its_limit_and_the_rest_is_counted() {
        let mut output = Captured::from("done\n");
        assert_eq!(output.to_string(), "done");
        output.push(&vec![b'x'; OUTPUT_KEPT]);
        output.push(b"yz");
        let text = output.to_string();
        assert!(text.starts_with("done\nxxx") && text.ends_with("x [… 7 more bytes]"), "{}", text.len());
        assert!(text.len() < OUTPUT_KEPT + 50);
    }
}
