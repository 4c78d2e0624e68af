//! The one thread that writes the access log. Workers hand it whole batches through a bounded channel and never wait:
//! a channel that is full (a pipe nobody reads, a slow disk) costs log lines, which are counted, and nothing else.
//! One batch is one write, so lines of several processes on one pipe do not mix more than they must.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};

use super::metrics::lock;
use super::options::{LogTarget, TelemetryError};
use super::waiter::Promise;

/// Whole lines.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub lines: u64,
}

/// The way to the writing thread.
#[derive(Debug)]
pub struct LogWriter {
    batches: SyncSender<Option<Batch>>,
    desk: Arc<Desk>,
    /// The thread's end, until there is something to write: `off` needs no thread.
    parked: Mutex<Option<Receiver<Option<Batch>>>>,
}

/// What the thread and the others share.
#[derive(Debug, Default)]
struct Desk {
    /// Beside the channel, because it may be full just when these matter.
    commands: Mutex<Vec<Command>>,
    /// Empty buffers, to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Lines that could not be written.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Command {
    Target(Option<File>),
    Flush(Promise),
}

impl LogWriter {
    pub fn start(target: &LogTarget) -> Result<LogWriter, TelemetryError> {
        let (batches, receiver) = sync_channel(BATCHES_MAX);
        let writer = LogWriter { batches, desk: Arc::default(), parked: Mutex::new(Some(receiver)) };
        writer.retarget(target)?;
        Ok(writer)
    }

    /// Writes to `target` from here on; what was handed over before still goes to the old one. A file is opened again
    /// even if it is the same: it may have been rotated.
    pub fn retarget(&self, target: &LogTarget) -> Result<(), TelemetryError> {
        let file = open(target)?;
        let writes = file.is_some();
        self.command(Command::Target(file));
        if !writes {
            return Ok(());
        }
        let Some(receiver) = lock(&self.parked).take() else { return Ok(()) };
        let desk = self.desk.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || run(&receiver, &desk))
            .map(drop)
            .map_err(|cause| TelemetryError::Thread { name: "access-log", cause })
    }

    /// Hands over a batch and returns an empty buffer, or the number of lines dropped because the channel is full.
    /// Either way `batch` is empty afterwards.
    pub fn hand_over(&self, batch: &mut Batch) -> Result<(), u64> {
        let spare = self.desk.spare.try_lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        let full = Batch { bytes: std::mem::replace(&mut batch.bytes, spare), lines: std::mem::take(&mut batch.lines) };
        self.batches.try_send(Some(full)).map_err(|refused| {
            let (std::sync::mpsc::TrySendError::Full(message) | std::sync::mpsc::TrySendError::Disconnected(message)) =
                refused;
            let Some(mut full) = message else { return 0 };
            // The buffer was just swapped for a spare one; the larger of the two is worth keeping.
            full.bytes.clear();
            batch.bytes = full.bytes;
            full.lines
        })
    }

    /// Keeps the promise when everything handed over so far is written. Without a thread there is nothing to wait for.
    pub fn flush(&self, promise: Promise) {
        if lock(&self.parked).is_none() {
            self.command(Command::Flush(promise));
        }
    }

    /// Lines that were handed over and could not be written.
    pub fn lost(&self) -> u64 {
        self.desk.lost.load(Ordering::Relaxed)
    }

    fn command(&self, command: Command) {
        lock(&self.desk.commands).push(command);
        // Only to wake it: if the channel is full the thread is awake, and looks at the commands after each batch.
        let _ = self.batches.try_send(None);
    }
}

fn run(receiver: &Receiver<Option<Batch>>, desk: &Desk) {
    let mut out = Out { file: None, torn: false, failing: false };
    while let Ok(message) = receiver.recv() {
        out.write(message, desk);
        let commands = std::mem::take(&mut *lock(&desk.commands));
        if commands.is_empty() {
            continue;
        }
        while let Ok(message) = receiver.try_recv() {
            out.write(message, desk);
        }
        for command in commands {
            match command {
                Command::Target(file) => out = Out { file, torn: false, failing: false },
                Command::Flush(promise) => drop(promise),
            }
        }
    }
}

/// Where lines go.
struct Out {
    file: Option<File>,
    /// The last write ended within a line.
    torn: bool,
    failing: bool,
}

