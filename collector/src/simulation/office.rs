//! The collector's process in a simulated story: the real stories of `flow/` on a real database, started, crashed at any commit,
//! down for hours, restored from a real backup; and the mail server that its notices go to, which is a script.
//!
//! Test code only. HTTP and TLS are left out: a letter is handed to the intake worker as the agent's listener would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use age::scrypt::Recipient;
use age::secrecy::SecretString;
use futures_util::future::join_all;
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::ids::CollectorEpoch;
use mainstay_shared::report::ReportRequest;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use super::fleet::Place;
use super::rng::Rng;
use crate::appliances::Identity;
use crate::commands::{backup, restore};
use crate::config::Config;
use crate::db::testing::TestDb;
use crate::db::{Db, Turn, transact};
use crate::flow::batch::{Answer, Message};
use crate::flow::intake_worker::{self, Intake, NotTaken};
use crate::flow::time_passes::{self, LastLook};
use crate::flow::{World, testing};
use crate::intake::ready::ready;
use crate::notices::outbox::{self, Outcome};

/// What a machine sends, as it stands on the wire.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    Report(ReportRequest),
    Heartbeat(PollRequest),
}

/// As shipped.
pub(super) const SILENCE_AFTER: Duration = Duration::from_secs(300);
pub(super) const FLAP_WINDOW: Duration = Duration::from_secs(900);
pub(super) const CLOSE_AFTER: Duration = Duration::from_secs(24 * 3600);

type Working = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// What the mail server took.
#[derive(Debug, Clone, Default)]
pub(super) struct Mails {
    /// By Message-ID: how many copies came, how many answers were lost or never stored.
    pub(super) taken: BTreeMap<String, (u32, u32)>,
    /// It is away.
    pub(super) away: bool,
}

/// A running collector.
pub(super) struct Running {
    pub(super) world: World,
    intake: Intake,
    worker: Working,
    last_look: LastLook,
    pub(super) started_at: UnixMs,
}

/// The collector's place: its database, and its process if it runs.
pub(super) struct Office {
    pub(super) database: TestDb,
    home: PathBuf,
    pub(super) running: Option<Running>,
    pub(super) mails: Mails,
    /// When the backup was made, if there is one.
    pub(super) backup_at: Option<UnixMs>,
}

impl Office {
    /// A fresh database with `sql` in it.
    pub(super) async fn new(database: TestDb, home: &Path, sql: Vec<String>) -> Self {
        let office = Self { database, home: home.to_owned(), running: None, mails: Mails::default(), backup_at: None };
        let db = Db::open(&office.database.url).await.expect("opens");
        write(&db, &sql).await.expect("the vendor's master data");
        office
    }

    /// The process starts.
    pub(super) async fn start(&mut self, now: UnixMs) {
        self.running = None;
        let db = Db::open(&self.database.url).await.expect("the database opens");
        let world = World {
            config: Arc::new(config()),
            db,
            time: TimeSource::manual(now),
            rng: SystemRandom::new(),
            changes: watch::channel(0).1,
            look_now: Arc::new(Notify::new()),
            repository: None,
        };
        time_passes::collector_starts(&world).await.expect("starts");
        let (intake, worker) = intake_worker::open(&world).await.expect("intake opens");
        self.running =
            Some(Running { world, intake, worker: Box::pin(worker.run()), last_look: LastLook::default(), started_at: now });
    }

    /// The process is gone.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// After something was done: whether the power failed in it. Then the process is gone.
    pub(super) fn has_crashed(&mut self) -> bool {
        let off = self.running.as_ref().is_some_and(|running| running.world.db.power.is_off());
        if off {
            self.kill();
        }
        off
    }

    /// The power will fail at a commit to come.
    pub(super) fn will_crash_at(&self, half_commit: i64) {
        if let Some(running) = &self.running {
            running.world.db.power.fails_at(half_commit);
        }
    }

    /// Letters that came at the same moment: one group commit.
    pub(super) async fn take(&mut self, now: UnixMs, letters: Vec<(&Place, Sent)>) -> Vec<Result<Answer, NotTaken>> {
        let count = letters.len();
        let Some(running) = self.running.as_mut() else { return (0..count).map(|_| Err(NotTaken::Busy)).collect() };
        running.advance(now);
        let intake = running.intake.clone();
        let taking = letters.into_iter().map(|(place, sent)| {
            let message = match sent {
                Sent::Report(request) => Message::Report(ready(request).expect("JSON")),
                Sent::Heartbeat(request) => Message::Heartbeat(request),
            };
            let who =
                Identity { tenant_id: place.tenant.clone(), appliance_id: place.appliance.clone(), site_id: place.site.clone() };
            intake.take(who, now, message)
        });
        tokio::select! {
            biased;
            answers = join_all(taking) => answers,
            _ = &mut running.worker => (0..count).map(|_| Err(NotTaken::Busy)).collect(),
        }
    }

