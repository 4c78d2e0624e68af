//! When a second attempt is sent while the first is still awaited: after the time that all but a few of the route's
//! requests need, and for no more than a small share of them. (Dean and Barroso, "The Tail at Scale", 2013.)
//!
//! The time is a quantile of what was seen over the last 10 to 20 s, in two halves of cells that are an eighth of a
//! doubling wide; the upper bound of its cell is taken, so that a hedge is rather late than early. Nothing is hedged
//! before enough was seen.
//!
//! The share is exact: each request earns a part of a hedge, nothing is earned in advance, and what is earned is kept
//! only up to [`KEPT_MAX`] hedges. When the app as a whole becomes slow, every request would like a hedge; the share is
//! then what keeps hedging from doubling the load.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    pub after: After,
    /// Hedges per request, 0 to 1.
    pub share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    /// Of the latencies seen, 0 to 1.
    Quantile(f64),
    Fixed(Duration),
}

/// One route's latencies and its share.
#[derive(Debug)]
pub struct Hedge {
    young: Cells,
    old: Cells,
    turned: Instant,
    /// Seen since the delay was last made out.
    news: u32,
    delay: Option<Duration>,
    /// Hedges earned and not sent.
    earned: f64,
}

impl Hedge {
    pub fn new(now: Instant) -> Self {
        let (young, old) = (Cells::default(), Cells::default());
        Hedge { young, old, turned: now, news: 0, delay: None, earned: 0.0 }
    }

    /// Counts a request that may be hedged; after how long, when that is known.
    pub fn request(&mut self, params: &Params, now: Instant) -> Option<Duration> {
        self.turn(now);
        self.earned = (self.earned + params.share.clamp(0.0, 1.0)).min(KEPT_MAX);
        self.delay(params)
    }

    /// After how long a request is hedged.
    pub fn delay(&self, params: &Params) -> Option<Duration> {
        match params.after {
            After::Quantile(_) => self.delay,
            After::Fixed(delay) => Some(delay.max(DELAY_MIN)),
        }
    }

    /// A first byte came after `took`.
    pub fn learn(&mut self, params: &Params, took: Duration, now: Instant) {
        self.turn(now);
        self.young.count(took);
        self.news += 1;
        if let After::Quantile(quantile) = params.after
            && self.news >= NEWS
        {
            self.make_out(quantile);
        }
    }

    /// Whether one more hedge is within the share; it is counted when it is.
    pub fn spend(&mut self) -> bool {
        let granted = self.earned >= 1.0;
        if granted {
            self.earned -= 1.0;
        }
        granted
    }

    /// A hedge that was counted is not sent after all.
    pub fn give_back(&mut self) {
        self.earned = (self.earned + 1.0).min(KEPT_MAX);
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.turned);
        if age < HALF {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age >= 2 * HALF {
            self.old = Cells::default();
            self.delay = None; // what was true then says nothing now
        }
        self.turned = now;
    }

    fn make_out(&mut self, quantile: f64) {
        self.news = 0;
        let total = self.young.total + self.old.total;
        if total < SEEN_MIN {
            return;
        }
        let rank = (quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64;
        let mut below = 0;
        let cells = self.young.counts.iter().zip(&self.old.counts);
        let cell = cells.map(|(young, old)| u64::from(*young) + u64::from(*old)).position(|count| {
            below += count;
            below >= rank
        });
        self.delay = cell.map(|cell| Duration::from_micros(upper_bound(cell)).max(DELAY_MIN));
    }
}

#[derive(Debug)]
struct Cells {
    counts: [u32; CELLS],
    total: u64,
}

impl Default for Cells {
    fn default() -> Self {
        Cells { counts: [0; CELLS], total: 0 }
    }
}

impl Cells {
    fn count(&mut self, took: Duration) {
        // The index is bounded by the cell of the largest time there is.
        let count = &mut self.counts[cell(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))];
        *count = count.saturating_add(1);
        self.total += 1;
    }
}

/// The cell of a time in microseconds: each below 8 has its own, and then each doubling has 8.
fn cell(micros: u64) -> usize {
    let micros = micros.min(MICROS_MAX);
    let shift = u64::BITS - 4 - (micros | 8).leading_zeros();
    (shift as usize) * 8 + (micros >> shift) as usize
}

/// The largest time of a cell.
fn upper_bound(cell: usize) -> u64 {
    if cell < 16 {
        return cell as u64;
    }
    let shift = cell / 8 - 1;
    ((cell as u64 - shift as u64 * 8 + 1) << shift) - 1
}

