//! The target of a redirecting route: text with `{parameters}` of the route's path.

use crate::core::route::Params;

/// A parsed target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(String),
}

impl Template {
    /// `https://docs.example.com/{page}`; an unclosed brace is text.
    pub fn parse(text: &str) -> Template {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, tail)) = after.split_once('}') else { break };
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Parameter(name.to_owned()));
            rest = tail;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Template(pieces)
    }

    /// Fills the parameters in. Values come from a normalised path and are percent-encoded again where a URL needs it,
    /// so that no value can add a query, a fragment, another segment or a header line.
    pub fn fill(&self, params: &Params<'_>) -> String {
        let mut target = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => target.push_str(text),
                Piece::Parameter(name) => encode(params.get(name).unwrap_or_default(), &mut target),
            }
        }
        target
    }
}

fn encode(value: &str, out: &mut String) {
    use std::fmt::Write;
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        match byte {
            // Already an escape: normalisation has checked the digits.
            b'%' => out.push('%'),
            _ if plain => out.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}
