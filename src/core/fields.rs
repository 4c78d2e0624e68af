//! The fields of one message's head: lines in the order they came, in the bytes they came in, and what was put in,
//! changed or taken out on the way.
//!
//! A list and not a map: a head has a dozen fields, and comparing a number for each costs less than hashing one name.
//! Nothing is copied when a head is read, and what nobody changes leaves as it came, spelling and order included. What
//! is put in is written at once as it will leave, into one buffer of the list: no field is an allocation of its own, and
//! lines that stand together leave together.
//!
//! A value is always one that a field may have (RFC 9110 §5.5): those that came were looked at by the parser, those
//! that are given are `HeaderValue`s, and those that are made are checked here.

mod name;
mod value;

use std::borrow::Borrow;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::name::is_spelt;
use self::name::key;
pub use self::name::{Marks, Name};
pub use self::value::Value;
use self::value::may_stand;

/// Where something begins and ends in its buffer; heads are far below 4 GB.
pub type Span = (u32, u32);

/// The fields of a head. One pointer: a head is handed on many times on its way.
#[derive(Clone, Debug, Default)]
pub struct Fields(Box<List>);

#[derive(Clone, Debug, Default)]
struct List {
    /// What the lines that came lie in.
    head: Bytes,
    /// What the lines that were put in lie in.
    made: Vec<u8>,
    lines: Vec<Line>,
    /// Of the names that are or were there: most look-ups are for one that is not.
    marks: Marks,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    key: u32,
    name: Span,
    value: Span,
    lies: Lies,
    /// It stands in its buffer as it is to be written, with its end.
    whole: bool,
    /// HTTP/2 does not remember it: it is a secret (RFC 7541 §7.1.3), or would only take room.
    sensitive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    Head,
    Made,
}

impl Fields {
    /// Another line of the head, whose name and value lie there in `head`; both have been looked at by the parser.
    #[inline]
    pub fn came(&mut self, head: &[u8], name: Span, value: Span) {
        let plain = name.1 + 2 == value.0
            && head.get(name.1 as usize..value.0 as usize) == Some(b": ")
            && head.get(value.1 as usize..value.1 as usize + 2) == Some(b"\r\n");
        let key = key(slice(head, name));
        self.push(Line { key, name, value, lies: Lies::Head, whole: plain, sensitive: false });
    }

    /// The bytes of the lines that came.
    pub fn lie_in(&mut self, head: Bytes) {
        self.0.head = head;
    }

    /// Takes everything out; the memory stays.
    pub fn clear(&mut self) {
        self.0.head = Bytes::new();
        self.0.made.clear();
        self.0.lines.clear();
        self.0.marks = Marks::default();
    }

    #[inline]
    fn push(&mut self, line: Line) {
        self.0.marks.add(line.key);
        self.0.lines.push(line);
    }

    pub fn len(&self) -> usize {
        self.0.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lines.is_empty()
    }

    /// Room that has been allocated: lines, and bytes of what is put in.
    pub fn capacity(&self) -> (usize, usize) {
        (self.0.lines.capacity(), self.0.made.capacity())
    }

    pub fn reserve(&mut self, lines: usize, bytes: usize) {
        self.0.lines.reserve(lines);
        self.0.made.reserve(bytes);
    }