/// A little over an hour.
const MICROS_MAX: u64 = (1 << 32) - 1;
/// The cell of `MICROS_MAX` is the last.
const CELLS: usize = 240;
const HALF: Duration = Duration::from_secs(10);
/// The delay is made out anew after so many latencies.
const NEWS: u32 = 50;
/// Fewer are no distribution.
const SEEN_MIN: u64 = 100;
/// An app this fast is not worth a second request.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// Hedges that may be kept for later.
const KEPT_MAX: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params = Params { after: After::Quantile(0.95), share: 0.01 };
    const MS: Duration = Duration::from_millis(1);

    fn after(times: impl Iterator<Item = Duration>) -> Option<Duration> {
        let mut hedge = Hedge::new(origin());
        times.for_each(|took| hedge.learn(&PARAMS, took, origin()));
        hedge.request(&PARAMS, origin())
    }

    #[test]
    fn cells_follow_each_other_and_are_an_eighth_wide() {
        for at in 0..CELLS - 1 {
            assert_eq!((cell(upper_bound(at)), cell(upper_bound(at) + 1)), (at, at + 1));
        }
        assert_eq!((cell(0), cell(u64::MAX), upper_bound(CELLS - 1)), (0, CELLS - 1, MICROS_MAX));
        for micros in [8, 100, 12_345, 1 << 30] {
            assert!((micros..=micros + micros / 8).contains(&upper_bound(cell(micros))), "{micros}");
        }
    }

    #[test]
    fn nothing_is_hedged_before_enough_was_seen() {
        assert_eq!(after([10 * MS; 99].into_iter()), None);
        let seen = after([10 * MS; 100].into_iter()).unwrap();
        assert!((10 * MS..=12 * MS).contains(&seen), "{seen:?}");
        assert_eq!(after([Duration::from_micros(20); 100].into_iter()), Some(DELAY_MIN));
        assert!(after([Duration::MAX; 100].into_iter()).unwrap() > Duration::from_secs(3600));
    }

    #[test]
    fn the_quantile_is_that_of_the_last_twenty_seconds() {
        let mixed = |slow: usize| (0..200).map(move |index| if index < slow { 500 * MS } else { 10 * MS });
        assert!(after(mixed(9)).unwrap() < 12 * MS);
        assert!(after(mixed(11)).unwrap() >= 500 * MS);
        let (mut hedge, start) = (Hedge::new(origin()), origin());
        let mut seen = |took: Duration, now: Instant| {
            (0..100).for_each(|_| hedge.learn(&PARAMS, took, now));
            hedge.request(&PARAMS, now).unwrap()
        };
        assert!(seen(500 * MS, start) >= 500 * MS);
        assert!(seen(10 * MS, start + HALF) >= 500 * MS);
        assert!(seen(10 * MS, start + 2 * HALF) < 12 * MS);
        assert_eq!(hedge.request(&PARAMS, start + 4 * HALF), None, "that was long ago");
    }

    #[test]
    fn the_delay_is_made_out_anew_every_fifty_latencies() {
        let (mut hedge, now) = (Hedge::new(origin()), origin());
        (0..100).for_each(|_| hedge.learn(&PARAMS, 10 * MS, now));
        (0..49).for_each(|_| hedge.learn(&PARAMS, 500 * MS, now));
        assert!(hedge.request(&PARAMS, now).unwrap() < 12 * MS);
        hedge.learn(&PARAMS, 500 * MS, now);
        assert!(hedge.request(&PARAMS, now).unwrap() >= 500 * MS);
    }

    #[test]
    fn a_fixed_time_needs_no_latencies() {
        let (mut hedge, now) = (Hedge::new(origin()), origin());
        let fixed = |delay| Params { after: After::Fixed(delay), ..PARAMS };
        assert_eq!(hedge.request(&fixed(30 * MS), now), Some(30 * MS));
        assert_eq!(hedge.request(&fixed(Duration::ZERO), now), Some(DELAY_MIN));
    }

    #[test]
    fn a_share_is_earned_before_it_is_spent_and_little_is_kept() {
        let (mut hedge, now) = (Hedge::new(origin()), origin());
        assert!(!hedge.spend(), "nothing was earned");
        let params = Params { share: 0.5, ..PARAMS };
        hedge.request(&params, now);
        assert!(!hedge.spend());
        hedge.request(&params, now);
        assert!(hedge.spend() && !hedge.spend());
        hedge.give_back();
        assert!(hedge.spend() && !hedge.spend());
        (0..1000).for_each(|_| _ = hedge.request(&params, now));
        assert_eq!((0..1000).filter(|_| hedge.spend()).count(), 10);
    }

    /// Whatever the latencies and the demand, hedges never exceed their share, and when a delay is known at least the
    /// wanted part of what was seen is within it.
    #[test]
    fn simulation_keeps_to_the_share_and_to_the_quantile() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let quantile = random.pick(&[0.5, 0.9, 0.95, 0.99]);
            let params = Params { after: After::Quantile(quantile), share: random.pick(&[0.0, 0.01, 0.1, 1.0]) };
            let (mut hedge, now) = (Hedge::new(origin()), origin());
            let (mut requests, mut hedges, mut seen) = (0.0, 0.0, Vec::new());
            let scale = random.pick(&[10, 1000, 100_000]);
            for _ in 0..random.below(150) + 50 {
                requests += 1.0;
                let delay = hedge.request(&params, now);
                let took = Duration::from_micros(random.below(scale) + 1);
                if delay.is_some_and(|delay| took > delay) || random.once_in(5) {
                    hedges += f64::from(u8::from(hedge.spend()));
                }
                hedge.learn(&params, took, now);
                seen.push(took);
                assert!(hedges <= requests * params.share + 1e-9, "seed {seed}");
                if seen.len() >= 100 && seen.len() % NEWS as usize == 0 {
                    let delay = hedge.request(&params, now).expect("known");
                    requests += 1.0;
                    let within = seen.iter().filter(|took| **took <= delay).count() as f64;
                    assert!(within >= quantile * seen.len() as f64 - 1e-9, "seed {seed}");
                }
            }
        }
    }
}
