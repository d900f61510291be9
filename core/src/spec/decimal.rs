//! Exact decimal numbers with a unit: no floating point, no rounding.

/// `digits[.digits]` times `unit`, when that is a whole number that fits.
///
/// The sentences say what is wrong with the number; the caller knows what it stands for.
pub(super) fn times(digits: &str, unit: u64) -> Result<u64, &'static str> {
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err("has nothing after the point"),
        Some(parts) => parts,
        None => (digits, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err("is not a number");
    }
    let too_large = "is too large";
    let mut total: u128 = 0;
    for digit in whole.bytes() {
        total = total * 10 + u128::from(digit - b'0');
        if total > u128::from(u64::MAX) {
            return Err(too_large);
        }
    }
    total *= u128::from(unit);
    let fraction = fraction.trim_end_matches('0');
    // 10^18 is the largest power whose product with a unit (at most 2^40) fits easily; no unit divides by more digits.
    if fraction.len() > 18 {
        return Err("has more digits than its unit can be divided into");
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let parts = fraction.bytes().fold(0u128, |n, digit| n * 10 + u128::from(digit - b'0')) * u128::from(unit);
    if parts % scale != 0 {
        return Err("is not a whole number of the smallest unit");
    }
    u64::try_from(total + parts / scale).map_err(|_| too_large)
}

/// The number in front and the unit behind it.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact_or_refused() {
        assert_eq!(times("1.5", 1024), Ok(1536));
        assert_eq!(times("0.1", 1024), Err("is not a whole number of the smallest unit"));
        assert_eq!(times("0.1000", 10), Ok(1));
        assert_eq!(times("18446744073709551615", 1), Ok(u64::MAX));
        assert_eq!(times("18446744073709551616", 1), Err("is too large"));
        assert_eq!(times("18446744073709551615", 2), Err("is too large"));
        for text in ["", ".", ".5", "1.", "-1", "+1", "1e3", "0x10", "1_000", " 1", "٣"] {
            assert!(times(text, 1).is_err(), "{text:?}");
        }
    }
}
