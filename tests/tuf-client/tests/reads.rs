//! What `mainstay-release` publishes is read by two clients: python-tuf from PyPI (scripts/setup.sh tuf) and ours over HTTP.

#![expect(clippy::unwrap_used, reason = "tests may")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CLIENT: &str = env!("CARGO_BIN_EXE_tuf-client");
const TARGET: &str = "acme-gateway-2.1.0.payload";

fn run(folder: &Path, program: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(program).current_dir(folder).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}: build the whole workspace first", program.display()))
}

#[track_caller]
fn done(folder: &Path, program: &Path, arguments: &[&str]) -> String {
    let output = run(folder, program, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A repository with a patch, signed by two of three, online roles included, at the machine's own time.
fn published() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let release = Path::new(CLIENT).with_file_name("mainstay-release");
    let tool = |arguments: &[&str]| done(folder.path(), &release, arguments);
    fs::write(folder.path().join("pass"), "correct horse battery\n").unwrap();
    for name in ["anna", "ben", "cleo", "online"] {
        let out = format!("{name}.key");
        tool(&["keys", "new", "--out", &out, "--name", name, "--passphrase-file", "pass", "--work-factor", "10"]);
    }
    let keys = ["--key", "anna.key.pub", "--key", "ben.key.pub", "--key", "cleo.key.pub"];
    let rest = ["--product", "acme-gateway", "--online", "online.key.pub", "--out", "first.bundle"];
    tool(&[&["init", "--repository", "repository"][..], &keys, &rest].concat());
    let publish = |bundle: &str| {
        for key in ["anna.key", "cleo.key"] {
            tool(&["sign", bundle, "--key", key, "--passphrase-file", "pass", "--yes"]);
        }
        tool(&["publish", bundle, "--repository", "repository", "--online-keys", "online.key", "--passphrase-file", "pass"]);
    };
    publish("first.bundle");
    fs::create_dir(folder.path().join("tree")).unwrap();
    fs::write(folder.path().join("tree/web"), "repaired").unwrap();
    let draft = "product = \"acme-gateway\"\nversion = \"2.1.0\"\ntitle = { zh = \"修复\", en = \"Repair\" }\n[patch]\nas = \"tree\"\n\
                 from = \"*\"\ndata_change = \"none\"\nhealth = { consecutive_ok = 1, deadline_s = 60 }\n";
    fs::write(folder.path().join("draft.toml"), draft).unwrap();
    tool(&["build", "--kind", "patch", "draft.toml", "--dir", "tree", "--repository", "repository", "--out", "patch.bundle"]);
    publish("patch.bundle");
    folder
}

fn payload(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(TARGET)).unwrap()
}

#[track_caller]
fn python() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let python = workspace.join("target/tuf-venv/bin/python");
    assert!(python.exists(), "{}: run scripts/setup.sh tuf", python.display());
    python
}

#[test]
fn our_client_holds_against_repositories_that_python_tuf_writes() {
    let writer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/writer.py");
    let held = done(Path::new("."), &python(), &[writer, CLIENT]);
    assert!(held.lines().count() > 10, "{held}");
}

#[test]
fn python_tuf_reads_what_was_published() {
    let python = python();
    let folder = published();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["store", "out"] {
        fs::create_dir(path(name)).unwrap();
    }
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader.py");
    done(folder.path(), &python, &[reader, &path("repository"), &path("store"), TARGET, &path("out")]);
    assert_eq!(fs::read(folder.path().join("out").join(TARGET)).unwrap(), payload(folder.path()));
}

/// Serves a folder over HTTP/1.1, one request per connection, until the process ends.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").trim_start_matches('/');
            let (status, body) = fs::read(folder.join(path)).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
                continue;
            }
        }
    });
    format!("http://{address}")
}

#[test]
fn our_client_reads_what_was_published_and_keeps_it_byte_for_byte() {
    let folder = published();
    let base = serve(folder.path().join("repository"));
    let (metadata, targets) = (format!("{base}/metadata/"), format!("{base}/targets/"));
    let client = |arguments: &[&str]| run(folder.path(), Path::new(CLIENT), arguments);
    let refresh = ["--metadata-url", &metadata, "--metadata-dir", "store", "refresh"];
    assert_eq!(client(&refresh).status.code(), Some(1), "not set up");
    assert_eq!(client(&["--metadata-dir", "store", "init", "repository/metadata/1.root.json"]).status.code(), Some(0));
    assert_eq!(client(&refresh).status.code(), Some(0));
    let download = |name: &str| {
        let from = ["--metadata-url", &metadata, "--metadata-dir", "store", "--target-name", name];
        client(&[&from[..], &["--target-dir", "out", "--target-base-url", &targets, "download"]].concat())
    };
    assert_eq!(download("nothing").status.code(), Some(1));
    assert_eq!(download(TARGET).status.code(), Some(0));
    assert_eq!(fs::read(folder.path().join("out").join(TARGET)).unwrap(), payload(folder.path()));
    for (held, published) in [
        ("root.json", "1.root.json"),
        ("timestamp.json", "timestamp.json"),
        ("snapshot.json", "2.snapshot.json"),
        ("targets.json", "1.targets.json"),
        ("acme-gateway-offline.json", "2.acme-gateway-offline.json"),
    ] {
        let same = fs::read(folder.path().join("store").join(held)).unwrap()
            == fs::read(folder.path().join("repository/metadata").join(published)).unwrap();
        assert!(same, "{held}");
    }
    // A swapped target is not taken, and what was there stays.
    let targets_dir = folder.path().join("repository/targets");
    let lies = fs::read_dir(&targets_dir).unwrap().map(|entry| entry.unwrap().path());
    let lies = lies.into_iter().find(|path| path.to_str().unwrap().ends_with(".manifest.json")).unwrap();
    fs::write(lies, "evil").unwrap();
    assert_eq!(download("acme-gateway-2.1.0.manifest.json").status.code(), Some(1));
    assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1, "nothing half is left");
}
