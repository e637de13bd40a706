//! Which accounts transfers choose: uniformly, or by Zipf's law, where few are chosen by most.

use fastrand::Rng;

/// A random choice among the numbers below a bound.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Each as often as any other.
    Uniform {
        /// The bound.
        below: usize,
    },
    /// Number `i` with a weight of `1 / (i + 1)^exponent`.
    Zipf {
        /// The weights of all numbers up to each, together.
        cumulative: Vec<f64>,
    },
}

impl Choice {
    /// A uniform choice.
    pub(crate) const fn uniform(below: usize) -> Self {
        Self::Uniform { below }
    }

    /// A choice by Zipf's law.
    pub(crate) fn zipf(below: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (0..below).map(|number| {
            sum += crate::numbers::float(number as u64 + 1).powf(-exponent);
            sum
        });
        Self::Zipf { cumulative: weights.collect() }
    }

    /// Draws a number.
    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        match self {
            Self::Uniform { below } => rng.usize(..*below),
            Self::Zipf { cumulative } => {
                let point = rng.f64() * cumulative.last().copied().unwrap_or(0.0);
                // Rounding may put the point on the very end.
                cumulative.partition_point(|sum| *sum <= point).min(cumulative.len().saturating_sub(1))
            }
        }
    }

    /// Draws pairs of two different numbers.
    pub(crate) fn pairs(&self, count: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let pair = (self.draw(rng), self.draw(rng));
            if pair.0 != pair.1 {
                pairs.push(pair);
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_each_number_as_often_as_its_weight_says() {
        const DRAWS: usize = 200_000;
        let choice = Choice::zipf(1_000, 1.5);
        let mut rng = Rng::with_seed(5);
        let mut counts = vec![0_usize; 1_000];
        for _ in 0..DRAWS {
            counts[choice.draw(&mut rng)] += 1;
        }
        let weight = |number: usize| (number as f64 + 1.0).powf(-1.5);
        let all: f64 = (0..1_000).map(weight).sum();
        for number in [0, 1, 2, 9] {
            let expected = DRAWS as f64 * weight(number) / all;
            let found = counts[number] as f64;
            // Five standard deviations.
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{number}: {found} of {expected}");
        }
    }

    #[test]
    fn a_uniform_choice_reaches_everything_and_pairs_differ() {
        let mut rng = Rng::with_seed(1);
        let pairs = Choice::uniform(4).pairs(1_000, &mut rng);
        assert!(pairs.iter().all(|(from, to)| from != to));
        let seen: std::collections::BTreeSet<usize> = pairs.iter().map(|pair| pair.0).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
