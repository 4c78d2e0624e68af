//! What the demo shows: one block redrawn in place on a terminal, one line a second elsewhere, and the summary.
//! Pure text from numbers; `demo` writes it.

use std::fmt::Write;
use std::time::Duration;

use super::super::render::milliseconds;

/// Events shown on a terminal.
const EVENTS_SHOWN: usize = 6;

/// Everything there is to tell at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub elapsed: Duration,
    pub mood: &'static str,
    pub app: App,
    pub clients: Clients,
    pub outrigger: Outrigger,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct App {
    pub answered: u64,
    pub failed: u64,
    pub reset: u64,
    pub slow: u64,
    pub restarts: u64,
    /// Requests whose first attempt it failed, or that came while it was away.
    pub lost_alone: u64,
    /// Requests that came while it was broken outright.
    pub lost_broken: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Clients {
    pub sent: u64,
    pub good: u64,
    /// Status (0 is no answer) and how often.
    pub failed: Vec<(u16, u64)>,
    /// Of these, those sent while the app was broken outright.
    pub failed_while_broken: u64,
    /// p50, p90, p99 in milliseconds.
    pub times: [f64; 3],
}

#[derive(Clone, Debug, Default)]
pub struct Outrigger {
    pub retries: u64,
    pub breaker: String,
    pub opened: usize,
    /// The oldest first.
    pub events: Vec<Told>,
}

/// An event in words.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Seconds since the Unix epoch.
    pub at: f64,
    pub words: String,
}

/// Colours, or none where `NO_COLOR` is set or nobody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn on(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        self.on("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.on("31", text)
    }

    fn faint(self, text: &str) -> String {
        self.on("2", text)
    }
}

