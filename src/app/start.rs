//! `outrigger run`: from what was typed to a checked configuration, and on to [`super::run`].
//!
//! Problems end the process here, before a port opens and before the app is started.

use std::path::{Path, PathBuf};

use super::cli::RunArgs;
use super::run;
use crate::config::{self, Loaded, Problem};

/// The file looked for when none is named.
pub const FILE_DEFAULT: &str = "outrigger.yaml";
/// Where clients connect when nothing else is said; for messages only.
const NOTHING_TO_DO: &str = "\
there is nothing to stand in front of. Name one of:
  outrigger run --upstream http://127.0.0.1:3000     the app's address
  outrigger run -c outrigger.yaml                    a configuration file
  outrigger run -- node server.js                    the app itself; it is told its port as PORT
or see it work without an app: outrigger demo";

/// Where the configuration comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Upstream(String),
    /// A free port of this machine, for an app that we start.
    FreePort,
}

/// Runs until the end; the result is the exit code.
pub fn run(args: RunArgs) -> u8 {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let loaded = match source(&args, &env, Path::new(FILE_DEFAULT).is_file()) {
        Ok(source) => load(source, args.listen.as_deref()),
        Err(words) => return refuse(&[words.to_owned()]),
    };
    match loaded {
        Ok((config, loaded)) => run::run(run::Options { config, loaded, command: args.command }),
        Err(problems) => refuse(&problems),
    }
}

/// What was typed wins over the environment, and that over the file that happens to lie here.
fn source(args: &RunArgs, env: &dyn Fn(&str) -> Option<String>, file_here: bool) -> Result<Source, &'static str> {
    if let Some(file) = &args.config {
        return Ok(Source::File(file.clone()));
    }
    if let Some(url) = &args.upstream {
        return Ok(Source::Upstream(url.clone()));
    }
    if let Some(file) = env("OUTRIGGER_CONFIG") {
        return Ok(Source::File(file.into()));
    }
    if let Some(url) = env("OUTRIGGER_UPSTREAM") {
        return Ok(Source::Upstream(url));
    }
    match (file_here && args.listen.is_none(), args.command.is_empty()) {
        (true, _) => Ok(Source::File(FILE_DEFAULT.into())),
        (false, false) => Ok(Source::FreePort),
        (false, true) => Err(NOTHING_TO_DO),
    }
}

fn load(source: Source, listen: Option<&str>) -> Result<(Option<PathBuf>, Loaded), Vec<String>> {
    match source {
        Source::File(file) => match config::load_file(&file) {
            Ok(loaded) => Ok((Some(file), loaded)),
            Err(problems) => Err(words(&problems)),
        },
        Source::Upstream(url) => from_upstream(&url, listen),
        Source::FreePort => {
            // Given back at once and taken by the app a moment later; nobody else is told of it.
            let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            let port = port.map_err(|cause| vec![format!("no free port on 127.0.0.1 for the app: {cause}")])?.port();
            from_upstream(&format!("http://127.0.0.1:{port}"), listen)
        }
    }
}

fn from_upstream(url: &str, listen: Option<&str>) -> Result<(Option<PathBuf>, Loaded), Vec<String>> {
    match config::from_upstream(url, listen) {
        Ok(loaded) => Ok((None, loaded)),
        Err(problems) => Err(words(&problems)),
    }
}

fn words(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn refuse(problems: &[String]) -> u8 {
    for problem in problems {
        eprintln!("{}", problem.trim_end());
    }
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> RunArgs {
        RunArgs { config: None, upstream: None, listen: None, command: Vec::new() }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn everything(name: &str) -> Option<String> {
        Some(format!("/{name}"))
    }

    #[test]
    fn what_is_typed_wins_over_the_environment_and_that_over_a_file_lying_here() {
        let config = RunArgs { config: Some("a".into()), ..args() };
        assert_eq!(source(&config, &everything, true), Ok(Source::File("a".into())));
        let upstream = RunArgs { upstream: Some("b".into()), ..args() };
        assert_eq!(source(&upstream, &everything, true), Ok(Source::Upstream("b".to_owned())));
        assert_eq!(source(&args(), &everything, true), Ok(Source::File("/OUTRIGGER_CONFIG".into())));
        let one = |name: &str| (name == "OUTRIGGER_UPSTREAM").then(|| "u".to_owned());
        assert_eq!(source(&args(), &one, true), Ok(Source::Upstream("u".to_owned())));
        assert_eq!(source(&args(), &nothing, true), Ok(Source::File(FILE_DEFAULT.into())));
    }

    #[test]
    fn a_command_alone_gets_a_free_port_and_nothing_at_all_is_refused() {
        let command = RunArgs { command: vec!["node".into()], ..args() };
        assert_eq!(source(&command, &nothing, false), Ok(Source::FreePort));
        assert_eq!(source(&args(), &nothing, false), Err(NOTHING_TO_DO));
    }
}
