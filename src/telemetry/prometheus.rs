//! Writes the Prometheus text format, version 0.0.4. What it writes is always well-formed: a family is written once and
//! in one piece, names are checked, texts are escaped. A caller's mistake costs that family, never the exposition.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::shard::{BOUNDS, BucketTotals};

/// An exposition in the making.
#[derive(Debug, Default)]
pub struct PrometheusWriter {
    out: String,
    written: HashSet<String>,
    /// The family that samples belong to; empty while there is none.
    family: String,
}

impl PrometheusWriter {
    /// Begins a family of this kind (`counter`, `gauge`, `histogram`); its samples follow. They are left out if there
    /// already is a family of this name, or if it is not a name.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.family.clear();
        if !is_name(name) || !self.written.insert(name.to_owned()) {
            return;
        }
        self.family.push_str(name);
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        escape(&mut self.out, help, false);
        self.out.push_str("\n# TYPE ");
        self.out.push_str(name);
        self.out.push(' ');
        self.out.push_str(kind);
        self.out.push('\n');
    }

    /// One sample of the family begun last, which `name` repeats.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.line(name, "", labels, None, |out| number(out, value));
    }

    /// One sample that is a whole number.
    pub fn count(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(name, "", labels, None, |out| whole(out, value));
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// One series of a histogram family, with the bounds of `BOUNDS`.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], totals: &BucketTotals) {
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&totals.counts) {
            below += count;
            self.line(name, "_bucket", labels, Some(("le", bound.seconds)), |out| whole(out, below));
        }
        let all = totals.count();
        self.line(name, "_bucket", labels, Some(("le", "+Inf")), |out| whole(out, all));
        self.line(name, "_sum", labels, None, |out| number(out, totals.sum_nanos as f64 / 1e9));
        self.line(name, "_count", labels, None, |out| whole(out, all));
    }

    pub fn into_text(self) -> String {
        self.out
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        last: Option<(&str, &str)>,
        value: impl FnOnce(&mut String),
    ) {
        if self.family.is_empty() || self.family != name {
            return;
        }
        let out = &mut self.out;
        out.push_str(name);
        out.push_str(suffix);
        let mut before = '{';
        for (name, text) in labels.iter().copied().chain(last).filter(|(name, _)| is_name(name)) {
            out.push(before);
            before = ',';
            out.push_str(name);
            out.push_str("=\"");
            escape(out, text, true);
            out.push('"');
        }
        if before == ',' {
            out.push('}');
        }
        out.push(' ');
        value(out);
        out.push('\n');
    }
}

/// A metric's or label's name. Colons are for recording rules, so they are not ours to write.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Line feeds and backslashes, and quotes within label values.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

fn whole(out: &mut String, value: u64) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

fn number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard::Buckets;
    use super::*;

    #[test]
    fn values_and_labels_are_written_as_the_format_wants() {
        let mut writer = PrometheusWriter::default();
        writer.family("a_total", "counter", "One\nline \\ \"here\".");
        writer.count("a_total", &[("path", "a\\b\"c\nd")], u64::MAX);
        writer.count("a_total", &[], 0);
        for value in [0.25, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -3.0] {
            writer.sample("a_total", &[("x", "é")], value);
        }
        assert_eq!(
            writer.into_text(),
            "# HELP a_total One\\nline \\\\ \"here\".\n# TYPE a_total counter\n\
             a_total{path=\"a\\\\b\\\"c\\nd\"} 18446744073709551615\na_total 0\n\
             a_total{x=\"é\"} 0.25\na_total{x=\"é\"} +Inf\na_total{x=\"é\"} -Inf\na_total{x=\"é\"} NaN\n\
             a_total{x=\"é\"} -3\n"
        );
    }

    #[test]
    fn a_family_is_written_once_and_only_with_a_name() {
        let mut writer = PrometheusWriter::default();
        writer.single("one", "gauge", "First.", 1.0);
        writer.count("two", &[], 5);
        writer.single("one", "gauge", "Again.", 2.0);
        writer.single("1st", "counter", "Not a name.", 3.0);
        writer.single("", "gauge", "Neither.", 4.0);
        assert_eq!(writer.into_text(), "# HELP one First.\n# TYPE one gauge\none 1\n");
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let buckets = Buckets::default();
        for millis in [1, 3, 100_000] {
            buckets.record(std::time::Duration::from_millis(millis));
        }
        let mut totals = BucketTotals::default();
        totals.add(&buckets);
        let mut writer = PrometheusWriter::default();
        writer.family("d_seconds", "histogram", "Time.");
        writer.histogram("d_seconds", &[("r", "x")], &totals);
        let text = writer.into_text();
        for line in [
            "d_seconds_bucket{r=\"x\",le=\"0.001\"} 1",
            "d_seconds_bucket{r=\"x\",le=\"0.0025\"} 1",
            "d_seconds_bucket{r=\"x\",le=\"0.005\"} 2",
            "d_seconds_bucket{r=\"x\",le=\"30\"} 2",
            "d_seconds_bucket{r=\"x\",le=\"+Inf\"} 3",
            "d_seconds_sum{r=\"x\"} 100.004",
            "d_seconds_count{r=\"x\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
