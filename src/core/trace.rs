//! Trace context: W3C `traceparent` (Trace Context Level 2), B3 on request, and the limits of what travels with it.
//!
//! Reading is strict, because a context that two readers understand differently breaks a trace in two: what the
//! standard forbids is no context, and the trace begins here. What a vendor keeps in `tracestate` is not looked into.

use super::fields::{Fields, Value};
use super::hex::digits;

const B3: &str = "b3";
const X_B3_TRACE_ID: &str = "x-b3-traceid";
const X_B3_SPAN_ID: &str = "x-b3-spanid";
const X_B3_SAMPLED: &str = "x-b3-sampled";
const X_B3_FLAGS: &str = "x-b3-flags";

/// A position in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Not zero.
    pub trace_id: u128,
    /// The caller's span; not zero.
    pub parent_id: u64,
    pub sampled: bool,
    /// The trace id's low 56 bits are random (Level 2 flag).
    pub random: bool,
}

/// Baggage §3.3.2.
const BAGGAGE_BYTES_MAX: usize = 8192;
const BAGGAGE_MEMBERS_MAX: usize = 64;
/// Trace Context §3.3.1.3: members; and the size that must at least be passed on, generously.
const TRACESTATE_MEMBERS_MAX: usize = 32;
const TRACESTATE_BYTES_MAX: usize = 4096;

/// A new trace that begins here.
pub fn new_context(trace_id: u128, span_id: u64, sampled: bool) -> Context {
    Context { trace_id: trace_id.max(1), parent_id: span_id.max(1), sampled, random: true }
}

/// Whether a new trace is among the sampled share: by the random low 56 bits of its id, with the threshold of
/// OpenTelemetry's consistent probability sampling, so that every hop decides alike.
pub fn sample(trace_id: u128, ratio: f64) -> bool {
    const RANGE: f64 = (1u64 << 56) as f64;
    let randomness = trace_id as u64 & 0x00ff_ffff_ffff_ffff;
    // A ratio that is no number is no share.
    ratio > 0.0 && randomness >= ((1.0 - ratio.min(1.0)) * RANGE).round() as u64
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may have more fields, which are ignored. Ids are lower case and
/// not zero, version ff is forbidden.
pub fn parse_traceparent(value: &[u8]) -> Option<Context> {
    let fixed = value.first_chunk::<55>()?;
    if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
        return None;
    }
    let version = hex(&fixed[..2])?;
    match value.get(55) {
        None => {}
        Some(b'-') if version != 0 => {}
        Some(_) => return None,
    }
    let (trace_id, parent_id, flags) = (wide_hex(&fixed[3..35])?, hex(&fixed[36..52])?, hex(&fixed[53..])?);
    if version == 0xff || trace_id == 0 || parent_id == 0 {
        return None;
    }
    Some(Context { trace_id, parent_id, sampled: flags & 1 == 1, random: flags & 2 == 2 })
}

/// Version 00.
pub fn write_traceparent(context: &Context) -> [u8; 55] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    out[3..19].copy_from_slice(&digits((context.trace_id >> 64) as u64));
    out[19..35].copy_from_slice(&digits(context.trace_id as u64));
    out[36..52].copy_from_slice(&digits(context.parent_id));
    out[54] += u8::from(context.sampled) | u8::from(context.random) << 1;
    out
}

/// B3 in one field (`b3`) or in several (`X-B3-*`), the one field first; 64-bit trace ids are widened with zeros.
/// A decision without ids (`b3: 0`) cannot be kept in a context and is none; a decision that is left to us (no
/// sampling field) is not to sample.
pub fn parse_b3(headers: &Fields) -> Option<Context> {
    let value = |name: &str| headers.get(name).map(Value::as_bytes);
    let single = value(B3).and_then(parse_b3_single);
    single.or_else(|| {
        let debug = value(X_B3_FLAGS).filter(|flags| *flags == b"1").map(|_| &b"d"[..]);
        b3_context(value(X_B3_TRACE_ID)?, value(X_B3_SPAN_ID)?, debug.or_else(|| value(X_B3_SAMPLED)))
    })
}

