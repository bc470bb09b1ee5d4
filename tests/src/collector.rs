//! A collector as its operator knows it: founded with `init`, run with `serve`, asked through its command line. Agents reach it
//! through a link that a test can break. It can be killed and started again on the same folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mainstay_shared::enrolment::JoinString;
use tempfile::TempDir;
use toml::{Table, Value};

use crate::authenticator::SignIn;
use crate::browser::install_crypto;
use crate::database::{Database, Engine};
use crate::link::LinkProxy;
use crate::machine_clock::MachineClock;
use crate::patience::{A_WHILE, SOON, eventually};
use crate::postgres::free_port;
use crate::process::{Daemon, Output, program, run, tied};
use crate::s3_server::StoreWay;

/// The customer of every story.
pub const CUSTOMER: &str = "test-bank";
/// Its site.
pub const SITE: &str = "hq";
/// Its contact's address.
pub const CONTACT_MAIL: &str = "admin@test.invalid";

/// Where notices go.
#[derive(Debug, Clone)]
pub struct MailWay {
    /// The mail server's port on 127.0.0.1.
    pub port: u16,
    /// Its CA, for STARTTLS; without one the connection is plain.
    pub ca_file: Option<PathBuf>,
}

/// What a story wants other than the default.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The way out for mail.
    pub mail: Option<MailWay>,
    /// Keys of `[tickets]`: durations as in the configuration.
    pub tickets: Vec<(&'static str, &'static str)>,
    /// An address to ping.
    pub watch: Option<String>,
    /// A repository of signed files, at [`Collector::repository`].
    pub releases: bool,
    /// The repository lies in a bucket, whose folder is [`Collector::repository`] all the same.
    pub bucket: Option<StoreWay>,
    /// A wall clock that the story can move: true time until it does.
    pub own_clock: bool,
    /// How far its own clock is off at first, in seconds. One that is behind can be moved far without leaving the validity of
    /// certificates, as peers that live by the machine's clock see it.
    pub clock_offset_s: i64,
}

/// A founded collector with one customer and one site.
#[derive(Debug)]
pub struct Collector {
    daemon: Option<Daemon>,
    /// What agents connect through.
    pub link: LinkProxy,
    agents_listen: SocketAddr,
    web_listen: SocketAddr,
    /// The operator that `init` made.
    pub operator: SignIn,
    database: Database,
    clock: Option<MachineClock>,
    folder: TempDir,
}

impl Collector {
    /// Founds a collector on an empty database and serves.
    ///
    /// # Errors
    /// When a step of its operator's fails: names the command and what it printed.
    pub async fn serving(engine: Engine, settings: Settings) -> Result<Self> {
        let mut collector = Self::founded(engine, settings).await?;
        collector.start().await?;
        Ok(collector)
    }

    /// Founds a collector: configuration, `init`, one customer, one site, one contact.
    ///
    /// # Errors
    /// As [`Collector::serving`].
    pub async fn founded(engine: Engine, settings: Settings) -> Result<Self> {
        Self::founded_on(Database::fresh(engine).await?, settings).await
    }

    /// [`Collector::founded`] on a database that stands already.
    ///
    /// # Errors
    /// As [`Collector::serving`].
    pub async fn founded_on(database: Database, settings: Settings) -> Result<Self> {
        install_crypto();
        let folder = tempfile::Builder::new().prefix("mainstay-collector-").tempdir()?;
        let agents_listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let web_listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut collector = Self {
            daemon: None,
            link: LinkProxy::to(agents_listen).await?,
            agents_listen,
            web_listen,
            operator: SignIn::default(),
            database,
            clock: settings.own_clock.then(MachineClock::true_time).transpose()?,
            folder,
        };
        if let Some(clock) = &collector.clock {
            clock.jump_to_offset(settings.clock_offset_s)?;
        }
        let text = toml::to_string(&collector.settings_table(&settings))?;
        std::fs::write(collector.config_file(), text)?;
        if settings.releases || settings.bucket.is_some() {
            std::fs::create_dir_all(collector.repository())?;
        }
        collector.init().await?;
        collector.operator.clock_offset_s = settings.clock_offset_s;
        Ok(collector)
    }

