//! The verbs that ask the running proxy: one request to the admin port each, and the answer in text or JSON.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};

use super::cli::{AskArgs, BreakerArgs, BreakerState, DiffArgs, DrainArgs, Output, ReloadArgs, StatusArgs, WhyArgs};
use super::client::{Answer, ClientError};
use super::render::{self, Shown};
use super::verdict::Verdict;

/// `outrigger status`: an answer is a yes, whatever it says; `healthcheck` is the verb that judges.
pub async fn status(args: &StatusArgs) -> Verdict {
    settle(async {
        let answer = args.ask.client()?.get("/status").await?;
        let status = expect(answer)?;
        let shown = if args.all { Shown::All } else { Shown::Worst };
        Ok(show(&args.ask, &status, || render::status(&status, shown)))
    })
    .await
}

/// `outrigger why ID`: no when nothing is known of the request.
pub async fn why(args: &WhyArgs) -> Verdict {
    settle(async {
        let answer = args.ask.client()?.get(&format!("/why/{}", escape(&args.id))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Verdict::no(said(&answer)));
        }
        let fate = expect(answer)?;
        Ok(show(&args.ask, &fate, || render::why(&fate)))
    })
    .await
}

/// `outrigger reload`: no when the new configuration is refused.
pub async fn reload(args: &ReloadArgs) -> Verdict {
    settle(async {
        let answer = args.ask.client()?.post("/reload", &json!({ "to": args.to })).await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(refused(&args.ask, &answer));
        }
        let reloaded = expect(answer)?;
        Ok(show(&args.ask, &reloaded, || render::reload(&reloaded)))
    })
    .await
}

/// `outrigger diff FILE`: yes when nothing differs, no when something does.
pub async fn diff(args: &DiffArgs) -> Verdict {
    settle(async {
        let file = &args.file;
        let cannot = |cause| Verdict::cannot(format!("{}: {cause}", file.display()));
        let text = std::fs::read_to_string(file).map_err(cannot)?;
        let absolute = std::path::absolute(file).map_err(cannot)?;
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let question = json!({ "name": file.display().to_string(), "base": base.to_string_lossy(), "text": text });
        let answer = args.ask.client()?.post("/diff", &question).await?;
        if answer.status == StatusCode::CONFLICT {
            return Err(Failure(Verdict::cannot(render::problems(&answer.json()))));
        }
        let diff = expect(answer)?;
        let same = diff["changes"].as_array().is_none_or(Vec::is_empty);
        let text = match args.ask.output.output {
            Output::Json => pretty(&diff),
            Output::Text => render::diff(&diff),
        };
        Ok(if same { Verdict::yes(text) } else { Verdict::no(text) })
    })
    .await
}

/// `outrigger drain`: with `--wait`, no when the drain had to cut something.
pub async fn drain(args: &DrainArgs) -> Verdict {
    settle(async {
        // A drain takes as long as it is configured to.
        let client = if args.wait { args.ask.client_within(None)? } else { args.ask.client()? };
        let report = expect(client.post("/drain", &json!({ "wait": args.wait })).await?)?;
        let text = match args.ask.output.output {
            Output::Json => pretty(&report),
            Output::Text => render::drain(&report),
        };
        let clean = report["cut"].as_u64().unwrap_or(0) == 0;
        Ok(if clean { Verdict::yes(text) } else { Verdict::no(text) })
    })
    .await
}

/// `outrigger breaker open|close|auto UPSTREAM`.
pub async fn breaker(args: &BreakerArgs) -> Verdict {
    settle(async {
        let state = match args.state {
            BreakerState::Open => "open",
            BreakerState::Close => "close",
            BreakerState::Auto => "auto",
        };
        let terms = &args.terms;
        let mut path = format!("/breaker/{}/{state}?seconds={}", escape(&args.upstream), terms.time.as_secs().max(1));
        for (name, words) in [("by", &terms.by), ("why", &terms.why)] {
            if let Some(words) = words {
                path.push_str(&format!("&{name}={}", escape(words)));
            }
        }
        let done = expect(args.ask.client()?.post(&path, &Value::Null).await?)?;
        let word = |key: &str| done[key].as_str().unwrap_or_default().to_owned();
        Ok(show(&args.ask, &done, || format!("breaker of {}: {}", word("upstream"), word("state"))))
    })
    .await
}

/// A way out of a verb with `?`.
pub(super) struct Failure(Verdict);

impl From<Verdict> for Failure {
    fn from(verdict: Verdict) -> Failure {
        Failure(verdict)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure(Verdict::cannot(error.to_string()))
    }
}

pub(super) async fn settle(verb: impl Future<Output = Result<Verdict, Failure>>) -> Verdict {
    verb.await.unwrap_or_else(|Failure(verdict)| verdict)
}

/// The JSON of a good answer; any other is a "cannot" with what it says.
pub(super) fn expect(answer: Answer) -> Result<Value, Failure> {
    if answer.status.is_success() {
        return Ok(answer.json());
    }
    let words = format!("Outrigger answered {}: {}", answer.status.as_u16(), said(&answer));
    Err(Failure(Verdict::cannot(words)))
}

fn said(answer: &Answer) -> String {
    let json = answer.json();
    json["error"].as_str().map_or_else(|| answer.text(), str::to_owned)
}

fn refused(args: &AskArgs, answer: &Answer) -> Verdict {
    match args.output.output {
        Output::Json => Verdict::no(pretty(&answer.json())),
        Output::Text => Verdict::no(render::problems(&answer.json())),
    }
}

pub(super) fn show(args: &AskArgs, value: &Value, text: impl FnOnce() -> String) -> Verdict {
    match args.output.output {
        Output::Json => Verdict::yes(pretty(value)),
        Output::Text => Verdict::yes(text()),
    }
}

fn pretty(value: &Value) -> String {
    // Values made of JSON are always JSON.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// One path segment: everything that is not unreserved is percent-encoded.
fn escape(segment: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_path_segment() {
        assert_eq!(escape("abc-1.2_3~"), "abc-1.2_3~");
        assert_eq!(escape("a/../b?c#d e%"), "a%2F..%2Fb%3Fc%23d%20e%25");
    }
}
