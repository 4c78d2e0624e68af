//! Reloading against real sockets: what is swapped, what is refused, what is gone back to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger::admin::Board;
use outrigger::app::reload::{Asked, Reloader};
use outrigger::config;
use outrigger::plan::compile::compile;
use outrigger::proxy::Shared;
use outrigger::serve::Server;
use outrigger::state::clock;
use outrigger::state::states::States;
use outrigger::telemetry::Telemetry;

const SOON: Duration = Duration::from_secs(20);

struct Running {
    _directory: tempfile::TempDir,
    file: PathBuf,
    shared: Arc<Shared>,
    server: Server,
    board: Arc<Board>,
    reloader: Reloader,
}

/// A configuration whose only difference is one timeout.
fn text(total: &str) -> String {
    format!(
        "upstream: http://127.0.0.1:1\nlisteners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
         timeouts: {{ total: {total}, first_byte: 1s }}\ntelemetry: {{ access_log: {{ to: off }} }}\n"
    )
}

fn start(first: &str) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outrigger.yaml");
    fs::write(&file, first).unwrap();
    let loaded = config::load_file(&file).unwrap();
    let telemetry = Telemetry::start(outrigger::app::options::telemetry(&loaded.settings), 1).unwrap();
    let states = Arc::new(States::default());
    let plan = compile(&loaded.settings, &loaded.hash, &states, &telemetry).unwrap();
    let shared = Arc::new(Shared { states, telemetry, plans: ArcSwap::from_pointee(plan) });
    let server = Server::start(Arc::clone(&shared), 1, Vec::new()).unwrap();
    let prepared = server.prepare(&shared.plans.load()).unwrap();
    server.commit(prepared);
    let board = Board::new(clock::now());
    let reloader = Reloader::new(Some(file.clone()), loaded, Arc::clone(&shared), Arc::clone(&board));
    Running { _directory: directory, file, shared, server, board, reloader }
}

impl Running {
    fn total(&self) -> Duration {
        self.shared.plans.load().live_listeners().next().unwrap().routes[0].timeouts.total
    }

    fn hash(&self) -> String {
        self.shared.plans.load().hash.clone()
    }

    fn stale(&self) -> bool {
        self.shared.states.reload.stale.load(Ordering::Relaxed)
    }

    fn address(&self) -> String {
        self.server.addresses()[0].1.to_string()
    }

    /// Follows the file until it has been reloaded in the way `done` waits for.
    async fn follow(&mut self, done: impl Fn(&Running) -> bool) {
        let following = async {
            while !done(self) {
                self.reloader.changed().await;
                drop(self.reloader.reload(&self.server, &Asked::File));
            }
        };
        tokio::time::timeout(SOON, following).await.expect("the change is taken up");
    }
}

fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, file).unwrap();
}

