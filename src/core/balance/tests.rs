//! Goal: the cheaper of two is taken, a refusal is never taken for speed, and shares grow in steps. Method: boundaries
//! by hand, then simulated fleets with queues, in which every number the balancer sees must stay sane.

use super::super::testing::{Random, origin};
use super::*;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn seen(latency: Option<f64>, refusing: f64, in_flight: u32) -> Seen {
    Seen { latency, refusing, in_flight, warmth: 1.0 }
}

fn draw(random: u64) -> Draw {
    Draw { random, unit: 0.0, turn: 0 }
}

/// The one of two endpoints that is taken, whichever is drawn first.
fn of_two(one: Seen, other: Seen) -> usize {
    let take = |random| {
        choose(
            Policy::PeakEwma,
            &Params::default(),
            2,
            |_| true,
            |index| if index == 0 { one } else { other },
            draw(random),
        )
    };
    let (first, second) = (take(0).unwrap(), take(u64::MAX).unwrap());
    assert_eq!(first, second, "the order of drawing decides");
    first
}

fn drawer(random: &mut Random) -> Draw {
    Draw {
        random: random.below(1 << 32) << 32 | random.below(1 << 32),
        unit: random.unit(),
        turn: random.below(1 << 20) as usize,
    }
}

#[test]
fn a_slower_answer_counts_at_once_and_fades() {
    let (params, start) = (Params::default(), origin());
    let mut load = Load::default();
    assert_eq!(load.seen(0, &params, start).latency, None);
    load.answered(secs(0.01), &params, start);
    assert_eq!(load.seen(0, &params, start).latency, Some(0.01));
    load.answered(secs(2.0), &params, start);
    assert_eq!(load.seen(0, &params, start).latency, Some(2.0));
    load.answered(secs(0.01), &params, start);
    assert_eq!(load.seen(0, &params, start).latency, Some(2.0), "an answer at the same moment changes nothing");
    let faded = load.seen(0, &params, start + params.decay).latency.unwrap();
    assert!((faded - 2.0 / std::f64::consts::E).abs() < 1e-9);
    load.answered(secs(0.01), &params, start + params.decay);
    let mixed = load.seen(0, &params, start + params.decay).latency.unwrap();
    let kept = 1.0 / std::f64::consts::E;
    assert!((mixed - (2.0 * kept + 0.01 * (1.0 - kept))).abs() < 1e-9, "{mixed}");
}

#[test]
fn a_fast_refusal_is_not_speed() {
    let (params, start) = (Params::default(), origin());
    let mut refuser = Load::default();
    for millis in 0..100 {
        refuser.refused(secs(0.0001), &params, start + Duration::from_millis(millis));
    }
    let now = start + Duration::from_millis(100);
    // Whatever the other one's latency, up to many times the refuser's cost.
    for latency in [0.001, 0.1, 0.9, 3.0, 60.0] {
        assert_eq!(of_two(refuser.seen(0, &params, now), seen(Some(latency), 0.0, 0)), 1, "{latency}");
    }
    // It was fast before it refused: that does not help it either.
    let mut turned = Load::default();
    turned.answered(secs(0.001), &params, start);
    turned.refused(secs(0.0001), &params, start);
    assert_eq!(of_two(turned.seen(0, &params, start), seen(Some(0.01), 0.0, 0)), 1);
}

#[test]
fn refusals_are_forgotten_and_a_slow_one_is_a_latency() {
    let (params, start) = (Params::default(), origin());
    let mut load = Load::default();
    load.refused(secs(0.001), &params, start);
    assert_eq!(load.seen(0, &params, start).refusing, 1.0, "the first answer counts in full");
    assert!(load.seen(0, &params, start + secs(60.0)).refusing < 1e-4);
    load.answered(secs(0.01), &params, start + secs(60.0));
    load.refused(secs(5.0), &params, start + secs(60.0));
    assert_eq!(load.seen(0, &params, start + secs(60.0)).latency, Some(5.0));
    let later = start + secs(60.0) + params.decay;
    load.refused(secs(0.001), &params, later);
    let faded = load.seen(0, &params, later).latency.unwrap();
    assert!((faded - 5.0 / std::f64::consts::E).abs() < 1e-9, "{faded}: a refusal keeps what is known from fading");
}

