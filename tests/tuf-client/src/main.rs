//! The appliance's online client as the public TUF conformance suite drives it: `init ROOT`, `refresh`, `download`; exit 0 or 1.
//!
//! It adds nothing to `patchkit::online` but HTTP and files: what passes here is what runs on an appliance. It reads the system's clock by
//! libc alone and without Mainstay's floor, because the suite fakes it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use lexopt::prelude::*;
use mainstay_patchkit::online::{Client, Located, Repository, Store, Unreachable};
use mainstay_shared::time_source::UnixMs;
use reqwest::StatusCode;

#[derive(Default)]
struct Arguments {
    metadata_dir: Option<PathBuf>,
    metadata_url: Option<String>,
    target_names: Vec<String>,
    target_dir: Option<PathBuf>,
    target_base_url: Option<String>,
    words: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = parse()?;
    let store = Store::open(&arguments.metadata_dir.context("--metadata-dir: expected a folder")?)?;
    let mut words = arguments.words.iter();
    let verb = words.next().and_then(|word| word.to_str()).unwrap_or_default();
    if verb == "init" {
        let root = words.next().context("init: expected the trusted root's file")?;
        return Ok(store.begin(&fs::read(root).with_context(|| root.display().to_string())?)?);
    }
    ensure!(matches!(verb, "refresh" | "download"), "expected init, refresh or download");
    ensure!(rustls::crypto::ring::default_provider().install_default().is_ok(), "TLS can't be set up");
    let http =
        reqwest::Client::builder().connect_timeout(Duration::from_secs(30)).read_timeout(Duration::from_secs(60)).build()?;
    let base = arguments.metadata_url.context("--metadata-url: expected an address")?;
    let mut client = Client::open(Http { base, http: http.clone() }, store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let now = system_now();
    runtime.block_on(client.refresh(now))?;
    if verb == "refresh" {
        return Ok(());
    }
    let folder = arguments.target_dir.context("--target-dir: expected a folder")?;
    let base = arguments.target_base_url.context("--target-base-url: expected an address")?;
    ensure!(!arguments.target_names.is_empty(), "--target-name: expected a target");
    for name in &arguments.target_names {
        let located =
            runtime.block_on(client.locate(name, now))?.with_context(|| format!("{name}: nobody signs such a target"))?;
        runtime.block_on(download(&http, &base, &located, &place(&folder, name)))?;
    }
    Ok(())
}

fn parse() -> anyhow::Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut given = lexopt::Parser::from_env();
    while let Some(argument) = given.next()? {
        match argument {
            Long("metadata-dir") => arguments.metadata_dir = Some(given.value()?.into()),
            Long("metadata-url") => arguments.metadata_url = Some(given.value()?.string()?),
            Long("target-name") => arguments.target_names.push(given.value()?.string()?),
            Long("target-dir") => arguments.target_dir = Some(given.value()?.into()),
            Long("target-base-url") => arguments.target_base_url = Some(given.value()?.string()?),
            Value(word) => arguments.words.push(word.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(arguments)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the conformance suite fakes libc's clock; a time source with a floor would hide it"
)]
fn system_now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs::default().plus(since)
}

/// Metadata over HTTP.
struct Http {
    base: String,
    http: reqwest::Client,
}

impl Repository for Http {
    async fn metadata(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, Unreachable> {
        let url = format!("{}/{name}", self.base.trim_end_matches('/'));
        let failed = |error: reqwest::Error| Unreachable(format!("{url}: {error}"));
        let mut answer = self.http.get(&url).send().await.map_err(failed)?;
        // Object stores say 403 for what isn't there.
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) {
            return Ok(None);
        }
        answer.error_for_status_ref().map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > most_bytes {
                return Err(Unreachable(format!("{url}: more than {most_bytes} bytes")));
            }
        }
        Ok(Some(bytes))
    }
}

/// Where a target is kept: its own path below the folder; one that would leave it, by its last part.
fn place(folder: &Path, name: &str) -> PathBuf {
    let relative = Path::new(name.trim_start_matches('/'));
    let stays = relative.components().all(|part| matches!(part, Component::Normal(_)));
    folder.join(if stays { relative } else { Path::new(relative.file_name().unwrap_or_default()) })
}

async fn download(http: &reqwest::Client, base: &str, located: &Located, place: &Path) -> anyhow::Result<()> {
    if let Ok(held) = File::open(place)
        && located.is(held)?
    {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut answer = http.get(format!("{}/{}", base.trim_end_matches('/'), located.path)).send().await?.error_for_status()?;
    let mut beside = place.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let outcome = async {
        let mut checked = located.checked(File::create(&beside)?);
        while let Some(piece) = answer.chunk().await? {
            checked.write_all(&piece)?;
        }
        checked.finish()?.sync_all()?;
        anyhow::Ok(fs::rename(&beside, place)?)
    };
    let outcome = outcome.await;
    if outcome.is_err() && beside.exists() {
        fs::remove_file(&beside)?;
    }
    if let Err(error) = outcome {
        bail!("{}: {error:#}", located.path);
    }
    Ok(())
}
