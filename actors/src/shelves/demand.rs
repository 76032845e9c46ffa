//! How many sandboxes should stand by, from how often they were claimed of late and how long one takes to come up.
//!
//! Claims come by chance, at some rate `l` a second (a Poisson process). A sandbox that is claimed is ordered anew and
//! is there after a refill time `T`; so many are under way at any moment as were claimed in the last `T`, which is a
//! Poisson number with mean `l * T` (Palm, 1938: whatever the distribution of the refill time). A claim finds a sandbox
//! unless all of `S` are under way, so the target is the least `S` with `P(X < S) >= coverage`, the quantile of that
//! number and one more.
//!
//! Only `k` are made at once, so the refill time is more than the time `c` that one takes to come up: at utilisation
//! `u = l * c / k` it is taken as `c / (1 - u)`, as in a queue of one server that is `k` times as fast. From `u = 1` on
//! no number is enough, and the target is the greatest that is allowed.

use manifest::Refill;

/// How long the fast memory of claims lasts, in milliseconds: a burst is seen within a second or two.
const FAST_MS: f64 = 2_000.0;
/// The slow memory has faded to `exp(-5)`, less than a hundredth, when the pool's `idle` is over.
const FADES: f64 = 5.0;
/// The weight of the newest time to come up.
const NEWEST: f64 = 0.3;
/// How long a sandbox is thought to take until one has come up, in milliseconds.
const COLD_MS: f64 = 200.0;

/// A rate that fades: each occurrence counts less the longer ago it was.
#[derive(Clone, Copy, Debug)]
struct Fading {
    memory_ms: f64,
    weight: f64,
    at_ms: i64,
}

impl Fading {
    fn new(memory_ms: f64) -> Self {
        Self { memory_ms, weight: 0.0, at_ms: 0 }
    }

    fn weight(&self, now_ms: i64) -> f64 {
        let since = now_ms.saturating_sub(self.at_ms).max(0) as f64;
        self.weight * (-since / self.memory_ms).exp()
    }

    fn count(&mut self, now_ms: i64) {
        *self = Self { weight: self.weight(now_ms) + 1.0, at_ms: now_ms, ..*self };
    }

    fn per_second(&self, now_ms: i64) -> f64 {
        self.weight(now_ms) * 1_000.0 / self.memory_ms
    }
}

/// What was asked of a pool of late. Quick to grow, slow to fade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    fast: Fading,
    slow: Fading,
    cold_ms: Option<f64>,
}

impl Demand {
    pub(crate) fn new(refill: &Refill) -> Self {
        let slow = Fading::new((refill.idle.as_millis() as f64 / FADES).max(1.0));
        Self { fast: Fading::new(FAST_MS.min(slow.memory_ms)), slow, cold_ms: None }
    }

    /// A sandbox was asked for.
    pub(crate) fn claim(&mut self, now_ms: i64) {
        self.fast.count(now_ms);
        self.slow.count(now_ms);
    }

    /// A sandbox came up.
    pub(crate) fn came_up(&mut self, took_ms: u64) {
        let took = took_ms as f64;
        self.cold_ms = Some(self.cold_ms.map_or(took, |before| before + NEWEST * (took - before)));
    }

    /// Claims a second; none once the last of them has faded.
    pub(crate) fn per_second(&self, now_ms: i64) -> f64 {
        if self.slow.weight(now_ms) < (-FADES).exp() {
            return 0.0;
        }
        self.fast.per_second(now_ms).max(self.slow.per_second(now_ms))
    }

    /// How long a sandbox takes to come up, in milliseconds.
    pub(crate) fn cold_ms(&self) -> f64 {
        self.cold_ms.unwrap_or(COLD_MS)
    }
}

/// How many should stand by, between `min` and `max`.
pub(crate) fn target(per_second: f64, cold_ms: f64, refill: &Refill, min: u32, max: u32) -> u32 {
    if per_second <= 0.0 {
        return min;
    }
    let busy = per_second * cold_ms / 1_000.0;
    let used = busy / f64::from(refill.concurrency.max(1));
    if used >= 1.0 {
        return max;
    }
    quantile(busy / (1.0 - used), refill.coverage, max).saturating_add(1).clamp(min, max)
}

