//! Disks that refuse under the real agent: fsync and write errors once, thrice, always; a full disk; one that turned read-only.
//! The agent says so, lives on, keeps what it had accepted, knows what it had not, and accepts again by itself.

use anyhow::{Context as _, Result};
use e2e::agent::http_service;
use e2e::business::BusinessService;
use e2e::injection::Injection;
use e2e::loop_disk::{Kind, LoopDisk};
use e2e::patience::{A_WHILE, eventually};
use mainstay_shared::record::Payload;

use crate::lab::{Lab, Scale, replay};

/// Numbered faults told while the disk is bad.
const BURST: usize = 8;
const ALWAYS: &str = "1+";

/// What fails how, and when: (call, error, which of the calls).
const TABLE: &[(&str, &str, &str)] = &[
    ("fdatasync", "EIO", "1"),
    ("fdatasync", "EIO", "1..3"),
    ("fdatasync", "EIO", ALWAYS),
    ("fsync", "EIO", "1"),
    ("fsync", "EIO", "1..3"),
    ("fsync,fdatasync", "EIO", ALWAYS),
    ("pwrite64,write", "EIO", "1"),
    ("pwrite64,write", "EIO", "1..3"),
    ("pwrite64,write", "EIO", ALWAYS),
    ("pwrite64,write", "ENOSPC", "1..3"),
    ("openat", "EMFILE", "1..3"),
    ("openat,pwrite64,write,fdatasync,unlink,ftruncate", "EROFS", ALWAYS),
];
/// Of these the slice takes its points.
const SLICE: &[usize] = &[0, 1, 2, 6, 11];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_once_thrice_or_always_costs_nothing_accepted() {
    let scale = Scale::from_environment();
    let rows: Vec<usize> = if scale.whole { (0..TABLE.len()).collect() } else { SLICE.to_vec() };
    let mut points = 0;
    for &row in &rows {
        for answering in [false, true] {
            points += replay("an_io_error_once_thrice_or_always", row as u64, bad_calls(row, answering).await);
        }
        println!("progress: {:?}", TABLE[row]);
    }
    println!("soak: part=agent-io-errors points={points} seeds=1 losses=0");
}

async fn bad_calls(row: usize, answering: bool) -> Result<u64> {
    let (call, error, when) = TABLE[row];
    let what = format!("{call} failing with {error} ({when})");
    let mut lab = Lab::set(None).await?;
    lab.start().await?;
    lab.ledger.be_away(!answering);
    lab.tell().await?;
    let pid = lab.agent.process()?.pid();
    let tracer = Injection::fail(call, error, when, lab.queue_paths()).attach(pid, "spool", lab.side()).await?;
    let mut accepted = 0;
    for _ in 0..BURST {
        accepted += u64::from(lab.tell().await?);
    }
    if when == ALWAYS {
        anyhow::ensure!(accepted == 0 || call == "fsync", "{what}: {accepted} were accepted");
        says_so(&lab).await.with_context(|| what.clone())?;
    } else {
        anyhow::ensure!(accepted >= 4, "{what}: only {accepted} were accepted");
    }
    tracer.detach().await?;
    recovers(&mut lab, &what).await?;
    lab.agent.kill()?;
    lab.start().await.with_context(|| format!("the start after {what}"))?;
    lab.settle(&what).await?;
    Ok(1)
}

/// The agent says on the box that it can't record.
async fn says_so(lab: &Lab) -> Result<()> {
    let told = lab.agent.command(&["status"]).await?;
    anyhow::ensure!(told.code == 69, "status ended with {}:\n{}", told.code, told.stdout);
    let status = lab.agent.status().await?;
    anyhow::ensure!(status["spool_error"].is_string(), "{status}");
    let refused = lab.agent.command(&["test", "--no-wait", "--note", "refused"]).await?;
    anyhow::ensure!(refused.code == 69 && refused.stderr.contains("not accepted"), "{refused:?}");
    Ok(())
}