#[test]
fn in_flight_decides_between_equals_and_while_nothing_is_known() {
    assert_eq!(of_two(seen(Some(0.01), 0.0, 3), seen(Some(0.01), 0.0, 2)), 1);
    assert_eq!(of_two(seen(None, 0.0, 3), seen(None, 0.0, 2)), 1);
    assert_eq!(of_two(seen(None, 0.0, 1), seen(Some(0.01), 0.0, 0)), 1, "an unknown one is no black hole");
    assert_eq!(of_two(seen(None, 0.0, 0), seen(Some(0.01), 0.0, 1)), 0);
    assert_eq!(of_two(seen(Some(0.011), 0.0, 0), seen(Some(0.01), 0.0, 0)), 1);
}

#[test]
fn unusable_endpoints_are_never_taken() {
    let params = Params::default();
    let mut random = Random::new(7);
    for policy in [Policy::PeakEwma, Policy::LeastRequest, Policy::RoundRobin] {
        let take = |usable: &dyn Fn(usize) -> bool, draw| {
            choose(policy, &params, 5, usable, |_| seen(Some(0.1), 0.0, 0), draw)
        };
        assert_eq!(take(&|_| false, drawer(&mut random)), None);
        assert_eq!(take(&|index| index == 3, drawer(&mut random)), Some(3));
        for _ in 0..100 {
            assert!(matches!(take(&|index| index % 2 == 1, drawer(&mut random)), Some(1 | 3)));
        }
    }
    assert_eq!(choose(Policy::PeakEwma, &params, 0, |_| true, |_| seen(None, 0.0, 0), draw(1)), None);
}

#[test]
fn round_robin_takes_turns_among_the_usable() {
    let params = Params::default();
    let take = |turn| {
        let draw = Draw { random: 0, unit: 0.0, turn };
        choose(Policy::RoundRobin, &params, 4, |index| index != 2, |_| seen(None, 0.0, 0), draw)
    };
    assert_eq!([0, 1, 2, 3].map(take), [Some(0), Some(1), Some(3), Some(0)]);
}

#[test]
fn the_two_differ_and_all_pairs_come() {
    let mut random = Random::new(1);
    for many in 2..7 {
        let mut counts = vec![0u32; many * many];
        for _ in 0..20_000 {
            let (one, other) = two(many, drawer(&mut random).random);
            assert!(one < many && other < many && one != other);
            counts[one * many + other] += 1;
        }
        let fair = 20_000.0 / (many * (many - 1)) as f64;
        for (pair, count) in counts.iter().enumerate().filter(|(pair, _)| pair / many != pair % many) {
            assert!((f64::from(*count) - fair).abs() < fair * 0.25, "{many}: pair {pair} came {count} of {fair}");
        }
    }
    assert_eq!((two(2, 0), two(2, u64::MAX)), ((0, 1), (1, 0)));
}

#[test]
fn an_endpoint_that_came_back_takes_a_growing_share() {
    let (params, start) = (Params::default(), origin());
    let mut cold = Load::default();
    cold.answered(secs(9.0), &params, start);
    cold.warm_up(start);
    let at = |millis: u64| cold.seen(0, &params, start + Duration::from_millis(millis));
    assert_eq!((at(0).warmth, at(0).latency), (WARMTH_MIN, None), "what it was like before is forgotten");
    assert_eq!([at(1_000).warmth, at(5_000).warmth, at(9_999).warmth, at(10_000).warmth], [0.1, 0.5, 0.9999, 1.0]);
    let take = |unit, millis: u64| {
        let draw = Draw { random: 0, unit, turn: 0 };
        let see = |index| if index == 0 { at(millis) } else { seen(Some(0.01), 0.0, 1) };
        choose(Policy::PeakEwma, &params, 2, |_| true, see, draw)
    };
    assert_eq!([take(0.49, 5_000), take(0.5, 5_000), take(0.99, 10_000)], [Some(0), Some(1), Some(0)]);
}

