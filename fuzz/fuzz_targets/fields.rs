//! A list of fields beside a plain vector of pairs: any sequence of insert, append, make, remove and retain leaves both with
//! the same lines in the same order, found, written and read again alike. The first part of the input is a head that is
//! parsed, so that lines that came and lines that were made stand mixed.
#![no_main]

use bytes::BytesMut;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use outrigger::core::fields::Fields;
use outrigger::http::HeadReader;

/// Few, so that they meet; some share a length.
const NAMES: [&str; 12] =
    ["host", "a", "b", "ab", "ba", "cookie", "accept", "x-one", "x-two", "connection", "content-length", "te"];

fuzz_target!(|data: &[u8]| {
    let Some((&lines, mut rest)) = data.split_first() else { return };
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    let mut model: Vec<(String, Vec<u8>)> = Vec::new();
    for _ in 0..lines % 16 {
        let Some((name, value)) = next(&mut rest) else { break };
        let value: Vec<u8> = value.iter().copied().filter(|byte| byte.is_ascii_graphic()).collect();
        // Spelled differently and spaced differently, by the value.
        let spelled = if value.len() % 2 == 0 { name.to_owned() } else { name.to_uppercase() };
        let gap = ["", " ", "\t "][value.len() % 3];
        head.extend_from_slice(&[spelled.as_bytes(), b":", gap.as_bytes(), &value, b"\r\n"].concat());
        model.push((name.to_owned(), value));
    }
    head.extend_from_slice(b"\r\n");
    let read = |head: &[u8]| HeadReader::new(1 << 20).request(&mut BytesMut::from(head)).expect("good").expect("whole");
    let mut fields = read(&head).headers;
    while let Some((&what, more)) = rest.split_first() {
        rest = more;
        let Some((name, value)) = next(&mut rest) else { break };
        apply(&mut fields, &mut model, what, name, value);
        same(&fields, &model);
    }
    let mut written = b"GET / HTTP/1.1\r\n".to_vec();
    fields.write(&mut written, |name| name.is("b"));
    written.extend_from_slice(b"\r\n");
    model.retain(|(name, _)| name != "b");
    if model.len() <= 100 {
        same(&read(&written).headers, &model);
    }
});

/// A name, and a value of at most 15 bytes.
fn next<'d>(rest: &mut &'d [u8]) -> Option<(&'static str, &'d [u8])> {
    let (&[name, length], more) = rest.split_first_chunk::<2>()?;
    let (value, more) = more.split_at(usize::from(length % 16).min(more.len()));
    *rest = more;
    Some((NAMES[usize::from(name) % NAMES.len()], value))
}

fn apply(fields: &mut Fields, model: &mut Vec<(String, Vec<u8>)>, what: u8, name: &'static str, value: &[u8]) {
    let line = |value: &[u8]| (name.to_owned(), value.to_vec());
    let set = |model: &mut Vec<(String, Vec<u8>)>, value: &[u8]| match model.iter().position(|(known, _)| known == name)
    {
        None => model.push(line(value)),
        Some(first) => {
            model[first] = line(value);
            let mut place = 0;
            model.retain(|(known, _)| {
                place += 1;
                place - 1 <= first || known != name
            });
        }
    };
    match (what % 5, HeaderValue::from_bytes(value)) {
        (0, Ok(given)) => {
            fields.insert(name, given);
            set(model, value);
        }
        (1, Ok(given)) => {
            fields.append(name, given);
            model.push(line(value));
        }
        (2, given) => {
            fields.make(name, &[&value[..value.len() / 2], &value[value.len() / 2..]]);
            if given.is_ok() { set(model, value) } else { model.retain(|(known, _)| known != name) }
        }
        (3, _) => {
            fields.remove(name);
            model.retain(|(known, _)| known != name);
        }
        (4, _) => {
            fields.retain(|known| !known.is(name));
            model.retain(|(known, _)| known != name);
        }
        _ => {}
    }
}

fn same(fields: &Fields, model: &[(String, Vec<u8>)]) {
    let trimmed = |value: &[u8]| value.trim_ascii().to_vec();
    let ours: Vec<(String, Vec<u8>)> = fields
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name.as_bytes()).to_lowercase(), trimmed(value.as_bytes())))
        .collect();
    let theirs: Vec<(String, Vec<u8>)> = model.iter().map(|(name, value)| (name.clone(), trimmed(value))).collect();
    assert_eq!(ours, theirs);
    for name in NAMES {
        let all: Vec<Vec<u8>> = fields.get_all(name).map(|value| trimmed(value.as_bytes())).collect();
        let wanted: Vec<Vec<u8>> =
            theirs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect();
        assert_eq!(all, wanted);
        assert_eq!(fields.contains(name), !wanted.is_empty());
        assert_eq!(fields.get(name).map(|value| trimmed(value.as_bytes())).as_ref(), wanted.first());
    }
    assert_eq!(fields.to_map().len(), model.len());
}
