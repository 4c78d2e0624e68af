//! `outrigger demo`: a flaky app, Outrigger in front of it, a steady load, and what is happening, in words.
//!
//! Everything is the real thing: the configuration goes through the same checks, requests cross real sockets, and the
//! ops and admin ports answer, so that a newcomer can open them. It listens on loopback only, and takes the usual
//! ports when they are free.

mod flaky;
mod load;
mod screen;

use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::cli::DemoArgs;
use super::process::Signal;
use super::run::{self, Outrigger, Stop};
use crate::config;
use crate::proxy::Shared;
use crate::state::clock;
use crate::state::journal::EVENTS_MAX;
use flaky::FlakyApp;
use load::Load;
use screen::{App, Clients, Paint, Told, View};

const SECOND: Duration = Duration::from_secs(1);
/// For the last requests to be answered before the drain.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Failures in a row that open the breaker, per request a second: more than a restart gives, fewer than a broken app.
const BREAKER_AFTER: f64 = 2.0;
const EVENTS_LOOKED_AT: usize = EVENTS_MAX;

/// Runs until Ctrl-C or for the time asked; the result is the exit code.
pub fn run(args: &DemoArgs) -> u8 {
    // The app first: it is another process as far as Outrigger knows, with a runtime of its own.
    let app = match FlakyApp::start() {
        Ok(app) => app,
        Err(cause) => return cannot(&format!("the flaky app does not start: {cause}")),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return cannot(&cause.to_string()),
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, demo(args, app)) {
        Ok(()) => 0,
        Err(words) => cannot(&words),
    }
}

fn cannot(words: &str) -> u8 {
    eprintln!("the demo cannot run: {words}");
    2
}

async fn demo(args: &DemoArgs, app: FlakyApp) -> Result<(), String> {
    let ports = [free(8080)?, free(9900)?, free(9901)?];
    let loaded = config::load_text(&configuration(app.address, ports, args.rate), "demo", Path::new("."), &|_| None)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let options = run::Options { config: None, loaded, command: Vec::new() };
    let mut outrigger = Outrigger::start(options).await.map_err(|cannot| cannot.words.join("\n"))?;
    let mut show = Show::new(app, ports, Arc::clone(&outrigger.shared));
    write(&screen::greeting(&show.addresses, &unusual(args.rate), show.paint));
    let load = tokio::task::spawn_local(Rc::clone(&show.load).run(args.rate));
    // Ctrl-C, SIGTERM and `outrigger drain` end the demo as they end any Outrigger.
    let stop = tokio::select! {
        stop = outrigger.serve() => stop,
        () = show.play(args.length) => Stop::Signal(Signal::Interrupt),
    };
    load.abort();
    show.load.settled(SETTLE_MAX).await;
    let last = show.view();
    outrigger.end(stop).await;
    show.finish(&last);
    Ok(())
}

/// The usual port if it is free, else any.
fn free(usual: u16) -> Result<u16, String> {
    let bound = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind("127.0.0.1:0"));
    let address = bound.and_then(|socket| socket.local_addr());
    address.map(|address| address.port()).map_err(|cause| format!("no free port on 127.0.0.1: {cause}"))
}

fn breaker_after(rate: u32) -> u32 {
    (f64::from(rate) * BREAKER_AFTER).max(5.0) as u32
}

/// What of the configuration below is not as in a file that says nothing, so that nobody takes it for a default.
fn unusual(rate: u32) -> String {
    let failures = breaker_after(rate);
    format!(
        "Not the defaults, since this app falls over every ten seconds:
  breaker     opens after {failures} failures in a row instead of 5, for 0.5s to 2s instead of 5s to 30s, and without a ramp
  retries     6 attempts instead of 3, with longer waits
  health      asked every 250ms; without health_check it is not asked"
    )
}

