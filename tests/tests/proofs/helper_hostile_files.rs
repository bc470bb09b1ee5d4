//! Files of an enemy's, through the real helper as root: what is refused leaves the disk as it was, byte by byte, and the next good file
//! installs. Signed archives that no tool of the vendor's makes; files swapped between the look and the use; what was superseded.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::bent::{Row, refused_at_once, signed_archive, signed_with_another_tree};
use e2e::footprint::Footprint;
use e2e::packing::{Packing, packing, signed_patch};
use e2e::patch_box::{PatchBox, REPORTER, sha256_of};
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::{Body, Withdrawal};
use mainstay_patchkit::sample::{Vendor, manifest, tree_patch, whole};
use mainstay_shared::limits::MAX_RECORD_BYTES;
use semver::Version;
use serde_json::{Value, json};

async fn running() -> Result<PatchBox> {
    let mut patched = PatchBox::set_up(None, "")?;
    patched.start().await?;
    // It has read its memory when it answers.
    patched.version().await?;
    Ok(patched)
}

/// Everything that the helper may change.
fn all(patched: &PatchBox) -> Result<Footprint> {
    Footprint::of(&[&patched.tree(), &patched.state_dir()])
}

async fn taken(patched: &PatchBox, file: &[u8]) -> Result<Value> {
    patched.ask(REPORTER, json!({"verb": "take", "offer_id": null}), Some(file)).await
}

/// What the helper has told since the report with this number, each small enough to leave the box; and the last one's number.
async fn reports_after(patched: &PatchBox, after: u64) -> Result<(Vec<Value>, u64)> {
    let reports = patched.ask(REPORTER, json!({"verb": "reports", "after": after}), None).await?;
    let reports = reports.as_array().context("reports")?.clone();
    for report in &reports {
        ensure!(report.to_string().len() < MAX_RECORD_BYTES / 2, "a report of {} bytes", report.to_string().len());
    }
    let last = reports.last().and_then(|report| report["number"].as_u64()).unwrap_or(after);
    Ok((reports, last))
}

/// Taken and agreed to by root: what beginning it comes to.
async fn begun(patched: &PatchBox, file: &[u8]) -> Result<Value> {
    let sha256 = sha256_of(&taken(patched, file).await?)?;
    agreed(patched, &sha256).await?;
    patched.ask(0, json!({"verb": "proceed", "sha256": sha256, "now": true, "services": patched.services()}), None).await
}

async fn agreed(patched: &PatchBox, sha256: &str) -> Result<()> {
    let told = patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
    ensure!(told["step"] == "awaiting_window", "{told}");
    Ok(())
}

