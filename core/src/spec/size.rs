//! Sizes: bytes, or text with K, M, G, T.

use super::decimal;

/// What a size may look like, for messages.
pub(super) const FORMS: &str = "bytes, or text with K, M, G or T (powers of 1024), like \"256M\"";

/// `256M`, `1.5G`, `64KiB`, `4096`, `4096B`: powers of 1024, either case.
///
/// # Errors
/// A sentence, when it is none of these, no whole number of bytes, or 2^64 and more. `KB`, `MB`, ... are refused: they mean
/// powers of 1000 to some programs and of 1024 to others.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, suffix) = decimal::split(text);
    let lower = suffix.to_ascii_lowercase();
    let unit = match lower.as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" | "mb" | "gb" | "tb" => {
            let letter = &suffix[..1];
            return Err(format!("{text:?} is ambiguous: {suffix} can be a power of 1000 or of 1024; write {letter}iB"));
        }
        _ if text.starts_with('-') => return Err(format!("{text:?} is negative")),
        _ => return Err(format!("{text:?} is not a size; give {FORMS}")),
    };
    decimal::times(digits, unit).map_err(|why| match why {
        "is not a number" => format!("{text:?} is not a size; give {FORMS}"),
        why => format!("{text:?} {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("1k", 1024),
            ("64KiB", 65536),
            ("256M", 256 << 20),
            ("256mi", 256 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_wrong_is_refused() {
        for text in ["", "M", "-1", "+1", "1MB", "1kb", "1 M", "1MM", "1P", "0x10", "1e3", "0.3K", "16777216T", "١"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("-1").unwrap_err(), "\"-1\" is negative");
        assert!(parse("1MB").unwrap_err().contains("write MiB"));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_overflow_goes_unseen(n in any::<u64>(), shift in 0usize..5) {
            let text = format!("{n}{}", ["", "K", "M", "G", "T"][shift]);
            prop_assert_eq!(parse(&text).ok(), n.checked_mul(1 << (10 * shift)));
        }
    }
}