/// The defaults, but for a patience that outlasts the app's restart and a breaker that opens only when it is broken.
fn configuration(app: SocketAddr, [web, ops, admin]: [u16; 3], rate: u32) -> String {
    let failures = breaker_after(rate);
    format!(
        "service: {{ name: demo }}
listeners: [{{ name: web, address: \"127.0.0.1:{web}\" }}]
upstreams:
  app:
    endpoints: [\"http://{app}\"]
    health_check: {{ path: /health, interval: 250ms, timeout: 200ms, rise: 1, fall: 1 }}
    circuit_breaker:
      consecutive_failures: {failures}
      open_for: {{ base: 500ms, max: 2s }}
      half_open: {{ ramp: 0s }}
retry: {{ attempts: 6, backoff: {{ base: 100ms, factor: 2, max: 1s }} }}
telemetry: {{ access_log: {{ to: off }} }}
ops: {{ address: \"127.0.0.1:{ops}\" }}
admin: {{ address: \"127.0.0.1:{admin}\" }}
drain: {{ delay: 0s, timeout: 2s }}
"
    )
}

/// What is shown, and where.
struct Show {
    app: FlakyApp,
    load: Rc<Load>,
    shared: Arc<Shared>,
    mood: Box<dyn Fn() -> flaky::Mood>,
    addresses: Vec<(&'static str, String)>,
    paint: Paint,
    terminal: bool,
    began: Instant,
    /// Lines of the block on the screen, to be written over.
    drawn: usize,
    /// When the newest event told was.
    told: f64,
}

impl Show {
    fn new(app: FlakyApp, [web, ops, admin]: [u16; 3], shared: Arc<Shared>) -> Show {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mood = app.watch();
        Show {
            load: Load::new(SocketAddr::from(([127, 0, 0, 1], web)), app.watch()),
            shared,
            mood: Box::new(mood),
            addresses: vec![
                ("open", format!("http://127.0.0.1:{web}")),
                ("metrics", format!("http://127.0.0.1:{ops}/metrics")),
                ("readiness", format!("http://127.0.0.1:{ops}/readyz")),
                ("ask", format!("outrigger status --admin 127.0.0.1:{admin}")),
            ],
            app,
            paint: Paint(colour),
            terminal,
            began: clock::now(),
            drawn: 0,
            told: 0.0,
        }
    }

    /// Shows a view every second, for the time asked or for ever.
    async fn play(&mut self, length: Option<Duration>) {
        let end = length.map(|length| self.began + length);
        let mut second = tokio::time::interval_at((self.began + SECOND).into(), SECOND);
        loop {
            second.tick().await;
            let view = self.view();
            self.show(&view);
            if end.is_some_and(|end| clock::now() >= end) {
                return;
            }
        }
    }

    fn view(&self) -> View {
        let (deeds, seen) = (&self.app.deeds, self.load.seen.borrow());
        View {
            elapsed: clock::now().saturating_duration_since(self.began),
            mood: (self.mood)().words,
            app: App {
                answered: deeds.answered.load(Relaxed),
                failed: deeds.failed.load(Relaxed),
                reset: deeds.reset.load(Relaxed),
                slow: deeds.slow.load(Relaxed),
                restarts: deeds.restarts.load(Relaxed),
                lost_alone: deeds.first_attempts_lost.load(Relaxed) + seen.sent_while_away,
                lost_broken: seen.sent_while_broken,
            },
            clients: Clients {
                sent: seen.sent,
                good: seen.good,
                failed: seen.failed.iter().map(|(status, count)| (*status, *count)).collect(),
                failed_while_broken: seen.failed_while_broken,
                times: [seen.quantile(0.5), seen.quantile(0.9), seen.quantile(0.99)],
            },
            outrigger: did(&self.shared),
        }
    }

    fn show(&mut self, view: &View) {
        if self.terminal {
            let block = screen::block(view, self.paint);
            // Up to where the block began, and clear from there; without wrapping, or lines could not be counted.
            let back = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
            self.drawn = block.lines().count();
            write(&format!("{back}\x1b[?7l{block}\x1b[?7h"));
            return;
        }
        let fresh: Vec<_> = view.outrigger.events.iter().filter(|event| event.at > self.told).collect();
        if let Some(newest) = fresh.last() {
            self.told = newest.at;
        }
        fresh.iter().for_each(|event| write(&format!("      {}\n", event.words)));
        write(&screen::line(view));
    }

    fn finish(&self, view: &View) {
        write(&screen::summary(view, self.paint));
    }
}

/// What Outrigger did, from its own counts and journal.
fn did(shared: &Shared) -> screen::Outrigger {
    let now = clock::now();
    let plan = shared.plans.load();
    let endpoints = plan.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    let routes = plan.upstreams.iter().flat_map(|upstream| upstream.state.route_breakers());
    let of_endpoints = endpoints.map(|endpoint| endpoint.state.breaker_state(now).label());
    let of_all = of_endpoints.chain(routes.map(|(_, breaker)| breaker.state(now).label()));
    let breaker = of_all.into_iter().find(|label| *label != "closed").unwrap_or("closed");
    let events = shared.states.journal.recent(EVENTS_LOOKED_AT);
    let told = events
        .iter()
        .map(|event| Told { at: event.at, words: format!("{} {}: {}", event.kind, event.subject, event.words) });
    screen::Outrigger {
        retries: shared.telemetry.upstreams().iter().map(|upstream| upstream.retries).sum(),
        breaker: breaker.replace('_', " "),
        opened: events.iter().filter(|event| event.words.starts_with("breaker open")).count(),
        events: told.collect(),
    }
}

/// A reader that has gone away is no failure.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
