//! SIGKILL of the real agent before each of its file-system calls, at its start and while it accepts and is acknowledged. A kill
//! keeps the page cache, so this proves the order of steps; power cuts prove durability.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::agent::Agent;
use e2e::injection::Injection;
use e2e::patience::A_WHILE;

use crate::lab::{Dice, Lab, Scale, Spoil, replay};

/// Every call by which a program may change or read a file system.
const CALLS: &[&str] = &[
    "openat",
    "write",
    "pwrite64",
    "writev",
    "pwritev2",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "mkdir",
    "mkdirat",
    "flock",
    "getdents64",
    "read",
    "pread64",
    "close",
    "statx",
    "newfstatat",
    "fchmod",
    "chmod",
    "lseek",
    "fcntl",
];
/// The calls that change something: of these the slice takes its points.
const CHANGING: &[&str] = &["openat", "write", "pwrite64", "fsync", "fdatasync", "unlink", "ftruncate"];
/// Numbered faults told per point while it runs.
const BURST: usize = 12;

/// When the kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between its first call and its first answer: the queue is read back and mended, an epoch begins.
    Start,
    /// While it accepts; nobody takes anything.
    Accepting,
    /// While it accepts and is acknowledged: segments are deleted, nonces stored.
    Acknowledged,
}

const PHASES: [Phase; 3] = [Phase::Start, Phase::Accepting, Phase::Acknowledged];

/// What one run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Killed,
    Unharmed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_before_any_file_system_call_costs_nothing_accepted() {
    let scale = Scale::from_environment();
    let name = "a_kill_before_any_file_system_call";
    let seeds = scale.seeds(3, 1);
    let mut points = 0;
    for &seed in &seeds {
        let swept = if scale.whole { sweep(seed).await } else { slice(seed).await };
        points += replay(name, seed, swept);
    }
    println!("soak: part=agent-kills points={points} seeds={} losses=0", seeds.len());
}

/// Every call, every phase, the first, second, third... time, until a run ends unharmed.
async fn sweep(seed: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let mut points = 0;
    for phase in PHASES {
        for call in CALLS {
            let mut lab = Lab::set(None).await?;
            lab.start().await?;
            let mut when = 1;
            while point(&mut lab, phase, call, when, &mut dice).await? == Run::Killed {
                when += 1;
                points += 1;
            }
            lab.settle(&format!("the sweep of {call} in phase {phase:?}")).await?;
            println!("progress: seed {seed} {phase:?} {call}: {} kills", when - 1);
        }
    }
    Ok(points)
}

/// Some of the same points, in one lab.
async fn slice(seed: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let mut lab = Lab::set(None).await?;
    lab.start().await?;
    let mut points = 0;
    for phase in PHASES {
        for call in CHANGING.repeat(2) {
            let when = 1 + u32::try_from(dice.below(4))?;
            if point(&mut lab, phase, call, when, &mut dice).await? == Run::Killed {
                println!("progress: killed before {call} number {when} in phase {phase:?}");
                points += 1;
            }
        }
    }
    lab.settle("the slice").await?;
    anyhow::ensure!(points >= 12, "only {points} kills happened: the calls have changed, see CHANGING");
    Ok(points)
}

/// One run with a kill before the `when`th `call`; begins and ends with a running agent.
async fn point(lab: &mut Lab, phase: Phase, call: &str, when: u32, dice: &mut Dice) -> Result<Run> {
    lab.ledger.be_away(phase == Phase::Accepting);
    // Every second or third answer is lost, or none.
    lab.ledger.lose_every([0, 2, 3][usize::try_from(dice.below(3))?]);
    let injection = Injection::kill(call, when, lab.queue_paths());
    let what = format!("a kill before {call} number {when} in phase {phase:?}");
    let run = match phase {
        Phase::Start => {
            lab.agent.kill()?;
            let bytes = 1 + usize::try_from(dice.below(40))?;
            match dice.below(3) {
                0 => lab.spoil_the_end(Spoil::Unfinished, bytes)?,
                1 => lab.spoil_the_end(Spoil::Garbage, bytes)?,
                _ => {}
            }
            lab.agent.start_under(&injection)?;
            if lab.agent.answers().await.is_ok() { Run::Unharmed } else { Run::Killed }
        }
        Phase::Accepting | Phase::Acknowledged => {
            let pid = lab.agent.process()?.pid();
            let tracer = injection.attach(pid, "spool", lab.side()).await.with_context(|| what.clone())?;
            lab.tell_until_refused(BURST).await?;
            if phase == Phase::Acknowledged {
                taken_or_ended(lab).await?;
            }
            tracer.detach().await?;
            if lab.agent.answers().await.is_ok() { Run::Unharmed } else { Run::Killed }
        }
    };
    if run == Run::Killed {
        lab.start().await.with_context(|| format!("the start after {what}"))?;
    }
    lab.judge(&what).await?;
    anyhow::ensure!(lab.tell().await?, "after {what} the agent accepts nothing");
    Ok(run)
}

