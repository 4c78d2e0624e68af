//! When an answer was made or came by (RFC 9110 §6.6.1): a Date for those that have none.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use crate::core::fields::Fields;

/// The Date of the second that is under way, and that second's end: under load nearly all answers share it.
#[derive(Default)]
pub struct Dates(Cell<Option<([u8; LENGTH], Instant)>>);

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const LENGTH: usize = 29;

impl Dates {
    /// `wall` is what the monotonic `now` is in wall time; it is asked once a second.
    pub fn write(&self, fields: &mut Fields, now: Instant, wall: impl FnOnce(Instant) -> SystemTime) {
        let fresh = self.0.get().filter(|(_, end)| now < *end);
        let Some((text, _)) = fresh.or_else(|| self.turn(now, wall(now))) else { return };
        fields.make("date", &[&text]);
    }

    fn turn(&self, now: Instant, wall: SystemTime) -> Option<([u8; LENGTH], Instant)> {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let left = Duration::from_secs(1).saturating_sub(Duration::from_nanos(since.subsec_nanos().into()));
        let text = httpdate::fmt_http_date(wall);
        self.0.set(Some((text.as_bytes().try_into().ok()?, now + left)));
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::clock;

    #[test]
    fn a_date_is_that_of_its_second() {
        let (dates, start) = (Dates::default(), clock::now());
        let wall = |at: Instant| SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_300) + (at - start);
        for (after, expected) in [(0, 37), (699, 37), (700, 38), (1_699, 38), (9_999, 47)] {
            let mut fields = Fields::default();
            dates.write(&mut fields, start + Duration::from_millis(after), wall);
            let expected = format!("Sun, 06 Nov 1994 08:49:{expected} GMT");
            assert_eq!(fields.get("date").map(|date| date.as_bytes().to_vec()), Some(expected.into_bytes()), "{after}");
        }
    }
}
