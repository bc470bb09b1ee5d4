//! The ceremony as its people do it: keys on machines of their own, a bundle passed on, a lost key, stolen online keys.

#![expect(clippy::unwrap_used, reason = "tests may")]

mod names;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mainstay_patchkit::authoring::{Envelope, Named, snapshot_text, timestamp_text};
use mainstay_patchkit::online::{Client, OnlineError, Repository, Store, Unreachable};
use mainstay_patchkit::sample::{self, DAY_MS, ISSUED_AT};
use mainstay_shared::time_source::UnixMs;
use serde_json::{Value, json};

/// A table with everybody's machines on it.
struct Table {
    folder: tempfile::TempDir,
    now: UnixMs,
}

impl Table {
    fn new() -> Self {
        let table = Self { folder: tempfile::tempdir().unwrap(), now: ISSUED_AT };
        fs::write(table.path("pass"), "correct horse battery\n").unwrap();
        for name in ["anna", "ben", "cleo", "dora"] {
            table.done(&[
                "keys",
                "new",
                "--out",
                &format!("{name}.key"),
                "--name",
                name,
                "--passphrase-file",
                "pass",
                "--work-factor",
                "10",
            ]);
        }
        table.online_key(31, "online.pub");
        table
    }

    fn online_key(&self, number: u8, file: &str) {
        let key = json!({"name": "collector", "ed25519": sample::key(number).unwrap().public()});
        fs::write(self.path(file), key.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay-release"));
        command.current_dir(self.folder.path()).args(["--json", "--at", &self.now.0.to_string()]).args(arguments);
        command.output().unwrap()
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, code: i32, told: &str, arguments: &[&str]) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(told)), (Some(code), true), "{arguments:?}: {said}");
    }

    fn sign(&self, bundle: &str, names: &[&str]) {
        for name in names {
            self.done(&["sign", bundle, "--key", &format!("{name}.key"), "--passphrase-file", "pass", "--yes"]);
        }
    }

    fn init(&self) {
        let keys = ["--key", "anna.key.pub", "--key", "ben.key.pub", "--key", "cleo.key.pub"];
        let rest = ["--product", sample::PRODUCT, "--online", "online.pub", "--out", "first.bundle"];
        self.done(&[&["init", "--repository", "repository"][..], &keys, &rest].concat());
    }

    /// Begins, and publishes 2.1.0.
    fn begun() -> Self {
        let table = Self::new();
        table.init();
        table.sign("first.bundle", &["anna", "ben"]);
        table.done(&["publish", "first.bundle", "--repository", "repository"]);
        table.build("2.1.0", "patch.bundle");
        table.sign("patch.bundle", &["anna", "ben"]);
        table.done(&["publish", "patch.bundle", "--repository", "repository"]);
        table
    }

    fn draft(&self, version: &str) {
        fs::create_dir_all(self.path("tree/bin")).unwrap();
        fs::write(self.path("tree/bin/web"), format!("#!/bin/sh\necho {version}\n")).unwrap();
        let draft = format!(
            "product = \"{}\"\nversion = \"{version}\"\ntitle = {{ zh = \"修复\", en = \"Repair\" }}\n\
             [patch]\nas = \"tree\"\nfrom = \">=2.0.0\"\nservices = [\"web\"]\ndata_change = \"none\"\n\
             health = {{ consecutive_ok = 3, deadline_s = 60 }}\n",
            sample::PRODUCT
        );
        fs::write(self.path("draft.toml"), draft).unwrap();
    }

    fn build(&self, version: &str, out: &str) -> Value {
        self.draft(version);
        self.done(&[
            "build",
            "--kind",
            "patch",
            "draft.toml",
            "--dir",
            "tree",
            "--repository",
            "repository",
            "--out",
            out,
            "--level",
            "3",
        ])
    }

    /// Signs snapshot and timestamp as the collector does, or as a thief of its keys.
    fn online(&self, key: u8, version: u64) {
        let metadata = self.path("repository/metadata");
        let mut newest: BTreeMap<String, (u64, Named)> = BTreeMap::new();
        for entry in fs::read_dir(&metadata).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some((number, role)) = name.strip_suffix(".json").and_then(|name| name.split_once('.')) else { continue };
            let number: u64 = number.parse().unwrap();
            if !matches!(role, "root" | "snapshot") && newest.get(&format!("{role}.json")).is_none_or(|(held, _)| *held < number)
            {
                newest.insert(format!("{role}.json"), (number, Named::of(&fs::read(metadata.join(&name)).unwrap())));
            }
        }
        let sign = |text: Value| {
            let mut envelope = Envelope::new(text);
            envelope.sign(&sample::key(key).unwrap()).unwrap();
            envelope.to_bytes().unwrap()
        };
        let snapshot = sign(snapshot_text(version, self.now.plus_ms(7 * DAY_MS), &newest));
        fs::write(metadata.join(format!("{version}.snapshot.json")), &snapshot).unwrap();
        let timestamp = sign(timestamp_text(version, self.now.plus_ms(DAY_MS), (version, Named::of(&snapshot))));
        fs::write(metadata.join("timestamp.json"), timestamp).unwrap();
    }

    /// An appliance's online client over the repository's folder.
    fn client(&self, store: &Path) -> Client<Folder> {
        let store = Store::open(store).unwrap();
        if !self.path("seen").exists() {
            store.begin(&fs::read(self.path("repository/metadata/1.root.json")).unwrap()).unwrap();
            fs::write(self.path("seen"), "").unwrap();
        }
        Client::open(Folder(self.path("repository/metadata")), store).unwrap()
    }

    fn refresh(&self) -> Result<Client<Folder>, OnlineError> {
        let mut client = self.client(&self.path("store"));
        block_on(client.refresh(self.now))?;
        Ok(client)
    }
}

