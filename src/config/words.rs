//! Words in problems: what may be meant by a misspelt one, and how much of a value is shown.

/// How alike two words must be to be suggested.
const ALIKE: f64 = 0.75;

/// The known word that is most like the given one, if any is like it at all.
pub fn similar<'w>(given: &str, known: &[&'w str]) -> Option<&'w str> {
    let scored = known.iter().map(|word| (strsim::jaro_winkler(given, word), *word));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, word)| word)
}

/// One line of at most 60 letters, without the user and password of a URL.
pub fn shorten(text: &str) -> String {
    if let (Some((scheme, rest)), true) = (text.split_once("://"), text.contains('@')) {
        let host = rest.rsplit('@').next().unwrap_or_default();
        return format!("{scheme}://(user and password hidden)@{}", host.chars().take(40).collect::<String>());
    }
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(60).collect();
    if text.chars().count() > 60 { format!("{line}…") } else { line }
}
