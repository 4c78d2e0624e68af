//! Outlier ejection: an endpoint whose answers fail while its neighbours' succeed is left out for a time.
//!
//! A breaker looks at an endpoint alone, so it must be slow to judge a rate of failures; beside its neighbours the same
//! rate is evidence. So three things are needed: enough answers, half of them failures, and neighbours that fail at
//! most half as often. When all fail alike nobody is an outlier, and ejecting would only push the load to the others.
//! However bad it looks, at most half of an upstream's endpoints are out, and never the last one: a bad endpoint is
//! better than none. The idea and the cap are Envoy's outlier detection; the comparison replaces its deviation rule,
//! which needs five hosts to say anything.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Over which answers are counted; in fact between one and two of it.
    pub window: Duration,
    /// Fewer answers than this prove nothing.
    pub volume_min: u32,
    /// Failures among an endpoint's answers from which it may be an outlier, 0 to 1.
    pub failing: f64,
    /// The first time out; each further one is longer by the same.
    pub base: Duration,
    pub max: Duration,
    /// Of the upstream's endpoints, 0 to 1.
    pub share_max: f64,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            window: Duration::from_secs(10),
            volume_min: 20,
            failing: 0.5,
            base: Duration::from_secs(10),
            max: Duration::from_secs(300),
            share_max: 0.5,
        }
    }
}

/// Neighbours that fail more often than this part of an endpoint's rate make it one of many.
const NEIGHBOURS_FAIL_MAX: f64 = 0.5;

/// Answers counted, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answers: u32,
    pub failures: u32,
}

impl Tally {
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            answers: self.answers.saturating_add(other.answers),
            failures: self.failures.saturating_add(other.failures),
        }
    }

    /// 0 to 1; 0 without answers.
    pub fn rate(self) -> f64 {
        if self.answers == 0 { 0.0 } else { f64::from(self.failures) / f64::from(self.answers) }
    }
}

/// The answers of one endpoint, in two windows, and how often it was ejected.
#[derive(Clone, Debug, Default)]
pub struct Record {
    current: Tally,
    previous: Tally,
    /// When `current` began.
    since: Option<Instant>,
    times: u32,
    /// When the last ejection ended, or will.
    out_until: Option<Instant>,
}

impl Record {
    pub fn answered(&mut self, failed: bool, params: &Params, now: Instant) {
        self.turn(params, now);
        self.current = self.current.plus(Tally { answers: 1, failures: u32::from(failed) });
    }

    /// What was counted in the last one to two windows.
    pub fn tally(&self, params: &Params, now: Instant) -> Tally {
        match self.since {
            Some(since) if now < since + params.window => self.current.plus(self.previous),
            Some(since) if now < since + params.window * 2 => self.current,
            Some(_) | None => Tally::default(),
        }
    }

    fn turn(&mut self, params: &Params, now: Instant) {
        match self.since {
            Some(since) if now < since + params.window => return,
            Some(since) if now < since + params.window * 2 => self.previous = self.current,
            Some(_) | None => self.previous = Tally::default(),
        }
        self.current = Tally::default();
        self.since = Some(now);
    }

    /// Leaves it out from `now`; for how long. What it did before does not count when it is back.
    pub fn eject(&mut self, params: &Params, now: Instant) -> Duration {
        // As long in as the longest time out: it has started anew.
        if self.out_until.is_some_and(|until| now >= until + params.max) {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        let out = params.base.saturating_mul(self.times).min(params.max);
        *self = Record { times: self.times, out_until: Some(now + out), ..Record::default() };
        out
    }
}

/// Whether `own` stands out against all `others` together.
pub fn is_outlier(own: Tally, others: Tally, params: &Params) -> bool {
    own.answers >= params.volume_min
        && own.rate() >= params.failing
        && others.answers >= params.volume_min
        && others.rate() <= own.rate() * NEIGHBOURS_FAIL_MAX
}

/// Whether one more of `count` endpoints may be out when `out` are. `out` includes those that are out for another
/// reason (an active check): what counts is that somebody is left.
pub fn may_eject(count: usize, out: usize, params: &Params) -> bool {
    let most = ((count as f64 * params.share_max) as usize).max(1);
    out < most && out + 1 < count
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, origin};
    use super::*;

    const PARAMS: Params = Params {
        window: Duration::from_secs(10),
        volume_min: 20,
        failing: 0.5,
        base: Duration::from_secs(10),
        max: Duration::from_secs(300),
        share_max: 0.5,
    };

    fn tally(failures: u32, answers: u32) -> Tally {
        Tally { answers, failures }
    }

    #[test]
    fn an_outlier_needs_volume_failures_and_better_neighbours() {
        let good = tally(0, 100);
        let judged = |own, others| is_outlier(own, others, &PARAMS);
        assert_eq!([judged(tally(10, 19), good), judged(tally(10, 20), good)], [false, true], "volume");
        assert_eq!([judged(tally(49, 100), good), judged(tally(50, 100), good)], [false, true], "failures");
        let bad = tally(100, 100);
        assert_eq!([judged(bad, tally(51, 100)), judged(bad, tally(50, 100))], [false, true], "neighbours");
        assert_eq!([judged(bad, tally(0, 19)), judged(bad, tally(0, 20))], [false, true], "silent neighbours");
    }

