//! What the proofs share: an agent before a ledger, numbered faults with a side log on another disk than the agent's, the judgement.
//! A fault counts as accepted when the agent's own command has said so, never before.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use e2e::agent::Agent;
use e2e::ledger::Ledger;
use e2e::oracle::judge;
use e2e::patience::{A_WHILE, eventually};
use mainstay_shared::ids::RecordId;

/// Small, so that segments are begun and deleted all the time.
const SMALL_QUEUE: &str = "[spool]\nmax_size = \"1MiB\"\n";

/// What a segment begins with, before its first frame (the format's own description).
const SEGMENT_MAGIC_BYTES: usize = 8;

/// An enrolled agent, its ledger, and what it has accepted.
pub(crate) struct Lab {
    pub(crate) agent: Agent,
    pub(crate) ledger: Ledger,
    pub(crate) accepted: Vec<(u64, RecordId)>,
    next: u64,
    side_log: File,
    side: tempfile::TempDir,
}

impl Lab {
    /// Enrolled, not running; the state on `disk`, or beside the configuration.
    pub(crate) async fn set(disk: Option<&Path>) -> Result<Self> {
        Self::with(disk, SMALL_QUEUE).await
    }

    pub(crate) async fn with(disk: Option<&Path>, settings: &str) -> Result<Self> {
        let agent = match disk {
            Some(disk) => Agent::fresh_on(disk, settings)?,
            None => Agent::fresh(settings)?,
        };
        let lab = Self::not_enrolled(agent).await?;
        lab.agent.enrol(lab.ledger.join()).await?.good().context("enroll")?;
        Ok(lab)
    }

    /// With an agent that is only configured.
    pub(crate) async fn not_enrolled(agent: Agent) -> Result<Self> {
        let ledger = Ledger::start().await?;
        let side = tempfile::tempdir()?;
        let side_log = File::create(side.path().join("accepted"))?;
        Ok(Self { agent, ledger, accepted: Vec::new(), next: 1, side_log, side })
    }

    /// The folder of the side log.
    pub(crate) fn side(&self) -> &Path {
        self.side.path()
    }

    pub(crate) async fn start(&mut self) -> Result<()> {
        self.agent.start()?;
        self.agent.answers().await
    }

    /// Tells the agent one numbered fault; whether it accepted it.
    pub(crate) async fn tell(&mut self) -> Result<bool> {
        let number = self.next;
        self.next += 1;
        let Some(id) = self.agent.accept(&number.to_string()).await? else { return Ok(false) };
        writeln!(self.side_log, "{number} {id}")?;
        self.side_log.sync_data()?;
        self.accepted.push((number, id));
        Ok(true)
    }

    /// Tells up to `count`, until one is not accepted; how many were.
    pub(crate) async fn tell_until_refused(&mut self, count: usize) -> Result<usize> {
        for told in 0..count {
            if !self.tell().await? {
                return Ok(told);
            }
        }
        Ok(count)
    }

    /// What the oracle finds now; the agent may run or not.
    pub(crate) async fn losses(&self) -> Result<Vec<String>> {
        // What is acknowledged between the two looks is in the ledger, so the queue is read first.
        let waiting = self.agent.waiting().await?;
        let taken = self.ledger.taken();
        let mut losses = judge(&self.accepted, &taken, &waiting).losses;
        losses.extend(self.ledger.wrong());
        Ok(losses)
    }

    /// The judgement now: an error with all that was found, and the evidence kept.
    pub(crate) async fn judge(&self, after: &str) -> Result<()> {
        let losses = self.losses().await?;
        if losses.is_empty() {
            return Ok(());
        }
        let kept = self.keep_evidence();
        bail!("after {after}: {} losses\n{}\nkept in {}", losses.len(), losses.join("\n"), kept.display())
    }

    /// Waits until the ledger has all and nothing waits, then judges.
    pub(crate) async fn settle(&mut self, after: &str) -> Result<()> {
        self.ledger.be_away(false);
        self.ledger.lose_every(0);
        eventually("the queue to be empty", A_WHILE, async || {
            self.agent.process()?.must_run()?;
            Ok(self.agent.waiting().await?.is_empty().then_some(()))
        })
        .await?;
        self.judge(after).await
    }

