//! The one thread that writes the access log. Workers hand it whole batches through a bounded queue and never wait:
//! a queue that is full (a pipe nobody reads, a slow disk) costs log lines, which are counted, and nothing else.
//! One batch is one write, so lines of several processes on one pipe do not mix more than they must.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::metrics::lock;
use super::options::{Target, TelemetryError};
use super::waiter::Promise;

/// Whole lines.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub lines: u64,
}

/// The way to the writing thread.
#[derive(Debug)]
pub struct LogWriter(Arc<Desk>);

/// What the thread and the others share. A locked queue and no channel, because commands must keep their place among
/// the batches and must be taken however full it is; it is locked once per batch, for as long as a push takes.
#[derive(Debug, Default)]
struct Desk {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Lines that could not be written.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// How many of the items are batches.
    batches: usize,
    /// Empty buffers, to be filled again.
    spare: Vec<Vec<u8>>,
    /// There is a thread; as long as the target is `off` there need not be.
    running: bool,
    closed: bool,
}

#[derive(Debug)]
enum Item {
    Batch(Batch),
    Target(Option<File>),
    Flush(Promise),
}

impl LogWriter {
    pub fn start(target: &Target) -> Result<LogWriter, TelemetryError> {
        let writer = LogWriter(Arc::default());
        writer.retarget(target)?;
        Ok(writer)
    }

    /// Writes to `target` from here on; what was handed over before still goes to the old one. A file is opened again
    /// even if it is the same: it may have been rotated.
    pub fn retarget(&self, target: &Target) -> Result<(), TelemetryError> {
        let file = open(target)?;
        let mut queue = lock(&self.0.queue);
        if file.is_some() && !queue.running {
            let desk = self.0.clone();
            std::thread::Builder::new()
                .name(THREAD.to_owned())
                .spawn(move || run(&desk))
                .map_err(|cause| TelemetryError::log(format!("no thread for the log: {cause}")))?;
            queue.running = true;
        }
        queue.items.push_back(Item::Target(file));
        self.0.filled.notify_one();
        Ok(())
    }

    /// Hands over a batch, which is empty afterwards, and returns the number of lines dropped: all of it if as many
    /// batches wait as may, else none.
    pub fn hand_over(&self, batch: &mut Batch) -> u64 {
        let mut queue = lock(&self.0.queue);
        if queue.batches >= BATCHES_MAX {
            drop(queue);
            batch.bytes.clear();
            return std::mem::take(&mut batch.lines);
        }
        let spare = queue.spare.pop().unwrap_or_else(|| Vec::with_capacity(batch.bytes.len()));
        queue.items.push_back(Item::Batch(std::mem::replace(batch, Batch { bytes: spare, lines: 0 })));
        queue.batches += 1;
        self.0.filled.notify_one();
        0
    }

    /// Keeps the promise when everything handed over so far is written. Without a thread there is nothing to wait for.
    pub fn flush(&self, promise: Promise) {
        let mut queue = lock(&self.0.queue);
        if queue.running {
            queue.items.push_back(Item::Flush(promise));
            self.0.filled.notify_one();
        }
    }

    /// Lines that were handed over and could not be written.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        lock(&self.0.queue).closed = true;
        self.0.filled.notify_one();
    }
}

fn run(desk: &Desk) {
    let mut out = Out { file: None, torn: false, failing: false };
    while let Some(item) = desk.next() {
        match item {
            Item::Batch(batch) => {
                let buffer = out.write(batch, &desk.lost);
                desk.give_back(buffer);
            }
            Item::Target(file) => out = Out { file, torn: false, failing: false },
            Item::Flush(promise) => drop(promise),
        }
    }
}

