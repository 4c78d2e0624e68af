//! How many requests an app may work on at once, learned from its latency. Nobody has to know its capacity.
//!
//! The algorithm is Gradient2 of Netflix's concurrency-limits: the latency of the last moment against a long-term
//! average of it. Against an average, not a minimum: a minimum squeezes an app to the speed of its luckiest request.
//! A limit in use grows by its square root as long as latency stays within the tolerance, and shrinks with the
//! gradient when it does not. Ten things are different, each because a simulation failed without it:
//! - It shrinks from what is in flight, not from a limit that nobody reached: an app that becomes ten times slower is
//!   relieved within a window or two.
//! - Where high latency leaves it, it gets smaller for a while, to look: a queue is shorter then (Little's law), and work
//!   that is slow by itself takes as long as before. That is learned as the new normal, so that a change of the mix of
//!   requests does not starve an app; a queue never is, so that a lasting overload does not become normal.
//! - Twenty milliseconds more are tolerated whatever the average is: for an app that answers in one, half a millisecond
//!   is no queue.
//! - It is kept near what is used: a limit far above it would let a queue grow in the app before the first slow answer.
//! - A window must be slower than chance explains, by the variance of single answers: where some requests are slow by
//!   themselves, the average of ten of them says little.
//! - It is not judged before slow answers had the time to come, and there is no limit until then: as long as more are in
//!   flight than the answers explain (Little's law), slow ones are still to come.
//! - It does not shrink where no more than the minimum is in flight: a slow answer to a lone request is no queue.
//! - It does not shrink below what was in flight at normal latency: a machine that is slow for a moment, with no more
//!   to do than usual, is not overloaded by requests. Only a look goes below it, by a fifth.
//! - While latency is high the long-term average learns slowly, or a long overload would become normal.
//!
//! Waiting is not done here, and neither is counting: the caller says how many are in flight.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    pub min: usize,
    pub max: usize,
}

/// Latency up to this many times the average is no reason to shrink.
const TOLERANCE: f64 = 1.5;
/// … and neither is latency that is longer by so much: nobody is harmed by a queue this short, and an app that answers
/// in a millisecond takes several times as long whenever a few more come at once (DAGOR, Zhou et al. 2018, takes the same
/// time in a queue for the mark of an overload).
const QUEUEING: f64 = 0.020;
/// A window ends after this long, when it has enough samples …
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_SAMPLES: u32 = 10;
/// … or after this long with any.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// The smallest factor of one shrink.
const SHRINK_MIN: f64 = 0.5;
/// … and the largest: what would be less of a change is none.
const SHRINK_MAX: f64 = 0.9;
/// Windows that the long-term average spans.
const LONG_WINDOWS: f64 = 600.0;
/// How many begin it, for at least how long, and for how many times the longest latency so far: what is slow by itself
/// must have been seen before the first judgement …
const WARM_UP: u32 = 10;
const WARM_UP_MIN: f64 = 1.0;
const WARM_UP_LATENCIES: f64 = 3.0;
/// … which comes after this long at the latest.
const WARM_UP_MAX: f64 = 60.0;
/// How many standard errors a window's average must be above what is tolerated: ten requests of which three are slow by
/// themselves are chance.
const CHANCE: f64 = 4.0;
/// How much a window with high latency teaches the average: next to nothing, until the limit is at its minimum. What
/// is slow there is slow by itself.
const CONGESTED_WEIGHT: f64 = 0.02 / LONG_WINDOWS;
const LOWEST_WEIGHT: f64 = 0.1;
/// Room above the gradient, in requests: Gradient2's queue size.
const QUEUE: f64 = 4.0;
/// A limit in use that high latency leaves where it is gets so much smaller for a while, to see what comes of it: …
const LOOK: f64 = 0.8;
/// … when latency stays above this share of what it was, it is no queue's.
const SAME_LATENCY: f64 = 0.9;
/// … It is looked at until chance moves the comparison by no more than this, one standard error, and at so many answers
/// at least.
const LOOK_ERROR: f64 = 0.033;
const LOOK_SAMPLES: f64 = 20.0;
/// How many times what an answer takes it is until a change of the room has had its effect.
const SETTLING: f64 = 2.0;
/// Seconds of high latency until the next look at what was found to be a queue: twice as long each time.
const PAUSE_MIN: f64 = 2.0;
const PAUSE_MAX: f64 = 60.0;
/// How the pause fades with each window of normal latency.
const PAUSE_FADES: f64 = 0.97;
/// The limit is at most this many times what was lately in flight, so that a sudden overload meets a limit that means
/// something; but never less than this for that reason.
const HEADROOM: f64 = 3.0;
const HEADROOM_MIN: f64 = 32.0;
/// How that "lately" fades with each window.
const PEAK_FADES: f64 = 0.99;
/// Windows of normal latency that say what is usually in flight, and how that fades while latency is high. Not a peak:
/// the windows in which an overload begins are of normal latency still.
const USUAL_WINDOWS: f64 = 30.0;
const USUAL_FADES: f64 = 0.998;
/// Latency up to this many times the average, or half of [`QUEUEING`] above it, lets a limit in use grow by half of itself
/// at a time.
const CALM: f64 = 1.2;

/// The limit of one upstream, and what it was learned from.
#[derive(Clone, Debug)]
pub struct Limit {
    limit: f64,
    /// The long-term average in seconds; 0 while nothing is known.
    long: f64,
    /// The long-term average of the squared differences from it.
    variance: f64,
    windows: u32,
    /// Seconds of all windows, and the longest latency in them while the average was begun.
    seconds: f64,
    longest: f64,
    /// The average has seen enough for a first judgement.
    begun: bool,
    /// No latency was ever high: the limit doubles instead of growing by its root.
    starting: bool,
    window: Window,
    look: Option<Look>,
    /// Seconds of high latency until the next look.
    look_in: f64,
    /// How many they were when it was ordered: the next order doubles them.
    pause: f64,
    /// The most in flight in the last windows of normal latency.
    peak: f64,
    /// What is usually in flight at normal latency, at most in each window.
    usual: f64,
    /// The last window's average in seconds.
    short: f64,
}

/// Whether less room makes high latency lower. A queue gets shorter with those who may stand in it (Little's law); work
/// that is slow by itself takes as long as before.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    from: f64,
    before: Evidence,
    /// With less room.
    after: Option<Evidence>,
    /// Seconds until the answers are of requests that came when there was as much room as now.
    settling: f64,
}

