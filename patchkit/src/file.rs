//! The file form `.mpatch`: magic, length of the header, header, payload, end. One form for link, stick, file and download (R2).
//!
//! ```text
//! MPATCH01 | u32 big-endian: bytes of the header (at most 4 MiB) | header (JSON) | payload | end of the file
//! header: {"roots": [base64 root.json ...], "targets": base64, "role": base64, "manifest": base64}
//! ```
//! Read at positions, so that the same descriptor serves check and use. It must never interpret what the parts say.

use std::fs::File;
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The first bytes: form and its version.
pub const MAGIC: &[u8; 8] = b"MPATCH01";
/// Magic and the length of the header.
pub const START_BYTES: usize = 12;
/// A header's most bytes.
pub const MAX_HEADER_BYTES: u32 = 4 << 20;
/// Roots that a file carries at most: as many as a client follows in one go (TUF 5.3.3).
pub const MAX_ROOTS: usize = 256;

/// The parts before the payload, as bytes that nobody has believed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `root.json` of each version, ascending.
    pub roots: Vec<Vec<u8>>,
    /// The top `targets.json`.
    pub targets: Vec<u8>,
    /// The metadata of the product's offline role.
    pub role: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderText {
    roots: Vec<String>,
    targets: String,
    role: String,
    manifest: String,
}

impl Header {
    /// Everything of the file that stands before its payload.
    ///
    /// # Errors
    /// [`Refusal::Format`] when the header is larger than [`MAX_HEADER_BYTES`] or carries more than [`MAX_ROOTS`] roots.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let text = HeaderText {
            roots: self.roots.iter().map(|root| STANDARD.encode(root)).collect(),
            targets: STANDARD.encode(&self.targets),
            role: STANDARD.encode(&self.role),
            manifest: STANDARD.encode(&self.manifest),
        };
        let json = serde_json::to_vec(&text).map_err(|error| Refusal::Format(format!("header: {error}")))?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_HEADER_BYTES);
        let Some(length) = length.filter(|_| self.roots.len() <= MAX_ROOTS) else {
            return Err(too_large(json.len() as u64, self.roots.len()));
        };
        Ok([MAGIC.as_slice(), &length.to_be_bytes(), &json].concat())
    }

    fn read(json: &[u8]) -> Result<Self, Refusal> {
        let text: HeaderText = serde_json::from_slice(json).map_err(|error| Refusal::Format(format!("header: {error}")))?;
        if text.roots.len() > MAX_ROOTS {
            return Err(too_large(json.len() as u64, text.roots.len()));
        }
        let decode = |name: &str, text: &str| {
            STANDARD.decode(text).map_err(|error| Refusal::Format(format!("header: {name}: not base64: {error}")))
        };
        Ok(Self {
            roots: text.roots.iter().map(|root| decode("roots", root)).collect::<Result<_, _>>()?,
            targets: decode("targets", &text.targets)?,
            role: decode("role", &text.role)?,
            manifest: decode("manifest", &text.manifest)?,
        })
    }
}

fn too_large(bytes: u64, roots: usize) -> Refusal {
    Refusal::Format(format!(
        "header: {bytes} bytes with {roots} roots; at most {MAX_HEADER_BYTES} bytes and {MAX_ROOTS} roots are accepted"
    ))
}

/// SHA-256 of a file's bytes, hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// Of the whole file.
    pub file_sha256: String,
    /// Of what stands behind its header.
    pub payload_sha256: String,
}

/// Where the payload begins in a file that begins with these bytes; none if no patch file does.
#[must_use]
pub fn payload_offset(start: &[u8; START_BYTES]) -> Option<u64> {
    let (magic, length) = start.split_at(MAGIC.len());
    let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
    (magic == MAGIC && length <= MAX_HEADER_BYTES).then(|| START_BYTES as u64 + u64::from(length))
}

/// A file whose header was read, not yet verified.
#[derive(Clone)]
pub struct PatchFile {
    /// The parts of the header.
    pub header: Header,
    /// Where the payload begins, bytes from the start.
    pub payload_offset: u64,
    /// Bytes from there to the end of the file.
    pub payload_length: u64,
    /// The hash over everything before the payload, to be carried on.
    pub(crate) hashed: digest::Context,
}

impl PatchFile {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Refusal::Format`] for anything but the form above, [`Refusal::Io`] where the machine can't read.
    pub fn open(file: &File) -> Result<Self, Refusal> {
        let io = |error: std::io::Error| Refusal::Io(error.to_string());
        let file_length = file.metadata().map_err(io)?.len();
        let mut start = [0; START_BYTES];
        if file_length < start.len() as u64 {
            return Err(Refusal::Format(format!("{file_length} bytes: shorter than any patch file")));
        }
        file.read_exact_at(&mut start, 0).map_err(io)?;
        let (magic, length) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Refusal::Format("it does not begin with MPATCH01".into()));
        }
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
        let payload_offset = start.len() as u64 + u64::from(length);
        if length > MAX_HEADER_BYTES {
            return Err(too_large(u64::from(length), 0));
        }
        let Some(payload_length) = file_length.checked_sub(payload_offset) else {
            return Err(Refusal::Format(format!("{file_length} bytes: it ends within its header")));
        };
        let mut json = vec![0; length as usize];
        file.read_exact_at(&mut json, start.len() as u64).map_err(io)?;
        let mut hashed = digest::Context::new(&digest::SHA256);
        hashed.update(&start);
        hashed.update(&json);
        Ok(Self { header: Header::read(&json)?, payload_offset, payload_length, hashed })
    }
}

impl std::fmt::Debug for PatchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatchFile")
            .field("payload_offset", &self.payload_offset)
            .field("payload_length", &self.payload_length)
            .finish()
    }
}