impl Desk {
    /// Waits for the next item; `None` when there will be none.
    fn next(&self) -> Option<Item> {
        let queue = lock(&self.queue);
        let idle = |queue: &mut Queue| queue.items.is_empty() && !queue.closed;
        let mut queue = self.filled.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        let item = queue.items.pop_front();
        queue.batches -= usize::from(matches!(item, Some(Item::Batch(_))));
        item
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut queue = lock(&self.queue);
        if queue.spare.len() < SPARE_MAX {
            queue.spare.push(buffer);
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
    /// Writes a batch and returns its buffer, empty.
    fn write(&mut self, mut batch: Batch, lost: &AtomicU64) -> Vec<u8> {
        if let Some(file) = &self.file {
            if self.torn {
                batch.bytes.insert(0, b'\n');
            }
            match write_all(file, &batch.bytes) {
                Ok(()) => (self.torn, self.failing) = (false, false),
                Err((written, cause)) => {
                    let missing = batch.bytes.iter().skip(written).filter(|byte| **byte == b'\n').count() as u64;
                    lost.fetch_add(missing.min(batch.lines), Ordering::Relaxed);
                    self.torn = match batch.bytes.get(..written) {
                        Some([.., last]) => *last != b'\n',
                        Some([]) | None => self.torn,
                    };
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(error = %cause, "the access log cannot be written; lines are dropped and counted");
                    }
                }
            }
        }
        batch.bytes.clear();
        batch.bytes
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

fn open(target: &Target) -> Result<Option<File>, TelemetryError> {
    let stream = |name, fd: io::Result<OwnedFd>| match fd {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(cause) => Err(TelemetryError::log(format!("{name} cannot be used: {cause}"))),
    };
    match target {
        Target::Off => Ok(None),
        Target::Stdout => stream("stdout", io::stdout().as_fd().try_clone_to_owned()),
        Target::Stderr => stream("stderr", io::stderr().as_fd().try_clone_to_owned()),
        Target::File(path) => match open_file(path) {
            Ok(file) => Ok(Some(file)),
            Err(cause) if is_pipe(path) && cause.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                let words = format!("{} is a pipe that nobody reads; start its reader first", path.display());
                Err(TelemetryError::log(words))
            }
            Err(cause) => Err(TelemetryError::log(format!("{} cannot be opened: {cause}", path.display()))),
        },
    }
}

/// Without waiting: opening a pipe would wait for its reader, and with it would whoever starts or reloads.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

const THREAD: &str = "access-log";
/// Batches that wait for the thread; 2 MiB if they are full ones (`access_log::BATCH_BYTES`).
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
        let target = Target::File(path.clone());
        let writer = LogWriter::start(&target).unwrap();
        writer.hand_over(&mut batch("one\n"));
        assert!(flush(&writer));
        std::fs::rename(&path, &moved).unwrap();
        writer.hand_over(&mut batch("two\n"));
        writer.retarget(&target).unwrap();
        writer.hand_over(&mut batch("three\n"));
        assert!(flush(&writer));
        writer.retarget(&Target::Off).unwrap();
        writer.hand_over(&mut batch("four\n"));
        assert!(flush(&writer));
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn without_a_target_there_is_no_thread_to_wait_for() {
        let writer = LogWriter::start(&Target::Off).unwrap();
        assert!(flush(&writer) && !lock(&writer.0.queue).running);
    }

    #[test]
    fn buffers_are_used_again() {
        // Goal: no allocation in steady state. Method: the buffer that comes back is one that was handed over.
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::start(&Target::File(folder.path().join("log"))).unwrap();
        let mut batch = batch("line\n");
        let first = batch.bytes.as_ptr();
        writer.hand_over(&mut batch);
        assert!(flush(&writer));
        batch.bytes.push(b'\n');
        writer.hand_over(&mut batch);
        assert_eq!((batch.bytes.as_ptr(), batch.bytes.len(), batch.lines), (first, 0, 0));
    }

    #[test]
    fn a_reader_that_left_costs_lines_and_nothing_else() {
        // Goal: a broken pipe is counted and survived. Method: a pipe whose reading end is closed.
        let (reader, pipe) = io::pipe().unwrap();
        let lost = AtomicU64::new(0);
        let mut out = Out { file: Some(File::from(OwnedFd::from(pipe))), torn: false, failing: false };
        out.write(batch("a\n"), &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 0);
        drop(reader);
        out.write(batch("b\nc\n"), &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_queue_drops_and_says_how_much() {
        // Goal: nobody waits. Method: a pipe that nobody reads, filled until the thread blocks and the queue is full.
        let writer = LogWriter(Arc::default());
        let (mut reader, pipe) = io::pipe().unwrap();
        {
            let mut queue = lock(&writer.0.queue);
            queue.items.push_back(Item::Target(Some(File::from(OwnedFd::from(pipe)))));
            queue.running = true;
        }
        let desk = writer.0.clone();
        let thread = std::thread::spawn(move || run(&desk));
        let line = format!("{}\n", "x".repeat(64 * 1024));
        let mut handed = 0u64;
        while writer.hand_over(&mut batch(&line)) == 0 {
            handed += 1;
        }
        assert!(handed >= BATCHES_MAX as u64);
        let waiter = Arc::new(Waiter::default());
        writer.flush(waiter.promise());
        assert!(!waiter.wait(Duration::from_millis(1)), "a stuck reader ends the wait, not the other way round");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        thread.join().unwrap();
        assert_eq!(text.lines().count() as u64, handed);
        assert!(waiter.wait(Duration::ZERO));
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut out = Out { file: Some(File::from(OwnedFd::from(pipe))), torn: true, failing: true };
        out.write(batch("whole\n"), &AtomicU64::new(0));
        assert!(!out.torn && !out.failing);
        drop(out);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nwhole\n");
    }

    #[test]
    fn a_pipe_is_refused_while_nobody_reads_it_and_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let target = Target::File(path.clone());
        let problem = LogWriter::start(&target).unwrap_err();
        assert!(problem.to_string().contains("a pipe that nobody reads"), "{problem}");
        // More than a pipe holds: its writer waits for the reader, and nobody else does.
        let (opened, reader) = (OpenOptions::new().read(true).custom_flags(0o4000).open(&path).unwrap(), path.clone());
        let writer = LogWriter::start(&target).unwrap();
        let line = format!("{}\n", "x".repeat(64 * 1024));
        for _ in 0..8 {
            assert_eq!(writer.hand_over(&mut batch(&line)), 0);
        }
        let reading = std::thread::spawn(move || {
            let mut pipe = File::open(reader).unwrap();
            drop(opened);
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text.lines().count()
        });
        assert!(flush(&writer));
        drop(writer);
        assert_eq!(reading.join().unwrap(), 8);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let problem = LogWriter::start(&Target::File("/nonexistent/access.log".into())).unwrap_err();
        assert!(problem.to_string().contains("/nonexistent/access.log"), "{problem}");
    }
}
