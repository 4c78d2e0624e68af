//! Variables and secret files in scalars: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${file:/path}`, and
//! `$${literal}` for the characters themselves. Only parsed scalars are looked at, so that a value can never become
//! structure.

use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest secret file read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A scalar with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    pub text: String,
    /// What in it came from outside the file: not to be shown.
    pub outside: Vec<String>,
    /// Secret files it was read from, and what was in them.
    pub files: Vec<(PathBuf, String)>,
}

/// Why a variable cannot be filled in; (found, expected, hint).
pub type Missing = (String, String, Option<String>);

/// Fills `text` in; every variable that is missing is reported.
pub fn fill(text: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Filled, Vec<Missing>> {
    let mut filled = Filled { text: String::new(), outside: Vec::new(), files: Vec::new() };
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        let (before, after) = rest.split_at(place);
        filled.text.push_str(before);
        if let Some(literal) = after.strip_prefix("$${") {
            filled.text.push_str("${");
            rest = literal;
        } else if let Some(inside) = after.strip_prefix("${") {
            let Some((name, tail)) = inside.split_once('}') else {
                missing.push(("a variable without its closing brace".to_owned(), "${NAME}".to_owned(), None));
                break;
            };
            match value(name, base, env, &mut filled.files) {
                Ok((text, outside)) => {
                    filled.text.push_str(&text);
                    filled.outside.extend(outside.then_some(text));
                }
                Err(problem) => missing.push(problem),
            }
            rest = tail;
        } else {
            filled.text.push('$');
            rest = &after[1..];
        }
    }
    filled.text.push_str(rest);
    if missing.is_empty() { Ok(filled) } else { Err(missing) }
}

fn value(
    inside: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    files: &mut Vec<(PathBuf, String)>,
) -> Result<(String, bool), Missing> {
    if let Some(path) = inside.strip_prefix("file:") {
        let path = base.join(path);
        let text = read(&path)?;
        files.push((path, text.clone()));
        return Ok((text, true));
    }
    let (name, default, message) = match (inside.split_once(":-"), inside.split_once(":?")) {
        (Some((name, default)), _) => (name, Some(default), None),
        (None, Some((name, message))) => (name, None, Some(message)),
        (None, None) => (inside, None, None),
    };
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        let expected = "${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}".to_owned();
        return Err((
            "a variable that is not a name".to_owned(),
            expected,
            Some("write $${ for the characters ${".to_owned()),
        ));
    }
    // As in a shell: with :- and :? an empty value counts as missing.
    match env(name) {
        Some(value) if !value.is_empty() || (default.is_none() && message.is_none()) => Ok((value, true)),
        Some(_) | None => match default {
            Some(default) => Ok((default.to_owned(), false)),
            None => {
                let hint = message.map_or_else(|| format!("set it, or write ${{{name}:-default}}"), str::to_owned);
                Err((format!("${{{name}}}, which is not set"), format!("the environment variable {name}"), Some(hint)))
            }
        },
    }
}

fn read(path: &Path) -> Result<String, Missing> {
    let shown = path.display();
    let unreadable = |why: String| (format!("the file {shown}: {why}"), "a readable text file".to_owned(), None);
    // Whoever waits for a pipe or a device may wait for ever.
    if !std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.is_file() {
        return Err(unreadable("not a regular file".to_owned()));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable("more than 64 KiB".to_owned()));
    }
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_in(text: &str) -> Result<(String, bool), usize> {
        let env = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        fill(text, Path::new("/"), &env)
            .map(|filled| (filled.text, !filled.outside.is_empty()))
            .map_err(|missing| missing.len())
    }

    #[test]
    fn every_form_is_filled_in() {
        assert_eq!(fill_in("a ${SET} b"), Ok(("a value b".into(), true)));
        assert_eq!(fill_in("${NOT:-d}${SET}"), Ok(("dvalue".into(), true)));
        assert_eq!(fill_in("${EMPTY:-d}"), Ok(("d".into(), false)));
        assert_eq!(fill_in("${EMPTY}"), Ok((String::new(), true)));
        assert_eq!(fill_in("$${SET} $5 $"), Ok(("${SET} $5 $".into(), false)));
        assert_eq!(fill_in("${NOT:-}"), Ok((String::new(), false)));
    }

    #[test]
    fn all_that_is_missing_is_told() {
        assert_eq!(fill_in("${A} ${B:?say} ${SET}"), Err(2));
        assert_eq!(fill_in("${"), Err(1));
        assert_eq!(fill_in("${a b}"), Err(1));
        assert_eq!(fill_in("${file:/does/not/exist}"), Err(1));
    }
}