struct Folder(PathBuf);

impl Repository for Folder {
    async fn metadata(&self, name: &str, _most_bytes: u64) -> Result<Option<Vec<u8>>, Unreachable> {
        Ok(fs::read(self.0.join(name)).ok())
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn two_of_three_sign_on_machines_of_their_own() {
    let table = Table::new();
    table.init();
    table.refused(73, "exists already", &["keys", "new", "--out", "anna.key", "--name", "anna", "--passphrase-file", "pass"]);
    fs::write(table.path("wrong"), "not the passphrase\n").unwrap();
    table.refused(77, "cannot be opened", &["sign", "first.bundle", "--key", "anna.key", "--passphrase-file", "wrong", "--yes"]);
    table.refused(77, "signs for none", &["sign", "first.bundle", "--key", "dora.key", "--passphrase-file", "pass", "--yes"]);
    table.refused(64, "--yes", &["sign", "first.bundle", "--key", "anna.key", "--passphrase-file", "pass"]);
    // Anna and Ben sign copies at the same time; the copies are merged.
    fs::copy(table.path("first.bundle"), table.path("copy.bundle")).unwrap();
    table.sign("first.bundle", &["anna", "anna"]);
    table.refused(77, "1 more must sign", &["publish", "first.bundle", "--repository", "repository"]);
    table.sign("copy.bundle", &["ben"]);
    let merged = table.done(&["sign", "first.bundle", "--merge", "copy.bundle"]);
    assert!(merged["missing"].as_object().unwrap().values().all(|missing| *missing == json!(0)), "{merged}");
    table.done(&["publish", "first.bundle", "--repository", "repository"]);
    table.refused(77, "expected 2", &["publish", "first.bundle", "--repository", "repository"]);

    let built = table.build("2.1.0", "patch.bundle");
    assert_eq!(built["missing"], json!({"acme-gateway-offline": 2}));
    table.sign("patch.bundle", &["anna", "cleo"]);
    let published = table.done(&["publish", "patch.bundle", "--repository", "repository"]);
    assert_eq!(published["files"], json!(["acme-gateway-2.1.0.mpatch"]));
    let root = ["--root", "repository/metadata/1.root.json"];
    let verified = table.done(&[&["verify", "repository/files/acme-gateway-2.1.0.mpatch"][..], &root].concat());
    assert_eq!(verified["role_version"], json!(2));
    let inspected = table.done(&["inspect", "repository/files/acme-gateway-2.1.0.mpatch"]);
    assert_eq!(inspected["manifest"]["version"], json!("2.1.0"));
    table.draft("2.1.0");
    let again =
        ["build", "--kind", "patch", "draft.toml", "--dir", "tree", "--repository", "repository", "--out", "again.bundle"];
    table.refused(73, "published already", &again);
}

#[test]
fn what_is_not_explained_is_not_signed() {
    let table = Table::new();
    table.init();
    table.sign("first.bundle", &["anna", "ben"]);
    table.done(&["publish", "first.bundle", "--repository", "repository"]);
    table.build("2.1.0", "patch.bundle");
    let good: Value = serde_json::from_slice(&fs::read(table.path("patch.bundle")).unwrap()).unwrap();
    let sign = ["sign", "patch.bundle", "--key", "anna.key", "--passphrase-file", "pass", "--yes"];
    let bend = |told: &str, bend: &dyn Fn(&mut Value)| {
        let mut bent = good.clone();
        bend(&mut bent);
        fs::write(table.path("patch.bundle"), bent.to_string()).unwrap();
        table.refused(65, told, &sign);
    };
    bend("not what the bundle's manifests say", &|bundle| bundle["manifests"] = json!([]));
    bend("not what the bundle's manifests say", &|bundle| {
        let targets = &mut bundle["documents"][0]["signed"]["targets"];
        targets["acme-gateway-evil.payload"] = targets["acme-gateway-2.1.0.payload"].clone();
    });
    bend("cannot be read back", &|bundle| bundle["documents"][0]["signed"]["version"] = json!(1.5));
    bend("cannot be read back", &|bundle| bundle["documents"][0]["signed"]["expires"] = json!("never"));
    bend("more than can be shown", &|bundle| bundle["documents"][0]["signed"]["x-also"] = json!("this"));
    bend("form", &|bundle| bundle["form"] = json!("mainstay-signing-bundle-9"));
    // Somebody swaps the payload on the way to the repository.
    fs::write(table.path("patch.bundle"), good.to_string()).unwrap();
    table.sign("patch.bundle", &["anna", "ben"]);
    fs::write(table.path("acme-gateway-2.1.0.payload"), "evil").unwrap();
    table.refused(77, "an appliance would refuse it", &["publish", "patch.bundle", "--repository", "repository"]);
    assert!(!table.path("repository/files/acme-gateway-2.1.0.mpatch").exists());
    assert!(!table.path("repository/metadata/2.acme-gateway-offline.json").exists());
}

#[test]
fn a_lost_key_is_replaced_by_the_others() {
    let table = Table::begun();
    let rotate = [
        "keys",
        "rotate",
        "--repository",
        "repository",
        "--old",
        "anna.key.pub",
        "--new",
        "dora.key.pub",
        "--out",
        "rotate.bundle",
    ];
    let bundle = table.done(&rotate);
    assert_eq!(bundle["missing"], json!({"root": 2, "targets": 2, "acme-gateway-offline": 2}));
    // Dora alone with one of the others would do for the new root, not for the old.
    table.sign("rotate.bundle", &["dora", "ben"]);
    table.refused(77, "root: 1 more must sign", &["publish", "rotate.bundle", "--repository", "repository"]);
    table.sign("rotate.bundle", &["cleo"]);
    let published = table.done(&["publish", "rotate.bundle", "--repository", "repository"]);
    assert_eq!(published["files"], json!(["acme-gateway-2.1.0.mpatch"]), "the file is wrapped anew");
    for root in ["1.root.json", "2.root.json"] {
        let root = format!("repository/metadata/{root}");
        table.done(&["verify", "repository/files/acme-gateway-2.1.0.mpatch", "--root", &root]);
    }
    table.build("2.2.0", "next.bundle");
    table.refused(77, "signs for none", &["sign", "next.bundle", "--key", "anna.key", "--passphrase-file", "pass", "--yes"]);
    table.sign("next.bundle", &["dora", "ben"]);
    table.done(&["publish", "next.bundle", "--repository", "repository"]);
    let revoke =
        ["keys", "revoke", "--repository", "repository", "--old", "cleo.key.pub", "--out", "revoke.bundle", "--threshold", "1"];
    table.done(&revoke);
    let too_high = [
        "keys",
        "add",
        "--repository",
        "repository",
        "--role",
        "root",
        "--key",
        "anna.key.pub",
        "--threshold",
        "9",
        "--out",
        "x",
    ];
    table.refused(64, "threshold 9 of 4", &too_high);
}

#[test]
fn files_run_out_and_are_renewed() {
    let mut table = Table::begun();
    table.now = ISSUED_AT.plus_ms(181 * DAY_MS);
    let verify = ["verify", "repository/files/acme-gateway-2.1.0.mpatch", "--root", "repository/metadata/1.root.json"];
    table.refused(77, "[expired]", &verify);
    let renew = ["keys", "renew", "--repository", "repository", "--role", sample::PRODUCT, "--out", "renew.bundle"];
    assert_eq!(table.done(&renew)["missing"], json!({"acme-gateway-offline": 2}));
    table.sign("renew.bundle", &["ben", "cleo"]);
    table.done(&["publish", "renew.bundle", "--repository", "repository"]);
    table.done(&verify);
}

#[test]
fn after_theft_of_the_online_keys_new_ones_start_afresh() {
    let table = Table::begun();
    table.online(31, 1);
    let client = table.refresh().unwrap();
    assert_eq!(client.root_version(), 1);
    // The thief can't inject, but drives the versions up, so that nothing of ours seems newer any more.
    table.online(31, 1_000_000);
    table.refresh().unwrap();
    table.online(31, 2);
    assert!(table.refresh().is_err(), "older than what was seen");
    table.online_key(41, "online2.pub");
    let rotate =
        ["keys", "rotate", "--repository", "repository", "--old", "online.pub", "--new", "online2.pub", "--out", "rotate.bundle"];
    assert_eq!(table.done(&rotate)["missing"], json!({"root": 2}));
    table.sign("rotate.bundle", &["anna", "ben"]);
    table.done(&["publish", "rotate.bundle", "--repository", "repository"]);
    table.online(41, 3);
    let mut client = table.refresh().unwrap();
    assert_eq!(client.root_version(), 2);
    let located = block_on(client.locate("acme-gateway-2.1.0.payload", table.now)).unwrap().unwrap();
    assert!(located.is(fs::File::open(table.path("repository/targets").join(&located.path)).unwrap()).unwrap());
    assert!(block_on(client.locate("acme-gateway-9.payload", table.now)).unwrap().is_none());
    table.online(31, 2_000_000);
    assert!(table.refresh().is_err(), "the thief's keys count for nothing now");
}

#[test]
fn a_torn_store_keeps_its_floors() {
    let table = Table::begun();
    table.online(31, 5);
    table.refresh().unwrap();
    for (name, bytes) in [("timestamp.json", &b"{\"signed\":{"[..]), ("timestamp.json", b""), ("snapshot.json", b"\0\0\0")] {
        fs::write(table.path("store").join(name), bytes).unwrap();
        table.online(31, 4);
        assert!(table.refresh().is_err(), "{name} is torn, and an older one is offered");
        table.online(31, 6);
        table.refresh().unwrap();
        table.online(31, 5);
        fs::write(table.path("store").join("floors"), b"torn").unwrap();
        assert!(table.refresh().is_err(), "the metadata is a floor too");
        table.online(31, 7);
        table.refresh().unwrap();
        table.now_back_to(5);
    }
}

impl Table {
    /// A store of another appliance, which saw `version`.
    fn now_back_to(&self, version: u64) {
        fs::remove_dir_all(self.path("store")).unwrap();
        fs::remove_file(self.path("seen")).unwrap();
        self.online(31, version);
        self.refresh().unwrap();
    }
}

#[test]
fn a_frozen_repository_is_noticed() {
    let mut table = Table::begun();
    table.online(31, 1);
    table.refresh().unwrap();
    table.now = ISSUED_AT.plus_ms(2 * DAY_MS);
    assert!(table.refresh().is_err(), "the timestamp has run out");
    table.online(31, 2);
    table.refresh().unwrap();
}

#[test]
fn an_update_of_the_agent_is_built_from_its_one_program_only() {
    let table = Table::begun();
    table.draft("0.2.0");
    let draft = fs::read_to_string(table.path("draft.toml")).unwrap();
    let draft = draft.replace("\"tree\"", "\"agent\"").replace("services = [\"web\"]\n", "").replace(">=2.0.0", ">=0.1.0");
    fs::write(table.path("draft.toml"), draft).unwrap();
    let build = ["build", "--kind", "patch", "draft.toml", "--dir", "agent", "--repository", "repository", "--out", "a.bundle"];
    let rights = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    let agent = table.path("agent/mainstay-agent");
    fs::create_dir(table.path("agent")).unwrap();
    fs::write(&agent, "a program").unwrap();
    table.refused(64, "one program, mainstay-agent", &build);
    fs::set_permissions(&agent, rights(0o755)).unwrap();
    fs::write(table.path("agent/README"), "more").unwrap();
    table.refused(64, "nothing beside it", &build);
    fs::remove_file(table.path("agent/README")).unwrap();
    table.done(&build);
    assert!(table.path("acme-gateway-agent-0.2.0.payload").exists(), "named apart from the product's 0.2.0");
}
