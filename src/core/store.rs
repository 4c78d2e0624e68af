//! Rate limits that all replicas share: what a Redis or Valkey is asked, what its answer means, and when it counts as
//! away. Its own clock decides, so that the clocks of the replicas need not agree.
//!
//! One script is one decision over all of a request's limits: either each is charged or, when one that is enforced
//! refuses, none is. It is [`super::bucket`]'s GCRA in microseconds: the numbers of Lua are doubles, which at a time
//! since 2023 are exact to a sixty-fourth of one.

use std::time::Duration;

use super::backoff::Backoff;
use super::bucket::{Decision, Params};

/// `KEYS` are the limits' keys. `ARGV` has three for each: what a full bucket is worth and what the request costs, both
/// in microseconds, and `1` for a limit that is enforced. The answer has two for each: `1` and how far the bucket is
/// used, or `0` and how long to wait, in microseconds.
pub const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local answer, charge, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local whole, price = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local tat = tonumber(redis.call('GET', key) or '') or 0
  local ahead = math.max(math.min(tat - now, whole), 0) + price
  if ahead > whole + 0.1 then
    answer[2 * i - 1], answer[2 * i] = 0, math.ceil(ahead - whole)
    refused = refused or ARGV[3 * i] == '1'
  else
    answer[2 * i - 1], answer[2 * i] = 1, math.floor(ahead)
    charge[i] = ahead
  end
end
if not refused then
  for i, ahead in pairs(charge) do
    redis.call('SET', KEYS[i], string.format('%.3f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1)
  end
end
return answer";

/// One limit of a request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The same at all replicas.
    pub key: String,
    pub params: Params,
    pub cost: u64,
    pub enforced: bool,
}

impl Ask {
    /// The script's three arguments.
    pub fn arguments(&self) -> [String; 3] {
        let emission = self.params.emission.as_nanos().max(1);
        let micros = |count: u64| {
            let nanos = emission.saturating_mul(u128::from(count));
            format!("{}.{:03}", nanos / 1000, nanos % 1000)
        };
        [micros(self.params.burst.max(1)), micros(self.cost), u8::from(self.enforced).to_string()]
    }

    /// What two numbers of the answer mean; `None` when they mean nothing.
    fn decision(&self, allowed: i64, micros: i64) -> Option<Decision> {
        let told = Duration::from_micros(u64::try_from(micros).ok()?);
        match allowed {
            0 => Some(Decision::Refuse { retry_after: told }),
            1 => {
                let emission = self.params.emission.as_nanos().max(1);
                let left = (emission * u128::from(self.params.burst.max(1))).saturating_sub(told.as_nanos());
                let remaining = u64::try_from(left / emission).unwrap_or(u64::MAX);
                // The bucket that decided is not here.
                Some(Decision::Allow { tat: 0, remaining, reset: told })
            }
            _ => None,
        }
    }
}

/// The decisions in an answer; `None` when it is not one to these questions.
pub fn decisions(asks: &[Ask], answer: &[i64]) -> Option<Vec<Decision>> {
    if answer.len() != 2 * asks.len() {
        return None;
    }
    asks.iter().zip(answer.chunks_exact(2)).map(|(ask, pair)| ask.decision(pair[0], pair[1])).collect()
}

/// What limits do while their store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Each replica decides for itself, with the whole rate.
    Local,
    /// Everything passes.
    Open,
    /// Nothing passes.
    Closed,
}

impl WhenAway {
    pub const ALL: [WhenAway; 3] = [WhenAway::Local, WhenAway::Open, WhenAway::Closed];

    pub fn label(self) -> &'static str {
        match self {
            WhenAway::Local => "local",
            WhenAway::Open => "open",
            WhenAway::Closed => "closed",
        }
    }
}

/// Answers that do not come in time, one after the other, before the store counts as away. One is chance.
const LATE_MAX: u32 = 3;
/// A store that was away for less than this since it came back is tried again later and later.
const SETTLED: Duration = Duration::from_secs(10);
/// How long until a store is tried again, with full jitter above [`AGAIN_MIN`].
const AGAIN: Backoff = Backoff { base: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(2) };
const AGAIN_MIN: Duration = Duration::from_millis(50);

/// What one worker knows of its connection to a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    late: u32,
    losses: u32,
}

impl Patience {
    pub fn answered(&mut self) {
        self.late = 0;
    }

    /// True when that was one too many.
    pub fn late(&mut self) -> bool {
        self.late += 1;
        self.late >= LATE_MAX
    }

    /// How long to wait before it is tried again, after it was there for `lasted` (zero when it never was).
    pub fn lost(&mut self, lasted: Duration, unit: f64) -> Duration {
        self.late = 0;
        self.losses = if lasted >= SETTLED { 1 } else { self.losses.saturating_add(1) };
        AGAIN_MIN + super::backoff::delay(&AGAIN, self.losses, unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(emission: Duration, burst: u64, cost: u64) -> Ask {
        Ask { key: String::new(), params: Params { emission, burst }, cost, enforced: true }
    }

    #[test]
    fn arguments_are_microseconds_to_the_nanosecond() {
        let arguments = ask(Duration::from_nanos(142_857_143), 10, 2).arguments();
        assert_eq!(arguments, ["1428571.430", "285714.286", "1"]);
        let extreme = ask(Duration::MAX, u64::MAX, u64::MAX).arguments();
        assert!(extreme.iter().all(|text| text.parse::<f64>().is_ok_and(f64::is_finite)));
        assert_eq!(ask(Duration::ZERO, 0, 0).arguments()[..2], ["0.001", "0.000"]);
    }

    #[test]
    fn answers_become_decisions_and_nonsense_becomes_none() {
        let asks = [ask(Duration::from_millis(10), 5, 1), ask(Duration::from_millis(10), 5, 1)];
        let told = decisions(&asks, &[1, 10_000, 0, 2_500]);
        let allow = Decision::Allow { tat: 0, remaining: 4, reset: Duration::from_millis(10) };
        let refuse = Decision::Refuse { retry_after: Duration::from_micros(2_500) };
        assert_eq!(told, Some(vec![allow, refuse]));
        for nonsense in [&[][..], &[1], &[1, 2, 3, 4, 5], &[2, 0, 1, 0], &[1, -1, 1, 0], &[-1, 0, 0, 0]] {
            assert_eq!(decisions(&asks, nonsense), None, "{nonsense:?}");
        }
        assert_eq!(
            decisions(&asks[..1], &[1, i64::MAX]),
            Some(vec![Decision::Allow { tat: 0, remaining: 0, reset: Duration::from_micros(i64::MAX as u64) }])
        );
    }

    #[test]
    fn what_to_do_while_it_is_away_is_said_in_a_word() {
        assert_eq!(WhenAway::ALL.map(WhenAway::label), ["local", "open", "closed"]);
    }

    #[test]
    fn one_late_answer_is_chance_and_three_in_a_row_are_not() {
        let mut patience = Patience::default();
        assert!(!patience.late() && !patience.late());
        patience.answered();
        assert!(!patience.late() && !patience.late() && patience.late());
    }

    #[test]
    fn a_store_that_does_not_stay_is_tried_less_and_less_often() {
        let mut patience = Patience::default();
        let waits: Vec<u128> = (0..8).map(|_| patience.lost(Duration::ZERO, 1.0).as_millis()).collect();
        assert_eq!(waits, [150, 250, 450, 850, 1650, 2050, 2050, 2050]);
        assert_eq!(patience.lost(SETTLED - Duration::from_nanos(1), 0.0), AGAIN_MIN);
        assert_eq!(patience.lost(SETTLED, 1.0).as_millis(), 150);
    }
}