impl Out {
    fn write(&mut self, message: Option<Batch>, desk: &Desk) {
        let Some(mut batch) = message else { return };
        if let Some(file) = &self.file {
            if self.torn {
                batch.bytes.insert(0, b'\n');
            }
            match write_all(file, &batch.bytes) {
                Ok(()) => {
                    (self.torn, self.failing) = (false, false);
                }
                Err((written, cause)) => {
                    let after = batch.bytes.get(written..).unwrap_or_default();
                    let missing = after.iter().filter(|byte| **byte == b'\n').count() as u64;
                    desk.lost.fetch_add(missing.min(batch.lines), Ordering::Relaxed);
                    self.torn = written > 0 && batch.bytes.get(written - 1) != Some(&b'\n');
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(error = %cause, "the access log cannot be written; lines are dropped and counted");
                    }
                }
            }
        }
        batch.bytes.clear();
        let mut spare = lock(&desk.spare);
        if spare.len() < SPARE_MAX {
            spare.push(batch.bytes);
        }
    }
}

/// Writes everything, or says how much was written. A reader that went away is an error like any other: the process
/// ignores SIGPIPE (std sees to it).
fn write_all(mut file: &File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the pipe has made it non-blocking; wait as if it were not.
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(&file, PollFlags::OUT)], None);
            }
            Err(cause) => return Err((written, cause)),
        }
    }
    Ok(())
}

fn open(target: &LogTarget) -> Result<Option<File>, TelemetryError> {
    let stream = |name, fd: io::Result<OwnedFd>| match fd {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(cause) => Err(TelemetryError::LogStream { name, cause }),
    };
    match target {
        LogTarget::Off => Ok(None),
        LogTarget::Stdout => stream("stdout", io::stdout().as_fd().try_clone_to_owned()),
        LogTarget::Stderr => stream("stderr", io::stderr().as_fd().try_clone_to_owned()),
        LogTarget::File(path) => match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(cause) => Err(TelemetryError::LogFile { path: path.clone(), cause }),
        },
    }
}

/// Batches that wait for the thread; with full ones (`access_log::BATCH_BYTES`) 2 MiB.
const BATCHES_MAX: usize = 64;
const SPARE_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::super::waiter::Waiter;
    use super::*;

    fn batch(text: &str) -> Batch {
        Batch { bytes: text.as_bytes().to_vec(), lines: text.lines().count() as u64 }
    }

    fn flush(writer: &LogWriter) -> bool {
        let waiter = Arc::new(Waiter::default());
        writer.flush(waiter.promise());
        waiter.wait(Duration::from_secs(20))
    }

    #[test]
    fn lines_reach_the_file_and_a_new_target_opens_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let target = LogTarget::File(path.clone());
        let writer = LogWriter::start(&target).unwrap();
        writer.hand_over(&mut batch("one\n")).unwrap();
        assert!(flush(&writer));
        std::fs::rename(&path, &moved).unwrap();
        writer.hand_over(&mut batch("two\n")).unwrap();
        writer.retarget(&target).unwrap();
        writer.hand_over(&mut batch("three\n")).unwrap();
        assert!(flush(&writer));
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_reader_that_left_costs_lines_and_nothing_else() {
        // Goal: a broken pipe is counted and survived. Method: a pipe whose reading end is closed.
        let (reader, pipe) = io::pipe().unwrap();
        let desk = Desk::default();
        let mut out = Out { file: Some(File::from(OwnedFd::from(pipe))), torn: false, failing: false };
        out.write(Some(batch("a\n")), &desk);
        assert_eq!(desk.lost.load(Ordering::Relaxed), 0);
        drop(reader);
        out.write(Some(batch("b\nc\n")), &desk);
        assert_eq!(desk.lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_channel_drops_and_says_how_much() {
        // Goal: nobody waits. Method: a pipe that nobody reads, filled until the thread blocks and the channel is full.
        let writer = LogWriter::start(&LogTarget::Off).unwrap();
        let (mut reader, pipe) = io::pipe().unwrap();
        writer.command(Command::Target(Some(File::from(OwnedFd::from(pipe)))));
        let receiver = lock(&writer.parked).take().unwrap();
        let desk = writer.desk.clone();
        let thread = std::thread::spawn(move || run(&receiver, &desk));
        let line = format!("{}\n", "x".repeat(64 * 1024));
        let mut handed = 0u64;
        let dropped = loop {
            match writer.hand_over(&mut batch(&line)) {
                Ok(()) => handed += 1,
                Err(lines) => break lines,
            }
        };
        assert_eq!(dropped, 1);
        let waiter = Arc::new(Waiter::default());
        writer.flush(waiter.promise());
        assert!(!waiter.wait(Duration::from_millis(1)), "a stuck reader ends the wait, not the other way round");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        thread.join().unwrap();
        assert_eq!(text.lines().count() as u64, handed);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut out = Out { file: Some(File::from(OwnedFd::from(pipe))), torn: true, failing: true };
        out.write(Some(batch("whole\n")), &Desk::default());
        drop(out);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nwhole\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let problem = LogWriter::start(&LogTarget::File("/nonexistent/access.log".into())).unwrap_err();
        assert!(problem.to_string().contains("/nonexistent/access.log"), "{problem}");
    }
}
