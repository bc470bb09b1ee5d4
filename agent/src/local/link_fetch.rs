//! The child of `patch apply LINK`: downloads as the agent's user into `link/` of the state folder, and goes on where an earlier try stopped.
//!
//! Kept: the bytes and, beside them, the tag of the content that they are of. A cut is tried again as long as bytes come; then it says how
//! to go on. At most `[patches] max_bytes`, at `max_kib_per_s`. It must never believe the file (the helper verifies) nor print the link.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use mainstay_shared::time_source::TimeSource;

use super::link::{FOLDER, Fetched, file_name};
use super::link_progress::{Bar, mib};
use super::words::{Lang, pick};
use super::{Exit, Failure, Output, say};
use crate::atomic_file;
use crate::config::PatchSettings;
use crate::patches::{ahead_of_bandwidth, free_bytes, sha256_of};
use crate::uplink::{Body, Link, LinkAnswer, LinkWay, wait_before};

/// So many tries one after the other may bring nothing, once bytes have come.
const MOST_IDLE_TRIES: u32 = 5;
/// What every signed file begins with.
const MAGIC: &[u8] = b"MPATCH01";
const MAX_LINK_BYTES: u64 = 4096;

/// What a download needs.
pub(crate) struct LinkFetch<'a> {
    /// The way there.
    pub(crate) way: &'a LinkWay,
    /// Limits.
    pub(crate) settings: &'a PatchSettings,
    /// The state folder.
    pub(crate) state_dir: &'a Path,
    /// Monotonic time.
    pub(crate) time: &'a TimeSource,
    /// How progress is shown.
    pub(crate) output: Output,
}

/// The link on standard input.
///
/// # Errors
/// When it is none.
pub(crate) fn link_on_stdin() -> Result<Link, Failure> {
    let mut text = String::new();
    std::io::stdin().take(MAX_LINK_BYTES).read_to_string(&mut text).context("standard input")?;
    Link::parse(&text).map_err(|why| Failure::new(Exit::Usage, anyhow!(why)))
}

/// Tells the parent how it ended.
///
/// # Errors
/// None in practice.
pub(crate) fn tell(ended: Result<(), Failure>) -> anyhow::Result<()> {
    let told = match ended {
        Ok(()) => Fetched::Whole,
        Err(failure) => Fetched::Not { exit: failure.exit, why: format!("{:#}", failure.error) },
    };
    say(serde_json::to_string(&told)?);
    Ok(())
}

/// Where the bytes lie, and what they are of.
struct Partial {
    path: PathBuf,
    tag_path: PathBuf,
    file: File,
}

impl Partial {
    fn open(state_dir: &Path, link: &Link, lang: Lang) -> Result<Self, Failure> {
        let dir = state_dir.join(FOLDER);
        atomic_file::private_dir(&dir)?;
        let name = link.file_stem();
        for entry in std::fs::read_dir(&dir).context("the folder of downloads")?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(&name) {
                // One link at a time: what an earlier one left is of no use.
                drop(std::fs::remove_file(entry.path()));
            }
        }
        let (path, tag_path) = (dir.join(file_name(link)), dir.join(format!("{name}.tag")));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.with_context(|| path.display().to_string())?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let why = pick(lang, "另一条命令正在下载此链接的文件", "another command is downloading the file of this link");
            return Err(Failure::new(Exit::TryLater, anyhow!(why.to_owned())));
        }
        Ok(Self { path, tag_path, file })
    }

    fn tag(&self) -> Option<String> {
        std::fs::read_to_string(&self.tag_path).ok().filter(|tag| !tag.is_empty())
    }

    fn here_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.file.metadata().context("the file so far")?.len())
    }

    /// What comes is of `tag`, from byte `from` on.
    fn begin(&mut self, from: u64, tag: Option<&str>) -> anyhow::Result<()> {
        if self.tag().as_deref() != tag {
            std::fs::write(&self.tag_path, tag.unwrap_or_default()).context("the file's tag")?;
        }
        self.file.set_len(from)?;
        self.file.seek(SeekFrom::Start(from))?;
        Ok(())
    }

    fn begin_anew(&mut self) -> anyhow::Result<()> {
        self.begin(0, None)
    }

    /// Whether what is here has the hash that the collector's tag names; none if it names none.
    fn has_hash_of_tag(&self) -> anyhow::Result<Option<bool>> {
        let Some(tag) = self.tag() else { return Ok(None) };
        let tag = tag.trim_matches('"');
        let is_hash = tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(if is_hash { Some(sha256_of(&self.path)? == tag) } else { None })
    }
}

