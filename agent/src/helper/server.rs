//! `mainstay-agent helper`: the socket, who speaks, and one at a time who changes anything.
//!
//! The socket is systemd's (standard input) or made here. A thread per caller, few of them; looking is answered from what is published,
//! everything else waits for the one pair of hands, or is told "busy". It must never answer anybody but root and the reporter, let the
//! reporter keep root out, nor end while a version is on probation or the journal tells of something under way. Started by systemd it ends
//! a minute after the last thing was done; once another release of the agent is proven, at once: systemd starts that one, or it becomes
//! that one.

use std::fs::Permissions;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anyhow::Context as _;
use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::AGENT;
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;

use super::disk::MachineDisk;
use super::engine::Engine;
use super::executor::Executor;
use super::lines::{Caller, Received};
use super::protocol::{Answer, Request};
use super::quarantine::{Incoming, Quarantine};
use super::settings::Settings;
use super::state::State;
use super::store::{Published, Store};
use super::tree::PROVEN;
use super::verbs::{Helper, Speaker, refusal, refused};
use super::view::{self, View};
use crate::atomic_file;

/// Callers at once who are root.
const MAX_ROOTS: usize = 8;
/// Callers at once who are not: however many hang, root is heard.
const MAX_OTHERS: usize = 8;
/// Started by systemd, it ends so long after the last caller.
const IDLE: Duration = Duration::from_secs(60);
/// Another release is proven: it ends so long after the last thing was done.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// And at the latest so long after it was proven, though callers hang or go on asking.
const LAST_ANSWERS_END: Duration = Duration::from_secs(10);
/// How long a caller waits for the hands, or for its turn to have a file copied, before it is told that they are busy.
const HANDS_FREE: Duration = Duration::from_secs(5);
/// A caller's thread needs little.
const STACK_BYTES: usize = 512 << 10;

struct Shared {
    hands: Mutex<Helper>,
    published: Published,
    settings: Arc<Settings>,
    quarantine: Quarantine,
    time: TimeSource,
    roots: AtomicUsize,
    others: AtomicUsize,
    copies: AtomicU64,
    /// The reporter's files are copied one at a time: what is free is judged before each.
    copying: Mutex<()>,
    /// Something was done: the main thread looks when to wake again.
    done: (Mutex<u64>, Condvar),
}

/// Runs the helper until it is stopped, or idle when systemd will start it again.
///
/// # Errors
/// Not root, or its memory, folders or socket can't be had.
pub(crate) fn serve(settings: Settings, time: TimeSource) -> anyhow::Result<()> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "the helper runs as root only");
    mainstay_patchkit::install_crypto();
    let settings = Arc::new(settings);
    atomic_file::private_dir(&settings.state_dir)?;
    let lock = std::fs::File::create(settings.state_dir.join("lock")).context("the helper's lock")?;
    alone(&lock, &time).context("another helper runs")?;
    let (listener, by_systemd) = listener(&settings)?;
    let shared = Arc::new(open(settings, time)?);
    let accepting = Arc::clone(&shared);
    std::thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &accepting))?;
    if !watch_time(&shared, by_systemd) || by_systemd {
        return Ok(());
    }
    // Nobody starts it again: it becomes the release that is proven now, by the same words.
    let Some(agent) = &shared.settings.agent else { return Ok(()) };
    let program = agent.tree.join(PROVEN).join(AGENT);
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| program.display().to_string())
}

/// `helper --check`: whether this release can read the box's settings and the helper's memory. An older one asks before it gives way.
///
/// # Errors
/// What can't be read. Nothing is ever written.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    Store::look(&MachineDisk, &settings.state_dir)
}

