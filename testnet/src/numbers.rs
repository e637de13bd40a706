//! Numbers as people read them.

/// A number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "counts and durations below 2^53")]
pub(crate) const fn float(number: u64) -> f64 {
    number as f64
}

/// One number divided by another; 0 when there is nothing to divide by.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

/// How often a second something happened in some microseconds.
pub(crate) fn per_second(count: u64, micros: u64) -> f64 {
    ratio(count, micros) * 1e6
}

/// A non-negative number rounded for people.
pub(crate) fn rounded(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is right here")]
    grouped(number.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts: Vec<String> = [0, 999, 1_000, 20_000, 1_000_000].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "20,000", "1,000,000"]);
        assert_eq!(rounded(1_234.5), "1,235");
    }

    #[test]
    fn nothing_divided_by_nothing_is_nothing() {
        assert_eq!(ratio(0, 0), 0.0);
        assert_eq!(per_second(10, 2_000_000), 5.0);
    }
}
