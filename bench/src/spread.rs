//! [`Spread`]: what several measurements of one thing have in common.

use std::time::Duration;

/// Measurements of one thing, sorted.
#[derive(Clone, Debug)]
pub struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    /// Takes measurements in any order.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(mut measured: Vec<Duration>) -> Self {
        assert!(!measured.is_empty(), "a spread wants measurements");
        measured.sort_unstable();
        Self { sorted: measured }
    }

    /// The measurement that `percent` of all are not above (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted[rank.min(self.sorted.len()) - 1]
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The median as a multiple of another's.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

/// Milliseconds for people: two digits after the point below ten, one below a thousand.
pub fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1000.0;
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[u64]) -> Spread {
        Spread::new(values.iter().copied().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_measurements_by_nearest_rank() {
        let ten = spread(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(ten.median(), Duration::from_millis(5));
        assert_eq!(ten.percentile(99), Duration::from_millis(10));
        assert_eq!(ten.percentile(0), Duration::from_millis(1));
        assert_eq!(spread(&[4]).median(), Duration::from_millis(4));
    }

    #[test]
    fn a_ratio_compares_medians() {
        assert!((spread(&[10, 20, 900]).ratio_to(&spread(&[5, 10, 11])) - 2.0).abs() < 1e-9);
    }
}
