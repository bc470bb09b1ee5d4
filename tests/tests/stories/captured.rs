//! A captured collector with all its keys against the real agent and the real helper: it offers, pushes, downgrades, re-targets, replays,
//! guesses codes and never ends. Where the customer said `local`, nothing happens on the appliance; where they said `automatic`, only a
//! signed, eligible file within window and limits. After the theft the vendor's new root is enough.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use chrono::Datelike as _;
use e2e::bent::{Bent, refused_at_once};
use e2e::captured::{Captured, OnlineKeys, offer_of};
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::footprint::Footprint;
use e2e::packing::{Packing, packing};
use e2e::patch_box::PatchBox;
use e2e::patience::{A_WHILE, eventually};
use e2e::vendor::Vendor;
use mainstay_patchkit::authoring::Envelope;
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::{Body, DataChange, Licence, Manifest};
use mainstay_patchkit::sample::{self, program_action, tree_patch, whole};
use mainstay_shared::directive::Ask;
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::patch::{Decision, PatchKind};
use mainstay_shared::time_source::TimeSource;
use ring::rand::{SecureRandom as _, SystemRandom};
use semver::Version;
use serde_json::Value;

struct Theft {
    collector: Collector,
    vendor: Vendor,
    keys: OnlineKeys,
    enemy: Captured,
    patched: PatchBox,
    good: Packing,
}

impl Theft {
    async fn happens(helper: &str, patches: &str) -> Result<Self> {
        let mut collector = Collector::founded(Engine::Sqlite, Settings { releases: true, ..Settings::default() }).await?;
        let vendor = Vendor::of(&collector).await?;
        collector.start().await?;
        let patched = PatchBox::enrolled(&collector.join_string(&[]).await?, &vendor.root, helper, patches).await?;
        collector.kill()?;
        let keys = OnlineKeys::of(&collector)?;
        let enemy = Captured::take_over(&collector).await?;
        let theft = Self { collector, vendor, keys, enemy, patched, good: packing("/bin/sleep", b"new")? };
        // As far ahead as nobody honest will ever be.
        theft.publishes(&theft.keys, 1_000_000)?;
        Ok(theft)
    }

    fn publishes(&self, keys: &OnlineKeys, version: u64) -> Result<()> {
        for (path, bytes) in keys.sign(&self.collector.repository(), version)? {
            self.enemy.puts(&path, bytes);
        }
        Ok(())
    }

    /// A patch that the vendor signed.
    fn signed(&mut self, version: &str, bend: impl FnOnce(&mut Manifest)) -> Result<Vec<u8>> {
        let mut manifest = tree_patch(version.parse()?, &self.good.packed);
        bend(&mut manifest);
        Ok(self.vendor.signed(&manifest, &self.good.bytes)?.1)
    }

    /// Offers a file; waits for the appliance's last word of it, `step/reason`.
    async fn pushes(&self, kind: PatchKind, bytes: &[u8], word: &str) -> Result<String> {
        let offer = self.enemy.offers(kind, &format!("f-{}.mpatch", random_hex_128(&SystemRandom::new())), bytes);
        self.is_told(&offer, word).await?;
        Ok(offer)
    }

    async fn is_told(&self, offer: &str, word: &str) -> Result<()> {
        let mut last = None;
        let what = format!("{word} to be told");
        let told = eventually(&what, A_WHILE, async || {
            last = self.enemy.last_word(offer);
            Ok((last.as_deref() == Some(word)).then_some(()))
        });
        told.await.with_context(|| format!("{last:?}\n{}", self.patched.logs()))
    }

