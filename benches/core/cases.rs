//! The decisions that every request pays for, each as a closure that takes one of them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Uri, Version};
use outrigger::core::backoff::{self, Backoff};
use outrigger::core::breaker::{self, Breaker, Consecutive, Outcome};
use outrigger::core::bucket;
use outrigger::core::fields::Fields;
use outrigger::core::forwarded::{self, Hop};
use outrigger::core::framing;
use outrigger::core::headers;
use outrigger::core::histogram;
use outrigger::core::keyed::Keyed;
use outrigger::core::route::{Router, Rule};
use outrigger::core::trace;
use outrigger::core::units::Rate;
use outrigger::core::window::Window;

pub const NAMES: [&str; 16] = [
    "route look-up, 1 route",
    "route look-up, 100 routes",
    "route look-up, 10000 routes",
    "framing check",
    "header strip, nothing to strip",
    "header strip, connection and keep-alive",
    "field list copy, 8 fields",
    "field list copy and forwarded write",
    "gcra check",
    "gcra check by key, 1000 keys",
    "breaker admit and record",
    "histogram cell",
    "trace parse",
    "field list copy and trace write",
    "trace sample",
    "backoff delay",
];

/// What one of [`NAMES`] does once.
pub fn prepare(name: &str) -> Option<Box<dyn FnMut()>> {
    let case = match name {
        "route look-up, 1 route" => route(1),
        "route look-up, 100 routes" => route(100),
        "route look-up, 10000 routes" => route(10_000),
        "framing check" => check_framing(),
        "header strip, nothing to strip" => strip(&[]),
        "header strip, connection and keep-alive" => strip(&["connection", "keep-alive"]),
        "field list copy, 8 fields" => {
            let fields = fields();
            Box::new(move || drop(black_box(black_box(&fields).clone())))
        }
        "field list copy and forwarded write" => write_forwarded(),
        "gcra check" => gcra(),
        "gcra check by key, 1000 keys" => keyed_gcra(),
        "breaker admit and record" => breaker(),
        "histogram cell" => histogram_cell(),
        "trace parse" => Box::new(|| {
            black_box(trace::parse_traceparent(black_box(TRACEPARENT)));
        }),
        "field list copy and trace write" => write_trace(),
        "trace sample" => Box::new(|| {
            black_box(trace::sample(black_box(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c), black_box(0.1)));
        }),
        "backoff delay" => delay(),
        _ => return None,
    };
    Some(case)
}

const TRACEPARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What a browser sends, about.
fn fields() -> Fields {
    let mut fields = Fields::default();
    for (name, value) in [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("referer", "https://shop.example.com/basket"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        fields.append(name, HeaderValue::from_static(value));
    }
    fields
}

fn route(count: usize) -> Box<dyn FnMut()> {
    let rule = |number: usize| Rule { path: format!("/service{number}/users/{{id}}/*"), ..Rule::default() };
    let rules: Vec<Rule> = (0..count).map(rule).collect();
    // The paths above are valid, and no two are the same.
    let router = Router::build(&rules).expect("valid routes");
    let path = format!("/service{}/users/4711/orders", count / 2);
    let fields = fields();
    Box::new(move || {
        black_box(router.find(black_box("shop.example.com"), black_box(&path), &Method::GET, &fields, None));
    })
}

fn check_framing() -> Box<dyn FnMut()> {
    let uri = Uri::from_static("/basket?item=7");
    let fields = fields();
    Box::new(move || {
        let checked = framing::check_request(black_box(&Method::GET), &uri, Version::HTTP_11, black_box(&fields));
        black_box(checked.is_ok());
    })
}

/// Of a copy each time; that is in the figure.
fn strip(extra: &'static [&'static str]) -> Box<dyn FnMut()> {
    let mut given = fields();
    for name in extra {
        given.append(name, HeaderValue::from_static("keep-alive"));
    }
    Box::new(move || {
        let mut fields = given.clone();
        headers::strip_request(black_box(&mut fields));
    })
}

fn write_forwarded() -> Box<dyn FnMut()> {
    let fields = fields();
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 17));
    let hop = Hop { peer, peer_trusted: false, scheme: "https", host: "shop.example.com" };
    Box::new(move || {
        let mut fields = fields.clone(); // what was written the last time would have to be removed first
        forwarded::write(black_box(&mut fields), black_box(&hop));
    })
}

fn params() -> bucket::Params {
    bucket::params(Rate { count: 1000, per: Duration::from_secs(1) }, 100)
}

fn gcra() -> Box<dyn FnMut()> {
    let (params, mut tat, mut now) = (params(), 0, 1_000_000_000_u64);
    Box::new(move || {
        now += 2_000_000;
        if let bucket::Decision::Allow { tat: next, .. } = bucket::check(tat, black_box(&params), now, 1) {
            tat = next;
        }
    })
}

fn keyed_gcra() -> Box<dyn FnMut()> {
    let (params, mut keyed, mut now) = (params(), Keyed::new(4096), 1_000_000_000_u64);
    Box::new(move || {
        now += 2_000;
        let key = (now % 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        black_box(keyed.check(key, black_box(&params), now, 1));
    })
}

fn breaker() -> Box<dyn FnMut()> {
    let params = breaker::Params {
        consecutive: Consecutive::Auto,
        failure_rate: 0.5,
        volume_min: 20,
        slow_rate: None,
        window: Duration::from_secs(10),
        open_for_base: Duration::from_secs(5),
        open_for_max: Duration::from_secs(30),
        probes: 1,
        ramp: Duration::from_secs(10),
    };
    let (mut breaker, now) = (Breaker::new(), Instant::now());
    let window = Window::new(now);
    Box::new(move || {
        if let Ok(ticket) = breaker.admit(black_box(&params), now, 0.5) {
            black_box(breaker.record(ticket, black_box(Outcome::Success), &params, &window, now, 0.5));
        }
    })
}

fn histogram_cell() -> Box<dyn FnMut()> {
    let mut micros = 1;
    Box::new(move || {
        micros = (micros * 7 + 13) % 5_000_000;
        black_box(histogram::index(black_box(micros)));
    })
}

fn write_trace() -> Box<dyn FnMut()> {
    let context = trace::new_context(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, true);
    let fields = fields();
    Box::new(move || {
        let mut fields = fields.clone(); // one list for all would grow, and the cost of that is the C library's affair
        let text = trace::write_traceparent(black_box(&context));
        // Digits and dashes are a valid value.
        fields.make("traceparent", &[&text]);
    })
}

fn delay() -> Box<dyn FnMut()> {
    let backoff = Backoff { base: Duration::from_millis(25), factor: 2.0, max: Duration::from_secs(1) };
    let mut unit = 0.0;
    Box::new(move || {
        unit = (unit + 0.37) % 1.0;
        black_box(backoff::delay(black_box(&backoff), black_box(3), unit));
    })
}
