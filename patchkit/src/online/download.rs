//! A target on its way: passed on piece by piece, never more than was signed, believed only when length and hash are right at the end.

use std::io::{self, Read, Write};

use ring::digest;
use sigstore_tuf::TargetFile;

use super::OnlineError;

/// Where a target lies, and what its bytes must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its path below the repository's targets.
    pub path: String,
    /// Its length, bytes.
    pub length: u64,
    /// Whether the hash is SHA-512; SHA-256 else.
    is_sha512: bool,
    /// The hash, lower-case hex.
    hash: String,
}

impl Located {
    pub(super) fn new(target: &str, file: &TargetFile, consistent: bool) -> Result<Self, OnlineError> {
        let hash = |name: &str| file.hashes.get(name);
        let Some(hash_hex) = hash("sha256").or_else(|| hash("sha512")) else {
            return Err(OnlineError::Refused { what: target.to_owned(), why: "it is named without SHA-256 or SHA-512".into() });
        };
        let path = match target.rsplit_once('/') {
            _ if !consistent => target.to_owned(),
            Some((folder, name)) => format!("{folder}/{hash_hex}.{name}"),
            None => format!("{hash_hex}.{target}"),
        };
        Ok(Self { path, length: file.length, is_sha512: hash("sha256").is_none(), hash: hash_hex.to_lowercase() })
    }

    /// Passes bytes on to `out` while measuring them.
    pub fn checked<W: Write>(&self, out: W) -> Checked<'_, W> {
        let algorithm = if self.is_sha512 { &digest::SHA512 } else { &digest::SHA256 };
        Checked { located: self, out, length: 0, hash: digest::Context::new(algorithm) }
    }

    /// Whether these are its bytes.
    ///
    /// # Errors
    /// They can't be read.
    pub fn is(&self, mut bytes: impl Read) -> io::Result<bool> {
        let mut checked = self.checked(io::sink());
        match io::copy(&mut bytes, &mut checked) {
            Ok(_) => Ok(checked.finish().is_ok()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A writer that refuses more bytes than were signed.
pub struct Checked<'l, W> {
    located: &'l Located,
    out: W,
    length: u64,
    hash: digest::Context,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > self.located.length {
            return Err(wrong(format!("more than the signed {} bytes", self.located.length)));
        }
        let written = self.out.write(bytes)?;
        self.length += written as u64;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Checked<'_, W> {
    /// The writer, if all that came is what was signed.
    ///
    /// # Errors
    /// `InvalidData` when it isn't.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        if self.length != self.located.length {
            return Err(wrong(format!("{} bytes; {} were signed", self.length, self.located.length)));
        }
        if hex::encode(self.hash.finish().as_ref()) != self.located.hash {
            return Err(wrong("its hash is not the signed one".to_owned()));
        }
        Ok(self.out)
    }
}

fn wrong(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
