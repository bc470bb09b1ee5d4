//! A file of the kernel's that is read in every round: kept open, since opening it anew costs twice as much as reading it.
//!
//! Read from its begin, the kernel writes it out anew (seq_file, kernfs). It must never be used for a file whose single lines may
//! be longer than half a page (mountinfo), nor where there may be hundreds.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

const PIECE_BYTES: usize = 4096;
/// The kernel gives what fits in a page at once, so that a piece this short is the last: no line is as long as what is left.
const SHORT_BYTES: usize = 2048;
/// Where the first line is enough.
const LINE_BYTES: usize = 512;

/// One of the kernel's files, opened when it is first read.
#[derive(Debug, Default)]
pub(super) struct KernelFile(Option<File>);

impl KernelFile {
    /// What it says now; none if it can't be read. Then it is opened anew the next time: its device may have been replaced.
    pub(super) fn read(&mut self, path: impl FnOnce() -> PathBuf) -> Option<String> {
        let mut text = Vec::new();
        let mut piece = [0; PIECE_BYTES];
        let file = self.open(path)?;
        while let Ok(length) = file.read_at(&mut piece, text.len() as u64) {
            text.extend_from_slice(&piece[..length]);
            if length < SHORT_BYTES {
                return String::from_utf8(text).ok();
            }
        }
        self.0 = None;
        None
    }

    /// Its first 512 bytes.
    pub(super) fn read_begin(&mut self, path: impl FnOnce() -> PathBuf) -> Option<String> {
        let mut begin = [0; LINE_BYTES];
        match self.open(path)?.read_at(&mut begin, 0) {
            Ok(length) => Some(String::from_utf8_lossy(&begin[..length]).into_owned()),
            Err(_) => {
                self.0 = None;
                None
            }
        }
    }

    fn open(&mut self, path: impl FnOnce() -> PathBuf) -> Option<&File> {
        if self.0.is_none() {
            self.0 = Some(File::open(path()).ok()?);
        }
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_each_time_and_opened_anew_after_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("stat");
        let mut file = KernelFile::default();
        assert_eq!(file.read(|| path.clone()), None, "not there yet");
        for length in [0, 5, SHORT_BYTES, PIECE_BYTES, PIECE_BYTES + SHORT_BYTES, 3 * PIECE_BYTES + 7, 3] {
            let text = "x".repeat(length);
            std::fs::write(&path, &text).expect("a file");
            assert_eq!(file.read(|| path.clone()), Some(text), "{length}");
        }
        assert_eq!(file.read_begin(|| path.clone()).as_deref(), Some("xxx"));
        let mut folder = KernelFile::default();
        assert_eq!(folder.read(|| dir.path().to_owned()), None, "a folder can be opened and not read");
        assert_eq!(folder.read(|| path.clone()).as_deref(), Some("xxx"));
    }
}
