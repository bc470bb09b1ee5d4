//! A repository in a bucket of an S3-compatible store: listed, and read in ranges, by signed requests. Read only.
//!
//! Signing is `rusty_s3`'s, sending is the client's that everything here uses. Signed addresses are short-lived tokens: they never reach
//! a log or an error (R33). What the store says is bounded in size and time.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::header;
use chrono::DateTime;
use mainstay_patchkit::bounds::MAX_PAYLOAD_BYTES;
use mainstay_patchkit::file::{MAX_HEADER_BYTES, START_BYTES};
use reqwest::{Client, Response, StatusCode};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::actions::list_objects_v2::ListObjectsContent;
use rusty_s3::{Credentials, S3Action as _, UrlStyle};
use tokio::io::AsyncWriteExt as _;

use super::{Listed, MAX_METADATA_BYTES, MAX_NAMES, Shelf};
use crate::config::BucketConfig;
use crate::releases::ReleaseFile;

/// To reach the store, and to wait for its next byte.
const CONNECT: Duration = Duration::from_secs(5);
const NEXT_BYTE: Duration = Duration::from_secs(20);
/// A listing or a file of metadata, whole.
const SMALL: Duration = Duration::from_secs(30);
/// A file, whole.
const LARGE: Duration = Duration::from_secs(3600);
/// A signed address is good for so long.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// The largest file that can be a signed one.
const MAX_FILE_BYTES: u64 = START_BYTES as u64 + MAX_HEADER_BYTES as u64 + MAX_PAYLOAD_BYTES;
/// What a copy leaves free of the disk that the database lies on; a tenth of the disk, if that is less.
const MAX_RESERVE_BYTES: u64 = 1 << 30;
/// Of a listing; a store that gives short pages has room for [`MAX_NAMES`] all the same.
const MAX_PAGES: usize = 100;
/// What is read of an answer that is an error.
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// The bucket.
pub(crate) struct Bucket {
    client: Client,
    bucket: rusty_s3::Bucket,
    access_key_id: String,
    secret_key_file: PathBuf,
    prefix: String,
    /// Where copies are made that are to be verified.
    copies: PathBuf,
    copied: AtomicU64,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.bucket.base_url())
    }
}

impl Bucket {
    /// Sees that there is a secret key; asks the store nothing.
    pub(super) fn open(settings: &BucketConfig, copies: &Path) -> anyhow::Result<Self> {
        secret_key(&settings.secret_key_file)?;
        let endpoint = settings.endpoint.parse().context("releases.endpoint")?;
        let bucket = rusty_s3::Bucket::new(endpoint, UrlStyle::Path, settings.bucket.clone(), settings.region.clone())
            .context("releases.endpoint")?;
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(NEXT_BYTE)
            .build()
            .context("preparing calls to the store")?;
        Ok(Self {
            client,
            bucket,
            access_key_id: settings.access_key_id.clone(),
            secret_key_file: settings.secret_key_file.clone(),
            prefix: settings.prefix.clone(),
            copies: copies.to_owned(),
            copied: AtomicU64::new(0),
        })
    }

    /// Read each time: another secret needs no restart.
    async fn credentials(&self) -> anyhow::Result<Credentials> {
        let file = self.secret_key_file.clone();
        let secret = tokio::task::spawn_blocking(move || secret_key(&file)).await??;
        Ok(Credentials::new(self.access_key_id.clone(), secret))
    }

    fn key(&self, shelf: Shelf, name: &str) -> String {
        format!("{}{}/{name}", self.prefix, shelf.as_str())
    }