/// Shown once, before anything moves.
pub fn greeting(addresses: &[(&'static str, String)], unusual: &str, paint: Paint) -> String {
    let mut out = String::from("A flaky app, Outrigger in front of it, and a steady load.\n\n");
    for (what, address) in addresses {
        // Writing to a String does not fail.
        let _ = writeln!(out, "  {what:<12}{}", paint.good(address));
    }
    let _ = writeln!(out, "\n{}\n", unusual.lines().map(|line| paint.faint(line)).collect::<Vec<_>>().join("\n"));
    out
}

/// The block on a terminal.
pub fn block(view: &View, paint: Paint) -> String {
    let mut out = String::new();
    let label = |text: &str| paint.faint(&format!("{text:<13}"));
    let mood = if view.mood.starts_with("well") { paint.good(view.mood) } else { paint.bad(view.mood) };
    let _ = writeln!(out, "  {}{mood}", label("the app is"));
    let _ = writeln!(out, "  {}{}", label("it has"), app_words(&view.app));
    let _ = writeln!(out, "  {}{}", label("clients saw"), client_words(&view.clients, paint));
    let _ = writeln!(out, "  {}{}", label("they waited"), times_words(view.clients.times));
    let _ = writeln!(out, "  {}{}", label("outrigger"), outrigger_words(&view.outrigger));
    out.push('\n');
    let skip = view.outrigger.events.len().saturating_sub(EVENTS_SHOWN);
    for event in &view.outrigger.events[skip..] {
        let _ = writeln!(out, "  {}", paint.faint(&event.words));
    }
    let _ = writeln!(out, "\n  {}", paint.faint(&format!("{}s; Ctrl-C ends it", view.elapsed.as_secs())));
    out
}

/// The line a second where there is no terminal.
pub fn line(view: &View) -> String {
    let failed: u64 = view.clients.failed.iter().map(|(_, count)| count).sum();
    let seconds = view.elapsed.as_secs();
    format!(
        "{seconds:>4}s  clients: {} sent, {} good, {failed} failed, p99 {}  outrigger: {} retries, breaker {}  app: {}\n",
        view.clients.sent,
        view.clients.good,
        milliseconds(view.clients.times[2]),
        view.outrigger.retries,
        view.outrigger.breaker,
        view.mood,
    )
}

/// The end.
pub fn summary(view: &View, paint: Paint) -> String {
    let mut out = format!("\nIn {:.0} seconds\n", view.elapsed.as_secs_f64());
    let _ = writeln!(out, "  the app       {}", app_words(&view.app));
    let _ = writeln!(out, "  clients saw   {}", client_words(&view.clients, paint));
    let _ = writeln!(out, "  they waited   {}", times_words(view.clients.times));
    let _ = writeln!(out, "  outrigger     {}", outrigger_words(&view.outrigger));
    let failed = view.clients.failed.iter().map(|(_, count)| count).sum::<u64>();
    let (broken, passing) = (view.clients.failed_while_broken, failed - view.clients.failed_while_broken.min(failed));
    let _ = writeln!(
        out,
        "\nAlone, the app would have failed {} of these requests; behind Outrigger, {passing} failed.",
        view.app.lost_alone
    );
    if view.app.lost_broken > 0 {
        let _ = writeln!(
            out,
            "While it was broken outright no retry could help: all {} of those alone, {broken} behind Outrigger, whose \
             breaker spares an app what cannot go well.",
            view.app.lost_broken
        );
    }
    out.push_str("Put it in front of yours: outrigger run --upstream http://127.0.0.1:3000\n");
    out
}

fn app_words(app: &App) -> String {
    let restarts = if app.restarts == 1 { "1 restart".to_owned() } else { format!("{} restarts", app.restarts) };
    format!(
        "{} good answers ({} of them slow), {} failures, {} dropped connections, {restarts}",
        app.answered, app.slow, app.failed, app.reset
    )
}

fn client_words(clients: &Clients, paint: Paint) -> String {
    let done = clients.good + clients.failed.iter().map(|(_, count)| count).sum::<u64>();
    let share = if done == 0 { 100.0 } else { clients.good as f64 * 100.0 / done as f64 };
    let good = paint.good(&format!("{} good ({share:.2}%)", clients.good));
    let failed: Vec<String> = clients
        .failed
        .iter()
        .map(|(status, count)| match status {
            0 => format!("{count} without an answer"),
            status => format!("{count}x {status}"),
        })
        .collect();
    let failed = if failed.is_empty() { "none failed".to_owned() } else { paint.bad(&failed.join(", ")) };
    format!("{} requests: {good}, {failed}", clients.sent)
}

fn times_words([p50, p90, p99]: [f64; 3]) -> String {
    format!("p50 {}, p90 {}, p99 {}", milliseconds(p50), milliseconds(p90), milliseconds(p99))
}

fn outrigger_words(outrigger: &Outrigger) -> String {
    let opened = match outrigger.opened {
        0 => String::new(),
        1 => ", opened once".to_owned(),
        times => format!(", opened {times} times"),
    };
    format!("{} retries, breaker {}{opened}", outrigger.retries, outrigger.breaker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            elapsed: Duration::from_millis(10_400),
            mood: "well",
            app: App { answered: 900, failed: 60, reset: 12, slow: 31, restarts: 1, lost_alone: 172, lost_broken: 9 },
            clients: Clients {
                sent: 1000,
                good: 985,
                failed: vec![(0, 1), (502, 14)],
                failed_while_broken: 8,
                times: [0.9, 3.4, 312.0],
            },
            outrigger: Outrigger {
                retries: 97,
                breaker: "closed".to_owned(),
                opened: 2,
                events: (0..9).map(|number| Told { at: 0.0, words: format!("event {number}") }).collect(),
            },
        }
    }

    #[test]
    fn the_summary_says_what_the_app_did_and_what_clients_saw() {
        let text = summary(&view(), Paint(false));
        assert!(text.contains("1000 requests: 985 good (98.50%), 1 without an answer, 14x 502"), "{text}");
        assert!(
            text.contains("Alone, the app would have failed 172 of these requests; behind Outrigger, 7 failed."),
            "{text}"
        );
        assert!(text.contains("all 9 of those alone, 8 behind Outrigger"), "{text}");
        assert!(text.contains("97 retries, breaker closed, opened 2 times"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn the_block_shows_the_newest_events_only() {
        let text = block(&view(), Paint(true));
        assert!(text.contains("event 8") && text.contains("event 3") && !text.contains("event 2"), "{text}");
        assert!(text.contains("\x1b[32m"));
    }

    #[test]
    fn the_line_is_one_line() {
        assert_eq!(line(&view()).matches('\n').count(), 1);
    }
}