/// How a try ended.
enum Try {
    Whole,
    Cut(String),
}

impl LinkFetch<'_> {
    /// Downloads what is missing.
    ///
    /// # Errors
    /// With the code and the next step for a person.
    pub(crate) async fn run(&self, link: &Link) -> Result<(), Failure> {
        let mut partial = Partial::open(self.state_dir, link, self.output.lang)?;
        let mut bar = Bar::new(self.output, self.time.clone());
        if partial.here_bytes()? > 0 && partial.has_hash_of_tag()? == Some(true) {
            return Ok(());
        }
        let (mut came, mut idle) = (false, 0);
        loop {
            let before = partial.here_bytes()?;
            let why = match self.attempt(link, &mut partial, &mut bar).await? {
                // Where the tag says nothing, the helper is asked all the same.
                Try::Whole if partial.has_hash_of_tag()? != Some(false) => {
                    bar.end();
                    return Ok(());
                }
                Try::Whole => {
                    partial.begin_anew()?;
                    pick(self.output.lang, "收到的内容与服务中心所述不符", "what came is not what the collector said").to_owned()
                }
                Try::Cut(why) => why,
            };
            let moved = partial.here_bytes()? > before;
            (came, idle) = (came || moved, if moved { 0 } else { idle + 1 });
            if !came || idle >= MOST_IDLE_TRIES {
                bar.end();
                return Err(self.given_up(link, &why, partial.here_bytes()?));
            }
            tokio::time::sleep(wait_before(idle)).await;
        }
    }

    fn given_up(&self, link: &Link, why: &str, here: u64) -> Failure {
        let host = link.host();
        let text = match self.output.lang {
            Lang::Zh if here > 0 => format!("{host}：{why}；已下载 {}，再次执行同一命令可继续", mib(here)),
            Lang::Zh => format!("{host}：{why}；请检查网络与代理设置（agent.toml 的 [proxy]），或在其他电脑下载后用 U 盘带来"),
            Lang::En if here > 0 => format!("{host}: {why}; {} are here, the same command goes on from there", mib(here)),
            Lang::En => format!(
                "{host}: {why}; check the network and [proxy] in agent.toml, or download it on another computer and bring it on a stick"
            ),
        };
        Failure::new(Exit::Unavailable, anyhow!(text))
    }

    async fn attempt(&self, link: &Link, partial: &mut Partial, bar: &mut Bar) -> Result<Try, Failure> {
        let (here, tag) = (partial.here_bytes()?, partial.tag());
        // Without a tag nobody can say what the bytes are of.
        let from = if tag.is_some() { here } else { 0 };
        match self.way.ask(link, from, tag.as_deref()).await {
            LinkAnswer::File { body, total_bytes } => self.receive(body, total_bytes, partial, bar).await,
            LinkAnswer::Shorter => {
                partial.begin_anew()?;
                Ok(Try::Cut("status 416".to_owned()))
            }
            LinkAnswer::Later(why) => Ok(Try::Cut(why)),
            LinkAnswer::No(word) => Err(refused(self.no(&word))),
            LinkAnswer::Gone => {
                let en = "the link is not known, or has expired; ask the vendor for a new one";
                Err(refused(pick(self.output.lang, "链接不存在或已过期，请联系厂商重新获取", en).to_owned()))
            }
            LinkAnswer::NoFile(kind) => Err(self.no_file(link, &kind)),
        }
    }

    fn no(&self, word: &str) -> String {
        let lang = self.output.lang;
        match word {
            "refused_too_many_downloads" => pick(
                lang,
                "此链接的下载次数已用完，请联系厂商重新获取",
                "the downloads of this link are used up; ask the vendor for a new one",
            ),
            "refused_offer_over" => pick(
                lang,
                "该补丁的提供已结束（已安装、已拒绝或厂商已撤回）",
                "the offer of this link is over: it was installed, refused, or taken back by the vendor",
            ),
            "refused_file_not_good" => {
                pick(lang, "厂商已撤下或更换该文件，请联系厂商", "the vendor has withdrawn or replaced this file; ask the vendor")
            }
            other => return format!("{} ({other})", pick(lang, "链接页面拒绝下载", "the link's page refuses the download")),
        }
        .to_owned()
    }

    fn no_file(&self, link: &Link, kind: &str) -> Failure {
        let host = link.host();
        refused(match self.output.lang {
            Lang::Zh => {
                format!("{host} 返回的不是补丁文件（{kind}）：请核对链接是否与邮件一致，并检查途中是否有登录页面或代理拦截")
            }
            Lang::En => format!(
                "{host} answers with no signed file ({kind}): is it the link of the mail, and does a sign-in page or a proxy stand in between?"
            ),
        })
    }

    /// Writes what comes; the limits are looked at before the first byte and at each.
    async fn receive(&self, body: Body, total: Option<u64>, partial: &mut Partial, bar: &mut Bar) -> Result<Try, Failure> {
        let mut body = body;
        let from = body.from;
        if from > partial.here_bytes()? {
            return Ok(Try::Cut(format!("the answer begins at byte {from}")));
        }
        self.fits(total.unwrap_or_default(), from)?;
        partial.begin(from, body.tag.as_deref())?;
        let (began, mut at) = (self.time.monotonic(), from);
        let cut = loop {
            bar.show(at, total);
            let piece = match body.piece().await {
                Ok(Some(piece)) => piece,
                Ok(None) if total.is_none_or(|total| at == total) => break None,
                Ok(None) => break Some("the answer ended too early".to_owned()),
                Err(why) => break Some(why),
            };
            let piece = piece.as_ref();
            if at == 0 && !piece.starts_with(&MAGIC[..piece.len().min(MAGIC.len())]) {
                partial.begin_anew()?;
                let kind = pick(self.output.lang, "内容不是 .mpatch", "its content is no .mpatch");
                return Err(refused(kind.to_owned()));
            }
            at += piece.len() as u64;
            self.fits(at, at)?;
            partial.file.write_all(piece).context("the disk")?;
            let ahead = ahead_of_bandwidth(self.settings.max_kib_per_s, at - from, self.time.monotonic().saturating_sub(began));
            if !ahead.is_zero() {
                tokio::time::sleep(ahead).await;
            }
        };
        partial.file.sync_data().context("the disk")?;
        Ok(cut.map_or(Try::Whole, Try::Cut))
    }

    /// A file of `total` bytes of which `here` are here already.
    fn fits(&self, total: u64, here: u64) -> Result<(), Failure> {
        let (lang, most) = (self.output.lang, self.settings.max_bytes);
        if total > most {
            let (is, most) = (mib(total), mib(most));
            return Err(refused(match lang {
                Lang::Zh => format!("文件过大：{is}，上限 {most}（agent.toml 的 [patches] max_bytes）"),
                Lang::En => format!("the file is too large: {is}, [patches] max_bytes in agent.toml allows {most}"),
            }));
        }
        let free = free_bytes(self.state_dir).unwrap_or(u64::MAX);
        let missing = total.saturating_sub(here);
        if missing > free {
            let (needed, free, dir) = (mib(missing), mib(free), self.state_dir.display());
            return Err(Failure::new(
                Exit::TryLater,
                anyhow!(match lang {
                    Lang::Zh => format!("{dir}：空间不足，还需 {needed}，可用 {free}"),
                    Lang::En => format!("{dir}: no room, {needed} are needed, {free} are free"),
                }),
            ));
        }
        Ok(())
    }
}

fn refused(why: String) -> Failure {
    Failure::new(Exit::Refused, anyhow!(why))
}

#[cfg(test)]
mod tests;
