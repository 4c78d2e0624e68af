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
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::cli::DemoArgs;
use super::run::Outrigger;
use crate::config;
use crate::core::drain;
use crate::state::clock;
use crate::state::journal::Event;
use crate::state::states::States;
use flaky::FlakyApp;
use load::Load;
use screen::{App, Clients, Paint, View};

/// What the drain at the end may take; the load has stopped by then.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const EVENTS_KEPT: usize = 64;

/// Runs until Ctrl-C or for the time asked; the result is the exit code.
pub fn run(args: &DemoArgs) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return cannot(&cause.to_string()),
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, demo(args)) {
        Ok(()) => 0,
        Err(words) => cannot(&words),
    }
}

fn cannot(words: &str) -> u8 {
    eprintln!("the demo cannot run: {words}");
    2
}

async fn demo(args: &DemoArgs) -> Result<(), String> {
    let app = FlakyApp::start().map_err(|cause| format!("no port for the app: {cause}"))?;
    let ports = [free(8080)?, free(9900)?, free(9901)?];
    let env = |_: &str| None;
    let text = configuration(app.address, ports);
    let loaded = config::load_text(&text, "demo", std::path::Path::new("."), &env)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let outrigger = Outrigger::start(&loaded).await.map_err(|problems| problems.join("\n"))?;
    let mut show = Show::new(app, ports);
    show.greet();
    let end = show.until_the_end(args, &outrigger.shared.states, &outrigger).await;
    let params = drain::Params { delay: Duration::ZERO, timeout: DRAIN_TIMEOUT };
    outrigger.stop(params, tokio::signal::ctrl_c()).await;
    show.summarise(end);
    Ok(())
}

/// The usual port if it is free, else any.
fn free(usual: u16) -> Result<u16, String> {
    let bound = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind("127.0.0.1:0"));
    let address = bound.and_then(|socket| socket.local_addr());
    address.map(|address| address.port()).map_err(|cause| format!("no free port on 127.0.0.1: {cause}"))
}

fn configuration(app: SocketAddr, [web, ops, admin]: [u16; 3]) -> String {
    format!(
        "service: {{ name: demo }}
listeners: [{{ name: web, address: \"127.0.0.1:{web}\" }}]
upstreams:
  app:
    endpoints: [\"http://{app}\"]
    health_check: {{ path: /health, interval: 250ms, timeout: 200ms, rise: 1, fall: 3 }}
    circuit_breaker: {{ consecutive_failures: 10, open_for: {{ base: 1s, max: 5s }} }}
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
    mood: Box<dyn Fn() -> flaky::Mood>,
    addresses: Vec<(&'static str, String)>,
    paint: Paint,
    terminal: bool,
    began: Instant,
    /// Lines of the block on the screen, to be written over.
    drawn: usize,
    /// Events told so far.
    told: usize,
}

impl Show {
    fn new(app: FlakyApp, [web, ops, admin]: [u16; 3]) -> Show {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (mood, listens) = (app.watch(), app.watch());
        Show {
            load: Load::new(SocketAddr::from(([127, 0, 0, 1], web)), move || listens().listens),
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
            told: 0,
        }
    }

    fn greet(&self) {
        write(&screen::greeting(&self.addresses, self.paint));
        write("\n");
    }

    /// Shows a view every second until the end, and gives the last.
    async fn until_the_end(&mut self, args: &DemoArgs, states: &States, outrigger: &Outrigger) -> View {
        let running = tokio::task::spawn_local(Rc::clone(&self.load).run(args.rate));
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.tick().await;
        let end = async {
            match args.length {
                Some(length) => tokio::time::sleep(length).await,
                None => std::future::pending().await,
            }
        };
        let (mut end, mut interrupt) = (std::pin::pin!(end), std::pin::pin!(tokio::signal::ctrl_c()));
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = &mut interrupt => break,
                _ = second.tick() => self.show(&self.view(states, outrigger)),
            }
        }
        running.abort();
        // What is under way is answered; nobody waits longer than a client would.
        let answered = async {
            while self.load.under_way() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, answered).await;
        self.view(states, outrigger)
    }

    fn view(&self, states: &States, outrigger: &Outrigger) -> View {
        let (deeds, seen) = (&self.app.deeds, self.load.seen.borrow());
        let events = states.journal.recent(EVENTS_KEPT);
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
            },
            clients: Clients {
                sent: seen.sent,
                good: seen.good,
                failed: seen.failed.iter().map(|(status, count)| (*status, *count)).collect(),
                times: [seen.quantile(0.5), seen.quantile(0.9), seen.quantile(0.99)],
            },
            outrigger: did(&events, outrigger),
        }
    }

    fn show(&self, view: &View) {
        let _ = view;
    }

    fn summarise(&self, view: View) {
        write(&screen::summary(&view, self.paint));
    }
}

fn did(events: &[Event], outrigger: &Outrigger) -> screen::Outrigger {
    let _ = (events, outrigger);
    screen::Outrigger::default()
}

/// A reader that has gone away is no failure.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