/// `{trace id}-{span id}[-{sampling}[-{parent span id}]]`.
fn parse_b3_single(value: &[u8]) -> Option<Context> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (trace_id, span_id, sampling, parent) = (parts.next()?, parts.next()?, parts.next(), parts.next());
    if parts.next().is_some() || parent.is_some_and(|parent| parent.len() != 16) {
        return None;
    }
    b3_context(trace_id, span_id, sampling)
}

fn b3_context(trace_id: &[u8], span_id: &[u8], sampling: Option<&[u8]>) -> Option<Context> {
    if !matches!(trace_id.len(), 16 | 32) || span_id.len() != 16 {
        return None;
    }
    let (trace_id, parent_id) = (wide_hex_any_case(trace_id)?, wide_hex_any_case(span_id)? as u64);
    let sampled = match sampling {
        Some(b"1" | b"d" | b"true") => true,
        None | Some(b"0" | b"false") => false,
        Some(_) => return None,
    };
    (trace_id != 0 && parent_id != 0).then_some(Context { trace_id, parent_id, sampled, random: false })
}

/// Whether a `tracestate`, given with all its lines, may be passed on.
pub fn tracestate_ok<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    fits(lines, TRACESTATE_BYTES_MAX, TRACESTATE_MEMBERS_MAX)
}

/// Whether a `baggage`, given with all its lines, may be passed on.
pub fn baggage_ok<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    fits(lines, BAGGAGE_BYTES_MAX, BAGGAGE_MEMBERS_MAX)
}

/// Lines are one list (RFC 9110 §5.3).
fn fits<'a>(lines: impl Iterator<Item = &'a [u8]>, bytes_max: usize, members_max: usize) -> bool {
    let (mut bytes, mut members) = (0, 0);
    for line in lines {
        bytes += line.len();
        members += line.split(|byte| *byte == b',').count();
    }
    bytes <= bytes_max && members <= members_max
}

/// Lower-case hexadecimal, at most 16 digits.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | u64::from(lower_digit(*digit)?)))
}

/// 32 digits in two halves: 128-bit shifts for each digit cost twice as much.
fn wide_hex(digits: &[u8]) -> Option<u128> {
    let (high, low) = digits.split_at_checked(16)?;
    Some(u128::from(hex(high)?) << 64 | u128::from(hex(low)?))
}

fn wide_hex_any_case(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | u128::from(lower_digit(digit.to_ascii_lowercase())?)))
}