    #[test]
    fn never_the_last_and_at_most_half() {
        let may = |count, out| may_eject(count, out, &PARAMS);
        assert_eq!([may(0, 0), may(1, 0), may(2, 0), may(2, 1)], [false, false, true, false]);
        assert_eq!([may(3, 0), may(3, 1), may(4, 1), may(4, 2)], [true, false, true, false]);
        let all = Params { share_max: 1.0, ..PARAMS };
        assert_eq!([may_eject(3, 1, &all), may_eject(3, 2, &all)], [true, false]);
        let none = Params { share_max: 0.0, ..PARAMS };
        assert_eq!([may_eject(9, 0, &none), may_eject(9, 1, &none)], [true, false]);
    }

    #[test]
    fn answers_count_for_one_to_two_windows() {
        let start = origin();
        let at = |millis| start + Duration::from_millis(millis);
        let mut record = Record::default();
        assert_eq!(record.tally(&PARAMS, at(0)), tally(0, 0));
        record.answered(true, &PARAMS, at(0));
        record.answered(false, &PARAMS, at(9_999));
        assert_eq!(record.tally(&PARAMS, at(9_999)), tally(1, 2));
        record.answered(true, &PARAMS, at(10_000));
        assert_eq!(record.tally(&PARAMS, at(19_999)), tally(2, 3));
        assert_eq!(record.tally(&PARAMS, at(20_000)), tally(1, 1));
        assert_eq!(record.tally(&PARAMS, at(29_999)), tally(1, 1));
        assert_eq!(record.tally(&PARAMS, at(30_000)), tally(0, 0));
        record.answered(true, &PARAMS, at(60_000));
        assert_eq!(record.tally(&PARAMS, at(60_000)), tally(1, 1));
        record.answered(false, &PARAMS, at(80_000));
        assert_eq!(record.tally(&PARAMS, at(80_000)), tally(0, 1), "two windows after");
    }

    #[test]
    fn each_ejection_is_longer_until_it_has_been_well_for_long() {
        let start = origin();
        let mut record = Record::default();
        let mut now = start;
        let secs = Duration::from_secs;
        for wanted in [10, 20, 30] {
            record.answered(true, &PARAMS, now);
            assert_eq!(record.eject(&PARAMS, now), secs(wanted));
            assert_eq!(record.tally(&PARAMS, now), tally(0, 0), "what it did before is forgotten");
            now += secs(wanted);
        }
        let almost = now + secs(300) - Duration::from_nanos(1);
        assert_eq!(record.clone().eject(&PARAMS, almost), secs(40));
        assert_eq!(record.clone().eject(&PARAMS, now + secs(300)), secs(10));
        let mut worst = record;
        for _ in 0..100 {
            assert!(worst.eject(&PARAMS, now) <= secs(300));
        }
    }

    /// Goal: whatever the endpoints answer and however ejections and returns interleave, somebody is left, the cap
    /// holds, and an endpoint is only ever ejected on evidence. Method: 10,000 seeds of random fleets.
    #[test]
    fn simulated_fleets_always_keep_somebody() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let count = 1 + random.below(6) as usize;
            let params = Params {
                volume_min: 1 + random.below(10) as u32,
                share_max: random.unit(),
                base: Duration::from_secs(1 + random.below(20)),
                ..PARAMS
            };
            let failing: Vec<u64> = (0..count).map(|_| random.below(101)).collect();
            let mut records = vec![Record::default(); count];
            let mut out_until = vec![None::<Instant>; count];
            let mut now = origin();
            for _ in 0..60 {
                now += Duration::from_millis(random.below(2_000));
                let is_out = |until: &Option<Instant>| until.is_some_and(|until| now < until);
                let own = random.below(count as u64) as usize;
                if is_out(&out_until[own]) {
                    continue;
                }
                let failed = random.below(100) < failing[own];
                records[own].answered(failed, &params, now);
                let tallies: Vec<Tally> = records.iter().map(|record| record.tally(&params, now)).collect();
                let others = (0..count).filter(|index| *index != own).map(|index| tallies[index]);
                let others = others.fold(Tally::default(), Tally::plus);
                let out = out_until.iter().filter(|until| is_out(until)).count();
                if is_outlier(tallies[own], others, &params) && may_eject(count, out, &params) {
                    assert!(tallies[own].failures > 0 && others.rate() < tallies[own].rate(), "seed {seed}");
                    out_until[own] = Some(now + records[own].eject(&params, now));
                }
                let out = out_until.iter().filter(|until| is_out(until)).count();
                assert!(out < count, "seed {seed}: the last endpoint was ejected");
                assert!(out <= ((count as f64 * params.share_max) as usize).max(1), "seed {seed}: more than the cap");
            }
        }
    }
}
