//! Our HTTP/1 codec beside hyper's: the same bytes to both, and the same meaning out of them.
//! Goal: nobody behind or before us reads a message differently from us without our refusing it. Method: a corpus of
//! valid and malformed messages, put together from parts, and thousands of seeded mutations of it. Where we refuse what
//! hyper takes, the reason stands in a list with the section of the RFC that allows or asks for it; the other way
//! round, and different meanings, must not happen.

mod compare;
mod corpus;
mod hyper_side;
mod our_side;

use std::collections::BTreeMap;

use compare::{Reading, STRICTER_REQUESTS, STRICTER_RESPONSES, Seen, compare};

/// Compares every input and tells what differs; returns how often each listed reason was met.
fn check(
    inputs: impl Iterator<Item = Vec<u8>>,
    stricter: &[(&str, &str)],
    mut read: impl FnMut(&[u8]) -> (Reading, Reading),
) -> BTreeMap<String, usize> {
    let (mut wrong, mut reasons) = (Vec::new(), BTreeMap::new());
    let mut agreed = 0;
    for input in inputs {
        let (ours, theirs) = read(&input);
        match compare(&ours, &theirs, stricter) {
            Ok(None) => agreed += ours.messages.iter().filter(|message| message.body.is_some()).count(),
            Ok(Some(reason)) => *reasons.entry(reason).or_insert(0) += 1,
            Err(what) if wrong.len() < 10 => {
                let input = String::from_utf8_lossy(&input).into_owned();
                wrong.push(format!("{what}\n  input  {input:?}\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
            Err(what) => wrong.push(what),
        }
    }
    assert!(agreed >= 200, "only {agreed} messages were understood by both: does either side read at all?");
    assert!(wrong.is_empty(), "{} differences, the first:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    reasons
}

fn requests(input: &[u8]) -> (Reading, Reading) {
    (our_side::requests(input), hyper_side::requests(input))
}

fn responses(input: &[u8]) -> (Reading, Reading) {
    (our_side::response(input), hyper_side::response(input))
}

#[test]
fn requests_of_the_corpus_mean_the_same_or_are_refused_for_a_reason() {
    let corpus = corpus::requests();
    assert!(corpus.len() >= 500, "{} requests", corpus.len());
    let reasons = check(corpus.into_iter(), STRICTER_REQUESTS, requests);
    // The list must not hold what nothing meets any more.
    for expected in ["bare_lf", "length_twice", "host_missing", "chunk_extension", "transfer_encoding"] {
        assert!(reasons.contains_key(expected), "{expected} was never met: {reasons:?}");
    }
}

#[test]
fn mutated_requests_mean_the_same_or_are_refused_for_a_reason() {
    check(corpus::mutations(&corpus::requests(), 60_000, 3), STRICTER_REQUESTS, requests);
}

#[test]
fn responses_of_the_corpus_mean_the_same_or_are_refused_for_a_reason() {
    let corpus = corpus::responses();
    assert!(corpus.len() >= 200, "{} responses", corpus.len());
    let reasons = check(corpus.into_iter(), STRICTER_RESPONSES, responses);
    for expected in ["bare_lf", "a Transfer-Encoding that is not exactly chunked"] {
        assert!(reasons.contains_key(expected), "{expected} was never met: {reasons:?}");
    }
}

#[test]
fn mutated_responses_mean_the_same_or_are_refused_for_a_reason() {
    check(corpus::mutations(&corpus::responses(), 20_000, 2), STRICTER_RESPONSES, responses);
}
