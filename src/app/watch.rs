//! Notices that a watched file says something else than before.
//!
//! The parent *directories* are watched and every event is followed by a comparison of content, because files are
//! replaced in many ways: editors rename over them, Kubernetes swaps a `..data` symlink beside them, tools truncate
//! and write. Filtering on the kind or name of events is how such changes get lost. Only events of *reading* are left
//! out, or our own comparison would cause the next. A poll stands beside the events for ever, since bind mounts, some
//! network file systems and sandboxes deliver none, and the kernel's watches run out.
//!
//! What it cannot see: a single file bind-mounted into a container (or mounted by `subPath`) stays the old file for
//! ever when the outside replaces it. Mount the directory.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::state::clock;

/// From an event to the comparison: several writes are usually one change.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// Between two comparisons without any event.
const POLL: Duration = Duration::from_secs(2);
/// What is read of one file; more is not a configuration.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a file says: the hash of its content, or why it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Hash([u8; 32]),
    Unreadable(ErrorKind),
    /// There was no descriptor to look with: nothing is known of it.
    Unknown,
}

/// What the files say now.
pub fn contents(files: &[PathBuf]) -> Vec<Content> {
    let said = |file: &PathBuf| match content(file) {
        Ok(hash) => Content::Hash(hash),
        Err(cause) if is_shortage(&cause) => Content::Unknown,
        Err(cause) => Content::Unreadable(cause.kind()),
    };
    files.iter().map(said).collect()
}

/// This process, or the machine, has no file descriptor left.
fn is_shortage(cause: &std::io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
}

/// Why no file can be read at present, in words; `None` when files can be.
pub fn shortage() -> Option<String> {
    let cause = std::fs::File::open("/").err().filter(is_shortage)?;
    let limit = getrlimit(Resource::Nofile).current.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    Some(format!(
        "no file can be read: {cause}; the limit is {limit} open files, raise it (ulimit -n, or LimitNOFILE= of the unit)"
    ))
}

fn content(file: &Path) -> std::io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut reader = std::fs::File::open(file)?.take(FILE_BYTES_MAX);
    std::io::copy(&mut reader, &mut hash)?;
    Ok(hash.finalize().into())
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A file says something else.
    Content,
    /// Time has passed; only when asked for.
    Poll,
}

/// Watches the content of a set of files.
pub struct Watcher {
    files: Vec<PathBuf>,
    /// What each file said last; `None` for one that is new here. Whoever loaded a new file did so before it was
    /// watched, so the first comparison must find it changed: one needless look, no lost change.
    seen: Vec<Option<Content>>,
    events: mpsc::Receiver<()>,
    /// Keeps the kernel's watches; `None` where there are none to be had.
    notify: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    poll: Interval,
    /// When the next comparison is.
    due: Option<Instant>,
    complained: bool,
    /// The last comparison had no descriptor to read with.
    short: bool,
}

