//! The verbs: what may be typed, and which function it becomes. Nothing is decided here.
//!
//! Exit codes are the same for every verb: 0 yes, 1 no (the check failed), 2 cannot (usage, file, no connection).
//! An answer goes to standard output whatever it is; what prevented an answer goes to standard error.
//! Verbs whose feature does not exist yet are not listed, so that `--help` never promises what `run` cannot do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::client::{ADMIN_DEFAULT, Client, parse_address};
use super::verdict::Verdict;
use super::{check, demo, explain, healthcheck, start, switches, verbs, verdict};
use crate::config::parse_duration;

/// The default patience of a verb that asks the admin port.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    about = "A sidecar reverse proxy that makes any HTTP app production-ready without changing its code, and proves it.",
    after_help = HELP_EXAMPLES,
    disable_help_subcommand = true,
    propagate_version = false
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const HELP_EXAMPLES: &str = "\
Examples:
  outrigger demo                                        see it work; needs nothing
  outrigger run --upstream http://127.0.0.1:3000        in front of an app, every default on
  outrigger run -c outrigger.yaml -- node server.js     start the app too, and stop it after the drain
  outrigger check outrigger.yaml                        every problem of a file at once
  outrigger explain GET /api/orders -c outrigger.yaml   which route, which timeouts, worst case
  outrigger status                                      how the running one is doing

