//! Blocks of the tar form (POSIX ustar, with a pax record for long names): written and read, each field strictly.

use super::names::MAX_NAME_BYTES;

/// A block's bytes; everything is padded to it.
pub(super) const BLOCK: usize = 512;
/// The largest file: eleven octal digits.
pub(super) const MAX_FILE_BYTES: u64 = 0o77_777_777_777;

/// What a block announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// A file's bytes follow.
    File,
    /// A folder.
    Folder,
    /// The name of the next block's thing follows.
    LongName,
}

/// A header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) length: u64,
    pub(super) kind: Type,
}

impl Block {
    /// As bytes; a name above 100 bytes is cut: a [`Type::LongName`] stands before it.
    pub(super) fn to_bytes(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let name = &self.name.as_bytes()[..self.name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        put_octal(&mut block[100..108], u64::from(self.mode));
        put_octal(&mut block[108..116], 0);
        put_octal(&mut block[116..124], 0);
        put_octal(&mut block[124..136], self.length);
        put_octal(&mut block[136..148], 0);
        block[156] = match self.kind {
            Type::File => b'0',
            Type::Folder => b'5',
            Type::LongName => b'x',
        };
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum = checksum(&block);
        put_octal(&mut block[148..155], u64::from(sum));
        block[155] = b' ';
        block
    }

    /// Reads one; `long_name` takes the place of its own.
    pub(super) fn read(block: &[u8; BLOCK], long_name: Option<String>) -> Result<Self, String> {
        if &block[257..265] != b"ustar\x0000" {
            return Err("a block is not of the ustar form".into());
        }
        if octal(&block[148..156])? != u64::from(checksum(block)) {
            return Err("a block's checksum is wrong".into());
        }
        let name = match long_name {
            Some(name) => name,
            None => text(&block[..100])?,
        };
        let shown = name.escape_debug();
        let kind = match block[156] {
            b'0' => Type::File,
            b'5' => Type::Folder,
            b'x' => Type::LongName,
            b'1' | b'2' => return Err(format!("{shown}: links are not accepted")),
            b'3' | b'4' | b'6' => return Err(format!("{shown}: devices and pipes are not accepted")),
            other => return Err(format!("{shown}: entries of type {:?} are not accepted", char::from(other))),
        };
        if block[157..257].iter().chain(&block[345..500]).any(|byte| *byte != 0) {
            return Err(format!("{shown}: a link's target or a name's prefix is not accepted"));
        }
        let mode = u32::try_from(octal(&block[100..108])?).unwrap_or(u32::MAX);
        let length = octal(&block[124..136])?;
        if mode > 0o777 {
            return Err(format!("{shown}: mode {mode:o}: expected at most 777"));
        }
        if kind == Type::Folder && length != 0 {
            return Err(format!("{shown}: a folder has no bytes"));
        }
        Ok(Self { name, mode, length, kind })
    }
}

/// The body of a [`Type::LongName`]: one pax record.
pub(super) fn long_name_record(name: &str) -> String {
    let rest = format!(" path={name}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// The name in the body of a [`Type::LongName`].
pub(super) fn read_long_name(body: &[u8]) -> Result<String, String> {
    let refuse = || "a long name's record is not `<length> path=<name>`".to_owned();
    let record = std::str::from_utf8(body).map_err(|_| refuse())?;
    let (_, rest) = record.split_once(" path=").ok_or_else(refuse)?;
    let name = rest.strip_suffix('\n').ok_or_else(refuse)?;
    if long_name_record(name) != record || name.len() > MAX_NAME_BYTES {
        return Err(refuse());
    }
    Ok(name.to_owned())
}

fn checksum(block: &[u8; BLOCK]) -> u32 {
    let counted = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) };
    block.iter().enumerate().map(counted).sum()
}

fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[..digits]);
    field[digits] = 0;
}

fn octal(field: &[u8]) -> Result<u64, String> {
    let text: String = text(field)?.trim_end_matches(' ').to_owned();
    if text.is_empty() || !text.chars().all(|c| ('0'..='7').contains(&c)) {
        return Err("a number of a block is not octal".into());
    }
    u64::from_str_radix(&text, 8).map_err(|_| "a number of a block is too large".into())
}

/// The text before the first NUL; only NULs may follow.
fn text(field: &[u8]) -> Result<String, String> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let tail_is_clean = field[end..].iter().all(|byte| matches!(byte, 0 | b' '));
    match std::str::from_utf8(&field[..end]) {
        Ok(text) if tail_is_clean => Ok(text.to_owned()),
        _ => Err("a text of a block is not plain UTF-8".into()),
    }
}