    pub(super) async fn list(&self, shelf: Shelf) -> anyhow::Result<Vec<Listed>> {
        let start = self.key(shelf, "");
        let credentials = self.credentials().await?;
        let (mut found, mut objects, mut next, mut tokens) = (Vec::new(), 0, None::<String>, BTreeSet::new());
        for _ in 0..MAX_PAGES {
            let mut list = self.bucket.list_objects_v2(Some(&credentials));
            list.with_prefix(start.as_str());
            list.with_delimiter("/");
            if let Some(token) = next.take() {
                list.with_continuation_token(token);
            }
            let request = self.client.get(list.sign(SIGNED_FOR)).timeout(SMALL);
            let Some(answer) = self.send(request).await? else {
                anyhow::bail!("{}: there is no bucket {:?}", self.endpoint(), self.bucket.name())
            };
            let text = String::from_utf8(small(answer, MAX_METADATA_BYTES).await?).unwrap_or_default();
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|_| anyhow::anyhow!("{}: it does not answer as an S3 store: no list of objects", self.endpoint()))?;
            objects += page.contents.len();
            anyhow::ensure!(objects <= MAX_NAMES, "{}: more than {MAX_NAMES} objects", shelf.as_str());
            for object in page.contents {
                if let Some(name) = object.key.strip_prefix(&start).filter(|name| shelf.fits(name)) {
                    found.push(Listed { name: name.to_owned(), mark: mark(&object) });
                }
            }
            let Some(token) = page.next_continuation_token else { return Ok(found) };
            anyhow::ensure!(tokens.insert(token.clone()), "{}: the store lists the same page again", shelf.as_str());
            next = Some(token);
        }
        anyhow::bail!("{}: the store lists more than {MAX_PAGES} pages", shelf.as_str())
    }

    pub(super) async fn metadata(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let key = self.key(Shelf::Metadata, name);
        let request = self.client.get(self.signed(&key).await?).timeout(SMALL);
        match self.send(request).await.with_context(|| key.clone())? {
            Some(answer) => small(answer, MAX_METADATA_BYTES).await.with_context(|| key.clone()).map(Some),
            None => Ok(None),
        }
    }

    /// A copy of the object in a file that has no name. The database lies on the same disk: an object that would fill it is not copied.
    pub(super) async fn copy(&self, found: &Listed) -> anyhow::Result<std::fs::File> {
        let bytes = length_of(&found.mark);
        let disk = rustix::fs::statvfs(&self.copies).with_context(|| self.copies.display().to_string())?;
        let disk_bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        demand_room(bytes, disk_bytes(disk.f_bavail), disk_bytes(disk.f_blocks))
            .map_err(|why| anyhow::anyhow!("{}: {why}", found.name))?;
        let path = self.copies.join(format!(".release-{}-{}", std::process::id(), self.copied.fetch_add(1, Ordering::Relaxed)));
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("{}: a copy to be verified", path.display()))?;
        std::fs::remove_file(&path)?;
        let mut copy = tokio::fs::File::from_std(file);
        let fetched = async {
            let mut pieces = self.part_of(&found.name, &found.mark, bytes, 0, bytes).await?;
            while let Some(piece) = pieces.next().await? {
                copy.write_all(&piece).await?;
            }
            copy.flush().await?;
            anyhow::Ok(())
        };
        tokio::time::timeout(LARGE, fetched).await.with_context(|| format!("{}: it takes too long", found.name))??;
        Ok(copy.into_std().await)
    }

    pub(super) async fn part(&self, file: &ReleaseFile, first: u64, count: u64) -> anyhow::Result<Pieces> {
        self.part_of(&file.file, &file.mark, file.bytes, first, count).await
    }

    async fn part_of(&self, name: &str, mark: &str, bytes: u64, first: u64, count: u64) -> anyhow::Result<Pieces> {
        let key = self.key(Shelf::Files, name);
        let whole = first == 0 && count == bytes;
        let mut request = self.client.get(self.signed(&key).await?);
        if !whole {
            request = request.header(header::RANGE, format!("bytes={first}-{}", first + count - 1));
        }
        let answer = self.send(request).await.with_context(|| key.clone())?;
        let answer = answer.with_context(|| format!("{key}: it lies there no more"))?;
        anyhow::ensure!(whole || answer.status() == StatusCode::PARTIAL_CONTENT, "{key}: the store knows no ranges");
        let length = answer.content_length();
        anyhow::ensure!(length == Some(count), "{key}: {length:?} bytes come, {count} were asked for");
        anyhow::ensure!(is_it(mark, &answer), "{key}: it is another one than was seen");
        Ok(Pieces { answer, left: count })
    }

    async fn signed(&self, key: &str) -> anyhow::Result<reqwest::Url> {
        Ok(self.bucket.get_object(Some(&self.credentials().await?), key).sign(SIGNED_FOR))
    }

    fn endpoint(&self) -> String {
        self.bucket.base_url().origin().ascii_serialization()
    }

    /// An answer with content; `None`: no such object.
    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Option<Response>> {
        let answer = request.send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| format!("{}: the store can't be reached", self.endpoint()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Some(answer));
        }
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let body = small(answer, MAX_ERROR_BYTES).await.unwrap_or_default();
        match told(status, &kind, &String::from_utf8_lossy(&body)) {
            Told::NoObject => Ok(None),
            Told::NoBucket => anyhow::bail!("{}: there is no bucket {:?}", self.endpoint(), self.bucket.name()),
            Told::Wrong(why) => anyhow::bail!("{}: {why}", self.endpoint()),
        }
    }
}

