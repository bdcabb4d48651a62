//! One line of a restore's log, in the text format of logrus that Velero's log files have (restore-semantics 9.1).

use std::fmt::Write;

use jiff::Timestamp;

use crate::engine::events::LogLevel;

/// Renders `time="…" level=… msg="…" logSource="…" restore=…`, with a newline at the end.
///
/// ```
/// use reprise::engine::events::LogLevel;
/// use reprise::progress::log_line;
/// let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
/// assert_eq!(
///     log_line(now, LogLevel::Info, "created \"web\"", "engine", "velero/nightly"),
///     "time=\"2026-01-02T03:04:05Z\" level=info msg=\"created \\\"web\\\"\" logSource=engine restore=velero/nightly\n",
/// );
/// ```
#[must_use]
pub fn log_line(now: Timestamp, level: LogLevel, message: &str, source: &str, restore: &str) -> String {
    let mut line = String::with_capacity(96 + message.len() + source.len() + restore.len());
    // Writing to a String cannot fail.
    let _ = write!(line, "time=\"{now:.0}\" level={} msg=", level_name(level));
    push_value(&mut line, message);
    line.push_str(" logSource=");
    push_value(&mut line, source);
    line.push_str(" restore=");
    push_value(&mut line, restore);
    line.push('\n');
    line
}

const fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warning",
        LogLevel::Error => "error",
    }
}

/// A value is bare while it has only letters, digits and `-._/@^+`; otherwise it is quoted as a Go string.
fn push_value(line: &mut String, value: &str) {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if value.chars().all(bare) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{7}' => line.push_str("\\a"),
            '\u{8}' => line.push_str("\\b"),
            '\u{b}' => line.push_str("\\v"),
            '\u{c}' => line.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            }
            c if is_hidden(c) => {
                let code = u32::from(c);
                let _ = if code > 0xffff { write!(line, "\\U{code:08x}") } else { write!(line, "\\u{code:04x}") };
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// Characters that would not show, or would end a line for some reader.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{a0}' | '\u{ad}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// restore-semantics 9.1, log format
    #[test]
    fn values_are_quoted_as_logrus_does() {
        let now: Timestamp = "2026-01-02T03:04:05.999Z".parse().unwrap();
        let line = |message| log_line(now, LogLevel::Warning, message, "engine/restore.go:12", "velero/r-1");
        let around = |message: &str| {
            format!(
                "time=\"2026-01-02T03:04:05Z\" level=warning msg={message} logSource=\"engine/restore.go:12\" \
                 restore=velero/r-1\n"
            )
        };
        assert_eq!(line("done"), around("done"));
        assert_eq!(line(""), around(""));
        assert_eq!(line("it is done"), around("\"it is done\""));
        assert_eq!(line("a\nb\t\\\u{1}"), around("\"a\\nb\\t\\\\\\x01\""));
        assert_eq!(line("Größe\u{2028}"), around("\"Größe\\u2028\""));
    }

    /// restore-semantics 9.1, log format
    #[test]
    fn a_message_never_makes_a_second_line() {
        let line = log_line(Timestamp::UNIX_EPOCH, LogLevel::Error, "a\r\nb\u{85}\u{2029}c", "", "velero/r");
        assert_eq!(line.lines().count(), 1);
        assert!(line.ends_with('\n'));
    }
}
