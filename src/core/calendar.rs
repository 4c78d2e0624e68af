//! A moment as people write it: RFC 3339 in UTC, both ways. Days are counted as in Howard Hinnant's
//! "chrono-Compatible Low-Level Date Algorithms"; leap seconds do not exist, as in Unix time.

use std::time::{Duration, SystemTime};

/// `2026-11-21T07:15:00Z`, to the second.
pub fn text(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil((seconds / DAY) as i64);
    let of_day = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// `2026-11-21` (its first moment) or `2026-11-21T07:15:00Z`, also with an offset (`+01:00`); from 1970 to 9999.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let midnight = days(year, month, day) * DAY as i64;
    let seconds = match time {
        Some(time) => midnight + clock(time)?,
        None => midnight,
    };
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Seconds since midnight in UTC; below 0 or beyond a day when the offset says so.
fn clock(text: &str) -> Option<i64> {
    let (time, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, sign, offset) = match text.split_once('+') {
                Some((time, offset)) => (time, 1, offset),
                None => text.split_once('-').map(|(time, offset)| (time, -1, offset))?,
            };
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            (hours < 24 && minutes < 60).then_some((time, sign * (hours * 3600 + minutes * 60)))?
        }
    };
    let [hours, minutes, seconds] = numbers(time, ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds - offset)
}

/// Exactly these many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(between);
    for (number, digits) in found.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(next.0, next.1, 1) - days(year, month, 1)
}

/// Days from 1970-01-01 to a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::super::testing::Random;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_moments() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!((text(at(seconds)), parse(written)), (written.to_owned(), Some(at(seconds))));
        }
        assert_eq!(parse("2000-02-29"), Some(at(951_782_400)));
        assert_eq!(parse("2000-02-29T01:00:00+01:00"), Some(at(951_782_400)));
        assert_eq!(parse("2000-02-28T22:30:00-01:30"), Some(at(951_782_400)));
    }

    #[test]
    fn what_is_no_moment() {
        for wrong in [
            "",
            "today",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-1-1",
            "24-01-01",
            "1969-12-31",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00Z",
            "2024-01-01-01",
            "2024-01-01T00:00:00+25:00",
            "1970-01-01T00:00:00+01:00",
            "+024-01-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for seed in 0..10_000 {
            let moment = at(Random::new(seed).below(253_402_300_800));
            assert_eq!(parse(&text(moment)), Some(moment), "seed {seed}");
        }
    }
}
