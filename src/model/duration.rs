//! Durations as Go writes and reads them, because that is what Velero's fields hold.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in nanoseconds, parsed and printed exactly as Go's `time.ParseDuration` and `Duration.String` do.
///
/// ```
/// use reprise::model::GoDuration;
/// let text = |text: &str| text.parse::<GoDuration>().map(|d| d.to_string());
/// assert_eq!(text("4h").as_deref(), Ok("4h0m0s"));
/// assert_eq!(text("1.5h").as_deref(), Ok("1h30m0s"));
/// assert_eq!(text("-300ms").as_deref(), Ok("-300ms"));
/// assert_eq!(text("5").unwrap_err().to_string(), r#"time: missing unit in duration "5""#);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration(i64);

/// A text that is no Go duration. It reads as Go's own error does, because it ends in `validationErrors` and logs that
/// users compare with Velero's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not of the form number, unit, number, unit….
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number is not followed by a unit.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A number is followed by something that is no unit.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// What stands where the unit should.
        unit: String,
        /// The whole text.
        text: String,
    },
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

impl GoDuration {
    /// No time at all, `0s`.
    pub const ZERO: Self = Self(0);

    /// A duration of so many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds; negative for a negative duration.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The duration, or nothing when it is negative.
    #[must_use]
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    /// Longer durations than Go has (292 years) become the longest.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let part;
            (part, rest) = leading_part(rest, text)?;
            total = total.checked_add(part).filter(|&total| total <= 1 << 63).ok_or_else(invalid)?;
        }
        match (negative, total) {
            (true, total) => Ok(Self(0_i64.wrapping_sub_unsigned(total))),
            (false, total) => i64::try_from(total).map(Self).map_err(|_| invalid()),
        }
    }
}

/// Reads one number with its unit from the start of `rest`; nanoseconds and what follows.
fn leading_part<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), InvalidDuration> {
    let invalid = || InvalidDuration::Invalid(text.to_owned());
    let digits_of = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();

    let (whole, mut rest) = rest.split_at(digits_of(rest));
    let mut value = whole.bytes().try_fold(0_u64, push_digit).ok_or_else(invalid)?;
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits_of(after));
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }

    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(InvalidDuration::MissingUnit(text.to_owned()));
    }
    let scale = nanos_of_unit(unit)
        .ok_or_else(|| InvalidDuration::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;

    value = value.checked_mul(scale).filter(|&value| value <= 1 << 63).ok_or_else(invalid)?;
    value += fraction_nanos(fraction, scale);
    if value > 1 << 63 { Err(invalid()) } else { Ok((value, rest)) }
}

fn push_digit(value: u64, digit: u8) -> Option<u64> {
    value.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|&value| value <= 1 << 63)
}

fn nanos_of_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Both the micro sign U+00B5 and the Greek letter mu U+03BC.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// The digits after the point, in nanoseconds. Digits past what 63 bits hold are dropped, and the product is taken in
/// floating point, both as Go does.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in digits.bytes() {
        // Go's bound here is one lower than for whole numbers.
        let Some(next) = push_digit(value, digit).filter(|_| value <= (i64::MAX as u64) / 10) else { break };
        (value, scale) = (next, scale * 10.0);
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nanos = (value as f64 * (unit as f64 / scale)) as u64;
    nanos
}

/// As Go quotes text in these errors: non-ASCII and control bytes as `\xhh`.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}"))),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < SECOND {
            let (unit, name) = match nanos {
                0..MICROSECOND => (1, "ns"),
                MICROSECOND..MILLISECOND => (MICROSECOND, "\u{b5}s"),
                _ => (MILLISECOND, "ms"),
            };
            return write!(f, "{}{name}", decimal(nanos, unit));
        }
        let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(nanos % MINUTE, SECOND))
    }
}

/// `nanos / unit` with as many decimals as it needs.
fn decimal(nanos: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", nanos % unit);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { (nanos / unit).to_string() } else { format!("{}.{fraction}", nanos / unit) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Result<i64, String> {
        text.parse().map(GoDuration::as_nanos).map_err(|error: InvalidDuration| error.to_string())
    }

    #[test]
    fn texts_parse_as_in_go() {
        let hour = i64::try_from(HOUR).unwrap();
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("+5s", 5_000_000_000),
            ("5.0s", 5_000_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("-.5s", -500_000_000),
            ("1.5h", hour + hour / 2),
            ("300ms", 300_000_000),
            ("1h15m30.918s", hour + 930_918_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("3h30m", 3 * hour + hour / 2),
            ("30m3h", 3 * hour + hour / 2),
            ("39h9m14.425s", 140_954_425_000_000),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-2562047h47m16.854775808s", i64::MIN),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("9007199254740993ns", 9_007_199_254_740_993),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_texts_are_refused_in_the_words_of_go() {
        for (text, expected) in [
            ("", r#"time: invalid duration """#),
            ("3", r#"time: missing unit in duration "3""#),
            ("1h2", r#"time: missing unit in duration "1h2""#),
            ("-", r#"time: invalid duration "-""#),
            ("s", r#"time: invalid duration "s""#),
            (".", r#"time: invalid duration ".""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1 h", r#"time: unknown unit " h" in duration "1 h""#),
            ("\u{85}1s", r#"time: invalid duration "\xc2\x851s""#),
            ("hello \u{ffff} world", r#"time: invalid duration "hello \xef\xbf\xbf world""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("-9223372036854775809ns", r#"time: invalid duration "-9223372036854775809ns""#),
        ] {
            assert_eq!(nanos(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (4 * 60_000_000_000 + 5_000_000_000, "4m5s"),
            (4 * 60_000_000_000 + 5_001_000_000, "4m5.001s"),
            (5 * 3_600_000_000_000 + 6 * 60_000_000_000 + 7_001_000_000, "5h6m7.001s"),
            (8 * 60_000_000_000 + 1, "8m0.000000001s"),
            (4 * 3_600_000_000_000, "4h0m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(nanos in any::<i64>()) {
            let duration = GoDuration::from_nanos(nanos);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+]?([0-9.]{0,22}(ns|us|µs|ms|s|m|h|d)?){0,3}") {
            if let Ok(duration) = text.parse::<GoDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