Exit codes: 0 yes, 1 no, 2 cannot (usage, file, no connection).";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the proxy
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// See it work: a flaky app, Outrigger in front, a load, and a live summary
    Demo(DemoArgs),
    /// Check a configuration file and print every problem it has (exit 2 if any)
    Check(CheckArgs),
    /// Say what a request would meet: route, timeouts, retries, limits, worst case, and where each value comes from
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Compare a file with the running configuration (exit 1 if they differ)
    Diff(DiffArgs),
    /// Load the configuration file again, or go back to an earlier plan
    Reload(ReloadArgs),
    /// Show how the running proxy is doing
    Status(StatusArgs),
    /// Tell what became of one of the last requests, and why
    #[command(after_help = WHY_HELP)]
    Why(WhyArgs),
    /// Stop gracefully: not ready, finish what is in flight, end
    Drain(DrainArgs),
    /// Force a circuit breaker open or closed, or let it judge by itself again
    Breaker(BreakerArgs),
    /// Let nobody in, or only readers, while work is going on: the whole service or one route
    Maintenance(switches::MaintenanceArgs),
    /// Switch the routes of a flag on or off
    Flag(switches::FlagArgs),
    /// Write something made from the program: the configuration's JSON Schema
    Generate(GenerateArgs),
    /// Ask the ops port whether the proxy is ready (exit 0) or not (exit 1); for images without a shell
    Healthcheck(HealthcheckArgs),
    /// Write a completion script for a shell
    #[command(after_help = "Example:\n  outrigger completions bash > /etc/bash_completion.d/outrigger")]
    Completions { shell: clap_complete::Shell },
    /// Print the version
    Version(OutputArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  outrigger run --upstream http://127.0.0.1:3000
  outrigger run --upstream http://127.0.0.1:3000 --listen 0.0.0.0:80
  outrigger run -c /etc/outrigger/outrigger.yaml
  outrigger run -c outrigger.yaml -- node server.js
  outrigger run -- python app.py        a free port is chosen; the app is told it as PORT

With a COMMAND, Outrigger starts the app, is ready when the app is, drains before it sends the app SIGTERM,
and exits with the app's code. SIGTERM, SIGINT: drain (a second one ends at once). SIGHUP: reload.
SIGUSR1 and SIGUSR2 are passed on to the app.";

/// An empty variable behind it, as a rule; without the app there would be nobody to answer.
const NO_COMMAND: &str = "\
there is nothing behind `--`. Name the app to start, as in
  outrigger run -- node server.js
or leave `--` out if something else starts it";

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file [env: OUTRIGGER_CONFIG] [default: ./outrigger.yaml if it exists]
    #[arg(short, long, value_name = "FILE", conflicts_with = "upstream")]
    pub config: Option<PathBuf>,
    /// The app to stand in front of, instead of a file: http://127.0.0.1:3000 or unix:/path [env: OUTRIGGER_UPSTREAM]
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Where clients connect, with --upstream [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub listen: Option<String>,
    /// The app to start and stop with the proxy
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End by itself after this long (10s, 2m); otherwise on Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub length: Option<Duration>,
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub output: OutputArgs,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  outrigger explain GET /api/orders -c outrigger.yaml
  outrigger explain POST '/pay?card=1' -c outrigger.yaml --host shop.example.com --header 'x-beta: 1'";

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// GET, POST …
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// The path, with a query if routes look at it
    #[arg(value_name = "PATH")]
    pub path: String,
    /// The configuration file [env: OUTRIGGER_CONFIG] [default: ./outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The Host the client asks for
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// A request header, `name: value`; may be repeated
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// The listener it arrives at [default: the first of the file]
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The configuration file to compare with what runs
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Go back to the plan with this hash, or the beginning of it; `status` lists them
    #[arg(long, value_name = "HASH")]
    pub to: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Every route, upstream and rate limit; otherwise, where they are many, the twenty of each with most trouble or traffic
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

const WHY_HELP: &str = "\
The last requests are remembered, in 2 MiB (at least 256 KiB for each worker): some 8,000 of them, the last 80 seconds at
100 requests a second. Older ones stand in the access log. The newest:
  curl 'http://127.0.0.1:9901/recent?limit=100'";

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The x-request-id of the response, the log line or the error page
    #[arg(value_name = "REQUEST_ID")]
    pub id: String,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Wait for the end and print the drain report (exit 1 if anything was cut)
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  outrigger breaker open app --for 10m --why 'its database is down'\n  outrigger breaker auto app"
)]
pub struct BreakerArgs {
    #[arg(value_name = "STATE")]
    pub state: BreakerState,
    /// The upstream's name in the configuration
    #[arg(value_name = "UPSTREAM")]
    pub upstream: String,
    #[command(flatten)]
    pub terms: switches::Terms,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BreakerState {
    /// Refuse every request to it
    Open,
    /// Let every request through
    Close,
    /// Judge by itself again
    Auto,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outrigger generate schema > outrigger.schema.json")]
pub struct GenerateArgs {
    /// schema: the JSON Schema of the configuration, for editors
    #[arg(value_name = "WHAT")]
    pub what: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example (Dockerfile):\n  HEALTHCHECK CMD [\"/outrigger\", \"healthcheck\"]")]
pub struct HealthcheckArgs {
    /// The ops port: http://host:port, with a path to ask something else than readiness, or unix:/path
    #[arg(long, value_name = "URL", env = "OUTRIGGER_OPS")]
    pub url: Option<String>,
    /// Ask whether the proxy lives instead of whether it is ready
    #[arg(long)]
    pub live: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub timeout: Duration,
}

/// How to reach the running proxy.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// The admin port: host:port or unix:/path. A token is taken from OUTRIGGER_ADMIN_TOKEN
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = ADMIN_DEFAULT)]
    pub admin: String,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl AskArgs {
    pub fn client(&self) -> Result<Client, Verdict> {
        self.client_within(Some(ANSWER_TIMEOUT))
    }

    pub fn client_within(&self, timeout: Option<Duration>) -> Result<Client, Verdict> {
        let address = parse_address(&self.admin).map_err(|words| Verdict::cannot(format!("--admin: {words}")))?;
        let token = std::env::var("OUTRIGGER_ADMIN_TOKEN").ok();
        Ok(Client::new(address, "admin", timeout).with_token(token))
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// For people or for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// The whole program: parses the arguments and does what they say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let open_end = arguments.last().is_some_and(|last| last == "--");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as "errors" too, with exit code 0 and on standard output.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return verdict::written(error.print(), code);
        }
    };
    match cli.verb {
        Verb::Run(args) if open_end && args.command.is_empty() => Verdict::cannot(NO_COMMAND).print(),
        Verb::Run(args) => ExitCode::from(start::run(args)),
        Verb::Demo(args) => ExitCode::from(demo::run(&args)),
        Verb::Check(args) => check::check(&args.file, args.output.output).print(),
        Verb::Explain(args) => explain::explain(&args).print(),
        Verb::Generate(args) => generate(&args.what).print(),
        Verb::Completions { shell } => completions(shell),
        Verb::Version(args) => version(args.output).print(),
        Verb::Diff(args) => ask(verbs::diff(&args)),
        Verb::Reload(args) => ask(verbs::reload(&args)),
        Verb::Status(args) => ask(verbs::status(&args)),
        Verb::Why(args) => ask(verbs::why(&args)),
        Verb::Drain(args) => ask(verbs::drain(&args)),
        Verb::Breaker(args) => ask(verbs::breaker(&args)),
        Verb::Maintenance(args) => ask(switches::maintenance(&args)),
        Verb::Flag(args) => ask(switches::flag(&args)),
        Verb::Healthcheck(args) => match healthcheck::question(args.url.as_deref(), args.live, args.timeout) {
            Ok(question) => ask(healthcheck::ask(&question)),
            Err(words) => Verdict::cannot(format!("--url: {words}")).print(),
        },
    }
}

