//! The last requests that ended on one worker, for `why ID`. They are kept as bytes in one buffer of fixed size, so the
//! number remembered follows from how much there is to say about each; writing one is a copy, without allocation.
//! The worker never waits for a reader: what cannot be put in now is put in with the next request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The memory that reader and worker share.
#[derive(Debug, Default)]
pub struct Ring {
    /// Allocated at the first entry; the system hands out its pages as they are first written.
    bytes: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Where the next entry goes.
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    length: u32,
}

impl Ring {
    /// Puts an entry in, in the place of the oldest; one larger than `ENTRY_MAX` is not kept.
    fn push(&mut self, entry: &[u8], capacity: usize) {
        if entry.len() > ENTRY_MAX.min(capacity) {
            return;
        }
        if self.bytes.is_empty() {
            self.bytes = vec![0; capacity];
        }
        if self.end + entry.len() > self.bytes.len() {
            self.forget(self.end..self.bytes.len());
            self.end = 0;
        }
        let place = self.end..self.end + entry.len();
        self.forget(place.clone());
        self.bytes[place.clone()].copy_from_slice(entry);
        // `capacity` is checked to fit at `RingWriter::new`.
        self.entries.push_back(Entry { at: place.start as u32, length: entry.len() as u32 });
        self.end = place.end;
    }

    /// Drops the entries that begin within a range. The oldest lie next after the newest, so they are at the front.
    fn forget(&mut self, range: std::ops::Range<usize>) {
        while self.entries.front().is_some_and(|entry| range.contains(&(entry.at as usize))) {
            self.entries.pop_front();
        }
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().rev().map(|entry| &self.bytes[entry.at as usize..][..entry.length as usize])
    }
}

/// The worker's end.
pub struct RingWriter {
    ring: Arc<Mutex<Ring>>,
    capacity: usize,
    /// Where the entry being made is written; kept between requests.
    draft: Vec<u8>,
    /// Entries that came while somebody was reading.
    late: Vec<Vec<u8>>,
}

impl RingWriter {
    pub fn new(ring: Arc<Mutex<Ring>>, capacity: usize) -> Self {
        RingWriter { ring, capacity: capacity.min(u32::MAX as usize), draft: Vec::new(), late: Vec::new() }
    }

    /// Adds the entry that `write` appends to the empty buffer.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.draft.clear();
        write(&mut self.draft);
        let Some(mut ring) = open(&self.ring) else {
            if self.late.len() < LATE_MAX {
                self.late.push(self.draft.clone());
            }
            return;
        };
        for entry in self.late.drain(..) {
            ring.push(&entry, self.capacity);
        }
        ring.push(&self.draft, self.capacity);
    }

    /// Puts in what came late, although no request followed.
    pub fn settle(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let Some(mut ring) = open(&self.ring) else { return };
        for entry in self.late.drain(..) {
            ring.push(&entry, self.capacity);
        }
    }
}

/// The ring, unless somebody is reading it.
fn open(ring: &Mutex<Ring>) -> Option<MutexGuard<'_, Ring>> {
    match ring.try_lock() {
        Ok(ring) => Some(ring),
        Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Larger than any entry (`why` cuts texts), and a small part of the smallest ring.
pub const ENTRY_MAX: usize = 32 * 1024;
/// Entries that wait while somebody reads; beyond it they are forgotten.
const LATE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_are_there_whole_and_in_order() {
        // Goal: whatever the sizes, what is read is a run of the last entries, unharmed. Method: many sizes, checked
        // after each entry.
        let mut ring = Ring::default();
        let mut all: Vec<Vec<u8>> = Vec::new();
        let mut seed = 1u64;
        for number in 0..5_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut entry = number.to_le_bytes().to_vec();
            entry.resize(8 + (seed >> 33) as usize % 200, number as u8);
            ring.push(&entry, 1_000);
            all.push(entry);
            let kept: Vec<&[u8]> = ring.iter().collect();
            assert!(!kept.is_empty());
            let newest: Vec<&[u8]> = all.iter().rev().take(kept.len()).map(Vec::as_slice).collect();
            assert_eq!(kept, newest);
            let bytes: usize = kept.iter().map(|entry| entry.len()).sum();
            assert!(number < 20 || bytes > 1_000 - 3 * 208, "{bytes} of 1000 used");
        }
    }

    #[test]
    fn an_entry_that_fills_the_ring_is_kept_and_a_larger_one_is_not() {
        let mut ring = Ring::default();
        ring.push(&[1; 10], 10);
        ring.push(&[2; 10], 10);
        assert_eq!(ring.iter().collect::<Vec<_>>(), [&[2; 10]]);
        ring.push(&[3; 11], 10);
        assert_eq!(ring.iter().collect::<Vec<_>>(), [&[2; 10]]);
    }

    #[test]
    fn a_reader_delays_entries_and_loses_none() {
        let shared = Arc::new(Mutex::new(Ring::default()));
        let mut writer = RingWriter::new(shared.clone(), 1_000);
        let reader = shared.lock().unwrap();
        writer.push(|out| out.push(1));
        assert_eq!(reader.iter().count(), 0);
        drop(reader);
        writer.push(|out| out.push(2));
        assert_eq!(shared.lock().unwrap().iter().collect::<Vec<_>>(), [&[2], &[1]]);
        let reader = shared.lock().unwrap();
        writer.push(|out| out.push(3));
        drop(reader);
        writer.settle();
        assert_eq!(shared.lock().unwrap().iter().next(), Some(&[3][..]));
    }
}
