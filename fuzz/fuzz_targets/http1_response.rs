//! The bytes of an app, split anywhere, in answer to GET, HEAD or POST. Asserts of the response side of the HTTP/1 engine
//! what `http1_request` asserts of the other: progress, no meaning in the splits, limits, the same fields, body and end for
//! a plain reader, nothing else for hyper's client (of answers to GET) but for listed reasons, and what we write of an
//! answer is read again as the same one.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use outrigger::http::Framing;
use outrigger::http::fields::FIELDS_MAX;
use outrigger_fuzz::compare::{STRICTER_RESPONSES, compare};
use outrigger_fuzz::talk::{Ended, First, Input, Message, Sender};
use outrigger_fuzz::{hyper_side, our_side, plain, talk};

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::of(data) else { return };
    let method = [Method::GET, Method::GET, Method::HEAD, Method::POST][usize::from(input.option & 3)].clone();
    let sender = Sender::App(method.clone());
    let whole = talk::read(&[input.whole], &sender, false);
    let split = talk::read(&input.pieces, &sender, input.ahead);
    let meaning = |messages: &[Message]| messages.iter().map(|one| format!("{:?}", one.meaning())).collect::<Vec<_>>();
    assert_eq!(meaning(&whole), meaning(&split), "the split changes the meaning");
    for message in &whole {
        if message.sound && message.ended == Ended::Whole {
            read_plainly(message, input.whole);
            read_again(message, &method);
        }
    }
    if method == Method::GET && !talk::is_beyond_hyper(&whole) {
        agree(input.whole);
    }
});

fn status(message: &Message) -> http::StatusCode {
    let First::Response(status, ..) = message.first else { unreachable!("an app sends answers") };
    status
}

fn read_plainly(message: &Message, bytes: &[u8]) {
    let (start, body, end) = message.at;
    let (first, fields) = plain::head(&bytes[start..body]).expect("an accepted head is plain");
    let code = status(message);
    assert!(first.starts_with(b"HTTP/1.1 ") || first.starts_with(b"HTTP/1.0 "), "{first:?}");
    assert_eq!(&first[9..12], code.as_str().as_bytes());
    assert!(matches!(first.get(12), None | Some(b' ')), "{first:?}");
    assert_eq!(fields.len(), message.headers.len());
    for ((name, value), (our_name, our_value)) in fields.iter().zip(message.headers.iter()) {
        assert!(our_name.is(name) && our_value.as_bytes() == value, "{name}");
    }
    if message.framing == Framing::None {
        assert_eq!((end, message.body.len()), (body, 0));
    } else {
        let plainly = plain::body(&fields, &bytes[body..], true);
        assert_eq!(plainly.as_ref(), Some(&(message.body.clone(), end - body)), "the body or its end");
    }
}

fn read_again(message: &Message, method: &Method) {
    if message.headers.len() >= FIELDS_MAX {
        return; // with the field that its frame may need it has more than are read
    }
    let bytes = talk::encode(message, method);
    let again = talk::read(&[&bytes], &Sender::App(method.clone()), false);
    let [again] = again.as_slice() else { panic!("{} messages out of one", again.len()) };
    let (First::Response(code, reason, _), First::Response(code_2, reason_2, _)) = (&message.first, &again.first)
    else {
        unreachable!("an app sends answers")
    };
    assert_eq!((code, reason), (code_2, reason_2));
    // Of what has no body, no length is told (RFC 9110 §8.6); elsewhere the lines stay.
    assert_eq!(message.plain_lines(), again.plain_lines());
    assert_eq!((&message.body, &message.trailers, again.ended), (&again.body, &again.trailers, Ended::Whole));
    assert_eq!(again.at.2, bytes.len(), "bytes are left over");
    if *method == Method::GET && !code.is_informational() {
        agree(&bytes);
    }
}

fn agree(bytes: &[u8]) {
    let (ours, theirs) = (our_side::response(bytes), hyper_side::response(bytes));
    if let Err(what) = compare(&ours, &theirs, STRICTER_RESPONSES) {
        panic!("{what}\n  input  {:?}\n  ours   {ours:?}\n  theirs {theirs:?}", String::from_utf8_lossy(bytes));
    }
}
