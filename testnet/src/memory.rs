//! Memory of processes: what one takes, and how much more it takes in the end.
//!
//! It refuses to tell anything of a short run: what a process takes at its start is no growth.

/// With fewer samples memory is not judged: what a peer takes at its start is not what is done to it.
const SAMPLES_MIN: usize = 30;

/// The memory of this process, KiB, where the system says; else 0.
pub(crate) fn of_process_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// For people.
#[expect(clippy::cast_precision_loss, reason = "figures for people, below 2^53")]
pub(crate) fn mib(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

/// How much more memory a peer takes at the end than before a third of the run was over, at most: the medians of five
/// samples. In a short run there is no telling, and it is 0.
pub(crate) fn growth_mib(samples: &[Vec<u64>]) -> f64 {
    const WINDOW: usize = 5;
    if samples.len() < SAMPLES_MIN {
        return 0.0;
    }
    let peers = samples.iter().map(Vec::len).min().unwrap_or(0);
    let median = |from: usize, peer: usize| {
        let mut window: Vec<u64> = samples[from..from + WINDOW].iter().map(|sample| sample[peer]).collect();
        window.sort_unstable();
        window[WINDOW / 2]
    };
    let (early, late) = (samples.len() / 3, samples.len() - WINDOW);
    let growths = (0..peers).map(|peer| median(late, peer).saturating_sub(median(early, peer)));
    mib(growths.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_seen_and_one_sample_is_not() {
        let mut flat: Vec<Vec<u64>> = (0..60).map(|_| vec![100 << 10, 200 << 10]).collect();
        flat[59][0] = 900 << 10;
        assert_eq!(growth_mib(&flat), 0.0);
        let growing: Vec<Vec<u64>> = (0..60).map(|second| vec![(100 + second) << 10, 200 << 10]).collect();
        assert_eq!(growth_mib(&growing), 35.0);
        assert_eq!(growth_mib(&growing[..20]), 0.0, "too short to tell");
    }
}
