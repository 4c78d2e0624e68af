//! Trace context: W3C `traceparent` (Trace Context Level 2), B3 on request, and the limits of what travels with it.

use http::header::HeaderMap;

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

/// Whether a new trace is among the sampled share: by its id, so that every hop decides alike.
pub fn sample(trace_id: u128, ratio: f64) -> bool {
    let draw = (trace_id as u64 & 0x00ff_ffff_ffff_ffff) as f64;
    ratio >= 1.0 || draw < ratio * (1u64 << 56) as f64
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may have more fields, which are ignored. Ids are lower case and
/// not zero, version ff is forbidden.
pub fn parse_traceparent(value: &[u8]) -> Option<Context> {
    let fixed = value.get(..55)?;
    if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
        return None;
    }
    let version = hex(&fixed[..2])?;
    match value.get(55) {
        None => {}
        Some(b'-') if version != 0 => {}
        Some(_) => return None,
    }
    let (trace_id, parent_id) = (hex(&fixed[3..35])?, hex(&fixed[36..52])? as u64);
    let flags = hex(&fixed[53..55])?;
    if version == 0xff || trace_id == 0 || parent_id == 0 {
        return None;
    }
    Some(Context { trace_id, parent_id, sampled: flags & 1 == 1, random: flags & 2 == 2 })
}

/// Version 00.
pub fn write_traceparent(context: &Context) -> [u8; 55] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut out[3..35], context.trace_id);
    write_hex(&mut out[36..52], u128::from(context.parent_id));
    let flags = u8::from(context.sampled) | u8::from(context.random) << 1;
    write_hex(&mut out[53..55], u128::from(flags));
    out
}

/// B3 in one field (`b3`) or in several (`X-B3-*`); 64-bit trace ids are widened with zeros.
pub fn parse_b3(headers: &HeaderMap) -> Option<Context> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let (trace, span, sampled) = match text("b3") {
        Some(single) => {
            let mut parts = single.split('-');
            (parts.next()?, parts.next()?, parts.next())
        }
        None => {
            let debug = text("x-b3-flags").filter(|flags| *flags == "1").map(|_| "d");
            (text("x-b3-traceid")?, text("x-b3-spanid")?, debug.or_else(|| text("x-b3-sampled")))
        }
    };
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let (trace_id, parent_id) = (hex_any_case(trace)?, hex_any_case(span)? as u64);
    if trace_id == 0 || parent_id == 0 {
        return None;
    }
    Some(Context { trace_id, parent_id, sampled: matches!(sampled, Some("1" | "d" | "true")), random: false })
}

/// Whether a `tracestate` may be passed on.
pub fn tracestate_ok(value: &[u8]) -> bool {
    value.len() <= TRACESTATE_BYTES_MAX && members(value) <= TRACESTATE_MEMBERS_MAX
}

/// Whether a `baggage` may be passed on.
pub fn baggage_ok(value: &[u8]) -> bool {
    value.len() <= BAGGAGE_BYTES_MAX && members(value) <= BAGGAGE_MEMBERS_MAX
}

fn members(value: &[u8]) -> usize {
    value.split(|byte| *byte == b',').count()
}

/// Lower-case hexadecimal, at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

fn hex_any_case(text: &str) -> Option<u128> {
    hex(text.to_ascii_lowercase().as_bytes())
}

fn write_hex(out: &mut [u8], mut value: u128) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_survives_its_own_writing() {
        let context = parse_traceparent(GOOD.as_bytes()).unwrap();
        assert_eq!(context.parent_id, 0xb7ad_6b71_6920_3331);
        assert!(context.sampled && !context.random);
        assert_eq!(write_traceparent(&context), GOOD.as_bytes());
    }

    #[test]
    fn what_the_standard_forbids_is_no_context() {
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse_traceparent(wrong.as_bytes()), None, "{wrong}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(parse_traceparent(later.as_bytes()).is_some());
    }

    #[test]
    fn b3_comes_in_one_field_or_in_several() {
        let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
        };
        let single = parse_b3(&map(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")]));
        let several = parse_b3(&map(&[
            ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
            ("x-b3-spanid", "E457B5A2E4D86BD1"),
            ("x-b3-sampled", "1"),
        ]));
        assert_eq!(single, several);
        assert!(single.unwrap().sampled);
        assert_eq!(parse_b3(&map(&[("b3", "0")])), None);
        assert_eq!(parse_b3(&map(&[("b3", "xyz-1-1")])), None);
    }

    #[test]
    fn sampling_takes_its_share() {
        let mut state = 7u64;
        let taken = (0..10_000).filter(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            sample(u128::from(state >> 8), 0.1)
        });
        assert!((900..1100).contains(&taken.count()));
        assert!(sample(u128::MAX, 1.0) && !sample(0, 0.0));
    }

    #[test]
    fn baggage_has_its_limits() {
        assert!(baggage_ok("a=1,".repeat(63).as_bytes()));
        assert!(!baggage_ok("a=1,".repeat(64).as_bytes()));
        assert!(baggage_ok(&[b'a'; 8192]) && !baggage_ok(&[b'a'; 8193]));
    }
}
