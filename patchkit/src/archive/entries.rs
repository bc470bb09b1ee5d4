//! Reads an archive entry by entry, checking each before its bytes are handed out, and the whole against what was signed.

use std::io::{self, BufRead, BufReader, Read};

use super::WINDOW_LOG;
use super::blocks::{BLOCK, Block, Type, read_long_name};
use super::names::{MAX_NAME_BYTES, Order};
use crate::manifest::Payload;
use crate::refusal::Refusal;

/// Read ahead of the compression: one of its blocks.
const READ_BYTES: usize = 128 << 10;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
}

/// The entries of a payload, in order. Memory: the compression's window ([`WINDOW_LOG`]) and one path.
pub struct Entries<'p, B: BufRead> {
    tar: zstd::Decoder<'p, B>,
    order: Order,
    payload: &'p Payload,
    entries: u64,
    bytes: u64,
    /// Of the entry that was handed out: bytes not yet read, and the padding behind them.
    open: (u64, usize),
    ended: bool,
}

/// An entry: read it for its bytes; what isn't read is passed over.
pub struct Entry<'e, 'p, B: BufRead> {
    /// Relative path with `/`; plain and below the archive's top.
    pub path: String,
    /// File or folder.
    pub kind: Kind,
    /// Rights, at most 0o777.
    pub mode: u32,
    /// Its bytes.
    pub length: u64,
    from: &'e mut Entries<'p, B>,
}

impl<'p, R: Read> Entries<'p, BufReader<R>> {
    /// Over the compressed payload `from`, whose signed sizes are `payload`.
    ///
    /// # Errors
    /// [`Refusal::Io`] when there is no memory for decompression.
    pub fn new(from: R, payload: &'p Payload) -> Result<Self, Refusal> {
        Self::buffered(BufReader::with_capacity(READ_BYTES, from), payload)
    }
}

impl<'p, B: BufRead> Entries<'p, B> {
    /// As [`Entries::new`], over what is buffered already.
    ///
    /// # Errors
    /// [`Refusal::Io`] when there is no memory for decompression.
    pub fn buffered(from: B, payload: &'p Payload) -> Result<Self, Refusal> {
        let io = |error: io::Error| Refusal::Io(error.to_string());
        let mut tar = zstd::Decoder::with_buffer(from).map_err(io)?;
        tar.window_log_max(WINDOW_LOG).map_err(io)?;
        Ok(Self { tar, order: Order::default(), payload, entries: 0, bytes: 0, open: (0, 0), ended: false })
    }

    /// The next entry; none after a clean end with the signed number of entries and bytes.
    ///
    /// # Errors
    /// [`Refusal::Archive`] with the name and what is wrong with it; [`Refusal::Content`] where it can't be decompressed.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_, 'p, B>>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        self.close()?;
        let mut block = self.block()?;
        if let Some(announced) = block.as_ref().filter(|block| block.kind == Type::LongName) {
            let long_name = self.long_name(announced.length)?;
            block = self.named_block(Some(long_name))?;
        }
        let Some(block) = block else {
            self.end()?;
            return Ok(None);
        };
        let kind = match block.kind {
            Type::File => Kind::File,
            Type::Folder => Kind::Folder,
            Type::LongName => return Err(Refusal::Archive("two long names one after the other".into())),
        };
        let path = if kind == Kind::Folder { block.name.strip_suffix('/').unwrap_or(&block.name).to_owned() } else { block.name };
        self.order.take(&path, kind == Kind::Folder).map_err(Refusal::Archive)?;
        self.count(block.length)?;
        let padding = (BLOCK - (block.length % BLOCK as u64) as usize) % BLOCK;
        self.open = (block.length, padding);
        Ok(Some(Entry { path, kind, mode: block.mode, length: block.length, from: self }))
    }

    fn count(&mut self, length: u64) -> Result<(), Refusal> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(length);
        if self.entries > self.payload.entries || self.bytes > self.payload.unpacked_bytes {
            let Payload { entries, unpacked_bytes, .. } = self.payload;
            return Err(Refusal::Archive(format!("more than the signed {entries} entries or {unpacked_bytes} bytes")));
        }
        Ok(())
    }

    fn block(&mut self) -> Result<Option<Block>, Refusal> {
        self.named_block(None)
    }

    fn named_block(&mut self, long_name: Option<String>) -> Result<Option<Block>, Refusal> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if long_name.is_none() && block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Block::read(&block, long_name).map(Some).map_err(Refusal::Archive)
    }

    fn long_name(&mut self, length: u64) -> Result<String, Refusal> {
        let most = MAX_NAME_BYTES + 16;
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let Some(length) = length else {
            return Err(Refusal::Archive(format!("a name of more than {MAX_NAME_BYTES} bytes")));
        };
        let mut body = vec![0; length.next_multiple_of(BLOCK)];
        self.fill(&mut body)?;
        if body[length..].iter().any(|byte| *byte != 0) {
            return Err(Refusal::Archive("bytes between entries".into()));
        }
        read_long_name(&body[..length]).map_err(Refusal::Archive)
    }

    /// Passes over what is left of the entry before.
    fn close(&mut self) -> Result<(), Refusal> {
        let (left, padding) = std::mem::take(&mut self.open);
        let passed = io::copy(&mut (&mut self.tar).take(left), &mut io::sink()).map_err(|error| unreadable(&error))?;
        if passed != left {
            return Err(Refusal::Archive("it ends within a file".into()));
        }
        let mut rest = [0; BLOCK];
        self.fill(&mut rest[..padding])?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Refusal::Archive("bytes between entries".into()));
        }
        Ok(())
    }

    /// After the first empty block: one more, then nothing.
    fn end(&mut self) -> Result<(), Refusal> {
        self.ended = true;
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        let mut more = [0; 1];
        let behind = self.tar.read(&mut more).map_err(|error| unreadable(&error))?;
        if behind != 0 || block.iter().any(|byte| *byte != 0) {
            return Err(Refusal::Archive("bytes behind its end".into()));
        }
        if self.entries != self.payload.entries || self.bytes != self.payload.unpacked_bytes {
            let Payload { entries, unpacked_bytes, .. } = self.payload;
            let found = format!("{} entries and {} bytes", self.entries, self.bytes);
            return Err(Refusal::Archive(format!("{found}; {entries} and {unpacked_bytes} were signed")));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Refusal> {
        self.tar.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Refusal::Archive("it ends before its end mark".into()),
            _ => unreadable(&error),
        })
    }
}

fn unreadable(error: &io::Error) -> Refusal {
    Refusal::Content(format!("the payload can't be decompressed: {error}"))
}

impl<B: BufRead> Read for Entry<'_, '_, B> {
    /// The entry's bytes; an archive that ends within them is an error, not an end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.from.open.0).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.from.tar.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
        }
        self.from.open.0 -= got as u64;
        Ok(got)
    }
}