/// It lives, accepts again by itself, and has lost nothing.
async fn recovers(lab: &mut Lab, what: &str) -> Result<()> {
    lab.agent.process()?.must_run().with_context(|| format!("{what} is no reason to die"))?;
    anyhow::ensure!(lab.tell().await?, "after {what} nothing is accepted");
    let status = lab.agent.status().await?;
    anyhow::ensure!(status["spool_error"].is_null(), "after {what} it still says {status}");
    lab.judge(what).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_nothing_accepted_and_is_left_behind() {
    let points = replay("a_full_disk_costs_nothing", 1, full_disk().await);
    println!("soak: part=agent-full-disk points={points} seeds=1 losses=0");
}

async fn full_disk() -> Result<u64> {
    let disk = LoopDisk::mount(Kind::Tmpfs(1 << 20))?;
    // With the default size the reserve alone nearly fills this disk.
    let mut lab = Lab::with(Some(&disk.path()), "").await?;
    lab.start().await?;
    lab.ledger.be_away(true);
    lab.tell().await?;
    // Each time the agent gives way (its reserve, then samples), somebody else takes the room.
    let mut fillings = 0;
    loop {
        fill(&disk.path().join(format!("ballast-{fillings}")))?;
        fillings += 1;
        if lab.tell_until_refused(30).await? < 30 {
            break;
        }
        anyhow::ensure!(fillings < 50, "the disk never fills up");
    }
    says_so(&lab).await?;
    lab.judge("a full disk").await?;
    // A start on the full disk: it may end, it must not lose.
    lab.agent.kill()?;
    lab.agent.start()?;
    let runs = lab.agent.answers().await.is_ok();
    for filling in 0..fillings {
        std::fs::remove_file(disk.path().join(format!("ballast-{filling}")))?;
    }
    if !runs {
        lab.start().await.context("the start once there is room")?;
    }
    recovers(&mut lab, "a full disk").await?;
    lab.settle("a full disk").await?;
    Ok(1)
}

fn fill(path: &std::path::Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for chunk in [vec![0u8; 4096], vec![0u8; 1]] {
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turned_read_only_costs_nothing_accepted() {
    let points = replay("a_disk_that_turned_read_only", 1, read_only().await);
    println!("soak: part=agent-read-only-disk points={points} seeds=1 losses=0");
}

/// ext4 turns itself read-only, as after an I/O error of its own; the machine is restarted and checked.
async fn read_only() -> Result<u64> {
    let mut disk = LoopDisk::mount(Kind::Ext4)?;
    let mut lab = Lab::set(Some(&disk.path())).await?;
    lab.start().await?;
    lab.ledger.be_away(true);
    lab.tell_until_refused(BURST).await?;
    disk.remount("abort")?;
    eventually("the disk to refuse", A_WHILE, async || Ok((!lab.tell().await?).then_some(()))).await?;
    says_so(&lab).await?;
    lab.agent.process()?.must_run().context("a read-only disk is no reason to die")?;
    lab.judge("a disk turned read-only").await?;
    lab.agent.kill()?;
    disk.check_and_power_up()?;
    lab.start().await.context("the start after the check")?;
    recovers(&mut lab, "a disk turned read-only").await?;
    lab.settle("a disk turned read-only").await?;
    Ok(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_and_went_while_the_disk_refused_is_counted_and_reported() {
    let points = replay("what_came_and_went_while_the_disk_refused", 1, unrecorded().await);
    println!("soak: part=agent-unrecorded-faults points={points} seeds=1 losses=0");
}

async fn unrecorded() -> Result<u64> {
    let (mut brief, mut lasting) = (BusinessService::start().await?, BusinessService::start().await?);
    let services = [http_service("brief", &brief.url()), http_service("lasting", &lasting.url())].concat();
    let mut lab = Lab::with(None, &format!("[probes]\ninterval = \"1s\"\n\n{services}")).await?;
    lab.start().await?;
    lab.agent.sees("brief", "up").await?;
    lab.agent.sees("lasting", "up").await?;
    let pid = lab.agent.process()?.pid();
    let everything = "openat,pwrite64,write,fdatasync,unlink,ftruncate";
    let tracer = Injection::fail(everything, "EROFS", ALWAYS, lab.queue_paths()).attach(pid, "spool", lab.side()).await?;
    brief.take_down().await;
    lasting.take_down().await;
    lab.agent.sees("brief", "down").await?;
    lab.agent.sees("lasting", "down").await?;
    brief.bring_back().await?;
    lab.agent.sees("brief", "up").await?;
    tracer.detach().await?;
    let told = eventually("the unrecorded change to be reported", A_WHILE, async || {
        let taken = lab.ledger.taken();
        let mut faults = taken.values().filter_map(|record| match &record.payload {
            Payload::Fault(change) if change.key.code == "agent_could_not_record" => Some(change.clone()),
            _ => None,
        });
        Ok(faults.next())
    })
    .await?;
    anyhow::ensure!(told.grounds.value == Some(1.0) && told.summary.contains("service:brief"), "{told:?}");
    anyhow::ensure!(!told.summary.contains("service:lasting"), "what still is so is told as itself: {told:?}");
    eventually("what still is so to be told", A_WHILE, async || {
        let is_it = |payload: &Payload| matches!(payload, Payload::Fault(change) if change.key.component == "service:lasting");
        Ok(lab.ledger.taken().values().any(|record| is_it(&record.payload)).then_some(()))
    })
    .await?;
    lab.settle("a disk that refused for a while").await?;
    Ok(1)
}