/// The least `n` with `P(X <= n) >= coverage` for a Poisson number `X` with this mean; `most` where it is beyond.
fn quantile(mean: f64, coverage: f64, most: u32) -> u32 {
    // The first probability is e^-mean, which is 0 in floating point for means beyond 745; logarithms go further.
    let mut log = -mean;
    let mut sum = log.exp();
    for n in 0..most {
        if sum >= coverage {
            return n;
        }
        log += mean.ln() - f64::from(n + 1).ln();
        sum += log.exp();
    }
    most
}

#[cfg(test)]
mod tests {
    use manifest::Millis;
    use proptest::prelude::*;

    use super::*;

    fn refill(concurrency: u32, coverage: f64) -> Refill {
        Refill { concurrency, coverage, idle: Millis::from_secs(300) }
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // Cumulative Poisson probabilities as in any statistical table.
        for (mean, coverage, n) in
            [(0.1, 0.9, 0), (1.0, 0.9, 2), (1.0, 0.99, 4), (5.0, 0.95, 9), (10.0, 0.99, 18)]
        {
            assert_eq!(quantile(mean, coverage, 1_000), n, "mean {mean}, coverage {coverage}");
        }
        assert_eq!(quantile(2_000.0, 0.5, 1_000), 1_000);
        assert!((880..=920).contains(&quantile(900.0, 0.5, 1_000)));
    }

    #[test]
    fn a_quiet_pool_has_its_fewest_and_one_that_cannot_keep_up_its_most() {
        assert_eq!(target(0.0, 200.0, &refill(2, 0.99), 1, 10), 1);
        assert_eq!(target(10.0, 200.0, &refill(2, 0.99), 1, 50), 50);
        // 2 a second at 200 ms: 0.4 are under way, at utilisation 0.2, so 0.5; P(X <= 3) > 0.99 > P(X <= 2).
        assert_eq!(target(2.0, 200.0, &refill(2, 0.99), 1, 50), 4);
    }

    #[test]
    fn a_burst_is_seen_at_once_and_forgotten_when_idle_is_over() {
        let mut demand = Demand::new(&refill(2, 0.99));
        assert!(demand.per_second(0) <= 0.0);
        for n in 0..45 {
            demand.claim(n * 1_000 / 45);
        }
        assert!(demand.per_second(1_000) > 15.0, "{}", demand.per_second(1_000));
        assert!(demand.per_second(60_000) > 0.0);
        assert!(demand.per_second(900_000) <= 0.0);
        demand.came_up(100);
        demand.came_up(200);
        assert!((demand.cold_ms() - 130.0).abs() < 1e-9);
    }

    proptest! {
        /// More claims, slower starts and more coverage never call for fewer; the bounds always hold.
        #[test]
        fn the_target_grows_with_all_that_calls_for_more(
            rate in 0.0..200.0f64, more in 0.0..50.0f64, cold in 1.0..5_000.0f64, slower in 0.0..1_000.0f64,
            concurrency in 1..64u32, coverage in 0.5..0.99f64, min in 0..20u32, room in 1..500u32,
        ) {
            let max = min + room;
            let refill = refill(concurrency, coverage);
            let base = target(rate, cold, &refill, min, max);
            prop_assert!((min..=max).contains(&base));
            prop_assert!(target(rate + more, cold, &refill, min, max) >= base);
            prop_assert!(target(rate, cold + slower, &refill, min, max) >= base);
            let surer = Refill { coverage: 0.9999, ..refill };
            prop_assert!(target(rate, cold, &surer, min, max) >= base);
            let faster = Refill { concurrency: concurrency + 1, ..refill };
            prop_assert!(target(rate, cold, &faster, min, max) <= base);
        }

        /// What stands by covers what it is to cover, by the distribution itself.
        #[test]
        fn the_quantile_covers(mean in 0.01..300.0f64, coverage in 0.5..0.9999f64) {
            let n = quantile(mean, coverage, 10_000);
            let below = |n: u32| {
                let mut term = (-mean).exp();
                let mut sum = term;
                for k in 1..=n { term *= mean / f64::from(k); sum += term; }
                sum
            };
            prop_assert!(below(n) >= coverage - 1e-9);
            prop_assert!(n == 0 || below(n - 1) < coverage + 1e-9);
        }
    }
}