    /// Files that only look like the vendor's, some by the stolen keys, and the vendor's own for other boxes and times.
    fn forgeries(&mut self) -> Result<Vec<Bent>> {
        let wanted = [
            "one bit of the payload",
            "a torn role",
            "another product",
            "an older version",
            "another model",
            "expired",
            "a feature that was not bought",
            "one good signature repeated",
            "two signatures by one key under two ids",
            "root n+2",
            "a file outside the delegation",
        ];
        let mut all: Vec<Bent> = refused_at_once(&self.good)?.into_iter().filter(|(what, ..)| wanted.contains(what)).collect();
        ensure!(all.len() == wanted.len(), "all of them are there");
        let header = sample::Vendor::default().header(&tree_patch(Version::new(2, 1, 0), &self.good.packed))?;
        let forged = |text: &[u8]| self.keys.forge(Envelope::read(text)?.signed);
        let role = Header { role: forged(&header.role)?, ..header.clone() };
        let targets = Header { targets: forged(&header.targets)?, role: forged(&header.role)?, ..header };
        all.push(("a role by the stolen keys", whole(&role, &self.good.bytes)?, "bad_signature"));
        all.push(("targets by the stolen keys", whole(&targets, &self.good.bytes)?, "bad_signature"));
        let mut noise = vec![0; 100_000];
        SystemRandom::new().fill(&mut noise).map_err(|_| anyhow::anyhow!("no randomness"))?;
        all.push(("noise", noise, "bad_format"));
        let licence = Licence { serials: ["ANOTHER".to_owned()].into(), features: Default::default() };
        let licence = sample::manifest("licence-1".into(), Version::new(1, 0, 0), Body::Licence(licence));
        all.push(("another box's licence", self.vendor.signed(&licence, b"")?.1, "other_serial"));
        Ok(all)
    }

    async fn forges(&mut self) -> Result<()> {
        let offers: Vec<_> = self.forgeries()?;
        let mut told = Vec::new();
        for (what, bytes, code) in &offers {
            let name = format!("f-{}.mpatch", random_hex_128(&SystemRandom::new()));
            told.push((what, self.enemy.offers(PatchKind::Patch, &name, bytes), format!("refused/{code}")));
        }
        for (what, offer, word) in told {
            self.is_told(&offer, &word).await.context(*what)?;
        }
        Ok(())
    }

    /// Everything of the helper's memory but its files and what it told of them.
    fn memory(&self) -> Result<Value> {
        let slots = self.patched.memory()?;
        let parsed = slots.values().filter_map(|bytes| serde_json::from_slice::<Value>(bytes.get(65..)?).ok());
        let mut newest = parsed.max_by_key(|state| state["sequence"].as_u64()).context("a memory")?;
        for other in ["sequence", "files", "reports", "last_report", "wrong_codes"] {
            newest.as_object_mut().context("a memory")?.remove(other);
        }
        Ok(newest)
    }

    /// Has the agent look at the helper's side now.
    fn pokes(&self) {
        self.enemy.asks(Ask::TakenBack { offer_id: random_hex_128(&SystemRandom::new()) });
    }

    /// Bytes of offered files on the agent's disk.
    fn held_bytes(&mut self) -> Result<u64> {
        let dir = self.patched.agent()?.path("state/patches");
        let files = std::fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(files.flatten().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum())
    }
}

fn ran(mark: &Path) -> usize {
    std::fs::read_to_string(mark).unwrap_or_default().lines().count()
}

