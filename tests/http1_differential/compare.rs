//! What a reader makes of bytes, and when two readers agree. `fuzz/` compares with it too.

/// One message as its reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `GET /a HTTP/1.1` or `200 HTTP/1.1`.
    pub line: String,
    /// Sorted; framing fields are left out, because hyper removes some.
    pub fields: Vec<(String, Vec<u8>)>,
    /// `None`: it broke off or was refused on the way.
    pub body: Option<Vec<u8>>,
}

/// What a reader makes of a stretch of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub messages: Vec<Seen>,
    /// The reader's own word.
    pub refused: Option<String>,
    /// The last message asked for the connection's end.
    pub closed: bool,
}

/// Reasons for which we refuse what hyper's server takes.
pub const STRICTER_REQUESTS: &[(&str, &str)] = &[
    ("bare_lf", "RFC 9112 §2.2: a recipient MAY recognise a single LF; two that differ can be split apart (§11.2)"),
    ("length_twice", "RFC 9112 §6.3 rule 3: a server MAY reject, and ought to handle both as an error"),
    ("length_differs", "RFC 9112 §6.3 rule 5: repeated equal lengths MAY be rejected; RFC 9110 §8.6"),
    ("transfer_encoding", "RFC 9112 §6.1: a coding that is not understood SHOULD be answered with 501"),
    ("host_missing", "RFC 9112 §3.2: MUST be answered with 400"),
    ("host_repeated", "RFC 9112 §3.2: MUST be answered with 400"),
    ("host_invalid", "RFC 9112 §3.2: an invalid value MUST be answered with 400"),
    ("connect_refused_here", "RFC 9110 §9.3.6: a proxy need not offer CONNECT"),
    ("target_invalid", "RFC 9112 §3.2: one of four forms"),
    ("expectation", "RFC 9110 §10.1.1: 417 MAY be the answer to an unknown expectation"),
    ("upgrade_with_body", "RFC 9110 §7.8: the body would have to be read before the switch"),
    ("chunk_extension", "RFC 9112 §7.1.1: a server ought to limit the total length of chunk extensions"),
    ("chunk_size", "RFC 9112 §7.1: a size is hexadecimal digits; hyper takes whitespace behind them"),
    ("trailers", "RFC 9112 §7.1.2: trailers are field lines; hyper does not read those that nobody asks for"),
    ("body_cut", "RFC 9112 §8: an incomplete message is one; hyper looks at trailers only when it decodes them"),
];

/// Reasons for which we refuse what hyper's client takes.
pub const STRICTER_RESPONSES: &[(&str, &str)] = &[
    ("bare_lf", "RFC 9112 §2.2: as for requests"),
    (
        "a Transfer-Encoding that is not exactly chunked",
        "RFC 9112 §6.3 rule 4.1: read to the end it would lose its coding",
    ),
    ("both Content-Length and Transfer-Encoding", "RFC 9112 §6.3 rule 3: ought to be handled as an error"),
    ("Transfer-Encoding in a version that has none", "RFC 9112 §6.1: framing faulty, MUST NOT be trusted"),
    ("two different Content-Length fields", "RFC 9112 §6.3 rule 5: a proxy MUST answer 502"),
    ("a Content-Length that is not a number", "RFC 9112 §6.3 rule 5: a proxy MUST answer 502"),
    ("an informational status as the final answer", "RFC 9110 §15.2"),
    ("chunk_extension", "RFC 9112 §7.1.1: bounded, and no control characters in them"),
    ("chunk_size", "RFC 9112 §7.1: a size is hexadecimal digits"),
    ("trailers", "RFC 9112 §7.1.2: trailers are field lines"),
    ("body_cut", "RFC 9112 §8: an incomplete message is one"),
];

/// We stop where hyper goes on: it does not look for `close` in a Connection with bytes above 127.
const CLOSED: (&str, &str) = ("close", "RFC 9112 §9.6: a sender that says close will not read another request");

/// Whether two readings mean the same, or ours stops earlier for a listed reason. The word is the reason.
pub fn compare(ours: &Reading, theirs: &Reading, stricter: &[(&str, &str)]) -> Result<Option<String>, String> {
    for (place, our) in ours.messages.iter().enumerate() {
        let Some(their) = theirs.messages.get(place) else {
            return Err(format!("we read message {place}, hyper stopped with {:?}", theirs.refused));
        };
        if our == their {
            continue;
        }
        let same_head = our.line == their.line && our.fields == their.fields;
        if !same_head {
            return Err(format!("message {place} differs"));
        }
        return match (&our.body, &their.body) {
            (Some(_), Some(_)) => Err(format!("the body of message {place} differs")),
            (Some(_), None) => Err(format!("we read the body of message {place}, hyper did not")),
            (None, _) => listed(ours, stricter),
        };
    }
    if theirs.messages.len() > ours.messages.len() {
        return listed(ours, stricter);
    }
    match (&ours.refused, &theirs.refused) {
        (None, Some(_)) if ours.closed => listed(ours, stricter),
        (None, Some(theirs)) => Err(format!("hyper refused with {theirs:?}, we did not")),
        (Some(_), None) => listed(ours, stricter),
        (Some(_), Some(_)) | (None, None) => Ok(None),
    }
}

fn listed(ours: &Reading, stricter: &[(&str, &str)]) -> Result<Option<String>, String> {
    if ours.refused.is_none() && ours.closed {
        return Ok(Some(CLOSED.0.to_owned()));
    }
    let reason = ours.refused.clone().unwrap_or_default();
    let known = stricter.iter().any(|(known, _)| *known == reason);
    if known { Ok(Some(reason)) } else { Err(format!("we refused with {reason:?}, which is not listed")) }
}
