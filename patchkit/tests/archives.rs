//! Archives: what is packed comes out again, and what no archive of ours would hold is refused before a byte of it is handed out (R6).
#![expect(clippy::unwrap_used, reason = "tests may")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mainstay_patchkit::archive::{Entries, Kind, Packed, TreeHash, pack, tree_hash};
use mainstay_patchkit::crypto::sha256;
use mainstay_patchkit::manifest::Payload;
use mainstay_patchkit::refusal::Refusal;
use proptest::prelude::*;

/// Everything of an archive, or the first refusal; what was handed out before it is counted.
fn read(bytes: &[u8], payload: &Payload) -> (usize, Result<String, Refusal>) {
    let mut handed_out = 0;
    let mut hash = TreeHash::default();
    let outcome = (|| {
        let mut entries = Entries::new(bytes, payload)?;
        while let Some(mut entry) = entries.next_entry()? {
            handed_out += 1;
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|error| Refusal::Content(error.to_string()))?;
            match entry.kind {
                Kind::Folder => hash.add_dir(&entry.path, entry.mode),
                Kind::File => hash.add_file(&entry.path, entry.mode, entry.length, &sha256(&content)),
            }
        }
        Ok(())
    })();
    (handed_out, outcome.map(|()| hash.finish()))
}

fn packed(top: &Path) -> (Packed, Vec<u8>) {
    let mut bytes = Vec::new();
    let packed = pack(top, 3, &mut bytes).unwrap();
    (packed, bytes)
}

#[test]
fn what_is_packed_comes_out_the_same() {
    let top = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "资料".repeat(20), "x".repeat(200));
    for (path, content) in [("bin/web", "#!"), ("bin-old/a", ""), ("etc/deep/er/file", "content"), (long.as_str(), "far")] {
        let path = top.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }
    fs::write(top.path().join("large"), vec![7; 3 << 20]).unwrap();
    let rights_of_web = |mode| {
        fs::set_permissions(top.path().join("bin/web"), fs::Permissions::from_mode(mode)).unwrap();
    };
    rights_of_web(0o755);
    let (packed_once, bytes) = packed(top.path());
    let (entries, hash) = read(&bytes, &packed_once.payload);
    assert_eq!(hash.unwrap(), packed_once.tree_sha256);
    assert_eq!(entries as u64, packed_once.payload.entries);
    assert_eq!(packed_once.payload.length, bytes.len() as u64);
    assert_eq!(hex::encode(sha256(&bytes)), packed_once.payload.sha256);
    assert_eq!(packed(top.path()).1, bytes, "the same folder gives the same bytes");
    rights_of_web(0o700);
    assert_eq!(packed(top.path()).1, bytes, "rights are made plain");
    rights_of_web(0o755);
    assert_eq!(tree_hash(top.path()).unwrap(), packed_once.tree_sha256, "what stands on the disk has the hash that was signed");
    fs::write(top.path().join("bin/web"), "#?").unwrap();
    assert_ne!(tree_hash(top.path()).unwrap(), packed_once.tree_sha256);
    symlink("/etc/passwd", top.path().join("link")).unwrap();
    assert!(tree_hash(top.path()).is_err());
    assert!(pack(top.path(), 3, Vec::new()).is_err());
}