    /// A collector restored from `backup` onto a fresh database, at the addresses of `old`, whose folder is gone with its machine.
    ///
    /// # Errors
    /// When `restore` fails.
    pub async fn restored(old: Self, engine: Engine, settings: Settings, backup: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-collector-").tempdir()?;
        std::fs::copy(old.path("passphrase"), folder.path().join("passphrase"))?;
        let carried = folder.path().join("backup.age");
        std::fs::copy(backup, &carried)?;
        let database = Database::fresh(engine).await?;
        let Self { link, agents_listen, web_listen, operator, clock, .. } = old;
        let mut new = Self { daemon: None, link, agents_listen, web_listen, operator, database, clock, folder };
        std::fs::write(new.config_file(), toml::to_string(&new.settings_table(&settings))?)?;
        let (from, passphrase) = (carried.display().to_string(), new.path("passphrase").display().to_string());
        new.command(&["restore", "--from", &from, "--passphrase-file", &passphrase]).await?.good().context("restore")?;
        new.start().await?;
        Ok(new)
    }

    /// A second node of `first`'s service: the same database and keys, listeners of its own.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn another_node(first: &Self, settings: &Settings) -> Result<Self> {
        Self::another_node_through(first, settings, None).await
    }

    /// [`Collector::another_node`] that reaches the database through a `door`.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn another_node_through(first: &Self, settings: &Settings, door: Option<u16>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-collector-").tempdir()?;
        let agents_listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut node = Self {
            daemon: None,
            link: LinkProxy::to(agents_listen).await?,
            agents_listen,
            web_listen: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
            operator: first.operator.clone(),
            database: Database::Sqlite,
            clock: first.clock.clone(),
            folder,
        };
        let mut table = node.settings_table(settings);
        table.insert(
            "data".into(),
            Value::Table([("dir".into(), Value::String(first.path("data").display().to_string()))].into_iter().collect()),
        );
        if let Some(url) = first.database.url_through(door) {
            table.insert("database".into(), Value::Table([("url".into(), Value::String(url))].into_iter().collect()));
        }
        std::fs::write(node.config_file(), toml::to_string(&table)?)?;
        node.start().await?;
        Ok(node)
    }

    async fn init(&mut self) -> Result<()> {
        std::fs::write(self.path("passphrase"), "four words for testing\n")?;
        let (root_key, passphrase) = (self.path("root-key.age"), self.path("passphrase"));
        let printed = self
            .command(&[
                "init",
                "--root-key-out",
                &root_key.display().to_string(),
                "--passphrase-file",
                &passphrase.display().to_string(),
                "--operator",
                "operator",
                "--email",
                "operator@test.invalid",
                "--json",
            ])
            .await?
            .good()
            .context("init")?;
        self.operator = SignIn::printed("operator", "operator", &printed.stdout)?;
        for made in [
            ["customer", "add", CUSTOMER, "--name", "测试银行"].as_slice(),
            &["site", "add", SITE, "--customer", CUSTOMER, "--name", "HQ", "--city", "重庆", "--time-zone", "Asia/Shanghai"],
            &["contact", "add", "--customer", CUSTOMER, "--name", "Wang", "--email", CONTACT_MAIL],
        ] {
            self.command(made).await?.good().with_context(|| made.join(" "))?;
        }
        Ok(())
    }

    fn settings_table(&self, settings: &Settings) -> Table {
        let text = |value: &str| Value::String(value.to_owned());
        let section = |pairs: Vec<(&str, Value)>| Value::Table(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        let mut all = Table::new();
        all.insert("data".into(), section(vec![("dir", text(&self.path("data").display().to_string()))]));
        if let Some(url) = self.database.url() {
            all.insert("database".into(), section(vec![("url", Value::String(url))]));
        }
        let address = format!("https://{}", self.link.address());
        let agents =
            vec![("listen", text(&self.agents_listen.to_string())), ("addresses", Value::Array(vec![Value::String(address)]))];
        all.insert("agents".into(), section(agents));
        let web = vec![("listen", text(&self.web_listen.to_string())), ("public_url", Value::String(self.web_url()))];
        all.insert("web".into(), section(web));
        if let Some(mail) = &settings.mail {
            let mut pairs = vec![
                ("server", text("127.0.0.1")),
                ("port", Value::Integer(i64::from(mail.port))),
                ("from", text("Mainstay <support@test.invalid>")),
                ("security", text(if mail.ca_file.is_some() { "starttls" } else { "none" })),
            ];
            pairs.extend(mail.ca_file.iter().map(|file| ("ca_file", text(&file.display().to_string()))));
            all.insert("mail".into(), section(pairs));
        }
        if !settings.tickets.is_empty() {
            all.insert("tickets".into(), section(settings.tickets.iter().map(|(k, v)| (*k, text(v))).collect()));
        }
        if let Some(url) = &settings.watch {
            all.insert("watch".into(), section(vec![("url", text(url)), ("interval", text("1s"))]));
        }
        if settings.releases {
            all.insert("releases".into(), section(vec![("dir", text(&self.repository().display().to_string()))]));
        }
        if let Some(bucket) = &settings.bucket {
            let mut pairs =
                vec![("bucket", text("releases")), ("prefix", text("mainstay")), ("endpoint", text(&bucket.endpoint))];
            pairs.push(("access_key_id", text(&bucket.access_key_id)));
            pairs.push(("secret_key_file", text(&bucket.secret_key_file.display().to_string())));
            all.insert("releases".into(), section(pairs));
        }
        all
    }

    /// The folder that release engineers publish into.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.buckets().join("releases/mainstay")
    }

    /// The folder whose sub-folders are the buckets of a store.
    #[must_use]
    pub fn buckets(&self) -> PathBuf {
        self.path("buckets")
    }

    /// Starts `serve` and waits until it says that it is healthy.
    ///
    /// # Errors
    /// With the end of its log when it ends by itself.
    pub async fn start(&mut self) -> Result<()> {
        let command = self.program(&["serve"])?;
        let mut daemon = Daemon::start("mainstay-collector serve", command, &self.path("collector.log"))?;
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let url = format!("{}/healthz", self.web_url());
        eventually("the collector to be healthy", SOON, async || match daemon.must_run() {
            Err(dead) => Ok(Some(Err(dead))),
            Ok(()) => Ok(client.get(&url).send().await?.status().is_success().then_some(Ok(()))),
        })
        .await
        .with_context(|| daemon.log_text())??;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("the collector runs")?.pid())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the collector runs")?.kill()
    }

    /// Whether it has ended by itself or by somebody else's hand.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.daemon.as_mut().map_or(Ok(true), |daemon| Ok(daemon.ended()?.is_some()))
    }

    /// Where its records lie.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end, or not cleanly.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.daemon.take().context("the collector runs")?.terminate(Duration::from_secs(60)).await?;
        anyhow::ensure!(status.success(), "the collector ended with {status}:\n{}", self.log_text());
        Ok(())
    }

    /// Runs one of its commands.
    ///
    /// # Errors
    /// When it can't be run or takes too long; a refusal is an [`Output`] with its exit code.
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        run(self.program(arguments)?, "", A_WHILE).await
    }

    fn program(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = tied(program("mainstay-collector")?);
        command.arg("--config").arg(self.config_file()).args(arguments).current_dir(self.folder.path());
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        Ok(command)
    }

    /// Its wall clock, where [`Settings::own_clock`] was wanted.
    ///
    /// # Errors
    /// When it lives by the machine's.
    pub fn clock(&self) -> Result<&MachineClock> {
        self.clock.as_ref().context("a clock of its own")
    }

    /// A new staff account that serves the customer, with its own password and secret; its address is `NAME@test.invalid`.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn account(&self, name: &str, role: &str) -> Result<SignIn> {
        let email = format!("{name}@test.invalid");
        let add = ["user", "add", name, "--name", name, "--email", &email, "--role", role, "--serves", CUSTOMER, "--json"];
        let printed = self.command(&add).await?.good().context("user add")?;
        SignIn::printed(name, role, &printed.stdout)
    }

    /// Tries every waiting notice now rather than when its back-off ends.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn retry_notices(&self) -> Result<()> {
        self.command(&["notice", "retry"]).await?.good().context("notice retry")?;
        Ok(())
    }

    /// A join string for one appliance of the first site.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn join_string(&self, arguments: &[&str]) -> Result<JoinString> {
        let mut all = vec!["join-token", "create", "--customer", CUSTOMER, "--site", SITE];
        all.extend(["--product", "gateway", "--duty", "single"]);
        all.extend(arguments);
        Ok(self.command(&all).await?.good().context("join-token create")?.stdout.trim().parse()?)
    }

    /// Where browsers and the API connect.
    #[must_use]
    pub fn web_url(&self) -> String {
        format!("http://{}", self.web_listen)
    }

    /// Where agents connect, through the link.
    #[must_use]
    pub fn agents_url(&self) -> String {
        format!("https://{}", self.link.address())
    }

    /// The agents' listener itself, past the link.
    #[must_use]
    pub fn agents_listen(&self) -> SocketAddr {
        self.agents_listen
    }

    /// What it logged in all its lives.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.path("collector.log")).unwrap_or_default()
    }

    /// Where its database is, for benches that fill it.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database.url().unwrap_or_else(|| format!("sqlite:{}", self.path("data").join("collector.db").display()))
    }

    /// A file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config_file(&self) -> PathBuf {
        self.path("collector.toml")
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