    /// The first value of a field; `name` is in lower case, as everywhere here.
    #[inline]
    pub fn get(&self, name: impl AsRef<str>) -> Option<Value<'_>> {
        self.find(name.as_ref().as_bytes()).map(|at| self.value(&self.0.lines[at]))
    }

    /// All values of a field, in their order.
    #[inline]
    pub fn get_all<'f>(&'f self, name: &'f str) -> impl DoubleEndedIterator<Item = Value<'f>> {
        let key = key(name.as_bytes());
        let lines = if self.0.marks.has(key) { &self.0.lines[..] } else { &[] };
        lines.iter().filter(move |line| self.is(line, key, name.as_bytes())).map(|line| self.value(line))
    }

    /// Whether one of these names may be there; if not, none is.
    #[inline]
    pub fn may_have(&self, names: &Marks) -> bool {
        self.0.marks.meets(names)
    }

    #[inline]
    pub fn contains(&self, name: impl AsRef<str>) -> bool {
        self.find(name.as_ref().as_bytes()).is_some()
    }

    /// The first value of a field, to be kept or given on; one that came shares its bytes.
    #[inline]
    pub fn share(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        self.find(name.as_ref().as_bytes()).and_then(|at| self.shared(&self.0.lines[at]))
    }

    /// As [`share`](Self::share), as bytes that need not be looked at again.
    pub fn share_bytes(&self, name: impl AsRef<str>) -> Option<Bytes> {
        let line = &self.0.lines[self.find(name.as_ref().as_bytes())?];
        Some(match line.lies {
            Lies::Head => self.0.head.slice(line.value.0 as usize..line.value.1 as usize),
            Lies::Made => Bytes::copy_from_slice(self.value(line).as_bytes()),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (Name<'_>, Value<'_>)> {
        self.0.lines.iter().map(|line| (self.name(line), self.value(line)))
    }

    pub fn names(&self) -> impl Iterator<Item = Name<'_>> {
        self.0.lines.iter().map(|line| self.name(line))
    }

    /// Appends the lines as they leave, but for those that are left out.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, mut left_out: impl FnMut(Name<'_>) -> bool) {
        // Lines that lie behind one another are copied together.
        let mut run = (Lies::Head, (0, 0));
        for line in &self.0.lines {
            if left_out(self.name(line)) {
                continue;
            }
            let (lies, span) = (line.lies, (line.name.0, line.value.1 + 2));
            if line.whole && lies == run.0 && span.0 == run.1.1 {
                run.1.1 = span.1;
                continue;
            }
            out.extend_from_slice(slice(self.buffer(run.0), run.1));
            run = (lies, if line.whole { span } else { (0, 0) });
            if !line.whole {
                write_line(out, self.name(line).as_bytes(), &[self.value(line).as_bytes()]);
            }
        }
        out.extend_from_slice(slice(self.buffer(run.0), run.1));
    }

    /// Sets a field: one line of it is left, where the first one was.
    pub fn insert(&mut self, name: impl AsRef<str>, value: impl Borrow<HeaderValue>) {
        let line = self.put(name.as_ref(), &[value.borrow().as_bytes()]);
        self.set(name.as_ref(), line);
    }

    /// Another line of a field.
    pub fn append(&mut self, name: impl AsRef<str>, value: impl Borrow<HeaderValue>) {
        let line = self.put(name.as_ref(), &[value.borrow().as_bytes()]);
        self.push(line);
    }

    /// Sets a field to these pieces, one behind the other. A value that no field may have takes the field out: what
    /// somebody else wrote must not stay in its place.
    pub fn make(&mut self, name: impl AsRef<str>, pieces: &[&[u8]]) {
        let line = self.put(name.as_ref(), pieces);
        self.set_made(name.as_ref(), line);
    }

    /// Appends the lines of a list that were made, not those that came.
    pub fn append_made(&mut self, other: &Fields) {
        let offset = self.0.made.len() as u32;
        self.0.made.extend_from_slice(&other.0.made);
        let moved = |span: Span| (span.0 + offset, span.1 + offset);
        for line in other.0.lines.iter().filter(|line| line.lies == Lies::Made) {
            self.push(Line { name: moved(line.name), value: moved(line.value), ..*line });
        }
    }

    /// As [`make`](Self::make), of a value that hardly any other message has: over HTTP/2 it is not put into the table of
    /// what the connection has said (RFC 7541 §6.2.3), where it would push out what is said again.
    pub fn make_unique(&mut self, name: impl AsRef<str>, pieces: &[&[u8]]) {
        let line = Line { sensitive: true, ..self.put(name.as_ref(), pieces) };
        self.set_made(name.as_ref(), line);
    }

    fn set_made(&mut self, name: &str, line: Line) {
        if may_stand(slice(&self.0.made, line.value)) { self.set(name, line) } else { self.remove(name) }
    }

    fn put(&mut self, name: &str, pieces: &[&[u8]]) -> Line {
        let start = self.0.made.len() as u32;
        write_line(&mut self.0.made, name.as_bytes(), pieces);
        let colon = start + name.len() as u32;
        let value = (colon + 2, self.0.made.len() as u32 - 2);
        let key = key(name.as_bytes());
        Line { key, name: (start, colon), value, lies: Lies::Made, whole: true, sensitive: false }
    }

    #[inline]
    fn set(&mut self, name: &str, line: Line) {
        match self.find(name.as_bytes()) {
            None => self.push(line),
            Some(first) => {
                self.remove_from(first + 1, name.as_bytes());
                self.0.lines[first] = line;
            }
        }
    }

    /// Takes out every line of a field.
    #[inline]
    pub fn remove(&mut self, name: impl AsRef<str>) {
        let name = name.as_ref().as_bytes();
        if let Some(first) = self.find(name) {
            self.remove_from(first, name);
        }
    }

    fn remove_from(&mut self, start: usize, name: &[u8]) {
        let mut start = start;
        while let Some(at) = self.find_from(start, key(name), name) {
            self.0.lines.remove(at);
            start = at;
        }
    }

    /// Takes out every line whose name is not to stay.
    pub fn retain(&mut self, mut stays: impl FnMut(Name<'_>) -> bool) {
        let buffers: (&[u8], &[u8]) = (&self.0.head, &self.0.made);
        self.0.lines.retain(|line| stays(Name::of(line, buffers)));
    }

    /// As the `http` crate has it, for HTTP/2; what came is shared.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.0.lines.len());
        for line in &self.0.lines {
            // The parser takes no other names and values than these.
            if let (Ok(name), Some(mut value)) = (HeaderName::from_bytes(self.name(line).as_bytes()), self.shared(line))
            {
                value.set_sensitive(line.sensitive);
                map.append(name, value);
            }
        }
        map
    }

    /// Inlined where the name is known, so that most look-ups are one comparison.
    #[inline(always)]
    fn find(&self, name: &[u8]) -> Option<usize> {
        let key = key(name);
        if self.0.marks.has(key) { self.find_from(0, key, name) } else { None }
    }

    fn find_from(&self, start: usize, key: u32, name: &[u8]) -> Option<usize> {
        let found = self.0.lines.get(start..)?.iter().position(|line| self.is(line, key, name));
        found.map(|at| start + at)
    }

    #[inline]
    fn is(&self, line: &Line, key: u32, name: &[u8]) -> bool {
        line.key == key && is_spelt(self.name(line).as_bytes(), name)
    }

    #[inline]
    fn name<'f>(&'f self, line: &'f Line) -> Name<'f> {
        Name::of(line, (&self.0.head, &self.0.made))
    }

    #[inline]
    fn value(&self, line: &Line) -> Value<'_> {
        Value::of(slice(self.buffer(line.lies), line.value))
    }

    #[inline]
    fn buffer(&self, lies: Lies) -> &[u8] {
        match lies {
            Lies::Head => &self.0.head,
            Lies::Made => &self.0.made,
        }
    }

    fn shared(&self, line: &Line) -> Option<HeaderValue> {
        match line.lies {
            Lies::Head => {
                HeaderValue::from_maybe_shared(self.0.head.slice(line.value.0 as usize..line.value.1 as usize)).ok()
            }
            Lies::Made => HeaderValue::from_bytes(self.value(line).as_bytes()).ok(),
        }
    }
}