/// A tar of entries (name, type, mode, link target, content).
fn tar(entries: &[(&str, u8, u32, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, mode, target, content) in entries {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[136..147].copy_from_slice(b"00000000000");
        block[148..156].copy_from_slice(b"        ");
        block[156] = *kind;
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

fn zipped(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

fn signed(entries: u64, unpacked_bytes: u64) -> Payload {
    Payload { length: 1, sha256: String::new(), entries, unpacked_bytes, delta_from: None }
}

type Row<'r> = (&'r str, u8, u32, &'r str, &'r [u8]);

#[test]
fn what_no_archive_of_ours_holds_is_refused() {
    const FILE: u8 = b'0';
    const FOLDER: u8 = b'5';
    let rows: [(&str, &[Row<'_>]); 17] = [
        ("climbs out", &[("../etc/passwd", FILE, 0o644, "", b"x")]),
        ("climbs out within", &[("a", FOLDER, 0o755, "", b""), ("a/../../x", FILE, 0o644, "", b"x")]),
        ("an absolute name", &[("/etc/passwd", FILE, 0o644, "", b"x")]),
        ("a symbolic link", &[("a", b'2', 0o777, "/etc", b"")]),
        ("a hard link", &[("a", b'1', 0o644, "b", b"")]),
        ("a device", &[("a", b'3', 0o644, "", b"")]),
        ("a pipe", &[("a", b'6', 0o644, "", b"")]),
        ("a name of GNU's own kind", &[("a", b'L', 0o644, "", b"x")]),
        ("a sparse file", &[("a", b'S', 0o644, "", b"x")]),
        ("a file with the rights of its owner", &[("a", FILE, 0o4755, "", b"x")]),
        ("a file with a link's target", &[("a", FILE, 0o644, "b", b"x")]),
        ("a file below a file", &[("a", FILE, 0o644, "", b""), ("a/b", FILE, 0o644, "", b"x")]),
        ("below a folder that isn't there", &[("a/b", FILE, 0o644, "", b"x")]),
        ("an empty part", &[("a", FOLDER, 0o755, "", b""), ("a//b", FILE, 0o644, "", b"x")]),
        ("a dot", &[("./a", FILE, 0o644, "", b"x")]),
        ("a control character", &[("a\nb", FILE, 0o644, "", b"x")]),
        ("a folder with bytes", &[("a", FOLDER, 0o755, "", b"x")]),
    ];
    for (why, entries) in rows {
        let (_, outcome) = read(&zipped(&tar(entries)), &signed(entries.len() as u64, 1));
        assert_eq!(outcome.expect_err(why).code(), "bad_archive", "{why}");
    }
    let twice: &[Row<'_>] = &[("a", FILE, 0o644, "", b"1"), ("a", FILE, 0o644, "", b"2")];
    assert_eq!(read(&zipped(&tar(twice)), &signed(2, 2)).1.unwrap_err().code(), "bad_archive", "named twice");
    let unordered: &[Row<'_>] = &[("b", FILE, 0o644, "", b"1"), ("a", FILE, 0o644, "", b"2"), ("b", FILE, 0o644, "", b"3")];
    assert_eq!(read(&zipped(&tar(unordered)), &signed(3, 3)).1.unwrap_err().code(), "bad_archive", "named twice, far apart");
}

#[test]
fn more_or_less_than_signed_is_refused() {
    let good = tar(&[("a", b'0', 0o644, "", b"12"), ("b", b'0', 0o644, "", b"3")]);
    assert!(read(&zipped(&good), &signed(2, 3)).1.is_ok());
    for (entries, bytes) in [(1, 3), (2, 2), (3, 3), (2, 4)] {
        let (_, outcome) = read(&zipped(&good), &signed(entries, bytes));
        assert_eq!(outcome.unwrap_err().code(), "bad_archive", "{entries} entries and {bytes} bytes were signed");
    }
    let (handed_out, outcome) = read(&zipped(&tar(&[("bomb", b'0', 0o644, "", &vec![0; 10 << 20])])), &signed(1, 1000));
    assert_eq!((handed_out, outcome.unwrap_err().code()), (0, "bad_archive"), "a bomb is refused before any of it comes out");
    for cut in [10, 511, 512, 513, good.len() - 1024, good.len() - 512, good.len() - 1] {
        assert!(read(&zipped(&good[..cut]), &signed(2, 3)).1.is_err(), "ends at {cut}");
    }
    let behind = [&good[..], &[0; 512]].concat();
    assert_eq!(read(&zipped(&behind), &signed(2, 3)).1.unwrap_err().code(), "bad_archive", "bytes behind its end");
    let torn = zipped(&good);
    assert!(read(&torn[..torn.len() - 3], &signed(2, 3)).1.is_err(), "torn compression");
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.include_contentsize(false).unwrap();
    wide.write_all(&good).unwrap();
    assert_eq!(read(&wide.finish().unwrap(), &signed(2, 3)).1.unwrap_err().code(), "bad_content", "wants 128 MiB of memory");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_tar_makes_the_reader_panic(changes in prop::collection::vec((0..3072_usize, any::<u8>()), 0..6), junk in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = tar(&[("a", b'5', 0o755, "", b""), ("a/b", b'0', 0o644, "", b"12"), ("c", b'x', 0o644, "", b"12 path=long\n")]);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.extend_from_slice(&junk);
        let (_, outcome) = read(&zipped(&bytes), &signed(3, 20));
        if let Err(refusal) = outcome {
            prop_assert!(matches!(refusal.code(), "bad_archive" | "bad_content"), "{refusal}");
        }
    }
}
