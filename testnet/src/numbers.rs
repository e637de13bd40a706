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

/// A figure with one digit after the point.
pub(crate) fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A figure with three digits after the point.
pub(crate) fn thousandths(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// The figure in the middle, or between the two that are; 0 when there are none.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let (low, high) = (figures.get(figures.len().saturating_sub(1) / 2), figures.get(figures.len() / 2));
    f64::midpoint(low.copied().unwrap_or(0.0), high.copied().unwrap_or(0.0))
}

/// A quantile of samples that are all at hand; 0 when there are none. Of very many, [`crate::latency`] tells it.
pub(crate) fn at_quantile(samples: &[u32], quantile: f64) -> u32 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list that is in memory")]
    let place = (float(sorted.len() as u64) * quantile) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
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
    fn medians_are_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn quantiles_are_of_all_samples() {
        let samples: Vec<u32> = (0..1_000).rev().collect();
        assert_eq!((at_quantile(&samples, 0.5), at_quantile(&samples, 0.99), at_quantile(&[], 0.5)), (500, 990, 0));
    }

    #[test]
    fn nothing_divided_by_nothing_is_nothing() {
        assert_eq!(ratio(0, 0), 0.0);
        assert_eq!(per_second(10, 2_000_000), 5.0);
    }
}