    /// A look at the time. `rested`: nothing was looked at for a while because nothing could have happened.
    pub(super) async fn look(&mut self, now: UnixMs, rested: bool) -> anyhow::Result<()> {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        running.advance(now);
        if rested {
            running.last_look = LastLook::default();
        }
        time_passes::once(&running.world, &running.last_look).await
    }

    /// The outbox is emptied as `flow::notices_go_out` does it, into a server that answers by chance.
    pub(super) async fn send_mail(&mut self, now: UnixMs, rng: &mut Rng) -> anyhow::Result<()> {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        running.advance(now);
        let db = &running.world.db;
        loop {
            let due: Option<i64> = sqlx::query_scalar("SELECT MIN(next_try_at) FROM outbox WHERE state = 'waiting'")
                .fetch_one(&mut *db.read().await?)
                .await?;
            if due.is_none_or(|due| due > now.0) {
                return Ok(());
            }
            let claimed = transact!(db, Turn::Intake, |tx| { Ok(outbox::claim(tx, now, 8).await?) });
            for notice in claimed {
                let fate = if self.mails.away { 99 } else { rng.between(0, 99) };
                let copies = self.mails.taken.entry(notice.message_id.clone()).or_default();
                let outcome = match fate {
                    0..=89 => Outcome::Acknowledged,
                    90..=93 => Outcome::NotNow("the answer was lost".into()),
                    _ => Outcome::NotNow("busy".into()),
                };
                if fate <= 93 {
                    copies.0 += 1;
                    copies.1 += u32::from(fate >= 90);
                }
                let settled = settle(db, now, &notice, &outcome).await;
                if settled.is_err() && fate <= 89 {
                    // Taken by the server, never stored: the second copy that the oracle allows.
                    self.mails.taken.entry(notice.message_id.clone()).or_default().1 += 1;
                }
                settled?;
            }
        }
    }

    /// A backup of the running collector.
    pub(super) async fn back_up(&mut self, now: UnixMs) {
        let Some(running) = self.running.as_ref() else { return };
        let (keys, file) = (self.home.join("keys"), self.home.join("backup.age"));
        drop(std::fs::remove_file(&file));
        std::fs::create_dir_all(&keys).expect("a folder");
        backup::write(&running.world.db, &keys, &file, &reader(), now).await.expect("a backup");
        self.backup_at = Some(now);
    }

    /// The database is lost; the backup comes back into a new one.
    pub(super) async fn restore(&mut self, now: UnixMs, fresh: TestDb) {
        self.kill();
        let keys = self.home.join("restored-keys");
        drop(std::fs::remove_dir_all(&keys));
        let epoch = CollectorEpoch::random(&SystemRandom::new());
        let file = self.home.join("backup.age");
        restore::read_back(&fresh.db, &file, &passphrase(), &keys, &epoch, now).await.expect("comes back");
        self.database = fresh;
    }
}

impl Running {
    pub(super) fn advance(&self, now: UnixMs) {
        let by = u64::try_from(now.since_ms(self.world.time.now())).unwrap_or(0);
        self.world.time.advance(Duration::from_millis(by));
    }

    /// Which life of the database it is, and the clock: what every answer carries.
    pub(super) fn epoch(&self) -> CollectorEpoch {
        self.intake.collector_epoch.clone()
    }
}

async fn settle(db: &Db, now: UnixMs, notice: &outbox::Notice, outcome: &Outcome) -> anyhow::Result<()> {
    transact!(db, Turn::Intake, |tx| { outbox::settle(tx, now, notice, outcome).await.map(drop) });
    Ok(())
}

async fn write(db: &Db, sql: &[String]) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        for statement in sql {
            sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&mut *tx).await?;
        }
        Ok(())
    });
    Ok(())
}

fn passphrase() -> SecretString {
    SecretString::from("correct horse battery".to_owned())
}

/// Stretched little: a simulation needs no strength.
fn reader() -> Recipient {
    let mut reader = Recipient::new(passphrase());
    reader.set_work_factor(2);
    reader
}

fn config() -> Config {
    Config { silence_after: SILENCE_AFTER, flap_window: FLAP_WINDOW, close_recovered_after: CLOSE_AFTER, ..testing::config() }
}