/// Numbers that a double holds exactly.
#[test]
fn the_cost_is_what_it_takes_and_refuses_times_all_that_are_in_flight() {
    let params = Params { refusal_cost: Duration::from_secs(4), ..Params::default() };
    let (one, other) = (seen(Some(0.125), 0.5, 1), seen(Some(0.25), 0.0, 3));
    assert_eq!(costs(&one, &other, &params), (4.25, 1.0));
    // Who has not answered is taken to be like the other; a refusal costs at least twice what is known of either.
    let (one, other) = (seen(None, 1.0, 0), seen(Some(16.0), 0.25, 0));
    assert_eq!(costs(&one, &other, &params), (48.0, 24.0));
    assert_eq!(costs(&seen(None, 0.0, 0), &seen(None, 0.5, 1), &params), (0.001, 2.0 * 2.001));
}

/// One simulated server: a queue with a fixed time of service; some refuse at once instead.
struct Server {
    service: Duration,
    refuses: bool,
    busy_until: Instant,
    done: Vec<Instant>,
    load: Load,
}

/// Goal: over any fleet, what is chosen is usable, every number stays finite, and whoever is known to refuse is taken
/// beside one that works only when that one is so loaded that a refusal costs less. Method: 10,000 seeds; each a fleet
/// with queues, an open load, outages and returns.
#[test]
fn simulated_fleets_prefer_who_works() {
    let params = Params::default();
    for seed in 0..10_000 {
        let mut random = Random::new(seed);
        let count = 2 + random.below(4) as usize;
        let start = origin();
        let mut fleet: Vec<Server> = (0..count)
            .map(|index| Server {
                service: Duration::from_micros(500 + random.below(20_000)),
                refuses: index > 0 && random.once_in(3), // the first one always works
                busy_until: start,
                done: Vec::new(),
                load: Load::default(),
            })
            .collect();
        let down = random.below(2 * count as u64) as usize;
        let mut now = start;
        for number in 0..80 {
            now += Duration::from_micros(random.below(8_000));
            for server in &mut fleet {
                server.done.retain(|done| *done > now);
            }
            let usable = |index: usize| index != down || number % 2 == 0;
            let see = |index: usize| {
                let seen = fleet[index].load.seen(fleet[index].done.len() as u32, &params, now);
                assert!(seen.latency.is_none_or(|latency| latency.is_finite() && latency >= 0.0), "seed {seed}");
                assert!((0.0..=1.0).contains(&seen.refusing) && seen.warmth > 0.0, "seed {seed}");
                seen
            };
            let draw = drawer(&mut random);
            let taken = choose(Policy::PeakEwma, &params, count, usable, see, draw).unwrap();
            assert!(usable(taken), "seed {seed}");
            let chance: Vec<usize> = (0..count).filter(|index| usable(*index)).collect();
            if chance.len() > 1 {
                let (one, other) = two(chance.len(), draw.random);
                let left = if chance[one] == taken { chance[other] } else { chance[one] };
                let (seen_taken, seen_left) = (see(taken), see(left));
                assert!(taken == chance[one] || taken == chance[other], "seed {seed}: not one of the two");
                if fleet[taken].refuses && !fleet[left].refuses && seen_left.warmth == 1.0 {
                    let waiting = seen_left.latency.unwrap_or(0.0) * f64::from(seen_left.in_flight + 1);
                    let known = seen_taken.refusing * params.refusal_cost.as_secs_f64();
                    assert!(waiting >= known, "seed {seed}: {seen_taken:?} beside {seen_left:?}");
                }
            }
            let server = &mut fleet[taken];
            if server.refuses {
                server.load.refused(Duration::from_micros(50), &params, now);
            } else {
                server.busy_until = server.busy_until.max(now) + server.service;
                let took = server.busy_until - now;
                server.done.push(server.busy_until);
                server.load.answered(took, &params, now);
            }
            if random.once_in(200) {
                server.load.warm_up(now);
            }
        }
    }
}