#[tokio::test]
async fn a_changed_file_is_taken_up_and_the_socket_stays() {
    let mut running = start(&text("2s"));
    let address = running.address();
    replace(&running.file, &text("3s"));
    running.follow(|running| running.total() == Duration::from_secs(3)).await;
    assert_eq!(running.address(), address, "an unchanged listener is never bound again");
    assert!(!running.stale());
    assert_eq!(running.board.facts().plans.len(), 2);
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_until_it_is_good_again() {
    let mut running = start(&text("2s"));
    let hash = running.hash();
    replace(&running.file, &text("2"));
    running.follow(Running::stale).await;
    assert_eq!(running.hash(), hash);
    let problems = running.shared.states.reload.problems();
    assert!(problems[0].contains("timeouts.total"), "{problems:?}");
    replace(&running.file, &text("2s"));
    running.follow(|running| !running.stale()).await;
    assert_eq!(running.hash(), hash);
    assert_eq!(running.shared.states.reload.problems(), Vec::<String>::new());
    running.server.shutdown().await;
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    let mut running = start(&text("2s"));
    fs::write(&running.file, " \n").unwrap();
    let problems = running.reloader.reload(&running.server, &Asked::Signal).unwrap_err();
    assert!(problems[0].contains("is empty"), "{problems:?}");
    assert!(running.stale());
    fs::remove_file(&running.file).unwrap();
    let problems = running.reloader.reload(&running.server, &Asked::Signal).unwrap_err();
    assert!(problems[0].contains("cannot be read"), "{problems:?}");
    running.server.shutdown().await;
}

// Goal: a port in use refuses the whole plan; once it is free the same file is taken up without being touched.
#[tokio::test]
async fn a_port_in_use_refuses_the_plan_until_it_is_free() {
    let mut running = start(&text("2s"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    replace(&running.file, &text("3s").replace("127.0.0.1:0", &format!("127.0.0.1:{port}")));
    running.follow(Running::stale).await;
    assert_eq!(running.total(), Duration::from_secs(2), "nothing of a refused plan is in force");
    let refused = running.shared.states.reload.refused.load(Ordering::Relaxed);
    drop(running.reloader.reload(&running.server, &Asked::File));
    assert_eq!(running.shared.states.reload.refused.load(Ordering::Relaxed), refused, "told once");
    drop(taken);
    running.follow(|running| !running.stale()).await;
    assert_eq!(running.total(), Duration::from_secs(3));
    assert!(running.address().ends_with(&format!(":{port}")));
    running.server.shutdown().await;
}

// Goal: going back holds against the file that was overruled, and only against that one.
#[tokio::test]
async fn an_earlier_plan_is_gone_back_to_and_stays() {
    let mut running = start(&text("2s"));
    let first = running.hash();
    replace(&running.file, &text("3s"));
    running.follow(|running| running.total() == Duration::from_secs(3)).await;
    let back = Asked::Command { to: Some(first[..6].to_owned()) };
    let answer = running.reloader.reload(&running.server, &back).unwrap();
    assert!(answer.changed && answer.changes.iter().any(|change| change.path == "timeouts"), "{answer:?}");
    assert_eq!((running.hash(), running.stale()), (first.clone(), true));
    let answer = running.reloader.reload(&running.server, &Asked::File).unwrap();
    assert!(!answer.changed, "the overruled file is not taken up by itself");
    assert_eq!((running.hash(), running.stale()), (first, true));
    replace(&running.file, &text("4s"));
    running.follow(|running| running.total() == Duration::from_secs(4)).await;
    assert!(!running.stale());
    let unknown = Asked::Command { to: Some("zzz".to_owned()) };
    let problems = running.reloader.reload(&running.server, &unknown).unwrap_err();
    assert!(problems[0].contains("no plan zzz is kept"), "{problems:?}");
    assert!(!running.stale(), "a wrong hash says nothing about the file");
    running.server.shutdown().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_said_until_there_is_one() {
    let mut running = start(&text("2s"));
    fs::write(&running.file, format!("{}workers: 3\n", text("2s"))).unwrap();
    let command = Asked::Command { to: None };
    let answer = running.reloader.reload(&running.server, &command).unwrap();
    assert!(answer.notes.iter().any(|note| note.starts_with("workers has changed")), "{answer:?}");
    assert_eq!(running.board.facts().restart.len(), 1);
    let again = running.reloader.reload(&running.server, &command).unwrap();
    assert!(!again.changed && again.notes.len() == 1, "{again:?}");
    fs::write(&running.file, text("2s")).unwrap();
    assert_eq!(running.reloader.reload(&running.server, &command).unwrap().notes, Vec::<String>::new());
    running.server.shutdown().await;
}

#[tokio::test]
async fn five_good_plans_are_kept_on_disk_too() {
    let state = tempfile::tempdir().unwrap();
    let with_state =
        |total: u32| format!("{}state: {{ directory: {} }}\n", text(&format!("{total}s")), state.path().display());
    let mut running = start(&with_state(2));
    for total in 3..9 {
        fs::write(&running.file, with_state(total)).unwrap();
        running.reloader.reload(&running.server, &Asked::Signal).unwrap();
    }
    let plans = state.path().join("plans");
    assert_eq!(fs::read_dir(&plans).unwrap().count(), 5);
    let kept = fs::read_to_string(plans.join(format!("{}.yaml", running.hash()))).unwrap();
    assert_eq!(kept, with_state(8));
    assert_eq!(running.board.facts().plans.len(), 5);
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_difference_is_told_without_being_made() {
    let running = start(&text("2s"));
    let base = running.file.parent().unwrap().display().to_string();
    let answer = running.reloader.diff("other.yaml", &base, &text("3s")).unwrap();
    assert!(answer.changes.iter().any(|change| change.path == "timeouts"), "{answer:?}");
    assert_eq!(running.total(), Duration::from_secs(2));
    assert!(running.reloader.diff("other.yaml", &base, "nonsense: 1").is_err());
    assert!(running.reloader.diff("other.yaml", &base, &text("2s")).unwrap().changes.is_empty());
    running.server.shutdown().await;
}

/// Writes a self-signed pair for a name, each file by rename, the certificate first: for a moment they do not match.
fn issue(directory: &Path, name: &str) {
    let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    replace(&directory.join("tls.crt"), &pair.cert.pem());
    replace(&directory.join("tls.key"), &pair.signing_key.serialize_pem());
}

// Goal: a certificate that changes under an unchanged configuration is shown, without a new plan.
#[tokio::test]
async fn a_changed_certificate_is_taken_into_use() {
    let directory = tempfile::tempdir().unwrap();
    issue(directory.path(), "one.example");
    let here = directory.path().display();
    let tls = format!(
        "{{ name: web, address: \"127.0.0.1:0\", \
         tls: {{ certificates: [{{ certificate: {here}/tls.crt, key: {here}/tls.key }}] }} }}"
    );
    let mut running = start(&text("2s").replace("{ name: web, address: \"127.0.0.1:0\" }", &tls));
    let (hash, shown) = (running.hash(), |running: &Running| running.server.certificates()[0].names.clone());
    assert_eq!(shown(&running), ["one.example"]);
    issue(directory.path(), "two.example");
    running.follow(|running| shown(running) == ["two.example"]).await;
    assert_eq!(running.hash(), hash);
    assert_eq!(running.board.facts().certificates[0].names, ["two.example"]);
    fs::write(directory.path().join("tls.key"), "not a key").unwrap();
    running.follow(Running::stale).await;
    assert_eq!(shown(&running), ["two.example"], "a pair that does not match is not shown");
    assert!(running.reloader.reload(&running.server, &Asked::File).is_err(), "it stays bad until it changes");
    assert!(running.stale());
    issue(directory.path(), "three.example");
    running.follow(|running| shown(running) == ["three.example"] && !running.stale()).await;
    running.server.shutdown().await;
}