    /// Copies state and log to where they outlive the test.
    fn keep_evidence(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("mainstay-proof-{}", std::process::id()));
        let copied = std::fs::create_dir_all(&kept).and_then(|()| {
            let state = self.agent.state_dir();
            std::process::Command::new("cp").arg("-a").arg(state).arg(self.agent.path("agent.log")).arg(&kept).status()
        });
        if let Err(error) = copied {
            eprintln!("the evidence can't be kept: {error}");
        }
        kept
    }

    /// Every file of the queue that is there or may come soon, and what lies beside it.
    pub(crate) fn queue_paths(&self) -> Vec<PathBuf> {
        let state = self.agent.state_dir();
        let spool = state.join("spool");
        let mut paths: Vec<PathBuf> = ["", "lock", "reserve", "quarantine"]
            .iter()
            .map(|name| if name.is_empty() { spool.clone() } else { spool.join(name) })
            .collect();
        paths.extend(["agent.sock", "identity.json", "time.json", "time.json.new"].map(|name| state.join(name)));
        paths.push(state);
        for lane in ["fault", "sample"] {
            let newest = self.newest_segment(lane);
            let first = newest.saturating_sub(200);
            paths.extend((first..newest + 40).map(|number| spool.join(format!("{lane}-{number:08x}.seg"))));
        }
        paths
    }

    fn newest_segment(&self, lane: &str) -> u32 {
        let number = |name: &str| {
            let digits = name.strip_prefix(lane)?.strip_prefix('-')?.strip_suffix(".seg")?;
            u32::from_str_radix(digits, 16).ok()
        };
        let entries = std::fs::read_dir(self.agent.state_dir().join("spool")).into_iter().flatten().flatten();
        entries.filter_map(|entry| number(&entry.file_name().to_string_lossy())).max().unwrap_or(1)
    }

    /// Leaves something at the end of the newest segment: so many bytes of a frame (told again from the segment's own first), as
    /// a power cut would, or bytes that never were a frame. The agent must not run.
    pub(crate) fn spoil_the_end(&self, with: Spoil, bytes: usize) -> Result<()> {
        let name = format!("fault-{:08x}.seg", self.newest_segment("fault"));
        let path = self.agent.state_dir().join("spool").join(name);
        let Ok(segment) = std::fs::read(&path) else { return Ok(()) };
        let end = match with {
            Spoil::Unfinished => segment.iter().skip(SEGMENT_MAGIC_BYTES).take(bytes).copied().collect(),
            Spoil::Garbage => vec![0x4d; bytes],
        };
        Ok(File::options().append(true).open(path)?.write_all(&end)?)
    }
}

/// What stands at the end of a queue that was not left well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    Unfinished,
    Garbage,
}

/// How much is proved: a seeded slice, all of it, or one seed again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) whole: bool,
    only: Option<u64>,
}

impl Scale {
    pub(crate) fn from_environment() -> Self {
        let only = std::env::var("MAINSTAY_SEED").ok().and_then(|seed| seed.parse().ok());
        Self { whole: std::env::var_os("MAINSTAY_SOAK").is_some(), only }
    }

    /// The seeds: `whole` in soak, `slice` in test.
    pub(crate) fn seeds(self, whole: u64, slice: u64) -> Vec<u64> {
        match self.only {
            Some(seed) => vec![seed],
            None => (1..=if self.whole { whole } else { slice }).collect(),
        }
    }
}

/// Tells how to see a failure of `proof` with `seed` again.
pub(crate) fn replay(proof: &str, seed: u64, result: Result<u64>) -> u64 {
    match result {
        Ok(points) => points,
        Err(error) => {
            let whole = if std::env::var_os("MAINSTAY_SOAK").is_some() { "MAINSTAY_SOAK=1 " } else { "" };
            println!("replay: {whole}MAINSTAY_SEED={seed} cargo nextest run -p e2e {proof}");
            println!("soak: part={proof} points=0 seeds=1 losses=1");
            panic!("seed {seed}: {error:#}")
        }
    }
}

/// A small generator of our own (splitmix64): a proof must run the same way again from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