impl Watcher {
    /// Needs a tokio runtime. Watching by events is a convenience: failing to is logged, not an error.
    pub fn new(files: Vec<PathBuf>) -> Watcher {
        let (sender, events) = mpsc::channel(1);
        let notify = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let reading = |kind: &EventKind| matches!(kind, EventKind::Access(kind) if *kind != AccessKind::Close(AccessMode::Write));
            if !event.is_ok_and(|event| reading(&event.kind)) {
                let _ = sender.try_send(()); // full: a comparison is on its way already
            }
        });
        let mut poll = interval_at(tokio::time::Instant::from_std(clock::now() + POLL), POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watcher = Watcher {
            seen: Vec::new(),
            files: Vec::new(),
            events,
            notify: None,
            directories: BTreeSet::new(),
            poll,
            due: None,
            complained: false,
            short: false,
        };
        match notify {
            Ok(notify) => watcher.notify = Some(notify),
            Err(cause) => watcher.complain(&cause),
        }
        watcher.follow(files);
        watcher
    }

    /// Watches these files from now on.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        let known = |file: &PathBuf| self.files.iter().position(|known| known == file);
        self.seen = files.iter().map(|file| known(file).and_then(|index| self.seen[index])).collect();
        let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
        let gone: Vec<PathBuf> = self.directories.difference(&directories).cloned().collect();
        for directory in gone {
            self.directories.remove(&directory);
            if let Some(notify) = &mut self.notify {
                // It may have been deleted, and its watch with it.
                drop(notify.unwatch(&directory));
            }
        }
        for directory in directories {
            self.watch(directory);
        }
        self.files = files;
    }

    /// Takes what the files say now as seen; for whoever is about to read them for another reason than a change told
    /// from here. What changes after this call is still found.
    pub fn look(&mut self) {
        self.seen = self.compare();
    }

    /// What the files say now; of those that cannot be looked at, what they said last.
    fn compare(&mut self) -> Vec<Option<Content>> {
        let found = contents(&self.files);
        let short = found.contains(&Content::Unknown);
        if short && !std::mem::replace(&mut self.short, short) {
            let why = shortage().unwrap_or_else(|| "no file descriptor is left".to_owned());
            tracing::warn!("changes of files are not seen for now: {why}");
        }
        self.short = short;
        let known = |(found, seen): (Content, &Option<Content>)| match found {
            Content::Unknown => *seen,
            Content::Hash(_) | Content::Unreadable(_) => Some(found),
        };
        found.into_iter().zip(&self.seen).map(known).collect()
    }

    fn watch(&mut self, directory: PathBuf) {
        let Some(notify) = &mut self.notify else { return };
        if self.directories.contains(&directory) {
            return;
        }
        match notify.watch(&directory, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.directories.insert(directory)),
            Err(cause) => self.complain(&cause),
        }
    }

    fn complain(&mut self, cause: &notify::Error) {
        if !self.complained {
            self.complained = true;
            tracing::warn!(%cause, "files cannot be watched by events; they are compared every {POLL:?} instead");
        }
    }

    /// Waits until the content differs from what was seen last. With `impatient` it also returns at each poll.
    /// May be cancelled and asked again; nothing is lost.
    pub async fn changed(&mut self, impatient: bool) -> Why {
        loop {
            let mut polled = false;
            let due = match self.due {
                Some(due) => due,
                None => tokio::select! {
                    // The sender lives in `notify`; without it only the poll is left.
                    Some(()) = self.events.recv() => clock::now() + DEBOUNCE,
                    _ = self.poll.tick() => {
                        polled = true;
                        clock::now()
                    }
                },
            };
            self.due = Some(due);
            sleep_until(tokio::time::Instant::from_std(due)).await;
            self.due = None;
            while self.events.try_recv().is_ok() {}
            let now = self.compare();
            if now != self.seen {
                self.seen = now;
                return Why::Content;
            }
            if polled && impatient {
                return Why::Poll;
            }
        }
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const SOON: Duration = Duration::from_secs(20);

    /// A watcher that has seen the files once.
    fn settled(files: Vec<PathBuf>) -> Watcher {
        let mut watcher = Watcher::new(files);
        watcher.seen = contents(&watcher.files).into_iter().map(Some).collect();
        watcher
    }

    async fn changes(watcher: &mut Watcher) {
        let why = tokio::time::timeout(SOON, watcher.changed(false)).await.expect("the change is noticed");
        assert_eq!(why, Why::Content);
    }

    /// Nothing is noticed during several polls; time is the test's own.
    async fn rests(watcher: &mut Watcher) {
        assert!(tokio::time::timeout(POLL * 3, watcher.changed(false)).await.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn a_file_replaced_by_rename_is_noticed_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watcher = settled(vec![file.clone()]);
        for text in ["two", "three"] {
            let fresh = directory.path().join("a.yaml.swp");
            fs::write(&fresh, text).unwrap();
            fs::rename(&fresh, &file).unwrap();
            changes(&mut watcher).await;
        }
    }

    // Goal: the way Kubernetes updates a mounted ConfigMap: files are links through `..data`, which is swapped.
    #[tokio::test]
    async fn a_swap_of_the_data_link_is_noticed() {
        let mount = tempfile::tempdir().unwrap();
        let mount = mount.path();
        let publish = |version: &str, text: &str| {
            fs::create_dir(mount.join(version)).unwrap();
            fs::write(mount.join(version).join("outrigger.yaml"), text).unwrap();
            symlink(version, mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        publish("..2026_01", "one");
        let file = mount.join("outrigger.yaml");
        symlink("..data/outrigger.yaml", &file).unwrap();
        let mut watcher = settled(vec![file]);
        publish("..2026_02", "two");
        fs::remove_dir_all(mount.join("..2026_01")).unwrap();
        changes(&mut watcher).await;
        publish("..2026_03", "three");
        changes(&mut watcher).await;
    }

    // Goal: what no event tells is found by polling. Method: a link to a file in a directory that is not watched.
    #[tokio::test(start_paused = true)]
    async fn a_change_without_an_event_is_found_by_polling() {
        let here = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("real.yaml");
        fs::write(&target, "one").unwrap();
        let link = here.path().join("a.yaml");
        symlink(&target, &link).unwrap();
        let mut watcher = settled(vec![link]);
        rests(&mut watcher).await;
        fs::write(&target, "two").unwrap();
        changes(&mut watcher).await;
        rests(&mut watcher).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_content_again_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watcher = settled(vec![file.clone()]);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "one").unwrap();
        rests(&mut watcher).await;
    }

    // Goal: waiting may be interrupted (by `select!`) at any point without losing the change.
    #[tokio::test]
    async fn an_interrupted_wait_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watcher = settled(vec![file.clone()]);
        fs::write(&file, "two").unwrap();
        let interrupted = async {
            loop {
                if tokio::time::timeout(Duration::from_millis(7), watcher.changed(false)).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, interrupted).await.expect("the change is noticed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_or_goes_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        let mut watcher = settled(vec![file.clone()]);
        fs::write(&file, "").unwrap();
        changes(&mut watcher).await;
        fs::remove_file(&file).unwrap();
        changes(&mut watcher).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_wait_ends_at_the_next_poll() {
        let mut watcher = settled(vec![PathBuf::from("/no/such/file")]);
        assert_eq!(tokio::time::timeout(POLL, watcher.changed(true)).await, Ok(Why::Poll));
    }

    // Goal: a file that changed between being loaded and being watched is looked at again, once.
    #[tokio::test(start_paused = true)]
    async fn a_newly_watched_file_is_looked_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&first, "a").unwrap();
        let mut watcher = settled(vec![first.clone()]);
        watcher.follow(vec![first.clone()]);
        rests(&mut watcher).await;
        watcher.follow(vec![first, second]);
        changes(&mut watcher).await;
        rests(&mut watcher).await;
    }

    #[test]
    fn a_name_without_a_directory_is_in_the_current_one() {
        assert_eq!(directory(Path::new("outrigger.yaml")), Path::new("."));
        assert_eq!(directory(Path::new("/etc/a.yaml")), Path::new("/etc"));
    }
}
