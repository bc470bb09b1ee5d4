//! Writes a payload from a folder: the same folder always gives the same bytes (sorted, no times, no owners, rights 755 or 644).

use std::io::{self, Read, Write};
use std::path::Path;

use ring::digest;

use super::WINDOW_LOG;
use super::blocks::{BLOCK, Block, MAX_FILE_BYTES, Type, long_name_record};
use super::tree::{Found, Place, TreeHash, walk};
use crate::crypto::array;
use crate::manifest::Payload;

/// A payload that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What the manifest says of it.
    pub payload: Payload,
    /// The hash of the tree that it unpacks to, hex.
    pub tree_sha256: String,
}

/// Packs everything below `top` into `out`; `level` is zstd's, 1 (fast) to 19 (small).
///
/// # Errors
/// What can't be read or written; links, devices, files of 8 GiB and more.
pub fn pack(top: &Path, level: i32, out: impl Write) -> io::Result<Packed> {
    let counted = Counted { out, length: 0, hash: digest::Context::new(&digest::SHA256) };
    let mut tar = zstd::Encoder::new(counted, level)?;
    tar.window_log(WINDOW_LOG)?;
    let (mut tree, mut entries, mut unpacked_bytes) = (TreeHash::default(), 0, 0);
    walk(top, &mut |place| {
        entries += 1;
        unpacked_bytes += add(&mut tar, &mut tree, place)?;
        Ok(())
    })?;
    tar.write_all(&[0; 2 * BLOCK])?;
    let mut counted = tar.finish()?;
    counted.out.flush()?;
    let payload = Payload {
        length: counted.length,
        sha256: hex::encode(array(&counted.hash.finish())),
        entries,
        unpacked_bytes,
        delta_from: None,
    };
    Ok(Packed { payload, tree_sha256: tree.finish() })
}

/// Adds one entry and returns its bytes.
fn add(tar: &mut impl Write, tree: &mut TreeHash, place: &Place) -> io::Result<u64> {
    let executable = place.mode & 0o111 != 0;
    match &place.kind {
        Found::Folder => {
            announce(tar, &place.path, 0o755, 0, Type::Folder)?;
            tree.add_dir(&place.path, 0o755);
            Ok(0)
        }
        Found::File(file) => {
            let mode = if executable { 0o755 } else { 0o644 };
            let length = file.metadata()?.len();
            if length > MAX_FILE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: expected less than 8 GiB", place.path)));
            }
            announce(tar, &place.path, mode, length, Type::File)?;
            let sha256 = copy(file, length, tar, &place.path)?;
            let padding = (BLOCK - (length % BLOCK as u64) as usize) % BLOCK;
            tar.write_all(&[0; BLOCK][..padding])?;
            tree.add_file(&place.path, mode, length, &sha256);
            Ok(length)
        }
    }
}

fn announce(tar: &mut impl Write, name: &str, mode: u32, length: u64, kind: Type) -> io::Result<()> {
    if name.len() > 100 {
        let record = long_name_record(name);
        let block = Block { name: "long-name".into(), mode: 0o644, length: record.len() as u64, kind: Type::LongName };
        tar.write_all(&block.to_bytes())?;
        let mut body = record.into_bytes();
        body.resize(body.len().next_multiple_of(BLOCK), 0);
        tar.write_all(&body)?;
    }
    tar.write_all(&Block { name: name.to_owned(), mode, length, kind }.to_bytes())
}

fn copy(file: &std::fs::File, length: u64, to: &mut impl Write, name: &str) -> io::Result<[u8; 32]> {
    let mut from = file.take(length);
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
        to.write_all(&buffer[..got])?;
    }
    if from.limit() != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name}: became shorter while it was read")));
    }
    Ok(array(&hash.finish()))
}

struct Counted<W> {
    out: W,
    length: u64,
    hash: digest::Context,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.length += written as u64;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