async fn installs(patched: &PatchBox, version: &str, good: &Packing) -> Result<()> {
    let told = patched.apply(&signed_patch(version, good, |_| ())?).await?;
    ensure!(told["step"] == "done", "{version}: {told}\n{}", patched.log());
    ensure!(patched.judge((version, &good.packed.tree_sha256)).await? == "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_file_changes_no_byte_and_the_next_good_one_installs() -> Result<()> {
    let patched = running().await?;
    let good = packing("/bin/sleep", b"new")?;
    let before = all(&patched)?;
    for (what, bytes, code) in refused_at_once(&good)? {
        for uid in [REPORTER, 0] {
            let told = patched.ask(uid, json!({"verb": "take", "offer_id": null}), Some(&bytes)).await?;
            ensure!(told["code"] == code, "{what}: {told}");
            let changes = before.changes(&all(&patched)?);
            ensure!(changes.is_empty(), "{what}: {changes}");
        }
    }
    ensure!(patched.judge(("", "")).await? == "old");
    installs(&patched, "2.1.0", &good).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_refused_file_says_of_itself_fills_neither_the_reports_nor_the_memory() -> Result<()> {
    let mut patched = running().await?;
    let good = packing("/bin/sleep", b"new")?;
    let header = Vendor::default().header(&tree_patch(Version::new(2, 1, 0), &good.packed))?;
    // Nobody signed these: they are repeated to the vendor as what was refused.
    let saying = |field: &str, length: usize| {
        let mut text: Value = serde_json::from_slice(&header.manifest)?;
        text[field] = match field {
            "title" => json!({"zh": "", "en": "x".repeat(length)}),
            _ => json!(format!("2.1.0-{}", "x".repeat(length))),
        };
        Ok::<_, anyhow::Error>(whole(&Header { manifest: text.to_string().into_bytes(), ..header.clone() }, &good.bytes)?)
    };
    let offered = |number: usize| json!({"verb": "take", "offer_id": format!("{number:032x}")});
    let (_, mut last) = reports_after(&patched, 0).await?;
    let rows = [("version", 60), ("version", 100 << 10), ("title", 100 << 10)];
    for (number, (field, length)) in rows.into_iter().chain([("version", 2_900_000); 3]).enumerate() {
        let told = patched.ask(REPORTER, offered(number), Some(&saying(field, length)?)).await?;
        ensure!(told["answer"] == "refused", "{field} of {length}: {}", told["answer"]);
        let (reports, number) = reports_after(&patched, last).await?;
        let [report] = &reports[..] else { anyhow::bail!("{field} of {length}: {} reports", reports.len()) };
        ensure!(report["step"] == "refused" && report["reason"] == told["code"], "{report}");
        last = number;
    }
    for slot in patched.memory()?.values() {
        ensure!(slot.len() < 256 << 10, "a memory of {} bytes", slot.len());
    }
    patched.kill();
    patched.start().await?;
    ensure!(reports_after(&patched, last).await?.0.is_empty());
    installs(&patched, "2.1.0", &good).await?;
    let (reports, _) = reports_after(&patched, last).await?;
    ensure!(reports.last().is_some_and(|report| report["step"] == "done"), "{reports:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_archive_that_is_none_of_ours_leaves_nothing_outside_staging() -> Result<()> {
    const FILE: u8 = b'0';
    const FOLDER: u8 = b'5';
    let patched = running().await?;
    let good = packing("/bin/sleep", b"new")?;
    let absolute = patched.tree().join("escaped").display().to_string();
    let (zeros, ok) = (vec![0; 32 << 20], b"x".as_slice());
    let rows: &[(&str, &[Row<'_>], u64)] = &[
        ("climbs out", &[("../escaped", FILE, 0o644, "", ok)], 1),
        ("climbs out from within", &[("a", FOLDER, 0o755, "", b""), ("a/../../escaped", FILE, 0o644, "", ok)], 1),
        ("an absolute name", &[(&absolute, FILE, 0o644, "", ok)], 1),
        ("a symbolic link", &[("a", b'2', 0o777, "/etc", b"")], 0),
        ("a file through a link", &[("a", b'2', 0o777, "..", b""), ("a/escaped", FILE, 0o644, "", ok)], 1),
        ("a hard link", &[("a", b'1', 0o644, "/etc/shadow", b"")], 0),
        ("a character device", &[("a", b'3', 0o644, "", b"")], 0),
        ("a block device", &[("a", b'4', 0o644, "", b"")], 0),
        ("a pipe", &[("a", b'6', 0o644, "", b"")], 0),
        ("rights of the owner for everybody", &[("a", FILE, 0o4755, "", ok)], 1),
        ("the same name twice", &[("a", FILE, 0o644, "", ok), ("a", FILE, 0o644, "", ok)], 2),
        ("a good file first, a link behind", &[("a", FILE, 0o644, "", ok), ("b", b'2', 0o777, "/etc", b"")], 1),
        ("more than was signed", &[("bomb", FILE, 0o644, "", &zeros)], 1000),
        ("less than was signed", &[("a", FILE, 0o644, "", ok)], 1000),
    ];
    let live = Footprint::of(&[&patched.tree()])?;
    let unchanged = |what: &str| {
        let changes = live.changes(&Footprint::of(&[&patched.tree()])?);
        ensure!(changes.is_empty(), "{what}: {changes}");
        ensure!(std::fs::read_dir(patched.state_dir().join("quarantine"))?.count() == 0, "{what}: the file is kept");
        Ok(())
    };
    for (number, (what, entries, unpacked_bytes)) in rows.iter().enumerate() {
        let file = signed_archive(&format!("2.1.{number}"), entries, *unpacked_bytes)?;
        let told = begun(&patched, &file).await?;
        ensure!(told["code"] == "bad_archive", "{what}: {told}");
        unchanged(what)?;
        let again = begun(&patched, &file).await;
        ensure!(again.is_err() || again.is_ok_and(|told| told["step"] != "done"), "{what}: the second time it is done");
        unchanged(what)?;
    }
    let told = begun(&patched, &signed_with_another_tree("2.2.0", &good)?).await?;
    ensure!(told["code"] == "bad_content", "another tree than was signed: {told}");
    unchanged("another tree")?;
    ensure!(patched.judge(("", "")).await? == "old");
    installs(&patched, "2.3.0", &good).await
}

/// Writes one file's bytes over the other's, over and over, in the very file whose descriptor is handed out.
struct Swapping {
    file: File,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapping {
    fn between(path: &Path, these: [Vec<u8>; 2]) -> Result<Self> {
        std::fs::write(path, &these[0])?;
        let writing = OpenOptions::new().write(true).open(path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                these.iter().for_each(|bytes| drop(writing.write_all_at(bytes, 0)));
            }
        });
        Ok(Self { file: File::open(path)?, stop, thread: Some(thread) })
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_swapped_between_the_look_and_the_use_is_not_used() -> Result<()> {
    let patched = running().await?;
    let (good, other) = (packing("/bin/sleep", b"new")?, packing("/bin/sleep", b"NEW")?);
    let one = signed_patch("2.1.0", &good, |_| ())?;
    let mut enemy = one.clone();
    let length = enemy.len();
    enemy[length / 2..].fill(0);
    // While it is copied: either wholly the signed one, or refused.
    {
        let swapping = Swapping::between(&patched.file("swapped"), [one.clone(), enemy])?;
        for _ in 0..30 {
            let request = json!({"verb": "take", "offer_id": null});
            let told = patched.ask_with(REPORTER, request, Some(swapping.file.try_clone()?)).await?;
            ensure!(told["step"] == "awaiting_consent" || told["answer"] == "refused", "{told}");
        }
    }
    let sha256 = sha256_of(&taken(&patched, &one).await?)?;
    // Behind the descriptor, after it was taken.
    std::fs::write(patched.file("swapped"), b"nothing")?;
    agreed(&patched, &sha256).await?;
    // In quarantine itself: another file, as well signed.
    let kept = patched.state_dir().join("quarantine").join(format!("{sha256}.mpatch"));
    let right = std::fs::read(&kept)?;
    std::fs::write(&kept, signed_patch("2.1.0", &other, |_| ())?)?;
    let live = Footprint::of(&[&patched.tree()])?;
    let told = patched
        .ask(REPORTER, json!({"verb": "proceed", "sha256": sha256, "now": false, "services": patched.services()}), None)
        .await?;
    ensure!(told["code"] == "bad_content", "{told}");
    ensure!(live.changes(&Footprint::of(&[&patched.tree()])?).is_empty() && patched.judge(("", "")).await? == "old");
    let told = patched.apply(&right).await?;
    ensure!(told["step"] == "done", "the right one installs: {told}\n{}", patched.log());
    ensure!(patched.judge(("2.1.0", &good.packed.tree_sha256)).await? == "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_superseded_or_withdrawn_does_not_come_back() -> Result<()> {
    let patched = running().await?;
    let good = packing("/bin/sleep", b"new")?;
    let by = |role_version: u64, targets_version: u64, version: Version| {
        let vendor = Vendor { role_version, targets_version, ..Vendor::default() };
        vendor.file(&tree_patch(version, &good.packed), &good.bytes)
    };
    let old_role = by(1, 1, Version::new(2, 2, 0))?;
    let told = patched.apply(&by(5, 3, Version::new(2, 1, 0))?).await?;
    ensure!(told["step"] == "done", "{told}");
    // Signed texts from before what was installed; then a list of what must not be applied any more.
    let list = Body::Withdrawal(Withdrawal {
        manifests: [sha256_of_manifest(&by(5, 3, Version::new(2, 4, 0))?, &patched).await?].into(),
    });
    let newest = Vendor { role_version: 6, targets_version: 3, ..Vendor::default() };
    let told = taken(&patched, &newest.file(&manifest("withdrawal-1".into(), Version::new(1, 0, 0), list), b"")?).await?;
    ensure!(told["answer"] == "file", "the list is taken: {told}");
    let before = all(&patched)?;
    for (what, file, code) in [
        ("an older role", old_role, "older_metadata"),
        ("older targets", by(6, 2, Version::new(2, 2, 0))?, "older_metadata"),
        ("a withdrawn one", by(6, 3, Version::new(2, 4, 0))?, "withdrawn"),
        ("the version before", by(6, 3, Version::new(2, 0, 0))?, "version"),
    ] {
        let told = taken(&patched, &file).await?;
        ensure!(told["code"] == code, "{what}: {told}");
        let changes = before.changes(&all(&patched)?);
        ensure!(changes.is_empty(), "{what}: {changes}");
    }
    let told = patched.apply(&by(6, 3, Version::new(2, 5, 0))?).await?;
    ensure!(told["step"] == "done", "{told}");
    Ok(())
}

/// The hash by which a withdrawal names what a file brings.
async fn sha256_of_manifest(file: &[u8], patched: &PatchBox) -> Result<String> {
    let path = patched.file("to-be-withdrawn");
    std::fs::write(&path, file)?;
    let opened = mainstay_patchkit::file::PatchFile::open(&File::open(&path)?).ok().context("a patch file")?;
    Ok(hex::encode(mainstay_patchkit::crypto::sha256(&opened.header.manifest)))
}