impl Look {
    fn is_settled(&mut self, seconds: f64) -> bool {
        self.settling -= seconds;
        self.settling < 0.0
    }
}

/// Answers of some windows: how many, and the sums of their seconds and of the squares of these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Evidence {
    samples: f64,
    sum: f64,
    squares: f64,
}

impl Evidence {
    fn add(&mut self, window: &Evidence) {
        self.samples += window.samples;
        self.sum += window.sum;
        self.squares += window.squares;
    }

    fn mean(&self) -> f64 {
        self.sum / self.samples.max(1.0)
    }

    /// Whether a comparison of this with as much again is more than chance.
    fn is_enough(&self) -> bool {
        let mean = self.mean();
        let variance = (self.squares / self.samples.max(1.0) - mean * mean).max(0.0);
        self.samples >= LOOK_SAMPLES && 2.0 * variance <= self.samples * (LOOK_ERROR * mean).powi(2)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: Option<Instant>,
    samples: u32,
    sum: f64,
    squares: f64,
    longest: f64,
    in_flight_max: usize,
    in_flight_last: usize,
    /// Of the last, those that will not be sampled.
    silent_last: usize,
}

impl Limit {
    pub fn new(params: &Params) -> Limit {
        Limit {
            // Nothing is known: an app may well answer many at once, and slowly.
            limit: params.max.max(params.min) as f64,
            long: 0.0,
            variance: 0.0,
            windows: 0,
            seconds: 0.0,
            longest: 0.0,
            begun: false,
            starting: true,
            window: Window::default(),
            look: None,
            look_in: 0.0,
            pause: 0.0,
            peak: 0.0,
            usual: 0.0,
            short: 0.0,
        }
    }

    /// Requests that may be in flight; at least 1.
    pub fn max(&self, params: &Params) -> usize {
        (self.limit as usize).clamp(params.min.max(1), params.max.max(params.min).max(1))
    }

    /// What an answer takes at present; zero while nothing is known.
    pub fn latency(&self) -> Duration {
        Duration::from_secs_f64(self.short)
    }

    /// The long-term average latency.
    pub fn latency_long(&self) -> Duration {
        Duration::from_secs_f64(self.long)
    }

    /// One answer's time to its first byte; `in_flight` is how many there were with it, and `silent` how many of these
    /// will never be sampled. A request that was given up counts with the time it had waited: it would have taken longer
    /// still.
    pub fn sample(&mut self, latency: Duration, in_flight: usize, silent: usize, params: &Params, now: Instant) {
        let window = &mut self.window;
        let began = *window.began.get_or_insert(now);
        window.samples += 1;
        let seconds = latency.as_secs_f64().max(1e-6);
        window.sum += seconds;
        window.squares += (seconds - self.long).powi(2);
        window.longest = window.longest.max(seconds);
        (window.in_flight_last, window.silent_last) = (in_flight, silent);
        window.in_flight_max = window.in_flight_max.max(in_flight);
        let elapsed = now.saturating_duration_since(began);
        if (elapsed >= WINDOW && window.samples >= WINDOW_SAMPLES) || elapsed >= WINDOW_MAX {
            let window = std::mem::take(window);
            self.window.began = Some(now);
            self.close(&window, elapsed.as_secs_f64(), params);
        }
    }

    fn close(&mut self, window: &Window, seconds: f64, params: &Params) {
        let short = window.sum / f64::from(window.samples);
        let answers = Evidence {
            samples: f64::from(window.samples),
            sum: window.sum,
            squares: window.squares + self.long * (2.0 * window.sum - f64::from(window.samples) * self.long),
        };
        self.short = short;
        // Little's law: answers a second times what they take is how many were in flight for them. When many more are
        // in flight that will be sampled, slow answers are still to come.
        let explained = window.sum / seconds.max(1e-6);
        let sampled = window.in_flight_last.saturating_sub(window.silent_last);
        let more_to_come = sampled as f64 > TOLERANCE * explained + QUEUE;
        let warm_up = self.warm_up(window, seconds, more_to_come);
        let chance = CHANCE * (self.variance / f64::from(window.samples)).sqrt();
        let tolerated = (TOLERANCE * self.long + chance).max(self.long + QUEUEING);
        let gradient = if self.long > 0.0 { (tolerated / short).min(1.0) } else { 1.0 };
        let congested = gradient < 1.0 && !warm_up;
        // Too short a queue to be answered, and still no latency to get used to: a lasting overload would become normal.
        let queueing = self.long > 0.0 && short > CALM * self.long + chance && !warm_up;
        let used = window.in_flight_max as f64;
        let lowest = self.limit < params.min.max(1) as f64 + 1.0 && used <= self.limit && self.look.is_none();
        let weight = match (warm_up, queueing, lowest && congested) {
            (true, ..) => 1.0 / f64::from(self.windows),
            (false, false, _) => 1.0 / LONG_WINDOWS,
            (false, true, true) => LOWEST_WEIGHT,
            (false, true, false) => CONGESTED_WEIGHT,
        };
        self.learn(short, window.squares / f64::from(window.samples), weight, chance);
        if !congested {
            self.calm_down(short);
            self.grow(used, short, warm_up || !more_to_come);
        } else if window.in_flight_last as f64 > self.limit {
            // The last shrink has not taken effect yet: a second one would answer the same queue twice.
        } else if self.look.is_some_and(|look| look.after.is_some()) {
            self.look_after(&answers, seconds);
        } else {
            self.shrink(used, gradient, &answers, seconds, params);
        }
        if queueing {
            self.usual *= if self.look.is_none() { USUAL_FADES } else { 1.0 };
        } else {
            self.usual += (used - self.usual) / USUAL_WINDOWS.min(f64::from(self.windows));
        }
        self.limit = self.limit.clamp(params.min.max(1) as f64, params.max.max(params.min).max(1) as f64);
    }