/// The same lines in the same order, however the names are spelled.
impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        let same = |((name, value), (other, its)): ((Name<'_>, Value<'_>), (Name<'_>, Value<'_>))| {
            name.as_bytes().eq_ignore_ascii_case(other.as_bytes()) && value == its
        };
        self.len() == other.len() && self.iter().zip(other.iter()).all(same)
    }
}

/// A head of HTTP/2, or of a test.
impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Fields {
        let mut fields = Fields::default();
        fields.reserve(map.len() + 12, 1024);
        for (name, value) in &map {
            let line = fields.put(name.as_str(), &[value.as_bytes()]);
            fields.push(Line { sensitive: value.is_sensitive(), ..line });
        }
        fields
    }
}

/// `name: value`, the value in pieces, and the end of the line.
#[inline]
fn write_line(out: &mut Vec<u8>, name: &[u8], pieces: &[&[u8]]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn slice(buffer: &[u8], span: Span) -> &[u8] {
    // Spans are made of the buffer they belong to, so that this is never out of it.
    buffer.get(span.0 as usize..span.1 as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const HEAD: &[u8] = b"Host: a\r\nX-Two:  1 \r\naccept: */*\r\nx-two: 2\r\n\r\n";

    /// As a parser would find them.
    fn came() -> Fields {
        let mut fields = Fields::default();
        for (name, value) in [((0, 4), (6, 7)), ((9, 14), (17, 18)), ((21, 27), (29, 32)), ((34, 39), (41, 42))] {
            fields.came(HEAD, name, value);
        }
        fields.lie_in(Bytes::from_static(HEAD));
        fields
    }

    fn text(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write(&mut out, |_| false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_nobody_changes_leaves_as_it_came() {
        let fields = came();
        assert_eq!(
            text(&fields),
            "Host: a\r\nX-Two: 1\r\naccept: */*\r\nx-two: 2\r\n",
            "blanks around a value are ours"
        );
        let mut out = Vec::new();
        fields.write(&mut out, |name| name.is("accept"));
        assert_eq!(out, b"Host: a\r\nX-Two: 1\r\nx-two: 2\r\n");
        assert_eq!(fields.get(header::HOST).unwrap(), "a");
        assert_eq!(fields.get_all("x-two").map(Value::as_bytes).collect::<Vec<_>>(), [b"1", b"2"]);
        assert!(fields.contains("accept") && !fields.contains("accep") && !fields.contains("x"));
        assert_eq!(fields.share("accept").unwrap(), "*/*");
        assert!(fields.names().next().unwrap().is("host"));
    }

    #[test]
    fn names_that_look_alike_are_told_apart() {
        let mut fields = Fields::default();
        // The same length and the same three letters that are compared first.
        for name in ["x-ab-cd-z", "x-aa-cc-z", "x-bb-ca-z"] {
            fields.append(name, HeaderValue::from_static("v"));
        }
        assert!(fields.contains("x-aa-cc-z") && !fields.contains("x-ac-cc-z"));
        fields.remove("x-aa-cc-z");
        assert_eq!(text(&fields), "x-ab-cd-z: v\r\nx-bb-ca-z: v\r\n");
    }

    #[test]
    fn a_field_that_is_set_is_one_line_where_the_first_was() {
        let mut fields = came();
        fields.make("x-two", &[b"a", b"", b"bc"]);
        fields.insert(header::HOST, HeaderValue::from_static("b"));
        fields.insert(header::VIA, HeaderValue::from_static("v"));
        fields.append(header::VIA, HeaderValue::from_static("w"));
        assert_eq!(text(&fields), "host: b\r\nx-two: abc\r\naccept: */*\r\nvia: v\r\nvia: w\r\n");
        fields.make("via", &[b"x"]);
        assert_eq!(text(&fields), "host: b\r\nx-two: abc\r\naccept: */*\r\nvia: x\r\n");
        fields.remove("via");
        fields.retain(|name| !name.is("accept"));
        assert_eq!(text(&fields), "host: b\r\nx-two: abc\r\n");
        assert_eq!(fields.share("x-two").unwrap(), "abc");
    }

    #[test]
    fn what_no_field_may_hold_takes_the_field_out() {
        for bad in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
            for at in 0..20 {
                let mut value = [b'a'; 20];
                value[at] = bad;
                let mut fields = came();
                fields.make("x-two", &[b"a", &value]);
                assert_eq!(text(&fields), "Host: a\r\naccept: */*\r\n", "{bad} at {at}");
            }
        }
        let mut all: Vec<u8> = (0x20..=0xff).chain([b'\t']).filter(|byte| *byte != 0x7f).collect();
        for _ in 0..all.len() {
            all.rotate_left(1);
            assert!(may_stand(&all));
        }
        let mut fields = came();
        fields.make(header::ACCEPT, &["\t~é".as_bytes()]);
        assert_eq!(fields.get("accept").unwrap().to_str(), None);
        assert_eq!(fields.get("accept").unwrap().as_bytes(), "\t~é".as_bytes());
    }

    #[test]
    fn a_map_and_back_is_the_same() {
        let mut map = came().to_map();
        assert_eq!(map.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
        map.get_mut("accept").unwrap().set_sensitive(true);
        let fields = Fields::from(map);
        assert_eq!(text(&fields), "host: a\r\nx-two: 1\r\nx-two: 2\r\naccept: */*\r\n");
        let again = fields.to_map();
        assert!(again["accept"].is_sensitive() && !again["host"].is_sensitive());
        let mut fields = came();
        fields.make_unique("x-request-id", &[b"7"]);
        fields.make("via", &[b"x"]);
        let map = fields.to_map();
        assert!(map["x-request-id"].is_sensitive() && !map["via"].is_sensitive());
    }

    #[test]
    fn memory_is_used_again_and_nothing_else() {
        let mut fields = came();
        fields.make(header::VIA, &[b"x"]);
        let capacity = fields.capacity();
        fields.clear();
        assert_eq!((fields.len(), fields.capacity()), (0, capacity));
        assert!(fields.get(header::VIA).is_none() && text(&fields).is_empty());
    }
}
