//! Writing to standard output: text for people, or one JSON object per line.

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, in the form of the REST interface.
    Json,
}

/// `-o`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct OutputArgs {
    /// How to print: text, or JSON with one object per line as the REST interface has it
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
}

/// Writes a line at once. Unlike `println!` it returns an error where the reader has gone, as `head` does.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes lines.
pub(super) fn lines(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for text in lines {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

/// Says something about the run itself, beside the output.
pub(super) fn notice(text: &str) {
    // Where standard error is gone, nobody is left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a bar can be drawn.
pub(super) fn has_terminal() -> bool {
    io::stderr().is_terminal() && io::stdout().is_terminal()
}

/// Whether the error is that the reader of the output has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
