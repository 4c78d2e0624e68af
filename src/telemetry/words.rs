//! A request's fate in plain words, for whoever asks `why`. Reasons are the proxy's words and are shown as they are;
//! what they mean for this request (who ended it, after how long, what was tried) is said around them.

use std::time::Duration;

use super::record::{ABANDONED, ANSWERED, Fate};
use super::why::{Attempt, Remembered};

/// One sentence, without the reason.
pub fn brief(request: &Remembered<'_>) -> String {
    verdict(request, "")
}

/// A few sentences: what became of it and why, what was tried, where the time went.
pub fn explain(request: &Remembered<'_>) -> String {
    let mut sentences = vec![verdict(request, request.reason)];
    sentences.extend(attempts(request));
    sentences.extend(request.notes.iter().map(|note| sentence(note)));
    sentences.extend(time(request));
    sentences.join(" ")
}

fn verdict(request: &Remembered<'_>, reason: &str) -> String {
    let took = span(request.duration);
    let answer = match request.status {
        0 => "no answer".to_owned(),
        status => format!("{status}"),
    };
    let because = match reason {
        "" => String::new(),
        reason => format!(" because of {reason}"),
    };
    match request.fate {
        Fate::Ok => format!("The app answered {answer} in {took}."),
        Fate::AppError if request.reason.is_empty() => format!("The app failed: it answered {answer} after {took}."),
        Fate::AppError => format!("The app's answer could not be used{because}; the client got {answer} after {took}."),
        Fate::Refused if request.attempts.is_empty() => {
            format!("Outrigger refused it with {answer}{because}; the app was not asked.")
        }
        Fate::Refused => format!("Outrigger refused it with {answer}{because}, after {took}."),
        Fate::TimedOut => format!("Outrigger gave up after {took}{because}; the client got {answer}."),
        Fate::Unreachable => format!("No endpoint took it{because}; the client got {answer} after {took}."),
        Fate::Truncated => format!("The answer ({answer}) began and broke off after {took}{because}."),
        Fate::ClientGone if request.status == 0 => format!("The client left after {took}, before an answer began."),
        Fate::ClientGone => format!("The client left after {took}, while {answer} was being sent."),
        Fate::Upgraded => format!("It became a connection of another protocol, which lasted {took}."),
    }
}

fn attempts(request: &Remembered<'_>) -> Option<String> {
    let all = &request.attempts;
    if all.is_empty() || (all.len() == 1 && all[0].outcome == ANSWERED) {
        return None;
    }
    let told: Vec<String> = all.iter().enumerate().map(|(place, attempt)| attempt_words(place + 1, attempt)).collect();
    Some(match all.len() {
        1 => format!("There was one attempt: {}.", told.join("; ")),
        many => format!("There were {many} attempts: {}.", told.join("; ")),
    })
}

fn attempt_words(number: usize, attempt: &Attempt<'_>) -> String {
    if attempt.outcome == ABANDONED {
        return format!(
            "{number}. {} was asked, and was at work on it for {}",
            attempt.endpoint,
            span(attempt.duration)
        );
    }
    let status = match attempt.status {
        0 => String::new(),
        status => format!(" with {status}"),
    };
    let connection = if attempt.reused { "a pooled connection" } else { "a new connection" };
    let (endpoint, outcome, took) = (attempt.endpoint, attempt.outcome, span(attempt.duration));
    format!("{number}. {endpoint} over {connection} ended {outcome}{status} after {took}")
}

/// A note begins small and ends without a full stop; one that tells somebody else's words may have them.
fn sentence(note: &str) -> String {
    let mut letters = note.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}

/// Where the time went, if one phase had most of it.
fn time(request: &Remembered<'_>) -> Option<String> {
    let (phase, took) = request.phases().max_by_key(|(_, took)| *took)?;
    let share = took.as_secs_f64() / request.duration.as_secs_f64();
    let worth_saying = request.duration >= SLOW && (0.5..=1.0).contains(&share);
    worth_saying.then(|| format!("{:.0} % of the time ({}) went to the phase `{phase}`.", share * 100.0, span(took)))
}

fn span(duration: Duration) -> String {
    if duration >= Duration::from_secs(1) {
        format!("{:.2} s", duration.as_secs_f64())
    } else {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    }
}

/// Below this nobody asks where the time went.
const SLOW: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::tests::record;
    use super::super::record::{AttemptRecord, RequestRecord};
    use super::super::why;
    use super::*;

    fn told(record: &RequestRecord<'_>) -> String {
        let mut bytes = Vec::new();
        why::encode(&mut bytes, record);
        explain(&why::decode(&bytes).unwrap())
    }

    #[test]
    fn who_left_is_told_that_the_app_was_at_work() {
        let attempts = [AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(9),
            status: 0,
            outcome: ABANDONED,
            reused: false,
            span: 1,
        }];
        let text = told(&RequestRecord { attempts: &attempts, status: 0, fate: Fate::ClientGone, ..record() });
        assert!(
            text.contains("There was one attempt: 1. 127.0.0.1:3000 was asked, and was at work on it for 9.0 ms."),
            "{text}"
        );
    }

    #[test]
    fn a_good_request_is_told_in_one_sentence() {
        assert_eq!(told(&record()), "The app answered 200 in 12.3 ms.");
    }

    #[test]
    fn a_timeout_says_what_was_tried_and_where_the_time_went() {
        let attempt = |outcome, status, millis, reused| AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(millis),
            status,
            outcome,
            reused,
            span: 0,
        };
        let attempts = [attempt("status_503", 503, 4, true), attempt("first_byte_timeout", 0, 2_000, false)];
        let slow = RequestRecord {
            status: 504,
            fate: Fate::TimedOut,
            reason: "first_byte_timeout",
            duration: Duration::from_millis(2_005),
            attempts: &attempts,
            forwarded: Some(Duration::from_millis(1)),
            first_byte: None,
            ..record()
        };
        assert_eq!(
            told(&slow),
            "Outrigger gave up after 2.00 s because of first_byte_timeout; the client got 504. There were 2 attempts: \
             1. 127.0.0.1:3000 over a pooled connection ended status_503 with 503 after 4.0 ms; \
             2. 127.0.0.1:3000 over a new connection ended first_byte_timeout after 2.00 s. \
             100 % of the time (2.00 s) went to the phase `attempt`."
        );
    }

    #[test]
    fn a_note_is_a_sentence_with_one_full_stop() {
        let notes = ["held for 2s".to_owned(), "The head is not HTTP.".to_owned()];
        let text = told(&RequestRecord { notes: &notes, ..record() });
        assert!(text.ends_with(" ms. Held for 2s. The head is not HTTP."), "{text}");
    }

    #[test]
    fn every_fate_has_words() {
        for fate in Fate::ALL {
            for (status, reason) in [(0, ""), (503, "some_reason")] {
                let words = told(&RequestRecord { fate, status, reason, duration: Duration::ZERO, ..record() });
                assert!(words.ends_with('.') && words.len() > 20, "{words}");
            }
        }
    }
}