fn lower_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, map};

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_as_it_stands() {
        let context = parse_traceparent(GOOD.as_bytes()).unwrap();
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(context.parent_id, 0xb7ad_6b71_6920_3331);
        assert!(context.sampled && !context.random);
    }

    #[test]
    fn a_context_survives_its_own_writing() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            let mut part = || random.below(1 << 53) << 11 | random.below(1 << 11);
            let (trace_id, parent_id) = (u128::from(part()) << 64 | u128::from(part()), part());
            let context = Context {
                sampled: parent_id & 1 == 1,
                random: parent_id & 2 == 2,
                ..new_context(trace_id, parent_id, false)
            };
            assert_eq!(parse_traceparent(&write_traceparent(&context)), Some(context));
        }
        assert_eq!(write_traceparent(&parse_traceparent(GOOD.as_bytes()).unwrap()), GOOD.as_bytes());
    }

    #[test]
    fn what_the_standard_forbids_is_no_context() {
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-B7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A",
            "0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0gf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse_traceparent(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in ["01", "fe"] {
            let value = format!("{later}{}-more", &GOOD[2..]);
            assert_eq!(parse_traceparent(value.as_bytes()), parse_traceparent(GOOD.as_bytes()), "{value}");
            assert!(parse_traceparent(&value.as_bytes()[..55]).is_some());
        }
        // Flags that are not known yet are not passed on.
        let flags = parse_traceparent(format!("{}ff", &GOOD[..53]).as_bytes()).unwrap();
        assert_eq!(&write_traceparent(&flags)[53..], b"03");
    }

    #[test]
    fn b3_comes_in_one_field_or_in_several() {
        let single = parse_b3(&map(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")]));
        let several = [("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"), ("x-b3-spanid", "E457B5A2E4D86BD1")];
        let with = |field| parse_b3(&map(&[several[0], several[1], field]));
        assert_eq!(single, with(("x-b3-sampled", "1")));
        assert_eq!(single, with(("x-b3-sampled", "true")));
        assert_eq!(single, with(("x-b3-flags", "1")));
        assert!(single.unwrap().sampled);
        for no in [("x-b3-sampled", "0"), ("x-b3-sampled", "false"), ("x-b3-flags", "0")] {
            assert!(!with(no).unwrap().sampled, "{no:?}");
        }
        assert_eq!(with(("x-b3-sampled", "maybe")), None);
        assert_eq!(with(("b3", "broken")).unwrap().trace_id, single.unwrap().trace_id);
        let short = parse_b3(&map(&[("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1")])).unwrap();
        assert_eq!((short.trace_id, short.sampled), (0x64fe_8b2a_57d3_eff7, false));
    }

    #[test]
    fn a_broken_b3_is_no_context() {
        for wrong in [
            "0",
            "xyz-1-1",
            "64fe8b2a57d3eff7",
            "64fe8b2a57d3eff7-e457b5a2e4d86bd1-x",
            "64fe8b2a57d3eff7-e457b5a2e4d86bd1-1-1",
            "64fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-",
            "0000000000000000-e457b5a2e4d86bd1-1",
            "64fe8b2a57d3eff7-0000000000000000-1",
            "64fe8b2a57d3eff-e457b5a2e4d86bd1-1",
            "64fe8b2a57d3efg7-e457b5a2e4d86bd1-1",
        ] {
            assert_eq!(parse_b3(&map(&[("b3", wrong)])), None, "{wrong}");
        }
        assert_eq!(parse_b3(&map(&[("x-b3-traceid", "64fe8b2a57d3eff7")])), None);
        assert_eq!(parse_b3(&map(&[])), None);
    }

    #[test]
    fn sampling_decides_by_the_low_56_bits_at_the_threshold() {
        let threshold = 1u128 << 55; // of one half
        for (low, taken) in [(threshold - 1, false), (threshold, true), (threshold + 1, true)] {
            assert_eq!(sample(low, 0.5), taken);
            assert_eq!(sample(0xabcd << 56 | low, 0.5), taken, "the high bits do not matter");
        }
        let all = u128::MAX >> 72;
        assert!(sample(0, 1.0) && sample(0, 7.0) && sample(all, 1e-9));
        assert!(![0.0, -1.0, f64::NAN].iter().any(|ratio| sample(all, *ratio)));
    }

    #[test]
    fn a_larger_share_takes_every_trace_of_a_smaller_one() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            let (id, ratio) = (u128::from(random.below(1 << 53) << 3), random.unit());
            assert!(!sample(id, ratio) || sample(id, ratio * 1.5));
        }
    }

    #[test]
    fn what_travels_along_has_its_limits() {
        let list = |members: usize| vec!["a=1"; members].join(",");
        let baggage = |line: &[u8]| baggage_ok(std::iter::once(line));
        let state = |line: &[u8]| tracestate_ok(std::iter::once(line));
        assert!(baggage(list(63).as_bytes()) && baggage(list(64).as_bytes()) && !baggage(list(65).as_bytes()));
        assert!(baggage(&[b'a'; 8191]) && baggage(&[b'a'; 8192]) && !baggage(&[b'a'; 8193]));
        assert!(state(list(31).as_bytes()) && state(list(32).as_bytes()));
        assert!(!state(list(33).as_bytes()));
        assert!(state(&[b'a'; 4095]) && state(&[b'a'; 4096]) && !state(&[b'a'; 4097]));
        let two = [list(32), "more".to_owned()];
        assert!(!tracestate_ok(two.iter().map(String::as_bytes)), "lines are one list");
        assert!(baggage_ok(std::iter::empty()));
    }

    #[test]
    fn a_new_context_has_ids_whatever_was_drawn() {
        let context = new_context(0, 0, true);
        assert_eq!((context.trace_id, context.parent_id), (1, 1));
        assert!(parse_traceparent(&write_traceparent(&context)).is_some());
    }
}
