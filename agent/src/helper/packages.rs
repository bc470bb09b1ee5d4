//! Debian packages: dpkg can't be atomic, so it goes forward: a cut continues where it stopped, until every package that the manifest names
//! is installed as named. Back goes only who has the packages of before, kept from an earlier patch.
//!
//! A part of `engine`. The verified .deb files lie in one pool, named `name_version_arch.deb` as dpkg-deb names them. It must never fetch
//! anything, and never install a file that was not in a verified payload.

use std::io::Read;
use std::path::PathBuf;

use mainstay_patchkit::manifest::Payload;
use mainstay_patchkit::refusal::Refusal;

use super::disk;
use super::disk::io_refusal;
use super::engine::{Engine, Failure};
use super::executor::Step;
use super::rules::Look;
use super::state::{How, Install};
use super::tree::unpack;

/// Seconds that one call of dpkg gets.
const DPKG_LIMIT_S: u32 = 1800;
/// Old configuration files stay; no questions.
const OPTIONS: &[&str] = &["--force-confold", "--force-confdef"];

impl Engine {
    fn pool(&self) -> PathBuf {
        self.packages_dir().join("pool")
    }

    /// Unpacks the payload and moves its packages into the pool, durably.
    pub(super) fn stage_packages(&self, payload: &mut (dyn Read + Send), facts: &Payload) -> Result<(), Refusal> {
        let io = |error: std::io::Error| io_refusal(&error);
        let (dir, staging, pool) = (self.packages_dir(), self.packages_dir().join(".staging"), self.pool());
        for dir in [&dir, &pool] {
            if self.disk.look(dir).map_err(io)?.is_none() {
                self.disk.make_dir(dir, 0o700).map_err(io)?;
            }
        }
        disk::remove_tree(&*self.disk, &staging).map_err(io)?;
        self.disk.make_dir(&staging, 0o700).map_err(io)?;
        unpack(&*self.disk, &staging, payload, facts, &mut |_| ())?;
        self.disk.sync_all(&staging).map_err(io)?;
        for found in self.disk.list(&staging).map_err(io)? {
            if !found.name.ends_with(".deb") {
                return Err(Refusal::Content(format!("{}: expected name_version_arch.deb", found.name)));
            }
            self.disk.rename(&staging.join(&found.name), &pool.join(&found.name)).map_err(io)?;
        }
        self.disk.sync_dir(&pool).map_err(io)
    }

    fn deb(&self, name: &str, version: &str) -> Option<PathBuf> {
        let begins = format!("{name}_{}_", version.replace(':', "%3a"));
        let plain = format!("{name}_{}_", version.split_once(':').map_or(version, |(_, rest)| rest));
        let found = self.disk.list(&self.pool()).ok()?;
        let deb = found.into_iter().find(|deb| deb.name.starts_with(&begins) || deb.name.starts_with(&plain))?;
        Some(self.pool().join(deb.name))
    }

    /// Whether every one of these lies in the pool.
    pub(super) fn packages_are_kept(&self, packages: &[(String, String)]) -> bool {
        packages.iter().all(|(name, version)| self.deb(name, version).is_some())
    }

    fn dpkg(&self, program: &str, arguments: impl IntoIterator<Item = String>) -> Step {
        let root = self.settings.packages_root.as_ref().map(|root| match program {
            "/usr/bin/dpkg-query" => format!("--admindir={}", root.join("var/lib/dpkg").display()),
            _ => format!("--root={}", root.display()),
        });
        let argv = std::iter::once(program.to_owned()).chain(root).chain(arguments).collect();
        Step { argv, dir: "/".into(), timeout_s: DPKG_LIMIT_S, leaves_children: true, user: None }
    }

    /// Finishes what a cut left half done, then installs exactly these.
    pub(super) fn install_packages(&mut self, packages: &[(String, String)]) -> Result<(), Failure> {
        let missing =
            |name: &str| Failure { code: "package_missing", detail: format!("{name}: not among the verified packages") };
        let files: Vec<String> = packages
            .iter()
            .map(|(name, version)| self.deb(name, version).map(|path| path.display().to_string()).ok_or_else(|| missing(name)))
            .collect::<Result<_, _>>()?;
        let options = OPTIONS.iter().map(|option| (*option).to_owned());
        // What was cut between unpacking and configuring; that it can't be mended alone, the next call may mend.
        let mended = self.runner.run(&self.dpkg("/usr/bin/dpkg", options.clone().chain(["--configure".into(), "-a".into()])));
        self.keep_output(&mended.output)?;
        let ended = self.runner.run(&self.dpkg("/usr/bin/dpkg", options.chain(["-i".into()]).chain(files)));
        self.keep_output(&ended.output)?;
        match ended.trouble("dpkg -i") {
            Some(detail) => Err(Failure { code: "dpkg_failed", detail }),
            None => Ok(()),
        }
    }

    /// The packages of before again; what was not there before is removed.
    pub(super) fn packages_back(&mut self, packages: &[(String, String)], before: &[(String, String)]) -> Result<(), Failure> {
        let is_new = |name: &&String| before.iter().all(|(known, _)| known != *name);
        let new: Vec<_> = packages.iter().map(|(name, _)| name).filter(is_new).cloned().collect();
        if !new.is_empty() {
            let ended = self.runner.run(&self.dpkg("/usr/bin/dpkg", ["--remove".to_owned()].into_iter().chain(new)));
            self.keep_output(&ended.output)?;
            if let Some(detail) = ended.trouble("dpkg --remove") {
                return Err(Failure { code: "dpkg_failed", detail });
            }
        }
        if before.is_empty() { Ok(()) } else { self.install_packages(before) }
    }

    /// Only what is installed now, and what can be gone back to, stays in the pool.
    pub(super) fn clean_pool(&self, keep: &[&[(String, String)]]) {
        let wanted: Vec<_> =
            keep.iter().flat_map(|list| list.iter()).filter_map(|(name, version)| self.deb(name, version)).collect();
        let pool = self.pool();
        for found in self.disk.list(&pool).unwrap_or_default() {
            let path = pool.join(found.name);
            if !wanted.contains(&path)
                && let Err(error) = self.disk.remove(&path)
            {
                tracing::warn!("{}: can't be removed: {error}", path.display());
            }
        }
    }

    /// Name and version of those of `names` that are installed now.
    pub(super) fn installed_packages(&self, names: &[String]) -> Vec<(String, String)> {
        let format = "-f=${Package} ${Version} ${db:Status-Status}\n".to_owned();
        let arguments = ["-W".into(), format].into_iter().chain(names.iter().cloned());
        let ended = self.runner.run(&self.dpkg("/usr/bin/dpkg-query", arguments));
        let read = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, version, status) = (words.next()?, words.next()?, words.next()?);
            (status == "installed").then(|| (name.to_owned(), version.to_owned()))
        };
        ended.output.lines().filter_map(read).collect()
    }

    /// The database must say of each package what the manifest said.
    pub(super) fn packages_look(&self, install: &Install) -> Look {
        let How::Packages { packages, .. } = &install.how else { return Look::Good };
        let names: Vec<_> = packages.iter().map(|(name, _)| name.clone()).collect();
        let installed = self.installed_packages(&names);
        match packages.iter().find(|package| !installed.contains(package)) {
            None => Look::Good,
            Some((name, version)) => Look::Bad(format!("{name}: {version} is not installed")),
        }
    }
}