/// Until all that was accepted is taken and acknowledged, or the agent has died of it.
async fn taken_or_ended(lab: &mut Lab) -> Result<()> {
    e2e::patience::eventually("the queue to be taken", A_WHILE, async || {
        if lab.agent.process()?.ended()?.is_some() {
            return Ok(Some(()));
        }
        let status = lab.agent.status().await?;
        Ok((status["spool"]["fault_records"] == 0).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_enrolment_uses_the_join_string_up_once() {
    let whole = Scale::from_environment().whole;
    let calls = if whole { CALLS } else { CHANGING };
    let mut points = 0;
    for call in calls {
        points += replay("a_kill_in_the_enrolment", 1, enrol_killed(call, if whole { 100 } else { 2 }).await);
    }
    assert!(points > 4, "only {points} kills happened");
    println!("soak: part=agent-enrolment-kills points={points} seeds=1 losses=0");
}

/// `enroll` killed before its first, second... such call, then repeated as its error message and the manual say.
async fn enrol_killed(call: &str, at_most: u32) -> Result<u64> {
    for when in 1..=at_most {
        let mut lab = Lab::not_enrolled(Agent::fresh("")?).await?;
        let state = lab.agent.state_dir();
        let files = ["identity.json", "identity.json.new", "enrolment-attempt.json", "enrolment-attempt.json.new", "time.json"];
        let mut paths: Vec<_> = files.iter().map(|name| state.join(name)).collect();
        paths.push(state.clone());
        let end = lab.agent.enrol_under(lab.ledger.join(), &Injection::kill(call, when, paths)).await?;
        if end.code == 0 {
            return Ok(u64::from(when) - 1);
        }
        let repeated = lab.agent.enrol(lab.ledger.join()).await?;
        let what = format!("enroll repeated after a kill before {call} number {when}");
        anyhow::ensure!(repeated.code == 0 || repeated.stderr.contains("already enrolled"), "{what}: {repeated:?}");
        lab.start().await.context(what)?;
        anyhow::ensure!(lab.tell().await?, "an enrolled agent accepts");
        lab.judge("a kill in the enrolment").await?;
    }
    Ok(u64::from(at_most))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_agents_first_moments_still_gets_its_goodbye() {
    let name = "a_stop_in_the_agents_first_moments";
    let seeds = Scale::from_environment().seeds(40, 2);
    let mut points = 0;
    for &seed in &seeds {
        points += replay(name, seed, stop_early(seed).await);
    }
    println!("soak: part=agent-early-stops points={points} seeds={} losses=0", seeds.len());
}

/// Stops agents a little after their epoch has begun: a start is on the disk, so a goodbye must be too.
async fn stop_early(seed: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let mut lab = Lab::set(None).await?;
    let mut points = 0;
    for _ in 0..4 {
        let opened = lab.agent.state_dir().join("spool/lock");
        std::fs::remove_file(&opened).or_else(|error| if opened.exists() { Err(error) } else { Ok(()) })?;
        lab.agent.start()?;
        e2e::patience::eventually("the queue to be opened", A_WHILE, async || Ok(opened.exists().then_some(()))).await?;
        tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
        lab.agent.stop().await?;
        let starts = count(&lab, "started").await?;
        let goodbyes = count(&lab, "goodbye").await?;
        anyhow::ensure!(starts == goodbyes, "{starts} starts and {goodbyes} goodbyes:\n{}", lab.agent.log_text());
        points += 1;
    }
    Ok(points)
}

/// Records of this type, taken or waiting.
async fn count(lab: &Lab, kind: &str) -> Result<usize> {
    let mut all = lab.ledger.taken();
    all.extend(lab.agent.waiting().await?.into_iter().map(|record| (record.id.clone(), record)));
    let of_kind = |record: &&mainstay_shared::record::Record| {
        serde_json::to_value(&record.payload).is_ok_and(|payload| payload["type"] == kind)
    };
    Ok(all.values().filter(of_kind).count())
}
