//! The access log: lines gather in memory and are written when there are 64 KiB of them, or after a second, as nginx's are
//! with `buffer=64k flush=1s`.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const BUFFER: usize = 64 * 1024;
const FLUSH: Duration = Duration::from_secs(1);

pub struct Log(Mutex<Lines>);

struct Lines {
    gathered: Vec<u8>,
    file: File,
}

impl Log {
    pub fn open(path: &str) -> Arc<Log> {
        let file = File::options().create(true).append(true).open(path).expect("the access log");
        let log = Arc::new(Log(Mutex::new(Lines { gathered: Vec::with_capacity(2 * BUFFER), file })));
        let flushed = log.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(FLUSH);
                flushed.lines(Lines::flush);
            }
        });
        log
    }

    /// `write` appends one line.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.lines(|lines| {
            write(&mut lines.gathered);
            if lines.gathered.len() >= BUFFER {
                lines.flush();
            }
        });
    }

    fn lines(&self, with: impl FnOnce(&mut Lines)) {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Lines {
    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            let _ = self.file.write_all(&self.gathered); // a full disk loses lines, not requests
            self.gathered.clear();
        }
    }
}

/// What a client wrote, inside a JSON string.
pub fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\' && byte < 0x7f;
    if text.iter().all(|byte| plain(*byte)) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        if plain(*byte) {
            line.push(*byte);
        } else {
            let _ = write!(line, "\\u{byte:04x}"); // into memory: cannot fail
        }
    }
}