/// A step that a killed helper had just begun holds its lock until it has become the executor: a moment.
fn alone(lock: &std::fs::File, time: &TimeSource) -> std::io::Result<()> {
    let began = time.monotonic();
    loop {
        match rustix::fs::flock(lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(error) if time.monotonic().saturating_sub(began) > HANDS_FREE => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn open(settings: Arc<Settings>, time: TimeSource) -> anyhow::Result<Shared> {
    let disk = Arc::new(MachineDisk);
    let shipped = || {
        let root = std::fs::read_to_string(&settings.root).with_context(|| settings.root.display().to_string())?;
        Ok(State::shipped(settings.version.clone(), root, time.now()))
    };
    let store = Store::open(disk.clone(), settings.state_dir.clone(), shipped)?;
    let quarantine = Quarantine::open(settings.state_dir.join("quarantine"))?;
    let published = store.published();
    let runner = Box::new(Executor { socket: settings.executor_socket.clone() });
    let told_before = store.state().last_report;
    let mut engine = Engine {
        disk,
        store,
        settings: Arc::clone(&settings),
        runner,
        time: time.clone(),
        watch: None,
        again_at: None,
        renewed: false,
    };
    engine.recover().context("an interrupted patch can't be finished or undone")?;
    let helper = Helper { engine, quarantine: quarantine.clone(), random: Box::new(SystemRandom::new()), told_before };
    Ok(Shared {
        hands: Mutex::new(helper),
        published,
        settings,
        quarantine,
        time,
        roots: AtomicUsize::new(0),
        others: AtomicUsize::new(0),
        copies: AtomicU64::new(0),
        copying: Mutex::new(()),
        done: Default::default(),
    })
}

/// systemd's socket on standard input, or one of our own.
fn listener(settings: &Settings) -> anyhow::Result<(UnixListener, bool)> {
    let stdin = std::io::stdin();
    if rustix::net::sockopt::socket_acceptconn(&stdin).unwrap_or(false) {
        return Ok((UnixListener::from(stdin.as_fd().try_clone_to_owned()?), true));
    }
    let path = &settings.socket;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    // The lock says that no other helper runs: what lies there is left over.
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path).with_context(|| format!("{}: the socket can't be made", path.display()))?;
    // Who may speak is decided by who they are, not by who can open it.
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok((listener, false))
}

/// The main thread: deadlines pass though nobody calls; idle, it ends. Whether it ends for another release.
fn watch_time(shared: &Shared, by_systemd: bool) -> bool {
    let (count, changed) = &shared.done;
    let mut end = None;
    loop {
        let seen = *count.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, renewed) = {
            let mut hands = shared.hands.lock().unwrap_or_else(PoisonError::into_inner);
            (hands.engine.tick(), hands.engine.renewed)
        };
        let mono = shared.time.monotonic();
        let ends_by = renewed.then(|| *end.get_or_insert(mono.saturating_add(LAST_ANSWERS_END)));
        let is_late = ends_by.is_some_and(|end| end <= mono);
        let guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = ends_by.map_or(IDLE, |end| LAST_ANSWERS.min(end.saturating_sub(mono)));
        let wait = left.map_or(idle, |left| left.max(Duration::from_millis(10)));
        let woken = changed.wait_timeout_while(guard, wait, |count| *count == seen);
        let timed_out = woken.map_or(true, |(_, waited)| waited.timed_out());
        let is_quiet = timed_out && [&shared.roots, &shared.others].iter().all(|callers| callers.load(Ordering::SeqCst) == 0);
        if (by_systemd || renewed) && left.is_none() && (is_quiet || is_late) {
            return renewed;
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!("a caller can't be accepted: {error}");
                // Out of descriptors, most likely: no event tells when some are free again.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let serving = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("caller".into()).stack_size(STACK_BYTES);
        let peer = match rustix::net::sockopt::socket_peercred(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!("a caller without a name: {error}");
                continue;
            }
        };
        let is_root = peer.uid.is_root();
        let (callers, most) = shared.places(is_root);
        if callers.fetch_add(1, Ordering::SeqCst) >= most {
            callers.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let started = thread.spawn(move || {
            serve_caller(&serving, stream, &peer);
            serving.places(is_root).0.fetch_sub(1, Ordering::SeqCst);
        });
        if started.is_err() {
            callers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Shared {
    /// How many such callers there are, and may be.
    fn places(&self, is_root: bool) -> (&AtomicUsize, usize) {
        if is_root { (&self.roots, MAX_ROOTS) } else { (&self.others, MAX_OTHERS) }
    }
}

fn serve_caller(shared: &Shared, stream: UnixStream, peer: &rustix::net::UCred) {
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok();
    let who = match peer.uid.as_raw() {
        0 => Some(Speaker::Root),
        uid if uid == shared.settings.reporter => Some(Speaker::Reporter),
        _ => None,
    };
    let mut caller = match Caller::new(stream) {
        Ok(caller) => caller,
        Err(error) => return tracing::warn!("a caller is dropped: {error}"),
    };
    let Some(who) = who else {
        tracing::warn!(uid = peer.uid.as_raw(), "refused: neither root nor the reporter");
        return caller.tell(&refused("not_allowed", "only root and the agent's user speak to the helper"));
    };
    loop {
        match caller.receive() {
            Ok(Received::Request(request, file)) => {
                let answer = answer(shared, request, file, (who, pid), &mut caller);
                caller.tell(&answer);
            }
            Ok(Received::Bad(why)) => return caller.tell(&refused("bad_request", why)),
            Ok(Received::End) => return,
            Err(error) => return tracing::debug!("a caller went away: {error}"),
        }
    }
}

fn answer(
    shared: &Shared,
    request: Request,
    file: Option<OwnedFd>,
    (who, pid): (Speaker, Option<u32>),
    caller: &mut Caller,
) -> Answer {
    let state = Arc::clone(&shared.published.lock().unwrap_or_else(PoisonError::into_inner));
    let view = View { settings: &shared.settings, now: shared.time.now(), wrong_codes: state.wrong_codes };
    match request {
        Request::List => return Answer::Files(view::files(&state, &view, who == Speaker::Root)),
        Request::Reports { after } if after <= state.last_report => return Answer::Reports(view::reports(&state, after)),
        Request::Installed => return Answer::Installed(Some(view::installed(&state, &shared.settings))),
        _ => {}
    }
    let incoming = match file.filter(|_| matches!(request, Request::Take { .. } | Request::Verify)) {
        Some(file) => match copied(shared, file, who) {
            Some(Ok(incoming)) => Some(incoming),
            Some(Err(why)) => return refusal(&why),
            None => return refused("busy", "another file is being copied"),
        },
        None => None,
    };
    let Some(mut hands) = soon(&shared.hands, &shared.time) else {
        return refused("busy", "another file is being applied");
    };
    let answer = hands.answer(request, incoming, (who, pid), &mut |answer| caller.tell(&answer));
    drop(hands);
    let (count, changed) = &shared.done;
    *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    changed.notify_all();
    answer
}

/// A file, copied before the hands are taken: a slow disk of the caller's keeps nobody else waiting but its like. None: it is not its turn.
fn copied(shared: &Shared, file: OwnedFd, who: Speaker) -> Option<Result<Incoming, Refusal>> {
    let turn = match who {
        Speaker::Root => None,
        Speaker::Reporter => Some(soon(&shared.copying, &shared.time)?),
    };
    let mark = shared.copies.fetch_add(1, Ordering::SeqCst);
    let incoming = shared.quarantine.copy(file, mark);
    drop(turn);
    Some(incoming)
}

/// What the lock guards, if it is free soon: a lock of the standard library can't be waited for with a limit.
fn soon<'l, T>(lock: &'l Mutex<T>, time: &TimeSource) -> Option<MutexGuard<'l, T>> {
    let began = time.monotonic();
    loop {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            // Whoever panicked with the hands has left the journal; what it tells is finished at the next request.
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if time.monotonic().saturating_sub(began) > HANDS_FREE => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
