//! Figures over many values.

/// Values in order, to ask for percentiles.
pub(super) struct Distribution(Vec<u64>);

impl FromIterator<u64> for Distribution {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }
}

impl Distribution {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least this many per cent of the values do not exceed (the nearest rank); 0 if there
    /// are no values.
    pub(super) fn percentile(&self, per_cent: usize) -> u64 {
        let rank = (self.0.len() * per_cent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// How many values are greater.
    pub(super) fn over(&self, limit: u64) -> usize {
        self.0.len() - self.0.partition_point(|value| *value <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let values: Distribution = (1..=10).rev().collect();
        assert_eq!([0, 1, 50, 90, 99, 100].map(|p| values.percentile(p)), [1, 1, 5, 9, 10, 10]);
        assert_eq!(Distribution::from_iter([]).percentile(50), 0);
        assert_eq!((values.over(0), values.over(7), values.over(10)), (10, 3, 0));
    }
}