/// What an answer without content means.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    NoObject,
    NoBucket,
    /// Words for the operator.
    Wrong(String),
}

fn told(status: StatusCode, kind: &str, body: &str) -> Told {
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let code = code.filter(|code| code.len() <= 60 && code.bytes().all(|b| b.is_ascii_alphanumeric()));
    match (status.as_u16(), code) {
        (_, Some("NoSuchBucket")) => Told::NoBucket,
        (_, Some("NoSuchKey")) => Told::NoObject,
        (_, Some(code @ ("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidSecurity" | "AccessDenied"))) => {
            Told::Wrong(format!(
                "the store refuses the key ({code}): check releases.access_key_id, releases.secret_key_file and what the key may read"
            ))
        }
        (_, Some("RequestTimeTooSkewed")) => Told::Wrong("the clocks of this machine and the store differ too much".to_owned()),
        (301 | 302 | 307 | 308, _) => {
            Told::Wrong(format!("the store sends elsewhere ({status}): check releases.endpoint and releases.region"))
        }
        (_, Some(code)) => Told::Wrong(format!("the store answers {status}, {code}")),
        (403, None) => Told::Wrong("the store refuses the key (403)".to_owned()),
        (_, None) => {
            Told::Wrong(format!("it does not answer as an S3 store: {status}, {}", kind.chars().take(60).collect::<String>()))
        }
    }
}

/// The secret key: the first line of a file that only its owner reads.
fn secret_key(path: &Path) -> anyhow::Result<String> {
    let told = || format!("releases.secret_key_file: {}", path.display());
    let mode = std::fs::metadata(path).with_context(told)?.mode();
    anyhow::ensure!(mode & 0o077 == 0, "{}: others may read it: expected mode 0600 or 0400", told());
    let text = std::fs::read_to_string(path).with_context(told)?;
    let secret = text.lines().next().unwrap_or_default().trim();
    anyhow::ensure!(!secret.is_empty(), "{}: expected the secret key on its first line", told());
    Ok(secret.to_owned())
}

/// Whether an object may be copied to be verified: it can be one of ours, and leaves the rest of the service its room on the disk.
fn demand_room(bytes: u64, free: u64, whole_disk: u64) -> Result<(), String> {
    let mib = |bytes: u64| bytes >> 20;
    if bytes > MAX_FILE_BYTES {
        return Err(format!("{} MiB: no signed file is larger than {} MiB", mib(bytes), mib(MAX_FILE_BYTES)));
    }
    let room = free.saturating_sub(MAX_RESERVE_BYTES.min(whole_disk / 10));
    if bytes > room {
        return Err(format!(
            "{} MiB are to be copied to be verified; the disk of the data has room for {}",
            mib(bytes),
            mib(room)
        ));
    }
    Ok(())
}

/// Length, second of change and entity tag, as far as the store tells them.
fn mark(object: &ListObjectsContent) -> String {
    let second = object.last_modified.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    mark_of(object.size.unwrap_or_default(), second.map(|at| at.timestamp()), object.etag.as_deref().unwrap_or_default())
}

fn mark_of(bytes: u64, second: Option<i64>, tag: &str) -> String {
    format!("{bytes}:{}:{}", second.map(|second| second.to_string()).unwrap_or_default(), tag.trim_matches('"'))
}

fn length_of(mark: &str) -> u64 {
    mark.split(':').next().and_then(|bytes| bytes.parse().ok()).unwrap_or_default()
}

/// Whether an answer is of the object that has this mark, as far as both tell.
fn is_it(mark: &str, answer: &Response) -> bool {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let second = text(header::LAST_MODIFIED).and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    let range = text(header::CONTENT_RANGE).and_then(|range| range.rsplit_once('/'));
    let bytes = range.and_then(|(_, bytes)| bytes.parse().ok()).or(answer.content_length()).unwrap_or_default();
    let said = mark_of(bytes, second.map(|at| at.timestamp()), text(header::ETAG).unwrap_or_default());
    said.splitn(3, ':').zip(mark.splitn(3, ':')).all(|(said, seen)| said == seen || said.is_empty() || seen.is_empty())
}

/// A small answer, whole.
async fn small(mut answer: Response, most_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        bytes.extend_from_slice(&piece);
        anyhow::ensure!(bytes.len() as u64 <= most_bytes, "larger than {most_bytes} bytes");
    }
    Ok(bytes)
}

/// Part of an object.
pub(crate) struct Pieces {
    answer: Response,
    left: u64,
}

impl Pieces {
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self.answer.chunk().await.map_err(|error| std::io::Error::other(error.without_url()))?;
        let piece = piece.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests;
