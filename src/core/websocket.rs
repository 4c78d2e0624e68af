//! Where WebSocket frames begin and end in a stream of bytes (RFC 6455 §5.2), so that a close frame of our own can be
//! put between two of them. Only lengths are read; payloads pass by untouched, and extensions do not matter.

/// A close frame with status 1001 (going away) as a server sends it.
pub const CLOSE_GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same as a client sends it: masked, with the key zero.
pub const CLOSE_GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Follows one direction of a connection. A peer that sends no WebSocket frames is followed too, into nonsense: then it
/// is never or wrongly between two, and the worst that comes of it is a close frame it does not understand.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of the current frame's header seen so far; at most 14.
    header: [u8; 14],
    header_len: usize,
    payload_left: u64,
}

impl Frames {
    /// Takes note of bytes that have passed.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.header_len] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload() {
                self.payload_left = payload;
                self.header_len = 0;
            }
        }
    }

    /// No frame has begun without having ended.
    pub fn between(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0
    }

    /// The payload's length once the header is whole.
    fn payload(&self) -> Option<u64> {
        let head = &self.header[..self.header_len];
        let second = *head.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (length_bytes, length) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes([*head.get(2)?, *head.get(3)?]))),
            127 => (8, u64::from_be_bytes(head.get(2..10)?.try_into().ok()?)),
            short => (0, u64::from(short)),
        };
        (head.len() == 2 + length_bytes + mask).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![7; if masked { 4 } else { 0 } + length]);
        bytes
    }

    #[test]
    fn only_the_end_of_a_frame_is_between_frames() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = frame(masked, length);
                let mut frames = Frames::default();
                for (index, byte) in bytes.iter().enumerate() {
                    frames.pass(&[*byte]);
                    assert_eq!(frames.between(), index + 1 == bytes.len(), "{length} {masked} at {index}");
                }
                let mut whole = Frames::default();
                whole.pass(&[bytes.clone(), bytes].concat());
                assert!(whole.between());
            }
        }
    }

    #[test]
    fn our_own_close_frames_are_whole_frames() {
        for bytes in [&CLOSE_GOING_AWAY[..], &CLOSE_GOING_AWAY_MASKED[..]] {
            let mut frames = Frames::default();
            frames.pass(bytes);
            assert!(frames.between());
        }
    }
}
