//! The bytes of a client, split anywhere. Asserts of the request side of the HTTP/1 engine:
//! it never panics and each turn makes progress; where the bytes were split changes nothing that is accepted; heads, fields
//! and trailers stay below their limits; a reader of twenty lines finds the same fields, body and end of each accepted
//! message, and hyper's server reads no other request than we do, or we stop earlier for a listed reason; what we write of
//! it is read again, by us and by hyper, as the same one request.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use outrigger::http::fields::FIELDS_MAX;
use outrigger_fuzz::compare::{STRICTER_REQUESTS, compare};
use outrigger_fuzz::talk::{Ended, First, Input, Message, Sender};
use outrigger_fuzz::{hyper_side, our_side, plain, talk};

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::of(data) else { return };
    let whole = talk::read(&[input.whole], &Sender::Client, false);
    let split = talk::read(&input.pieces, &Sender::Client, input.ahead);
    let meaning = |messages: &[Message]| messages.iter().map(|one| format!("{:?}", one.meaning())).collect::<Vec<_>>();
    assert_eq!(meaning(&whole), meaning(&split), "the split changes the meaning");
    for message in &whole {
        if message.sound && message.ended == Ended::Whole {
            read_plainly(message, input.whole);
            read_again(message);
        }
    }
    if !talk::is_beyond_hyper(&whole) {
        agree(input.whole);
    }
});

fn read_plainly(message: &Message, bytes: &[u8]) {
    let (start, body, end) = message.at;
    let (first, fields) = plain::head(&bytes[start..body]).expect("an accepted head is plain");
    let First::Request(method, _, _) = &message.first else { unreachable!("a client sends requests") };
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    assert_eq!(words.len(), 3, "{first:?}");
    assert_eq!(words[0], method.as_str().as_bytes());
    assert!(matches!(words[2], b"HTTP/1.1" | b"HTTP/1.0"));
    assert_eq!(fields.len(), message.headers.len());
    for ((name, value), (our_name, our_value)) in fields.iter().zip(message.headers.iter()) {
        assert!(our_name.is(name) && our_value.as_bytes() == value, "{name}");
    }
    let plainly = plain::body(&fields, &bytes[body..], false);
    assert_eq!(plainly.as_ref(), Some(&(message.body.clone(), end - body)), "the body or its end");
}

fn read_again(message: &Message) {
    if message.headers.len() >= FIELDS_MAX {
        return; // with the field that its frame may need it has more than are read
    }
    let bytes = talk::encode(message, &Method::GET);
    let again = talk::read(&[&bytes], &Sender::Client, false);
    let [again] = again.as_slice() else { panic!("{} messages out of one", again.len()) };
    let (First::Request(method, target, _), First::Request(method_2, target_2, _)) = (&message.first, &again.first)
    else {
        unreachable!("a client sends requests")
    };
    assert_eq!((method, target), (method_2, target_2));
    assert_eq!(message.plain_lines(), again.plain_lines());
    assert_eq!((&message.body, &message.trailers, again.ended), (&again.body, &again.trailers, Ended::Whole));
    assert_eq!(again.at.2, bytes.len(), "bytes are left over");
    if !talk::is_beyond_hyper(std::slice::from_ref(again)) {
        agree(&bytes);
    }
}

fn agree(bytes: &[u8]) {
    let (ours, theirs) = (our_side::requests(bytes), hyper_side::requests(bytes));
    if let Err(what) = compare(&ours, &theirs, STRICTER_REQUESTS) {
        panic!("{what}\n  input  {:?}\n  ours   {ours:?}\n  theirs {theirs:?}", String::from_utf8_lossy(bytes));
    }
}