/// Runs a verb that talks to the running proxy.
fn ask(verb: impl Future<Output = Verdict>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(verb).print(),
        Err(cause) => Verdict::cannot(format!("cannot start: {cause}")).print(),
    }
}

/// What `generate` will write one day; named here so that asking early gets an answer instead of a riddle.
const GENERATE_LATER: [&str; 9] =
    ["alerts", "dashboard", "kubernetes", "ecs", "compose", "systemd", "openslo", "catalog", "runbook"];

fn generate(what: &str) -> Verdict {
    if what == "schema" {
        return Verdict::yes(crate::config::json_schema());
    }
    if GENERATE_LATER.contains(&what) {
        let version = env!("CARGO_PKG_VERSION");
        return Verdict::cannot(format!(
            "`generate {what}` is not available in version {version}; `generate schema` is"
        ));
    }
    Verdict::cannot(format!("there is nothing called \"{what}\" to generate; try `outrigger generate schema`"))
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "outrigger", &mut script);
    verdict::say(&script, 0)
}

fn version(output: Output) -> Verdict {
    let version = env!("CARGO_PKG_VERSION");
    match output {
        Output::Text => Verdict::yes(format!("outrigger {version}")),
        Output::Json => Verdict::yes(serde_json::json!({ "version": version }).to_string()),
    }
}

/// How long an order may hold.
pub(super) fn holding(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time <= Duration::from_secs(7 * 86_400) { Ok(time) } else { Err("an order holds for 7d at most".to_owned()) }
}

/// `10s`, `2m`, `250ms`; the unit is required, as in the configuration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time > Duration::ZERO => Ok(time),
        Ok(_) => Err("the time must be more than nothing".to_owned()),
        Err(expected) => Err(format!("expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_card_that_exists_is_understood() {
        for line in [
            "outrigger run --upstream http://127.0.0.1:3000",
            "outrigger run --upstream http://127.0.0.1:3000 --listen :8080",
            "outrigger run -c a.yaml -- node server.js --port 1",
            "outrigger demo --for 10s",
            "outrigger check a.yaml --output json",
            "outrigger explain GET / -c a.yaml --host a",
            "outrigger diff a.yaml --admin 127.0.0.1:1",
            "outrigger reload",
            "outrigger reload --to abc",
            "outrigger status --all",
            "outrigger status --output json --admin unix:/run/a.sock",
            "outrigger why abc",
            "outrigger drain --wait",
            "outrigger breaker open app",
            "outrigger breaker close app",
            "outrigger breaker auto app",
            "outrigger maintenance on --for 30m --why work --allow 10.0.0.0/8",
            "outrigger maintenance read-only --route reports",
            "outrigger flag set reports off --for 2h --by ann",
            "outrigger flag clear reports",
            "outrigger generate schema",
            "outrigger healthcheck --url http://127.0.0.1:9900",
            "outrigger completions bash",
            "outrigger version",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_usage_is_a_cannot() {
        for line in [
            "outrigger",
            "outrigger fly",
            "outrigger run -c a --upstream b",
            "outrigger run -c a --listen b",
            "outrigger demo --for 10",
            "outrigger breaker ajar app",
            "outrigger maintenance maybe",
            "outrigger flag set reports",
            "outrigger status --output xml",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("outrigger --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "10", "s", "0s", "-1s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_generated_yet_says_so() {
        assert!(generate("alerts").words().contains("not available in version"));
        assert_eq!(generate("nonsense").code(), 2);
    }
}
