//! What it costs to settle a request once things are warm: no allocation, whatever is switched on that every request
//! pays for. A test binary of its own, because it counts the allocations of the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger::core::trace;
use outrigger::telemetry::{
    AttemptRecord, Fate, Format, LogOptions, Options, RequestRecord, Target, Telemetry, TraceOptions,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches a thread-local without
// destructor, which needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn record(attempts: &[AttemptRecord]) -> RequestRecord<'_> {
    RequestRecord {
        request_id: "0f8fad5b-d9cb-469f-a165-70867728950e",
        started: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
        duration: Duration::from_micros(12_345),
        forwarded: Some(Duration::from_micros(150)),
        first_byte: Some(Duration::from_micros(10_001)),
        listener: "web",
        route: "api",
        upstream: Some("app"),
        endpoint: Some("127.0.0.1:3000"),
        method: "GET",
        scheme: "http",
        host: "shop.example.com",
        path: "/api/users/12345/orders",
        query: Some("page=3&sort=date"),
        version: http::Version::HTTP_11,
        client: IpAddr::from([192, 0, 2, 7]),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        status: 200,
        fate: Fate::Ok,
        reason: "",
        bytes_in: 5,
        bytes_out: 1024,
        attempts,
        trace: Some(trace::new_context(0xabc, 0x12, false)),
        parent_span: 0x12,
        span: 0x34,
        sampled: false,
        probe: false,
        notes: &[],
    }
}

/// Settles requests until nothing is new any more, then counts the allocations of 2000.
fn steady(format: Format, target: Target) -> u64 {
    let log = LogOptions { target, format, redact_query: vec!["token".to_owned()], ..LogOptions::default() };
    // A collector that is never asked: nothing of this is sampled, failed or slow.
    let traces = TraceOptions {
        otlp: Some("http://127.0.0.1:1".to_owned()),
        keep_slow: Some(Duration::from_secs(1)),
        keep_errors: true,
        ..TraceOptions::default()
    };
    let telemetry = Telemetry::start(Options { log, traces }, 1).unwrap();
    let worker = telemetry.worker(0);
    let (route, upstream) = (telemetry.route_metrics("api"), telemetry.upstream_metrics("app"));
    let attempts = [AttemptRecord {
        endpoint: Arc::from("127.0.0.1:3000"),
        started_after: Duration::from_micros(100),
        duration: Duration::from_millis(9),
        status: 200,
        outcome: "answered",
        reused: true,
        span: 7,
    }];
    let record = record(&attempts);
    let settle = |times: u32| {
        for _ in 0..times {
            worker.settle(&record, &route, Some(&upstream));
        }
    };
    let hand_over = || {
        worker.flush();
        telemetry.flush(Duration::from_secs(20));
    };
    // More than the ring holds, and buffers that have been to the writing thread and back.
    for _ in 0..200 {
        settle(100);
        hand_over();
    }
    let mut allocations = 0;
    for _ in 0..100 {
        let before = ALLOCATIONS.with(Cell::get);
        settle(20);
        allocations += ALLOCATIONS.with(Cell::get) - before;
        hand_over();
    }
    allocations
}

#[test]
fn settling_a_request_allocates_nothing_once_warm() {
    let folder = tempfile::tempdir().unwrap();
    let file = || Target::File(folder.path().join("access.log"));
    for (name, format, to) in
        [("json", Format::Json, file()), ("common", Format::Common, file()), ("no log", Format::Json, Target::Off)]
    {
        assert_eq!(steady(format, to), 0, "{name}");
    }
}
