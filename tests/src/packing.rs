//! Payloads and signed patches of the sample vendor: trees whose service is a program of this machine, Debian packages.
//! It must never be needed by anything but tests: everybody knows the vendor's keys.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mainstay_patchkit::archive::{Packed, pack};
use mainstay_patchkit::manifest::Manifest;
use mainstay_patchkit::sample::{self, Vendor};
use semver::Version;

/// A payload and what a manifest says of it.
#[derive(Debug, Clone)]
pub struct Packing {
    /// As signed.
    pub packed: Packed,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A tree whose service is a copy of `program` (`/bin/sleep` serves, `/bin/false` crashes), with a file of these contents.
///
/// # Errors
/// When it can't be packed.
pub fn packing(program: &str, content: &[u8]) -> Result<Packing> {
    let folder = tempfile::tempdir()?;
    lay_tree(folder.path(), program, content)?;
    let mut bytes = Vec::new();
    Ok(Packing { packed: pack(folder.path(), 1, &mut bytes)?, bytes })
}

/// A tree whose service eats memory until its own limit ends it.
///
/// # Errors
/// Without a C compiler.
pub fn memory_hog() -> Result<Packing> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (concat!(env!("CARGO_MANIFEST_DIR"), "/src/memory_hog.c"), folder.path().join("hog"));
    let made = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).status().context("cc")?;
    ensure!(made.success(), "the memory hog can't be built");
    packing(&program.display().to_string(), b"new")
}

/// A payload of Debian packages, each of a name and a version, made by `dpkg-deb`.
///
/// # Errors
/// Without `dpkg-deb`.
pub fn debs(packages: &[(&str, &str)]) -> Result<Packing> {
    let (built, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (name, version) in packages {
        let top = built.path().join(name);
        std::fs::create_dir_all(top.join("DEBIAN"))?;
        std::fs::create_dir_all(top.join("opt"))?;
        std::fs::write(top.join("opt").join(name), version)?;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Acme <acme@example.com>\nDescription: a part of the product\n"
        );
        std::fs::write(top.join("DEBIAN/control"), control)?;
        let deb = folder.path().join(format!("{name}_{version}_all.deb"));
        let made =
            Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&top).arg(&deb).output().context("dpkg-deb")?;
        ensure!(made.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&made.stderr));
    }
    let mut bytes = Vec::new();
    Ok(Packing { packed: pack(folder.path(), 1, &mut bytes)?, bytes })
}

/// Lays the tree out in the folder `top`.
///
/// # Errors
/// When it can't be written.
pub fn lay_tree(top: &Path, program: &str, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(top.join("bin"))?;
    std::fs::copy(program, top.join("bin/web")).with_context(|| program.to_owned())?;
    std::fs::set_permissions(top.join("bin/web"), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(top.join("content"), content)?;
    std::fs::set_permissions(top.join("content"), std::fs::Permissions::from_mode(0o644))?;
    for dir in [top, &top.join("bin")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A signed patch to `version`; `bend` may change its manifest before it is signed.
///
/// # Errors
/// When it can't be signed.
pub fn signed_patch(version: &str, packing: &Packing, bend: impl FnOnce(&mut Manifest)) -> Result<Vec<u8>> {
    let mut manifest = sample::tree_patch(Version::parse(version)?, &packing.packed);
    bend(&mut manifest);
    Ok(Vendor::default().file(&manifest, &packing.bytes)?)
}
