//! The spool's bytes: frames in segment files, and how they are found again after damage. Pure, no I/O.
//!
//! A segment is `MSTSPL01` followed by frames. A frame is
//! `F5 4D 53 1D | kind u8 | length u32 LE | CRC32C u32 LE over kind, length and body | body (JSON)`.
//! Kinds: 1 checkpoint, 2 record, 3 record moved here by compaction (it has no effect but its place), 4 acknowledgement,
//! 5 sent mark, 6 filler over a mended bad range, 7 counters. The marker bytes let a reader find the next good frame behind a
//! bad range. Where a sector of a write never arrived there are zeros, which no body but a filler's holds: such a range was never
//! accepted. It is *torn* when it or an unfinished frame ends the segment, *unwritten* when a good frame of the same write follows.
//! Any other bad range is *corrupt* and is reported as a loss.

use std::ops::Range;

/// First bytes of every segment; the digits are the format's version.
pub(super) const SEGMENT_MAGIC: &[u8; 8] = b"MSTSPL01";
const FRAME_MAGIC: &[u8; 4] = b"\xF5MS\x1D";
/// Bytes of a frame before its body.
pub(super) const FRAME_HEAD: usize = 13;

/// What the smallest disks write and lose at once.
pub(super) const SECTOR_BYTES: usize = 512;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Checkpoint = 1,
    Record = 2,
    Moved = 3,
    Ack = 4,
    Sent = 5,
    Filler = 6,
    Counters = 7,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Checkpoint, Self::Record, Self::Moved, Self::Ack, Self::Sent, Self::Filler, Self::Counters];
        all.into_iter().find(|k| *k as u8 == byte)
    }
}

/// One thing found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame whose CRC is right: where it begins and where its body lies.
    Frame { kind: Kind, offset: usize, body: Range<usize> },
    /// Bytes that are no frame.
    Bad(Harm, Range<usize>),
}

/// What became of bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// An end that was never finished.
    Torn,
    /// Part of a write that never arrived, before a part that did.
    Unwritten,
    /// They were changed after they were written.
    Corrupt,
}

impl Harm {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Unwritten => "unwritten",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Appends a frame to `out`.
pub(super) fn put_frame(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(FRAME_MAGIC);
    out.push(kind as u8);
    out.extend_from_slice(&len);
    out.extend_from_slice(&frame_crc(kind as u8, len, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn frame_crc(kind: u8, len: [u8; 4], body: &[u8]) -> u32 {
    let head = crc32c::crc32c(&[kind, len[0], len[1], len[2], len[3]]);
    crc32c::crc32c_append(head, body)
}

/// The frame at the start of `bytes`, if it is whole and right.
pub(super) fn frame_at(bytes: &[u8]) -> Option<(Kind, Range<usize>)> {
    let head = bytes.get(..FRAME_HEAD)?;
    let kind = Kind::from_byte(head[4]).filter(|_| head.starts_with(FRAME_MAGIC))?;
    let len = [head[5], head[6], head[7], head[8]];
    let body = FRAME_HEAD..FRAME_HEAD.checked_add(u32::from_le_bytes(len) as usize)?;
    let crc = u32::from_le_bytes([head[9], head[10], head[11], head[12]]);
    (frame_crc(kind as u8, len, bytes.get(body.clone())?) == crc).then_some((kind, body))
}

/// Everything in a segment, in order. Never panics, whatever the bytes are.
pub(super) fn scan(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    if bytes.starts_with(SEGMENT_MAGIC) {
        at = SEGMENT_MAGIC.len();
    }
    while at < bytes.len() {
        if let Some((kind, body)) = frame_at(&bytes[at..]) {
            let body = at + body.start..at + body.end;
            let next = body.end;
            found.push(Found::Frame { kind, offset: at, body });
            at = next;
        } else {
            let next = next_frame(bytes, at + 1).unwrap_or(bytes.len());
            if next < bytes.len() && next - at < FRAME_HEAD && bytes[at..next].iter().all(|b| *b == 0) {
                at = next;
                continue;
            }
            found.push(Found::Bad(harm(bytes, at..next), at..next));
            at = next;
        }
    }
    found
}

/// What a bad range of a segment at `offset` is overwritten with, so that it is met and counted once only.
pub(super) fn mending(offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = if offset == 0 { SEGMENT_MAGIC[..len.min(SEGMENT_MAGIC.len())].to_vec() } else { Vec::new() };
    match (len - bytes.len()).checked_sub(FRAME_HEAD) {
        Some(body) => put_frame(&mut bytes, Kind::Filler, &vec![0; body]),
        None => bytes.resize(len, 0),
    }
    bytes
}

fn next_frame(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|&at| bytes[at] == FRAME_MAGIC[0] && frame_at(&bytes[at..]).is_some())
}

fn harm(bytes: &[u8], range: Range<usize>) -> Harm {
    let is_end = range.end == bytes.len();
    match (is_end && is_cut_short(&bytes[range.clone()])) || is_unwritten(bytes, range) {
        true if is_end => Harm::Torn,
        true => Harm::Unwritten,
        false => Harm::Corrupt,
    }
}

/// An end that a cut write leaves: fewer bytes than its frame announces.
fn is_cut_short(end: &[u8]) -> bool {
    let head = &end[..end.len().min(FRAME_MAGIC.len())];
    let announced = end.get(5..9).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]]) as usize);
    let cut_short = FRAME_MAGIC.starts_with(head) && announced.is_none_or(|len| end.len() < FRAME_HEAD.saturating_add(len));
    (cut_short && !is_whole_but_for_its_length(end)) || SEGMENT_MAGIC.starts_with(end)
}

