//! How much memory the system says is available.

use std::fmt;

/// Bytes that programs can still take without anything being swapped (`MemAvailable`); `None` where the system does not say.
pub fn available_memory() -> Option<usize> {
    of_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemAvailable:   21968000 kB` → bytes.
fn of_meminfo(text: &str) -> Option<usize> {
    let mut words = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.split_whitespace();
    let number: usize = words.next()?.parse().ok()?;
    (words.next() == Some("kB")).then(|| number.saturating_mul(1024))
}

/// A program that takes more memory than is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scarcity {
    /// Bytes of weights that are still to be read.
    pub weights: usize,
    /// Bytes of states: of all slots, with their contexts full.
    pub states: usize,
    /// Bytes that are available.
    pub available: usize,
}

impl Scarcity {
    /// Where weights and states of so many bytes are more than is available.
    pub fn of(weights: usize, states: usize) -> Option<Scarcity> {
        Scarcity::within(weights, states, available_memory()?)
    }

    /// The same where so much is.
    fn within(weights: usize, states: usize, available: usize) -> Option<Scarcity> {
        (weights.saturating_add(states) > available).then_some(Scarcity { weights, states, available })
    }
}

impl fmt::Display for Scarcity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
        let (weights, states) = (mb(self.weights), mb(self.states));
        let all = mb(self.weights.saturating_add(self.states));
        write!(
            f,
            "weights ({weights}) and full states ({states}) take {all} of memory, but the system says that {} are available: a \
             smaller context (-c), fewer sequences or --kv q8_0 take less",
            mb(self.available)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says() {
        let text = "MemTotal:       24689764 kB\nMemFree:        1 kB\nMemAvailable:   21968000 kB\nBuffers: 2 kB\n";
        assert_eq!(of_meminfo(text), Some(21_968_000 * 1024));
        for none in ["", "MemTotal: 1 kB\n", "MemAvailable:\n", "MemAvailable: 5\n", "MemAvailable: x kB\n"] {
            assert_eq!(of_meminfo(none), None, "{none:?}");
        }
        #[cfg(target_os = "linux")]
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn both_figures_are_told() {
        assert_eq!(Scarcity::within(3_000_000, 4_000_000, 7_000_000), None);
        let scarcity = Scarcity::within(3_000_000, 4_000_001, 7_000_000);
        let said = scarcity.map(|s| s.to_string()).unwrap_or_default();
        for needle in ["weights (3.0 MB)", "states (4.0 MB)", "take 7.0 MB", "7.0 MB are available", "-c"] {
            assert!(said.contains(needle), "{needle}: {said}");
        }
        assert!(Scarcity::within(usize::MAX, usize::MAX, usize::MAX - 1).is_some());
    }
}