    /// After a window of high latency.
    fn shrink(&mut self, used: f64, gradient: f64, answers: &Evidence, seconds: f64, params: &Params) {
        self.starting = false;
        self.look_in -= seconds;
        let from = self.limit.min(used);
        // What it took at normal latency is no queue now: all that is slow may be this machine.
        let to = (from * gradient.max(SHRINK_MIN) + QUEUE).max(self.usual);
        // Where no more than the minimum was in flight, there is no queue that a limit could make shorter.
        let min = params.min.max(1) as f64;
        if used <= min {
            self.look = None;
            return;
        }
        if to <= (SHRINK_MAX * self.limit).min(self.limit - 1.0) {
            self.limit = to;
            self.look = None;
        } else if used >= self.limit.floor() && self.look_in <= 0.0 {
            // All that is used is room for a queue, or the work is slow by itself: less room tells.
            let settling = SETTLING * answers.mean();
            let look = self.look.get_or_insert(Look { from: self.limit, settling, ..Look::default() });
            if look.is_settled(seconds) {
                look.before.add(answers);
            }
            if look.before.is_enough() {
                (look.after, look.settling) = (Some(Evidence::default()), SETTLING * look.before.mean());
                self.limit = (self.limit * LOOK).max(min);
            }
        }
    }

    /// A window with less room.
    fn look_after(&mut self, answers: &Evidence, seconds: f64) {
        let Some(look) = &mut self.look else { return };
        let settled = look.is_settled(seconds);
        let Some(after) = look.after.as_mut().filter(|_| settled) else { return };
        after.add(answers);
        if after.is_enough() {
            self.limit = look.from;
            if after.mean() > SAME_LATENCY * look.before.mean() {
                self.long = after.mean().min(look.before.mean());
                self.pause = 0.0;
            } else {
                self.pause = (2.0 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
            }
            self.look_in = self.pause;
            self.look = None;
        }
    }

    /// Latency is normal, and there is nothing to look at; when it became so with less room, it was a queue's.
    fn calm_down(&mut self, short: f64) {
        self.pause *= PAUSE_FADES;
        let Some(look) = self.look.take().filter(|look| look.after.is_some()) else { return };
        if short <= SAME_LATENCY * look.before.mean() {
            self.pause = (2.0 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
            self.look_in = self.pause;
        } else {
            self.limit = look.from;
        }
    }

    /// After a window of normal latency; `explained` when its answers explain what is in flight.
    fn grow(&mut self, used: f64, short: f64, explained: bool) {
        if used >= self.limit / 2.0 {
            let calm = short <= (CALM * self.long).max(self.long + QUEUEING / 2.0) && explained;
            let step = if self.starting && explained { self.limit } else { self.limit.sqrt().max(QUEUE) };
            self.limit += if calm { step.max(self.limit / 2.0) } else { step };
        }
        self.peak = used.max(self.peak * PEAK_FADES);
        self.limit = self.limit.min((HEADROOM * self.peak).max(HEADROOM_MIN));
    }

    /// Whether it is too early to judge: the average is only begun, or an answer took so much of the time since then
    /// that others like it must still be missing. What comes after the first high latency is no beginning.
    fn warm_up(&mut self, window: &Window, seconds: f64, more_to_come: bool) -> bool {
        self.windows = self.windows.saturating_add(1);
        self.seconds += seconds;
        if !self.begun {
            let seen = self.seconds >= WARM_UP_MIN && !more_to_come;
            self.begun = self.windows > WARM_UP && (seen || self.seconds >= WARM_UP_MAX);
        }
        if self.starting {
            self.longest = self.longest.max(window.longest);
        }
        !self.begun || (self.starting && self.seconds < (WARM_UP_LATENCIES * self.longest).min(WARM_UP_MAX))
    }

    fn learn(&mut self, short: f64, squares: f64, weight: f64, chance: f64) {
        self.long += (short - self.long) * weight;
        self.variance += (squares - self.variance) * weight;
        // An average left far above what is usual now would hide the next overload (as Gradient2 does).
        if self.long > 2.0 * short + chance {
            self.long *= 0.95;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::core::testing::{Random, origin};

    const ROOM: usize = 256;
    const WAIT: f64 = 0.5;
    const PARAMS: Params = Params { min: 10, max: 1000 };

    #[test]
    fn a_slow_answer_in_quiet_times_takes_nothing_from_the_limit() {
        // Goal: where requests come one by one, a burst after a slow one finds room. Method: a second of quick answers,
        // then slow ones alone, for longer than any window.
        let (mut limit, mut now) = (Limit::new(&PARAMS), origin());
        for _ in 0..1_000 {
            now += Duration::from_millis(5);
            limit.sample(Duration::from_millis(1), 1, 0, &PARAMS, now);
        }
        let quiet = limit.max(&PARAMS);
        for _ in 0..10 {
            now += Duration::from_secs(2);
            limit.sample(Duration::from_secs(2), PARAMS.min, 0, &PARAMS, now);
        }
        assert_eq!((quiet, limit.max(&PARAMS)), (HEADROOM_MIN as usize, HEADROOM_MIN as usize));
    }

    #[test]
    fn many_more_clients_of_a_quick_app_find_room() {
        // Goal: eight times as many clients of an app that does 10,000 requests a second, who each ask again at once, are
        // no overload as long as nobody waits for longer than some milliseconds. Method: as many answers as the app can
        // do, each after the time that those before it take; what has no place may wait.
        let (mut limit, mut now) = (Limit::new(&PARAMS), origin());
        let mut serve = |clients: usize, seconds: f64| {
            for _ in 0..(seconds * 10_000.0) as u32 {
                now += Duration::from_micros(100);
                let in_flight = clients.min(limit.max(&PARAMS));
                limit.sample(Duration::from_micros(100) * in_flight as u32, in_flight, 0, &PARAMS, now);
            }
            limit.max(&PARAMS)
        };
        let (few, soon, later) = (serve(64, 5.0), serve(512, 0.5), serve(512, 60.0));
        assert!(few < 200, "{few}");
        assert!(soon + ROOM >= 460, "{soon}");
        // The app is still kept from a queue of its own: at most the tolerated milliseconds above what is usual, and less
        // for a moment now and then, to see whether it is a queue.
        assert!((180..=280).contains(&later), "{later}");
        assert!(limit.latency_long() < Duration::from_millis(8), "{:?}", limit.latency_long());
    }

    /// An app with `workers` and a FIFO queue; before it a gate that lets `Limit::max` through, makes [`ROOM`] wait for
    /// at most [`WAIT`] seconds, and refuses the rest.
    struct App {
        /// When each worker is free, the first one first.
        free: VecDeque<f64>,
        /// When each request ends, when it was let through, and when it came.
        in_flight: VecDeque<(f64, f64, f64)>,
        waiting: VecDeque<f64>,
        refused: u32,
        well: u32,
        service: f64,
        /// Of requests that are slow by themselves: how many, and how many times slower.
        slow: (f64, f64),
        /// Single requests vary as exponentially as arrivals do.
        varies: bool,
        params: Params,
        limit: Limit,
        start: Instant,
        random: Random,
    }

    impl App {
        fn new(seed: u64, workers: usize) -> App {
            App {
                free: vec![0.0; workers].into(),
                in_flight: VecDeque::new(),
                waiting: VecDeque::new(),
                refused: 0,
                well: 0,
                service: 0.0,
                slow: (0.0, 1.0),
                varies: false,
                params: PARAMS,
                limit: Limit::new(&PARAMS),
                start: origin(),
                random: Random::new(seed),
            }
        }

        /// From `from` to `to` seconds, `rate` arrivals a second that each cost `service` seconds of a worker.
        /// Returns how many were refused, served within a second, and arrived.
        fn run(&mut self, from: f64, to: f64, rate: f64, service: f64) -> (u32, u32, u32) {
            (self.refused, self.well, self.service) = (0, 0, service);
            let (mut arrived, mut now) = (0, from);
            loop {
                now += -(1.0 - self.random.unit()).ln() / rate;
                if now >= to {
                    return (self.refused, self.well, arrived);
                }
                arrived += 1;
                self.settle(now);
                if self.in_flight.len() < self.limit.max(&self.params) {
                    self.begin(now, now);
                } else if self.waiting.len() < ROOM {
                    self.waiting.push_back(now);
                } else {
                    self.refused += 1;
                }
            }
        }

        fn begin(&mut self, now: f64, came: f64) {
            let free = self.free.pop_front().expect("an app has workers");
            let slow = if self.random.unit() < self.slow.0 { self.slow.1 } else { 1.0 };
            let varied = if self.varies { -(1.0 - self.random.unit()).ln() } else { 1.0 };
            let ends = free.max(now) + self.service * slow * varied;
            self.free.insert(self.free.partition_point(|free| *free <= ends), ends);
            let place = self.in_flight.partition_point(|(end, ..)| *end <= ends);
            self.in_flight.insert(place, (ends, now, came));
        }

        fn settle(&mut self, now: f64) {
            while self.in_flight.front().is_some_and(|(ends, ..)| *ends <= now) {
                let count = self.in_flight.len();
                let Some((ends, began, came)) = self.in_flight.pop_front() else { return };
                self.well += u32::from(ends - came <= 1.0);
                let at = self.start + Duration::from_secs_f64(ends);
                self.limit.sample(Duration::from_secs_f64(ends - began), count, 0, &self.params, at);
                let max = self.limit.max(&self.params);
                assert!((self.params.min..=self.params.max).contains(&max));
                while self.in_flight.len() < max
                    && let Some(came) = self.waiting.pop_front()
                {
                    if ends - came <= WAIT { self.begin(ends, came) } else { self.refused += 1 }
                }
            }
        }
    }

    /// Long warm, at an average of an eighth of a second without any variance; numbers that a double holds exactly.
    fn settled(limit: f64) -> Limit {
        let settled = Limit {
            long: 0.125,
            short: 0.125,
            windows: 1000,
            seconds: 100.0,
            longest: 0.125,
            begun: true,
            ..Limit::new(&WIDE)
        };
        Limit { limit, starting: false, peak: 1000.0, ..settled }
    }

    const WIDE: Params = Params { min: 1, max: 10_000 };

    /// Sixteen answers of `short` in a second, with at most and at last `used` in flight.
    fn window(short: f64, used: usize) -> Window {
        let squares = 16.0 * (short - 0.125).powi(2);
        let longest = short;
        Window {
            samples: 16,
            sum: 16.0 * short,
            squares,
            longest,
            in_flight_max: used,
            in_flight_last: used,
            ..Window::default()
        }
    }

    fn after(mut limit: Limit, window: &Window) -> Limit {
        limit.close(window, 1.0, &WIDE);
        limit
    }

    /// Whether latency is high by this window: only one of normal latency lets the peak fade.
    fn is_high(limit: Limit, window: &Window, seconds: f64) -> bool {
        let mut next = Limit { peak: 2000.0, ..limit };
        next.close(window, seconds, &WIDE);
        next.peak == 2000.0
    }

    /// In as much time as it takes that many at once to be answered (Little's law).
    fn after_all(mut limit: Limit, window: &Window) -> Limit {
        limit.close(window, window.sum / window.in_flight_max as f64, &WIDE);
        limit
    }

    #[test]
    fn a_window_ends_with_enough_answers_or_after_a_second() {
        let nano = Duration::from_nanos(1);
        for (samples, lasts, ends) in [
            (10, WINDOW - nano, false),
            (10, WINDOW, true),
            (9, WINDOW, false),
            (9, WINDOW_MAX - nano, false),
            (9, WINDOW_MAX, true),
            (2, WINDOW_MAX, true),
        ] {
            let (mut limit, start) = (Limit::new(&WIDE), origin());
            for _ in 1..samples {
                limit.sample(Duration::from_millis(125), 1, 0, &WIDE, start);
            }
            assert_eq!(limit.latency(), Duration::ZERO);
            limit.sample(Duration::from_millis(125), 1, 0, &WIDE, start + lasts);
            assert_eq!(limit.latency() > Duration::ZERO, ends, "{samples} in {lasts:?}");
            // The next one begins where it ended.
            assert_eq!(limit.window.began, Some(if ends { start + lasts } else { start }));
        }
    }

    #[test]
    fn a_window_knows_its_answers() {
        let (mut limit, start) = (settled(100.0), origin());
        for (millis, in_flight) in [(250, 3), (500, 9), (0, 5)] {
            limit.sample(Duration::from_millis(millis), in_flight, 0, &WIDE, start);
        }
        let Window { samples, sum, squares, longest, in_flight_max, in_flight_last, .. } = limit.window;
        assert_eq!((samples, longest, in_flight_max, in_flight_last), (3, 0.5, 9, 5));
        // Nothing is quicker than a microsecond.
        assert_eq!((sum, squares), (0.75 + 1e-6, 0.015625 + 0.140625 + (1e-6f64 - 0.125).powi(2)));
    }

    #[test]
    fn the_average_is_begun_evenly_and_then_learned_slowly() {
        let mut limit = Limit::new(&WIDE);
        limit.close(&Window { squares: 0.25 * 16.0, ..window(0.5, 1) }, 0.125, &WIDE);
        assert_eq!((limit.long, limit.variance, limit.longest), (0.5, 0.25, 0.5));
        limit.close(&Window { squares: 0.75 * 16.0, ..window(1.0, 1) }, 0.125, &WIDE);
        assert_eq!((limit.long, limit.variance, limit.longest), (0.75, 0.5, 1.0));
        assert_eq!(limit.latency_long(), Duration::from_millis(750));
        // Three times the longest answer must have passed: 24 eighths of a second.
        limit.long = 1.0;
        for windows in 3..=23 {
            limit.close(&window(1.0, 1), 0.125, &WIDE);
            assert_eq!(limit.windows, windows);
        }
        let even = limit.variance;
        limit.close(&Window { squares: (even + 6.0) * 16.0, ..window(1.0, 1) }, 0.125, &WIDE);
        assert!((limit.variance - (even + 6.0 / LONG_WINDOWS)).abs() < 1e-12, "{} {even}", limit.variance);
        // While latency was never high, an answer that took more than a third of all the time says that it is too early.
        let judged = |limit: &Limit| is_high(limit.clone(), &window(4.0, 4), 0.25);
        limit.close(&Window { longest: 2.0, ..window(1.0, 1) }, 0.25, &WIDE);
        assert_eq!((limit.seconds, limit.longest), (3.25, 2.0));
        assert!(
            !judged(&Limit { seconds: 11.5, ..limit.clone() }) && judged(&Limit { seconds: 11.75, ..limit.clone() })
        );
        // But not later than after a minute, and not once it has been high.
        let slow = |seconds| Limit { seconds, longest: 100.0, ..limit.clone() };
        assert!(!judged(&slow(59.5)) && judged(&slow(59.75)));
        assert!(judged(&Limit { starting: false, seconds: 11.5, longest: 1.0, ..limit.clone() }));
    }

    /// Sixteen answers of a quarter in a second explain four in flight; half as many again and four more are chance.
    #[test]
    fn while_more_are_in_flight_than_the_answers_explain_it_is_too_early_to_judge() {
        let begun = |seconds: f64, in_flight_last: usize| {
            let limit = Limit { begun: false, windows: 10, seconds, ..settled(100.0) };
            after(limit, &Window { in_flight_last, ..window(0.25, 64) }).begun
        };
        assert_eq!([begun(10.0, 10), begun(10.0, 11)], [true, false]);
        // Of those that will never be sampled, nothing is to come.
        let beside = |silent_last: usize| {
            let limit = Limit { begun: false, windows: 10, seconds: 10.0, ..settled(100.0) };
            after(limit, &Window { in_flight_last: 30, silent_last, ..window(0.25, 64) }).begun
        };
        assert_eq!([beside(19), beside(20), beside(31)], [false, true, true]);
        assert_eq!([begun(58.5, 11), begun(59.0, 11)], [false, true], "a minute is enough");
        assert!(!after(Limit { begun: false, windows: 9, ..settled(100.0) }, &window(0.125, 1)).begun);
        let early = |seconds| after(Limit { begun: false, seconds, ..settled(100.0) }, &window(0.125, 1));
        assert_eq!([early(-0.0625).begun, early(0.0).begun], [false, true], "a second");
        // Nor does a limit grow by more than its root then, however calm the quick answers are.
        let grown = |starting, in_flight_last| {
            let limit = Limit { starting, ..settled(64.0) };
            after(limit, &Window { in_flight_last, ..window(0.125, 32) }).limit
        };
        assert_eq!([grown(true, 7), grown(true, 8), grown(false, 7), grown(false, 8)], [128.0, 72.0, 96.0, 72.0]);
    }

    #[test]
    fn ten_windows_begin_the_average_however_quick_the_answers_are() {
        let mut limit = Limit::new(&WIDE);
        let mut weights = Vec::new();
        for _ in 0..11 {
            let before = limit.long;
            // Twice as slow would be high latency but for the beginning.
            limit.close(&window(before + 0.0625, 1), 1.0, &WIDE);
            weights.push(((limit.long - before) / 0.0625 * 1000.0).round());
        }
        assert_eq!(weights, [1000.0, 500.0, 333.0, 250.0, 200.0, 167.0, 143.0, 125.0, 111.0, 100.0, 2.0]);
    }

    #[test]
    fn a_limit_in_use_grows_by_its_root_and_by_half_while_all_is_calm() {
        for (limit, short, used, grown) in [
            (64.0, 0.125, 31, 64.0),
            (64.0, 0.125, 32, 96.0),
            (64.0, 0.15, 32, 96.0),
            (64.0, 0.151, 32, 72.0),
            (64.0, 0.1875, 32, 72.0),
            (9.0, 0.1875, 9, 13.0),
            (9.0, 0.125, 9, 13.5),
            (10_000.0, 0.125, 9_000, 10_000.0),
        ] {
            assert_eq!(after_all(settled(limit), &window(short, used)).limit, grown, "{limit} at {short}, {used}");
        }
        // For a quick app ten milliseconds above the average are calm.
        let quick = |short| after_all(Limit { long: 0.01, ..settled(64.0) }, &window(short, 32)).limit;
        assert_eq!([quick(0.0195), quick(0.0205)], [96.0, 72.0]);
        let starting = Limit { starting: true, ..settled(64.0) };
        assert_eq!(after_all(starting.clone(), &window(0.1875, 32)).limit, 128.0);
        assert_eq!(after_all(starting, &window(0.125, 32)).limit, 128.0);
    }

    #[test]
    fn a_limit_is_kept_near_what_is_used() {
        for (peak, used, kept) in [(0.0, 20, 60.0), (0.0, 10, 32.0), (100.0, 10, 297.0), (100.0, 99, 297.0)] {
            let limit = after(Limit { peak, ..settled(1000.0) }, &window(0.125, used));
            assert_eq!(limit.limit, kept, "{peak} {used}");
            assert_eq!(limit.peak, f64::from(used as u32).max(peak * 0.99));
        }
    }

    #[test]
    fn high_latency_shrinks_what_is_used_by_the_gradient_and_by_half_at_most() {
        for (limit, short, used, shrunk) in [
            (100.0, 0.1875, 49, 100.0),
            (100.0, 0.25, 64, 52.0),
            (64.0, 0.25, 64, 52.0),
            (100.0, 0.375, 64, 36.0),
            (100.0, 1.0, 64, 36.0),
            // What it shrank to the last time is not reached yet.
            (100.0, 1.0, 101, 100.0),
            (100.0, 1.0, 100, 54.0),
            (5.0, 0.25, 5, 5.0),
        ] {
            assert_eq!(is_high(settled(limit), &window(short, used), 1.0), short > 0.1875);
            let limit = after(settled(limit), &window(short, used));
            assert_eq!(limit.limit, shrunk, "{short}, {used}");
            assert!(!limit.starting);
        }
        // Not below what is usual, which is forgotten slowly; and it is the most in flight that counts.
        let usual = Limit { usual: 60.0, ..settled(100.0) };
        let mixed = Window { in_flight_max: 64, in_flight_last: 8, ..window(0.25, 1) };
        let limit = after(usual, &mixed);
        assert_eq!((limit.limit, limit.usual), (60.0, 60.0 * 0.998));
        assert_eq!(after(Limit { starting: true, ..settled(100.0) }, &mixed).limit, 52.0);
        assert!(!after(Limit { starting: true, ..settled(100.0) }, &mixed).starting);
    }

    /// Four standard errors of a window of sixteen are one standard deviation.
    #[test]
    fn what_chance_explains_is_not_high_latency() {
        let varied = || Limit { variance: 0.0625, ..settled(100.0) };
        assert!(!is_high(varied(), &window(0.1875 + 0.25, 64), 1.0));
        assert!(is_high(varied(), &window(0.875, 64), 1.0));
        assert_eq!(after(varied(), &window(0.875, 64)).limit, 36.0);
        assert!(is_high(varied(), &window(0.4376, 64), 1.0));
    }

    #[test]
    fn the_average_learns_next_to_nothing_from_high_latency_until_the_limit_is_at_its_minimum() {
        let learned = |limit: Limit, window: &Window| {
            let variance = limit.variance;
            let limit = after(limit, window);
            ((limit.long - 0.125) / (window.sum / 16.0 - 0.125), (limit.variance - variance) / (window.squares / 16.0))
        };
        let near = |(long, variance): (f64, f64), weight: f64| {
            assert!((long - weight).abs() < 1e-9 && (variance - weight).abs() < 1e-9, "{long} {variance} {weight}");
        };
        near(learned(settled(100.0), &window(0.15, 64)), 1.0 / 600.0);
        near(learned(settled(100.0), &window(0.151, 64)), 0.02 / 600.0);
        near(learned(settled(100.0), &window(0.25, 64)), 0.02 / 600.0);
        near(learned(settled(1.0), &window(0.25, 1)), 0.1);
        near(learned(settled(1.0), &window(0.25, 2)), 0.02 / 600.0);
        near(learned(settled(2.0), &window(0.25, 1)), 0.02 / 600.0);
        // Nor from what is tolerated, at the lowest limit or while a look is taken.
        near(learned(Limit { usual: 60.0, ..settled(60.0) }, &window(0.25, 60)), 0.02 / 600.0);
        near(learned(Limit { look: Some(Look::default()), ..settled(1.0) }, &window(0.25, 1)), 0.02 / 600.0);
    }

    #[test]
    fn an_average_far_above_what_is_usual_now_is_forgotten_sooner() {
        let mut limit = settled(100.0);
        limit.learn(0.0625, 0.0, 0.0, 0.0);
        assert_eq!(limit.long, 0.125);
        limit.learn(0.0624, 0.0, 0.0, 0.0);
        assert_eq!(limit.long, 0.125 * 0.95);
        let mut limit = settled(100.0);
        limit.learn(0.03125, 0.0, 0.0, 0.0625);
        assert_eq!(limit.long, 0.125);
        limit.learn(0.03125, 0.0, 0.0, 0.0624);
        assert_eq!(limit.long, 0.125 * 0.95);
    }

    #[test]
    fn what_is_usual_is_an_average_over_thirty_windows() {
        let usual = |windows, used| after(Limit { usual: 30.0, windows, ..settled(100.0) }, &window(0.125, used)).usual;
        assert_eq!([usual(1000, 60), usual(29, 60), usual(13, 58)], [31.0, 31.0, 32.0]);
    }

    /// Ten answers in half a second, again and again.
    fn tens(mut limit: Limit, times: u32, short: f64, used: usize) -> Limit {
        let squares = 10.0 * (short - limit.long).powi(2);
        for _ in 0..times {
            limit.close(&Window { samples: 10, sum: 10.0 * short, squares, ..window(short, used) }, 0.5, &WIDE);
        }
        limit
    }

    #[test]
    fn less_room_tells_a_queue_from_work_that_is_slow_by_itself() {
        // At 0.25 s the gradient is three quarters: of sixteen that and four more are sixteen, and nothing would ever
        // change. Twice the latency goes by before it counts, then two windows are enough: they vary by nothing.
        let before = tens(settled(16.0), 2, 0.25, 16);
        assert_eq!((before.limit, before.look.unwrap().before.samples), (16.0, 10.0));
        let looking = tens(before, 1, 0.25, 16);
        assert_eq!((looking.limit, looking.look.unwrap().after), (16.0 * LOOK, Some(Evidence::default())));
        let nearly = tens(looking.clone(), 2, 0.25, 12);
        assert_eq!((nearly.limit, nearly.look.unwrap().after.unwrap().samples), (16.0 * LOOK, 10.0));
        let slow = tens(nearly, 1, 0.25, 12);
        assert_eq!((slow.limit, slow.long, slow.look_in, slow.look.is_none()), (16.0, 0.25, 0.0, true));
        let queue = tens(looking.clone(), 3, 0.225, 12);
        assert!((queue.limit, queue.look_in, queue.look.is_none()) == (16.0, 2.0, true) && queue.long < 0.126);
        assert!(tens(looking, 3, 0.226, 12).long > 0.2, "nine tenths are the same");
        // A queue is looked at again after two seconds of it, then after four, and so on up to a minute.
        let again = |limit: &Limit| tens(tens(limit.clone(), 3, 0.25, 16), 3, 0.2, 12);
        let waits = tens(queue.clone(), 3, 0.25, 16);
        assert!(waits.look.is_none() && waits.look_in == 0.5 && waits.limit == 16.0);
        let second = again(&waits);
        assert_eq!((second.pause, second.look_in, second.limit), (4.0, 4.0, 16.0));
        let last = again(&Limit { look_in: 0.0, pause: 40.0, ..second });
        assert_eq!(last.pause, PAUSE_MAX);
    }

    #[test]
    fn a_look_ends_with_normal_latency_and_begins_anew_with_another_limit() {
        let looking = tens(settled(16.0), 3, 0.25, 16);
        let queue = tens(looking.clone(), 1, 0.125, 12);
        assert!(queue.look.is_none() && (queue.pause, queue.look_in) == (PAUSE_MIN, PAUSE_MIN) && queue.limit < 20.0);
        assert_eq!(after(Limit { pause: 10.0, ..settled(100.0) }, &window(0.125, 8)).pause, 10.0 * PAUSE_FADES);
        let patient = tens(Limit { pause: 4.0, ..looking.clone() }, 1, 0.125, 12);
        assert_eq!((patient.pause, patient.look_in), (8.0 * PAUSE_FADES, 8.0 * PAUSE_FADES));
        // Tolerated meanwhile, and no quicker: it says nothing.
        let tolerant = Limit { variance: 1.0, ..looking.clone() };
        let nothing = tens(tolerant, 1, 0.25, 1);
        assert!(nothing.look.is_none() && (nothing.limit, nothing.pause) == (16.0, 0.0));
        // While there is a look, no other shrink answers the same latency; before there is less room, one does.
        assert_eq!(tens(looking, 1, 0.9, 12).limit, 16.0 * LOOK);
        let worse = tens(tens(settled(16.0), 2, 0.25, 16), 1, 0.5, 16);
        assert!(worse.limit == 12.0 && worse.look.is_none());
        // Nothing is looked at where a limit is not reached, or nothing can be taken away.
        assert!(tens(settled(16.0), 3, 0.25, 15).look.is_none());
        assert!(tens(Limit { limit: 1.0, ..settled(16.0) }, 3, 0.25, 1).look.is_none());
        // A change of less than a tenth, or than one, is none.
        assert_eq!(after(Limit { usual: 7.1, ..settled(8.0) }, &window(1.0, 5)).limit, 8.0);
        assert_eq!(after(Limit { usual: 7.0, ..settled(8.0) }, &window(1.0, 5)).limit, 7.0);
        assert_eq!(after(Limit { usual: 90.5, ..settled(100.0) }, &window(0.25, 100)).limit, 100.0);
        assert_eq!(after(Limit { usual: 90.0, ..settled(100.0) }, &window(0.25, 100)).limit, 90.0);
    }

    /// Of answers that vary by half of what they take, 460 say as much as twenty that do not vary.
    #[test]
    fn what_varies_is_looked_at_for_longer() {
        let evidence =
            |samples: f64, squares: f64| Evidence { samples, sum: samples * 4.0, squares: samples * squares };
        assert_eq!([19.0, 20.0].map(|samples| evidence(samples, 16.0).is_enough()), [false, true]);
        assert_eq!([459.0, 460.0].map(|samples| evidence(samples, 20.0).is_enough()), [false, true]);
        // The window's squares are about the average: what is added is about nothing.
        let mut limit = Limit { look: Some(Look { from: 16.0, ..Look::default() }), ..settled(16.0) };
        let (sum, squares) = (8.0 * 0.125 + 8.0 * 0.375, 8.0 * 0.25 * 0.25);
        limit.close(&Window { samples: 16, sum, squares, ..window(0.25, 16) }, 0.5, &WIDE);
        assert_eq!(limit.look.unwrap().before, Evidence { samples: 16.0, sum: 4.0, squares: 1.25 });
    }

    /// Every hundredth seed is a long one of a large app; the others are short and small, so that there can be many.
    fn is_long(seed: u64) -> bool {
        seed.is_multiple_of(100)
    }

    #[test]
    fn nothing_is_refused_at_a_steady_seventy_percent() {
        for seed in 0..10_000 {
            let workers = 1 + Random::new(seed).below(30) as usize;
            let mut app = App::new(seed, workers);
            let seconds = if is_long(seed) { 20.0 } else { 3.0 };
            let (refused, ..) = app.run(0.0, seconds, 0.7 * workers as f64 / 0.02, 0.02);
            assert_eq!(refused, 0, "seed {seed}, {workers} workers");
        }
    }

    /// Goal: nobody is turned away before a trouble, nor two seconds after the app has done what it was given in it.
    /// Method: 10,000 seeds, each an app of 2 to 17 workers and its own speed at 70 % of its capacity with no lower
    /// bound to the limit; a second and a half of up to four times the load, an app up to ten times slower, both, or
    /// silence; then calm.
    #[test]
    fn whatever_the_trouble_was_nothing_is_refused_two_seconds_after_it() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let service = 0.02 + 0.18 * random.unit();
            let workers = (1.0 + 80.0 * service) as usize;
            let calm = 0.7 * workers as f64 / service;
            let mut app = App::new(seed, workers);
            app.params.min = 1;
            let (before, ..) = app.run(0.0, 2.5, calm, service);
            let (more, slower) = (1.0 + 3.0 * random.unit(), 1.0 + 9.0 * random.unit());
            let (load, slower) = random.pick(&[(more, 1.0), (1.0, slower), (more, slower), (0.01, 1.0)]);
            app.run(2.5, 4.0, load * calm, slower * service);
            // Until the app has done what it was given.
            let idle = app.free.back().copied().unwrap_or(0.0).max(4.0);
            app.run(4.0, idle + 2.0, calm, service);
            let (after, ..) = app.run(idle + 2.0, idle + 2.5, calm, service);
            assert_eq!((before, after), (0, 0), "seed {seed}: {workers} workers, load {load:.1}, {slower:.1} slower");
        }
    }

    /// A machine that is slow for a while (a neighbour, a throttled cgroup) makes everything slow. With as many clients as
    /// before, each of which waits for its answer, there is no more in flight than before, and nobody is turned away.
    #[test]
    fn a_slow_moment_turns_none_of_the_usual_clients_away() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let clients = 1 + random.below(60) as usize;
            let (mut limit, mut now) = (Limit::new(&PARAMS), origin());
            // Twenty steps are a second: for five of them everything is ten times slower.
            let (calm, end) = if is_long(seed) { (200, 400) } else { (60, 180) };
            for step in 0..end {
                let slow = (calm..calm + 100).contains(&step);
                for _ in 0..clients {
                    let latency = 0.02 * if slow { 10.0 } else { 1.0 } * (0.8 + 0.4 * random.unit());
                    now += Duration::from_secs_f64(0.05 / clients as f64);
                    limit.sample(Duration::from_secs_f64(latency), clients, 0, &PARAMS, now);
                }
                let max = limit.max(&PARAMS);
                assert!(max as f64 >= (clients as f64 * 0.8).floor(), "seed {seed}, step {step}: {max} of {clients}");
            }
        }
    }