/// A last frame that was written whole and whose length was changed later: with the length that it has, its CRC is right.
fn is_whole_but_for_its_length(end: &[u8]) -> bool {
    let (Some(head), Some(body)) = (end.get(..FRAME_HEAD), end.get(FRAME_HEAD..)) else { return false };
    let Ok(len) = u32::try_from(body.len()) else { return false };
    frame_crc(head[4], len.to_le_bytes(), body).to_le_bytes() == head[9..FRAME_HEAD]
}

/// Zeros where data never arrived: at either end of the range or of a sector in it, or more than a frame's head can hold. One
/// flipped bit makes no two zeros.
fn is_unwritten(bytes: &[u8], range: Range<usize>) -> bool {
    let (from, bad) = (range.start, &bytes[range]);
    let at_an_end = bad.first() == Some(&0) || bad.last() == Some(&0);
    let sectors = (from / SECTOR_BYTES + 1..).map(|n| n * SECTOR_BYTES - from).take_while(|at| *at < bad.len());
    let mut sides = sectors.flat_map(|at| [at.saturating_sub(2)..at, at..(at + 2).min(bad.len())]);
    let at_a_sector = sides.any(|side| bad[side].iter().all(|b| *b == 0));
    at_an_end || at_a_sector || bad.windows(FRAME_HEAD).any(|run| run.iter().all(|b| *b == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(bodies: &[&[u8]]) -> Vec<u8> {
        let mut bytes = SEGMENT_MAGIC.to_vec();
        for body in bodies {
            put_frame(&mut bytes, Kind::Record, body);
        }
        bytes
    }

    fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
        let frames = scan(bytes).into_iter();
        frames.filter_map(|f| if let Found::Frame { body, .. } = f { Some(bytes[body].to_vec()) } else { None }).collect()
    }

    #[test]
    fn a_flipped_bit_costs_its_own_frame_only() {
        let good = segment(&[b"one", b"two", b"three"]);
        for bit in SEGMENT_MAGIC.len() * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(bodies(&bad).len(), 2, "bit {bit}");
        }
    }

    #[test]
    fn a_cut_anywhere_is_torn_and_costs_the_last_frame_only() {
        let good = segment(&[b"one", b"two"]);
        let first_end = SEGMENT_MAGIC.len() + FRAME_HEAD + 3;
        for cut in first_end + 1..good.len() {
            let found = scan(&good[..cut]);
            assert!(matches!(found.as_slice(), [Found::Frame { .. }, Found::Bad(Harm::Torn, _)]), "cut at {cut}: {found:?}");
        }
    }

    #[test]
    fn an_end_of_zeros_is_torn_and_an_end_with_a_wrong_crc_is_corrupt() {
        let mut zeros = segment(&[b"one"]);
        zeros.extend_from_slice(&[0; 100]);
        assert!(matches!(scan(&zeros)[1], Found::Bad(Harm::Torn, _)));
        let mut wrong = segment(&[b"one", b"two"]);
        *wrong.last_mut().unwrap() ^= 1;
        assert!(matches!(scan(&wrong)[1], Found::Bad(Harm::Corrupt, _)));
    }

    #[test]
    fn a_mended_range_is_no_longer_bad() {
        let good = segment(&[b"one", b"a longer second", b"three"]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Some(Found::Bad(Harm::Corrupt, range)) =
                scan(&bad).into_iter().find(|f| matches!(f, Found::Bad(Harm::Corrupt, _)))
            else {
                continue;
            };
            let mended = mending(range.start, range.len());
            bad[range].copy_from_slice(&mended);
            assert!(scan(&bad).iter().all(|f| matches!(f, Found::Frame { .. })), "bit {bit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_scanner_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let covered: usize = scan(&bytes).into_iter().map(|f| match f {
                Found::Frame { offset, body, .. } => body.end - offset,
                Found::Bad(_, r) => r.len(),
            }).sum();
            proptest::prop_assert_eq!(covered, bytes.len());
        }
    }
}
