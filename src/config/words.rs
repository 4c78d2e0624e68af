//! Words in problems: what may be meant by a misspelt one, and how much of a value is shown.

/// How alike two words must be to be suggested.
const ALIKE: f64 = 0.75;

/// Known words among which the one that may be meant is looked for: a file can misspell as many names as it has, and
/// among a part of them another one would be suggested.
const COMPARED_MAX: usize = 1000;
/// Known words that are told.
const LISTED_MAX: usize = 20;

/// The known word that is most like the given one, if any is like it at all.
pub fn similar<'w>(given: &str, known: &[&'w str]) -> Option<&'w str> {
    if known.len() > COMPARED_MAX {
        return None;
    }
    let scored = known.iter().map(|word| (strsim::jaro_winkler(given, word), *word));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, word)| word)
}

/// Words that people use for a choice that is called otherwise here. A word is only suggested where it can be chosen.
const SAME: &[(&[&str], &[&str])] = &[
    (&["high", "highest", "urgent", "important", "interactive", "vip"], &["critical"]),
    (&["normal", "medium", "standard", "regular"], &["default"]),
    (&["low", "background", "bulk", "offline"], &["batch"]),
    (&["lowest", "best_effort", "optional", "none"], &["sheddable", "off"]),
    (&["no", "disabled", "disable", "never"], &["off"]),
    (&["yes", "true", "enabled", "enable", "always"], &["on", "enforce"]),
    (&["dry_run", "dry-run", "observe", "monitor", "log", "report"], &["shadow"]),
    (&["random", "ewma", "latency", "p2c"], &["peak_ewma"]),
    (&["least_conn", "least_connections", "leastconn"], &["least_request"]),
    (&["h2", "h2c", "http/2", "grpc"], &["http2"]),
    (&["h1", "http", "http/1.1"], &["http1"]),
];

/// The choice that is called otherwise elsewhere.
pub fn same<'w>(given: &str, choices: &[&'w str]) -> Option<&'w str> {
    let given = given.to_ascii_lowercase();
    let (_, meant) = SAME.iter().find(|(called, _)| called.contains(&given.as_str()))?;
    meant.iter().find_map(|word| choices.iter().find(|choice| *choice == word).copied())
}

/// The known words, or the first of them and how many more there are.
pub fn listed(known: &[&str]) -> String {
    let some = known[..known.len().min(LISTED_MAX)].join(", ");
    let more = known.len().saturating_sub(LISTED_MAX);
    if more == 0 { some } else { format!("{some} and {more} more") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_known_words_are_told_in_part() {
        let names: Vec<String> = (0..LISTED_MAX + 2).map(|name| name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed(&names[..2]), "0, 1");
        assert_eq!(listed(&[]), "");
        assert!(listed(&names[..LISTED_MAX]).ends_with(", 19"));
        assert!(listed(&names).ends_with(", 19 and 2 more"));
    }

    #[test]
    fn a_choice_is_known_by_other_words() {
        let priorities = ["critical", "default", "batch", "sheddable"];
        let meant = ["HIGH", "normal", "low", "best_effort", "purple"].map(|word| same(word, &priorities));
        assert_eq!(meant, [Some("critical"), Some("default"), Some("batch"), Some("sheddable"), None]);
        assert_eq!(same("high", &["off", "on"]), None);
        assert_eq!([same("true", &["off", "on"]), same("true", &["enforce", "off"])], [Some("on"), Some("enforce")]);
    }

    #[test]
    fn among_too_many_words_none_is_suggested_rather_than_a_wrong_one() {
        let names: Vec<String> = (0..=COMPARED_MAX).map(|name| format!("service-{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(similar("service-9999", &names[..COMPARED_MAX]), Some("service-999"));
        assert_eq!(similar("service-9999", &names), None);
    }
}