    /// Some requests are slow by themselves, at any share and by any factor. That is no queue, and costs nobody a place.
    #[test]
    fn a_mix_of_quick_and_slow_work_is_no_overload() {
        let mut bad = Vec::new();
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let workers = 8 + random.below(120) as usize;
            let (share, factor) = (random.unit() * 0.5, 2.0 + random.unit() * 98.0);
            let mut app = App::new(seed, workers);
            app.slow = (share, factor);
            let mean = 1.0 + share * (factor - 1.0);
            let (seconds, service) = if is_long(seed) {
                (15.0, 0.005)
            } else {
                // So slow that about as many come in a second, whatever there is to do.
                (6.0, 0.7 * workers as f64 / mean / (150.0 + 300.0 * random.unit()))
            };
            let rate = 0.7 * workers as f64 / (service * mean);
            let (refused, _, arrived) = app.run(0.0, seconds, rate, service);
            if refused > 0 {
                bad.push(format!("seed {seed}: {workers} workers, {share:.2} x {factor:.0}, {rate:.0}/s: {refused} of {arrived}, limit {}", app.limit.max(&PARAMS)));
            }
        }
        assert!(bad.is_empty(), "{}:\n{}", bad.len(), bad.join("\n"));
    }

    /// Three times the load, or an app ten times slower: what is served is served in time, it is as much as the app can
    /// do, and two seconds later nothing is refused any more.
    #[test]
    fn overload_costs_only_what_is_above_the_capacity() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let long = is_long(seed);
            let workers = 5 + random.below(if long { 30 } else { 8 }) as usize;
            let capacity = workers as f64 / 0.02;
            let troubles = [(3.0, 0.02), (0.7, 0.2)];
            for (load, service) in if long { troubles.to_vec() } else { vec![random.pick(&troubles)] } {
                let [begins, lasts, after] = if long { [25.0, 4.0, 3.0] } else { [2.0, 4.0, 1.0] };
                let mut app = App::new(seed, workers);
                app.run(0.0, begins, 0.7 * capacity, 0.02);
                app.run(begins, begins + 1.0, load * capacity, service);
                let ends = begins + 1.0 + lasts;
                let (_, well, _) = app.run(begins + 1.0, ends, load * capacity, service);
                let able = lasts * workers as f64 / service;
                assert!(
                    f64::from(well) >= able * if load > 1.0 { 0.95 } else { 0.35 },
                    "seed {seed}, {load}: {well} of {able}"
                );
                app.run(ends, ends + 2.0, 0.7 * capacity, 0.02);
                let (refused, well, arrived) = app.run(ends + 2.0, ends + 2.0 + after, 0.7 * capacity, 0.02);
                let well = well + app.in_flight.len() as u32;
                assert!(refused * 100 <= arrived && well * 100 >= arrived * 99, "seed {seed}: {refused} of {arrived}");
            }
        }
    }

    /// For minutes there is more to do than the app can: what was learned before holds, and nobody waits long in the app.
    #[test]
    fn a_lasting_overload_does_not_become_normal() {
        for seed in 0..12 {
            let mut random = Random::new(seed);
            let workers = 5 + random.below(20) as usize;
            let capacity = workers as f64 / 0.02;
            let mut app = App::new(seed, workers);
            app.varies = random.pick(&[true, false]);
            app.run(0.0, 20.0, 0.7 * capacity, 0.02);
            app.run(20.0, 120.0, (1.2 + random.unit()) * capacity, 0.02);
            let (_, well, _) = app.run(120.0, 140.0, 2.0 * capacity, 0.02);
            assert!(f64::from(well) >= 0.95 * 20.0 * capacity, "seed {seed}: {well} of {}", 20.0 * capacity);
            let [now, usual] = [app.limit.latency(), app.limit.latency_long()].map(|latency| latency.as_secs_f64());
            assert!(now < 0.15 && usual < 0.075, "seed {seed}, {workers} workers: {now} s, usually {usual} s");
        }
    }

    /// The mix of requests changes for good: ten times the latency, and no queue is its cause.
    #[test]
    fn slower_work_becomes_normal_instead_of_starving_the_app() {
        for seed in 0..10_000 {
            let (workers, begins, learns, after) = if is_long(seed) {
                (500, 5.0, 4.0, 5.0)
            } else {
                // Fewer answers take longer to say as much.
                (40 + Random::new(seed).below(60) as usize, 2.0, 8.0, 1.0)
            };
            let mut app = App::new(seed, workers);
            let rate = 4.0 * workers as f64;
            app.run(0.0, begins, rate, 0.02);
            app.run(begins, begins + learns, rate, 0.2);
            let (refused, _, arrived) = app.run(begins + learns, begins + learns + after, rate, 0.2);
            assert!(refused * 20 <= arrived, "seed {seed}: {refused} of {arrived}, limit {}", app.limit.max(&PARAMS));
        }
    }

    /// A restart into full load: the limit is found within a second.
    #[test]
    fn an_app_that_does_much_at_once_is_let() {
        let mut app = App::new(1, 2000);
        app.run(0.0, 3.0, 700.0, 1.0);
        let (refused, ..) = app.run(3.0, 6.0, 700.0, 1.0);
        assert_eq!(refused, 0, "limit {}", app.limit.max(&PARAMS));
    }

    /// Whatever is sampled, the limit stays within its bounds and the numbers stay numbers.
    #[test]
    fn no_sequence_of_samples_leaves_the_bounds() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let params = Params { min: random.below(20) as usize, max: random.below(2000) as usize };
            let (mut limit, mut now) = (Limit::new(&params), origin());
            for _ in 0..60 {
                now += Duration::from_micros(random.below(300_000));
                let digits = 1 + random.below(11) as u32;
                let latency = Duration::from_nanos(random.below(10u64.pow(digits)));
                limit.sample(latency, random.below(3000) as usize, 0, &params, now);
                let max = limit.max(&params);
                assert!(max >= params.min.max(1) && max <= params.max.max(params.min).max(1), "seed {seed}: {max}");
                assert!(limit.long.is_finite() && limit.short.is_finite());
            }
        }
    }
}
