//! Durations: seconds, or text with a unit.

use std::time::Duration;

use super::decimal;

/// What a duration may look like, for messages.
pub(super) const FORMS: &str = "seconds, or text like \"500ms\", \"2s\", \"1m\", \"1h\"";

const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// `2s`, `1.5h`, `500ms`, `250us`, `10ns`, or plain seconds (`2`, `0.5`).
///
/// # Errors
/// A sentence, when it is none of these, no whole number of nanoseconds, or longer than 584 years.
pub fn parse(text: &str) -> Result<Duration, String> {
    nanoseconds(text).map(Duration::from_nanos)
}

/// The same with a sign in front, in nanoseconds: an offset of a clock.
pub(super) fn parse_signed(text: &str) -> Result<i64, String> {
    let (negative, length) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanoseconds = i128::from(nanoseconds(length)?);
    i64::try_from(if negative { -nanoseconds } else { nanoseconds }).map_err(|_| format!("{text:?} is too long"))
}

fn nanoseconds(text: &str) -> Result<u64, String> {
    let (digits, suffix) = decimal::split(text);
    let suffix = if suffix.is_empty() { "s" } else { suffix };
    let unknown = || format!("{text:?} is not a duration; give {FORMS}");
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative"));
    }
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == suffix).ok_or_else(unknown)?;
    decimal::times(digits, unit).map_err(|why| match why {
        "is not a number" => unknown(),
        "is too large" => format!("{text:?} is too long"),
        why => format!("{text:?} {why}"),
    })
}

/// A number of seconds as JSON has it, rounded to nanoseconds.
pub(super) fn from_seconds(seconds: f64) -> Result<Duration, String> {
    if seconds < 0.0 {
        return Err(format!("{seconds} is negative"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} is too long"))
}

/// Nanoseconds as text that [`parse_signed`] takes back without loss: with the largest unit that leaves a whole number,
/// which is never above seconds.
pub(super) fn show(nanoseconds: i128) -> String {
    let (name, unit) =
        UNITS[2..].iter().find(|(_, unit)| nanoseconds % i128::from(*unit) == 0).expect("every number is divided by 1");
    format!("{}{name}", nanoseconds / i128::from(*unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("2", 2_000_000_000),
            ("0.5", 500_000_000),
            ("500ms", 500_000_000),
            ("2s", 2_000_000_000),
            ("1m", 60_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("7us", 7_000),
            ("9ns", 9),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1 s", "1d", "1M", "1S", "inf", "nan", "1e3", "0.5ns", "99999999999h", "1m30s"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_signed("-1.5s"), Ok(-1_500_000_000));
        assert!(parse_signed("--1").is_err());
        for seconds in [f64::NAN, f64::INFINITY, -0.5, 1e30] {
            assert!(from_seconds(seconds).is_err(), "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,24}") {
            let _ = (parse(&text), parse_signed(&text));
        }

        #[test]
        fn what_is_shown_is_read_back(nanoseconds in any::<i64>()) {
            prop_assert_eq!(parse_signed(&show(i128::from(nanoseconds))), Ok(nanoseconds));
        }

        #[test]
        fn no_overflow_goes_unseen(n in any::<u64>()) {
            prop_assert_eq!(parse(&format!("{n}s")).ok(), n.checked_mul(1_000_000_000).map(Duration::from_nanos));
        }
    }
}
