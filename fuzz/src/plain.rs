//! A second reader of HTTP/1, as plain as can be and without `httparse`: it cuts a head at every CRLF and each line at its
//! first colon, and takes a body apart by RFC 9112 §6 and §7. What our engine accepts, it must read alike.

pub type Lines = Vec<(String, Vec<u8>)>;

/// The first line and the fields of exactly this head.
pub fn head(bytes: &[u8]) -> Result<(Vec<u8>, Lines), &'static str> {
    let mut bytes = bytes;
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no empty line")?;
    if end + 4 != bytes.len() {
        return Err("the head ends earlier");
    }
    let mut lines = Vec::new();
    let mut rest = &bytes[..end + 2];
    while let Some(place) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..place]);
        rest = &rest[place + 2..];
    }
    if lines.iter().any(|line| line.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control())) {
        return Err("a control character");
    }
    let (first, lines) = lines.split_first().ok_or("no line")?;
    Ok((first.to_vec(), fields(lines)?))
}

fn fields(lines: &[&[u8]]) -> Result<Lines, &'static str> {
    let field = |line: &&[u8]| {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(token) {
            return Err("a name that is no token");
        }
        Ok((String::from_utf8_lossy(name).to_lowercase(), trim(value).to_vec()))
    };
    lines.iter().map(field).collect()
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The body behind a head with these fields, and how many bytes it takes; `None` when it is cut off or malformed.
/// `until_close`: what no frame means.
pub fn body(fields: &Lines, bytes: &[u8], until_close: bool) -> Option<(Vec<u8>, usize)> {
    let all =
        |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value).collect::<Vec<_>>();
    match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) if until_close => Some((bytes.to_vec(), bytes.len())),
        ([], []) => Some((Vec::new(), 0)),
        ([length, more @ ..], []) if more.iter().all(|other| other == length) => {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            Some((bytes.get(..length)?.to_vec(), length))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => chunked(bytes),
        _ => None,
    }
}

fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = line(bytes, &mut at)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        // What may stand behind the size is for those who refuse it or not.
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if !bytes[at..].starts_with(b"\r\n") {
            return None;
        }
        at += 2;
    }
    while !line(bytes, &mut at)?.is_empty() {}
    Some((data, at))
}

fn line<'b>(bytes: &'b [u8], at: &mut usize) -> Option<&'b [u8]> {
    let rest = &bytes[*at..];
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}