fn action(mark: &Path) -> Manifest {
    let mut manifest = program_action("leave-mark", &["/bin/sh", "-c", &format!("echo ran >> {}", mark.display())]);
    if let Body::Action(action) = &mut manifest.body {
        action.min_interval_s = 3600;
    }
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn where_consent_is_local_a_captured_collector_changes_nothing_and_a_new_root_is_enough() -> Result<()> {
    let mut theft = Theft::happens("", "max_bytes = \"1MiB\"").await?;
    let (live, memory) = (Footprint::of(&[&theft.patched.tree()])?, theft.memory()?);
    let service = std::fs::read_to_string(theft.patched.file("web.pid"))?;
    let mark = theft.patched.file("mark");
    theft.forges().await?;

    // What the vendor signed waits, however often it is offered; codes are guessed.
    let patch = theft.signed("2.1.0", |_| ())?;
    let offer = theft.pushes(PatchKind::Patch, &patch, "awaiting_consent/").await?;
    let code = theft.patched.code("patch").await?;
    let guesses = (0..40).map(|n| format!("{n:06}")).filter(|guess| *guess != code).chain([String::new(), "not a code".into()]);
    let mut asked = Vec::new();
    for code in guesses {
        asked.push(theft.enemy.asks(Ask::Decided { offer_id: offer.clone(), decision: Decision::Approve, code }));
    }
    let refuse = Decision::Refuse { reason: "the enemy says so".into() };
    asked.push(theft.enemy.asks(Ask::Decided { offer_id: offer.clone(), decision: refuse, code: String::new() }));
    eventually("all guesses to be carried", A_WHILE, async || {
        let done = theft.enemy.heard().done;
        Ok(asked.iter().all(|id| done.contains(id)).then_some(()))
    })
    .await?;
    theft.is_told(&offer, "awaiting_consent/wrong_code").await?;
    let waiting = theft.patched.waits("patch").await?;
    ensure!(waiting["step"] == "awaiting_consent" && waiting["code"].is_null(), "its code is worth nothing any more: {waiting}");

    // An action, offered, taken back and offered again.
    let act = theft.vendor.signed(&action(&mark), b"")?.1;
    for _ in 0..3 {
        let offer = theft.pushes(PatchKind::Action, &act, "awaiting_consent/").await?;
        theft.enemy.asks(Ask::TakenBack { offer_id: offer.clone() });
        theft.is_told(&offer, "refused/taken_back").await?;
    }

    endless(&mut theft).await?;
    let changes = live.changes(&Footprint::of(&[&theft.patched.tree()])?);
    ensure!(changes.is_empty(), "the tree: {changes}");
    ensure!(theft.memory()? == memory, "the helper's memory: {} before, {}", memory, theft.memory()?);
    ensure!(std::fs::read_to_string(theft.patched.file("web.pid"))? == service, "the service was touched");
    ensure!(ran(&mark) == 0, "the action ran");
    recovers(&mut theft).await
}

/// Offers without end, each breaking off before its end: the disk's share is kept, and so is the processor's.
async fn endless(theft: &mut Theft) -> Result<()> {
    let mut noise = vec![0; 400 << 10];
    SystemRandom::new().fill(&mut noise).map_err(|_| anyhow::anyhow!("no randomness"))?;
    theft.enemy.cuts_files_after(Some(390 << 10));
    let (clock, polls) = (TimeSource::system(), theft.enemy.heard().polls);
    let mut offers = Vec::new();
    for n in 0..60 {
        noise[n] ^= 1;
        let file = format!("n-{n}.mpatch");
        let mut offer = offer_of(PatchKind::Patch, &file, &noise);
        if n % 10 == 9 {
            offer.bytes = 5 << 30;
        }
        theft.enemy.puts(&format!("files/{file}"), noise.clone());
        offers.push((offer.offer_id.clone(), theft.enemy.asks(Ask::Offered(offer))));
    }
    let mut most = 0;
    eventually("all offers to be heard, and files to break off", A_WHILE, async || {
        most = most.max(theft.held_bytes()?);
        let heard = theft.enemy.heard();
        Ok((heard.file_bytes > 700 << 10 && offers.iter().all(|(_, id)| heard.done.contains(id))).then_some(()))
    })
    .await?;
    most = most.max(theft.held_bytes()?);
    ensure!(most <= (1 << 20) + (64 << 10), "{most} bytes lay on the agent's disk");
    let (polls, seconds) = (theft.enemy.heard().polls - polls, clock.monotonic().as_secs());
    ensure!(polls <= seconds + 5, "{polls} polls in {seconds} s");
    theft.enemy.cuts_files_after(None);
    for (offer_id, _) in offers {
        theft.enemy.asks(Ask::TakenBack { offer_id });
    }
    Ok(())
}

/// The vendor replaces the online keys; versions begin anew, and the next good file installs.
async fn recovers(theft: &mut Theft) -> Result<()> {
    let patch = theft.signed("2.2.0", |_| ())?;
    theft.vendor.replaces_online_keys(41, 42)?;
    theft.publishes(&OnlineKeys::numbered(41, 42), 1)?;
    // Whoever sits there now takes back what the enemy offered; the agent looks at the metadata anew when it starts.
    eventually("the enemy's offers to be taken back", A_WHILE, async || {
        let waits = theft.patched.waiting("patch").await?;
        Ok((theft.held_bytes()? < 64 << 10 && waits.len() <= 1).then_some(()))
    })
    .await?;
    theft.patched.agent()?.kill()?;
    theft.patched.agent()?.start()?;
    let offer = theft.pushes(PatchKind::Patch, &patch, "awaiting_consent/").await?;
    let sha256 = hex::encode(mainstay_patchkit::crypto::sha256(&patch));
    let applied = theft.patched.administrator(&["patch", "apply", &sha256[..12]]).await?;
    theft.pokes();
    theft.is_told(&offer, "done/").await.with_context(|| format!("{applied:?}"))?;
    ensure!(theft.patched.content()? == "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_consent_is_automatic_only_a_signed_file_that_fits_is_applied_within_window_and_limits() -> Result<()> {
    let today = TimeSource::system().now().to_utc().weekday().num_days_from_monday() as usize;
    let closed = format!("times = [\"{} 03:00-03:01\"]", ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][(today + 3) % 7]);
    let say = format!("[consent]\npatch = \"automatic\"\naction = \"automatic\"\n[install_window]\n{closed}\n");
    let mut theft = Theft::happens(&say, "").await?;
    let live = Footprint::of(&[&theft.patched.tree()])?;
    let mark = theft.patched.file("mark");
    let superseded = theft.signed("2.0.5", |_| ())?;
    theft.forges().await?;

    let act = theft.vendor.signed(&action(&mark), b"")?.1;
    theft.pushes(PatchKind::Action, &act, "done/").await?;
    let again = theft.pushes(PatchKind::Action, &act, "awaiting_window/refused_by_customer").await?;
    let one_way = theft.signed("2.3.0", |manifest| {
        if let Body::Patch(patch) = &mut manifest.body {
            patch.data_change = DataChange::OneWay;
        }
    })?;
    theft.pushes(PatchKind::Patch, &one_way, "awaiting_consent/").await?;
    let patch = theft.signed("2.1.0", |_| ())?;
    let offer = theft.pushes(PatchKind::Patch, &patch, "awaiting_window/").await?;
    theft.pokes();
    theft.pushes(PatchKind::Patch, b"no patch", "refused/bad_format").await?;
    let changes = live.changes(&Footprint::of(&[&theft.patched.tree()])?);
    ensure!(changes.is_empty(), "outside the window: {changes}");

    // The window opens.
    let settings = theft.patched.file("helper.toml");
    std::fs::write(&settings, std::fs::read_to_string(&settings)?.replace(&closed, "times = []"))?;
    theft.patched.start().await?;
    theft.pokes();
    theft.is_told(&offer, "done/").await?;
    ensure!(theft.patched.content()? == "new");
    let live = Footprint::of(&[&theft.patched.tree()])?;

    // What was superseded, what is older, the same once more: nothing goes back.
    theft.pushes(PatchKind::Patch, &superseded, "refused/older_metadata").await?;
    let older = theft.signed("2.0.9", |_| ())?;
    theft.pushes(PatchKind::Patch, &older, "refused/version").await?;
    theft.enemy.offers(PatchKind::Patch, "same.mpatch", &patch);
    theft.pushes(PatchKind::Patch, b"no patch either", "refused/bad_format").await?;
    let changes = live.changes(&Footprint::of(&[&theft.patched.tree()])?);
    ensure!(changes.is_empty(), "after replays: {changes}");
    ensure!(theft.patched.version().await? == "2.1.0");
    ensure!(ran(&mark) == 1, "the action ran {} times, more often than it may", ran(&mark));
    ensure!(theft.enemy.last_word(&again).is_some_and(|word| word != "done/"));
    Ok(())
}
