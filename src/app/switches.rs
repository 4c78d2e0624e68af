//! The verbs that throw switches: `maintenance` and `flag`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::cli::{AskArgs, holding};
use super::verbs::{expect, settle, show};
use super::verdict::Verdict;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger maintenance on --for 30m --why 'new database'
  outrigger maintenance read-only --for 10m
  outrigger maintenance on --route reports --allow 10.0.0.0/8
  outrigger maintenance off")]
pub struct MaintenanceArgs {
    #[arg(value_name = "MODE")]
    mode: Mode,
    /// One route instead of the whole service
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Clients that pass all the same; may be repeated
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<String>,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Refuse every request, with a page or a problem
    On,
    /// Refuse requests that may change something
    #[value(alias = "read_only")]
    ReadOnly,
    /// Let everything through, even if the file says otherwise
    Off,
    /// As the file says
    Auto,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger flag set reports-enabled off --for 2h --why 'slow queries'
  outrigger flag clear reports-enabled")]
pub struct FlagArgs {
    #[command(subcommand)]
    what: FlagVerb,
}

#[derive(Debug, Subcommand)]
enum FlagVerb {
    /// Put a flag on or off over what the file says
    Set {
        #[arg(value_name = "NAME")]
        name: String,
        #[arg(value_name = "on|off")]
        to: OnOff,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// As the file says
    Clear {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        ask: AskArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

/// Every order has an end and an author.
#[derive(Debug, Args)]
struct Terms {
    /// How long it holds, at most 7d; then it is as the file says again
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = holding)]
    time: Duration,
    /// Who says so
    #[arg(long, value_name = "NAME", env = "USER")]
    by: Option<String>,
    /// For the event and `status`
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// `outrigger maintenance on|read-only|off|auto`
pub async fn maintenance(args: &MaintenanceArgs) -> Verdict {
    let mode = match args.mode {
        Mode::On => "on",
        Mode::ReadOnly => "read_only",
        Mode::Off => "off",
        Mode::Auto => "auto",
    };
    let question = json!({
        "mode": mode, "route": args.route, "allow": args.allow,
        "seconds": args.terms.time.as_secs().max(1), "by": args.terms.by, "why": args.terms.why,
    });
    ask(&args.ask, "/maintenance", &question).await
}

/// `outrigger flag set NAME on|off`, `outrigger flag clear NAME`
pub async fn flag(args: &FlagArgs) -> Verdict {
    match &args.what {
        FlagVerb::Set { name, to, terms, ask: client } => {
            let question = json!({
                "name": name, "on": *to == OnOff::On,
                "seconds": terms.time.as_secs().max(1), "by": terms.by, "why": terms.why,
            });
            ask(client, "/flag", &question).await
        }
        FlagVerb::Clear { name, ask: client } => ask(client, "/flag", &json!({ "name": name })).await,
    }
}

async fn ask(client: &AskArgs, path: &str, question: &Value) -> Verdict {
    settle(async {
        let done = expect(client.client()?.post(path, question).await?)?;
        Ok(show(client, &done, || told(&done)))
    })
    .await
}

fn told(done: &Value) -> String {
    let word = |key: &str| done[key].as_str().unwrap_or_default();
    let what = match (word("kind"), word("name")) {
        ("service", _) => "maintenance".to_owned(),
        ("route", name) => format!("maintenance of route {name}"),
        (kind, name) => format!("{kind} {name}"),
    };
    let position = word("position");
    match done["until"].as_str() {
        Some(until) => format!("{what}: {position} until {until}, then {} as the file says", word("file")),
        None => format!("{what}: {position}, as the file says"),
    }
}
