//! Small writers of text into a byte buffer, for the lines that are written once per request. They exist because the
//! formatting machinery of std costs several times as much; they allocate nothing once the buffer has grown.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::core::hex;

/// A decimal number.
pub fn integer(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Milliseconds with three decimals: `12.345`.
pub fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = micros(duration);
    integer(out, micros / 1000);
    out.push(b'.');
    padded(out, micros % 1000, 3);
}

/// Whole microseconds, saturating.
pub fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

/// Whole nanoseconds, saturating (584 years).
pub fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// The low `digits` hexadecimal digits, lower case.
pub fn hex(out: &mut Vec<u8>, value: u128, digits: u32) {
    let mut text = [0; 32];
    text[..16].copy_from_slice(&hex::digits((value >> 64) as u64));
    text[16..].copy_from_slice(&hex::digits(value as u64));
    out.extend_from_slice(&text[32usize.saturating_sub(digits as usize)..]);
}

/// A JSON string with its quotes. Control characters are escaped (DEL as well: a log is read in terminals).
pub fn json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text, &JSON_SPECIAL, |out, byte| match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        control => {
            out.extend_from_slice(b"\\u00");
            hex(out, u128::from(control), 2);
        }
    });
    out.push(b'"');
}

/// Text for the common log format, inside its quotes: as Apache writes it, `\xHH` for what could forge a line.
pub fn common(out: &mut Vec<u8>, text: &str) {
    escaped(out, text, &COMMON_SPECIAL, |out, byte| match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        other => {
            out.extend_from_slice(b"\\x");
            hex(out, u128::from(other), 2);
        }
    });
}

/// An IP address; the common kind without the formatting machinery.
pub fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                integer(out, u64::from(octet));
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// Writes wall-clock times, remembering the second it wrote last: under load nearly all lines share it.
#[derive(Default)]
pub struct Calendar {
    second: Option<u64>,
    rfc3339: Vec<u8>,
    common: Vec<u8>,
}

impl Calendar {
    /// `2026-01-31T23:59:59.123456Z`; times before 1970 are written as 1970.
    pub fn rfc3339(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.turn(since.as_secs());
        out.extend_from_slice(&self.rfc3339);
        out.push(b'.');
        padded(out, u64::from(since.subsec_micros()), 6);
        out.push(b'Z');
    }

    /// `31/Jan/2026:23:59:59 +0000`.
    pub fn common(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.turn(since.as_secs());
        out.extend_from_slice(&self.common);
    }

    fn turn(&mut self, second: u64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let (year, month, day) = civil(second / 86_400);
        let clock = second % 86_400;
        let hms = [clock / 3600, clock / 60 % 60, clock % 60];
        let out = &mut self.rfc3339;
        out.clear();
        padded(out, year, 4);
        for (mark, number) in [(b'-', month), (b'-', day), (b'T', hms[0]), (b':', hms[1]), (b':', hms[2])] {
            out.push(mark);
            padded(out, number, 2);
        }
        let out = &mut self.common;
        out.clear();
        padded(out, day, 2);
        out.push(b'/');
        // `civil` gives months from 1 to 12.
        out.extend_from_slice(MONTHS[(month - 1) as usize].as_bytes());
        out.push(b'/');
        padded(out, year, 4);
        for number in hms {
            out.push(b':');
            padded(out, number, 2);
        }
        out.extend_from_slice(b" +0000");
    }
}

fn padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut limit = 10u64;
    for _ in 1..width {
        if number < limit {
            out.push(b'0');
        }
        limit = limit.saturating_mul(10);
    }
    // The zeros above were pushed most significant first, one for each place the number does not reach.
    integer(out, number);
}

/// Copies runs that need no escape at once; most texts are one run.
fn escaped(out: &mut Vec<u8>, text: &str, special: &[bool; 256], write: impl Fn(&mut Vec<u8>, u8)) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| special[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        write(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

const JSON_SPECIAL: [bool; 256] = special(false);
const COMMON_SPECIAL: [bool; 256] = special(true);

/// Quotes, backslashes and control characters; and all that is not ASCII, if wanted.
const fn special(beyond_ascii: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let control = byte < 0x20 || byte == 0x7f;
        table[byte] = control || byte == b'"' as usize || byte == b'\\' as usize || (beyond_ascii && byte > 0x7f);
        byte += 1;
    }
    table
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(written(|out| integer(out, number)), number.to_string());
        }
        for (number, width, text) in [(0, 3, "000"), (7, 3, "007"), (42, 3, "042"), (999, 3, "999"), (12, 6, "000012")]
        {
            assert_eq!(written(|out| padded(out, number, width)), text);
        }
        assert_eq!(written(|out| millis(out, Duration::from_micros(12_045))), "12.045");
        assert_eq!(written(|out| hex(out, 0xabc, 8)), "00000abc");
    }

    #[test]
    fn json_strings_survive_any_character() {
        // Goal: whatever a client sends reads back as it was. Method: an independent reader.
        let all: String = (0..0x250).filter_map(char::from_u32).chain("\u{2028}é漢😀".chars()).collect();
        let text = written(|out| json(out, &all));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), all);
        assert!(text.bytes().all(|byte| byte >= 0x20 && byte != 0x7f));
    }

    #[test]
    fn a_client_cannot_forge_a_line_of_the_common_format() {
        let text = written(|out| common(out, "a\"b\\c\nd\u{1b}é"));
        assert_eq!(text, "a\\\"b\\\\c\\x0ad\\x1b\\xc3\\xa9");
    }

    #[test]
    fn dates_follow_the_calendar_for_two_centuries() {
        // Goal: leap years and month ends. Method: a walk from 1970-01-01, a day at a time, by the rules of the calendar.
        let mut calendar = Calendar::default();
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..73_000u64 {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399);
            let name = MONTHS[month as usize - 1];
            assert_eq!(written(|out| calendar.common(out, at)), format!("{day:02}/{name}/{year}:23:59:59 +0000"));
            assert_eq!(
                written(|out| calendar.rfc3339(out, at)),
                format!("{year}-{month:02}-{day:02}T23:59:59.000000Z")
            );
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let length = [31, 28 + i32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
        assert_eq!(written(|out| calendar.rfc3339(out, at)), "2023-11-14T22:13:20.000042Z");
        assert_eq!(written(|out| calendar.rfc3339(out, at)), "2023-11-14T22:13:20.000042Z");
    }

    #[test]
    fn addresses_are_written_as_std_does() {
        for ip in ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::7"] {
            assert_eq!(written(|out| address(out, ip.parse().unwrap())), ip);
        }
    }
}
