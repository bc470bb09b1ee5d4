//! What an appliance refuses, and why: each row bends one thing of a file that would otherwise be taken.
#![expect(clippy::unwrap_used, reason = "tests may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use mainstay_patchkit::archive::{Packed, pack};
use mainstay_patchkit::authoring::Envelope;
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::{Body, DataChange, Manifest, Patch, Withdrawal};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::sample::{self, DAY_MS, ISSUED_AT, Vendor, key, sign, signers, whole};
use mainstay_patchkit::verify::{Facts, Trust, Verified, verify};
use mainstay_shared::patch::PatchKind;
use mainstay_shared::time_source::UnixMs;
use proptest::prelude::*;
use semver::Version;
use serde_json::{Value, json};

/// An appliance with the sample product 2.0.0, a day after everything was signed.
struct Appliance {
    trust: Trust,
    product: String,
    installed: Option<Version>,
    agent: Version,
    documents: BTreeMap<PatchKind, Version>,
    features: BTreeSet<String>,
    withdrawn: BTreeSet<String>,
    failed: BTreeSet<String>,
    now: UnixMs,
}

impl Appliance {
    fn new() -> Self {
        Self {
            trust: Trust { root: Vendor::default().root_json().unwrap(), targets_floor: 1, role_floor: 1 },
            product: sample::PRODUCT.into(),
            installed: Some(Version::new(2, 0, 0)),
            agent: Version::new(0, 1, 0),
            documents: BTreeMap::new(),
            features: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            failed: BTreeSet::new(),
            now: ISSUED_AT.plus_ms(DAY_MS),
        }
    }

    fn judge(&self, bytes: &[u8]) -> Result<Verified, Refusal> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let facts = Facts {
            product: &self.product,
            hardware: "gw-2000",
            serial: "S1",
            installed: self.installed.as_ref(),
            agent: Some(&self.agent),
            documents: &self.documents,
            features: &self.features,
            withdrawn: &self.withdrawn,
            failed: &self.failed,
            now: self.now,
        };
        verify(&file, &self.trust, &facts)
    }

    #[track_caller]
    fn refuses(&self, why: &str, code: &str, bytes: &[u8]) {
        match self.judge(bytes) {
            Ok(_) => panic!("{why}: taken"),
            Err(refusal) => assert_eq!(refusal.code(), code, "{why}: {refusal}"),
        }
    }
}

fn payload(top: &Path) -> (Packed, Vec<u8>) {
    fs::create_dir_all(top.join("bin")).unwrap();
    fs::write(top.join("bin/web"), "#!/bin/sh\n").unwrap();
    let mut bytes = Vec::new();
    let packed = pack(top, 3, &mut bytes).unwrap();
    (packed, bytes)
}

/// A good patch to 2.1.0: its manifest, payload and header.
fn good() -> (Manifest, Vec<u8>, Header) {
    static GOOD: OnceLock<(Manifest, Vec<u8>, Header)> = OnceLock::new();
    let make = || {
        let top = tempfile::tempdir().unwrap();
        let (packed, payload) = payload(top.path());
        let manifest = sample::tree_patch(Version::new(2, 1, 0), &packed);
        let header = Vendor::default().header(&manifest).unwrap();
        (manifest, payload, header)
    };
    GOOD.get_or_init(make).clone()
}

fn signed_text(bytes: &[u8]) -> Value {
    Envelope::read(bytes).unwrap().signed
}

#[test]
fn a_good_file_is_taken_and_told_as_it_is() {
    let (manifest, payload, header) = good();
    let bytes = whole(&header, &payload).unwrap();
    let verified = Appliance::new().judge(&bytes).unwrap();
    assert_eq!(verified.manifest, manifest);
    assert_eq!(verified.payload_length, payload.len() as u64);
    assert_eq!(verified.payload_offset, (bytes.len() - payload.len()) as u64);
    assert_eq!((verified.root_version, verified.targets_version, verified.role_version), (1, 1, 1));
    assert_eq!(verified.expires_at, Vendor::default().expires_at);
    assert!(verified.roots.is_empty(), "the trusted root is not handed out again");
}

#[test]
fn a_damaged_file_is_refused() {
    let (_, payload, header) = good();
    let bytes = whole(&header, &payload).unwrap();
    let appliance = Appliance::new();
    appliance.refuses("empty", "bad_format", b"");
    appliance.refuses("another form", "bad_format", &[b"PK".as_slice(), &bytes].concat());
    for cut in [8, 11, 100, bytes.len() - payload.len(), bytes.len() - 1] {
        appliance.refuses("truncated", "bad_format", &bytes[..cut]);
    }
    appliance.refuses("bytes behind the end", "bad_format", &[&bytes[..], b"x"].concat());
    let mut corrupt = bytes.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    appliance.refuses("one bit of the payload", "bad_content", &corrupt);
    let mut huge = bytes.clone();
    huge[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    appliance.refuses("a header of 4 GiB", "bad_format", &huge);
    let nested = format!("{{\"signed\":{}", "[".repeat(100_000));
    appliance.refuses(
        "deep nesting",
        "bad_format",
        &whole(&Header { targets: nested.into(), ..header.clone() }, &payload).unwrap(),
    );
    let mut manifest = header.manifest.clone();
    manifest.push(b'\n');
    appliance.refuses("another manifest", "bad_content", &whole(&Header { manifest, ..header }, &payload).unwrap());
}

#[test]
fn a_file_that_does_not_fit_here_is_refused() {
    let (manifest, payload, header) = good();
    let bytes = whole(&header, &payload).unwrap();
    let with = |bend: &dyn Fn(&mut Appliance)| {
        let mut appliance = Appliance::new();
        bend(&mut appliance);
        appliance
    };
    with(&|a| a.installed = Some(Version::new(2, 1, 0))).refuses("the same version", "version", &bytes);
    with(&|a| a.installed = Some(Version::new(3, 0, 0))).refuses("an older version", "version", &bytes);
    assert!(with(&|a| a.installed = None).judge(&bytes).is_ok(), "without an appliance no version is judged");
    with(&|a| a.now = ISSUED_AT.plus_ms(171 * DAY_MS)).refuses("expired", "expired", &bytes);
    with(&|a| a.trust.targets_floor = 2).refuses("older targets than seen", "older_metadata", &bytes);
    with(&|a| a.trust.role_floor = 2).refuses("an older role than seen", "older_metadata", &bytes);
    let hash = Appliance::new().judge(&bytes).unwrap().manifest_sha256;
    with(&|a| a.withdrawn = [hash.clone()].into()).refuses("withdrawn", "withdrawn", &bytes);
    with(&|a| a.failed = [hash.clone()].into()).refuses("failed here", "failed_before", &bytes);

    let bent = |bend: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        bend(&mut manifest);
        Vendor::default().file(&manifest, &payload).unwrap()
    };
    let patch = |manifest: &mut Manifest, bend: &dyn Fn(&mut Patch)| match &mut manifest.body {
        Body::Patch(patch) => bend(patch),
        _ => unreachable!("a patch"),
    };
    let needs = bent(&|m| patch(m, &|p| p.features = ["vpn".to_owned()].into()));
    Appliance::new().refuses("a feature that was not bought", "feature_not_licensed", &needs);
    assert!(with(&|a| a.features = ["vpn".to_owned()].into()).judge(&needs).is_ok());
    Appliance::new().refuses("other models", "other_hardware", &bent(&|m| m.hardware = ["gw-9".to_owned()].into()));
    let from = bent(&|m| patch(m, &|p| p.from = ">=2.0.5".parse().unwrap()));
    Appliance::new().refuses("starts from a newer version", "version", &from);
    let zip = bent(&|m| patch(m, &|p| p.health.consecutive_ok = 0));
    Appliance::new().refuses("a health gate that demands nothing", "bad_format", &zip);
}

#[test]
fn an_update_of_the_agent_is_judged_by_the_agents_version_and_brings_one_program() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mainstay-agent"), "new").unwrap();
    let mut payload = Vec::new();
    let packed = pack(folder.path(), 3, &mut payload).unwrap();
    let made = |to: &str, bend: &dyn Fn(&mut Patch)| {
        let mut manifest = sample::agent_patch(to.parse().unwrap(), &packed);
        let Body::Patch(patch) = &mut manifest.body else { unreachable!("a patch") };
        bend(patch);
        Vendor::default().file(&manifest, &payload).unwrap()
    };
    let appliance = Appliance::new();
    let verified = appliance.judge(&made("0.2.0", &|_| ())).unwrap();
    assert_eq!(verified.manifest.subject(), "mainstay-agent", "older than the product, newer than the agent");
    appliance.refuses("the agent that runs", "version", &made("0.1.0", &|_| ()));
    appliance.refuses("an older agent, newer than the product", "version", &made("0.0.9", &|_| ()));
    let from = made("0.2.0", &|patch| patch.from = ">=2.0.0".parse().unwrap());
    appliance.refuses("from a version that only the product has", "version", &from);
    appliance.refuses("more than a program", "bad_format", &made("0.2.0", &|patch| patch.payload.entries = 2));
    appliance.refuses("a stop of business services", "bad_format", &made("0.2.0", &|patch| patch.services = vec!["web".into()]));
    appliance.refuses("no way back", "bad_format", &made("0.2.0", &|patch| patch.data_change = DataChange::OneWay));
}

#[test]
fn a_file_of_another_product_is_refused_by_name() {
    let (mut manifest, payload, _) = good();
    "acme-router".clone_into(&mut manifest.product);
    let other = Vendor { product: "acme-router".into(), ..Vendor::default() };
    Appliance::new().refuses("signed for another product only", "other_product", &other.file(&manifest, &payload).unwrap());
    // The same keys sign for both: the delegation of ours is there, the manifest is the other's.
    let vendor = Vendor::default();
    let mut header = vendor.header(&manifest).unwrap();
    let mut text = signed_text(&header.targets);
    let mut ours = text["delegations"]["roles"][0].clone();
    ours["name"] = json!("acme-router-offline");
    text["delegations"]["roles"].as_array_mut().unwrap().push(ours);
    header.targets = sign(text, &[11, 12]).unwrap();
    Appliance::new().refuses("the same keys for two products", "other_product", &whole(&header, &payload).unwrap());
}

#[test]
fn signatures_that_do_not_add_up_are_refused() {
    let (_, payload, header) = good();
    let appliance = Appliance::new();
    let role = signed_text(&header.role);
    let with_role = |role: Vec<u8>| whole(&Header { role, ..header.clone() }, &payload).unwrap();
    appliance.refuses("one signature of two", "bad_signature", &with_role(sign(role.clone(), &[21]).unwrap()));
    appliance.refuses("keys of strangers", "bad_signature", &with_role(sign(role.clone(), &[91, 92]).unwrap()));
    appliance.refuses("the root's keys", "bad_signature", &with_role(sign(role.clone(), &[1, 2]).unwrap()));

    let one = Envelope::read(&sign(role.clone(), &[21]).unwrap()).unwrap();
    let (id, signature) = one.signatures.first_key_value().unwrap();
    let twice = json!({"signed": role, "signatures": [{"keyid": id, "sig": signature}, {"keyid": id, "sig": signature}]});
    appliance.refuses("one good signature repeated", "bad_signature", &with_role(twice.to_string().into_bytes()));

    let mut targets = signed_text(&header.targets);
    let public = targets["delegations"]["keys"][id].clone();
    targets["delegations"]["keys"]["alias"] = public.clone();
    targets["delegations"]["roles"][0]["keyids"].as_array_mut().unwrap().push(json!("alias"));
    let aliased = json!({"signed": role, "signatures": [{"keyid": id, "sig": signature}, {"keyid": "alias", "sig": signature}]});
    let two_ids =
        Header { targets: sign(targets.clone(), &[11, 12]).unwrap(), role: aliased.to_string().into_bytes(), ..header.clone() };
    appliance.refuses("two signatures by one key under two ids", "bad_signature", &whole(&two_ids, &payload).unwrap());
    targets["delegations"]["keys"]["alias"]["keyval"]["public"] =
        json!(public["keyval"]["public"].as_str().unwrap().to_uppercase());
    let upper = Header { targets: sign(targets, &[11, 12]).unwrap(), ..two_ids };
    appliance.refuses("the same key in capitals", "bad_signature", &whole(&upper, &payload).unwrap());

    for scheme in ["ed448", "ecdsa-sha2-nistp256", "none"] {
        let mut targets = signed_text(&header.targets);
        for key in targets["delegations"]["keys"].as_object_mut().unwrap().values_mut() {
            key["scheme"] = json!(scheme);
        }
        let bytes = whole(&Header { targets: sign(targets, &[11, 12]).unwrap(), ..header.clone() }, &payload).unwrap();
        appliance.refuses("an algorithm that isn't accepted", "bad_signature", &bytes);
    }
    let mut none = signed_text(&header.targets);
    none["delegations"]["roles"][0]["threshold"] = json!(0);
    let bytes =
        whole(&Header { targets: sign(none, &[11, 12]).unwrap(), role: with_no_signature(&role), ..header.clone() }, &payload)
            .unwrap();
    appliance.refuses("a threshold of none", "bad_format", &bytes);
}

fn with_no_signature(text: &Value) -> Vec<u8> {
    json!({"signed": text, "signatures": []}).to_string().into_bytes()
}

#[test]
fn a_delegation_outside_its_paths_is_refused() {
    let (_, payload, header) = good();
    let appliance = Appliance::new();
    let bent = |code: &str, why: &str, bend: &dyn Fn(&mut Value)| {
        let mut text = signed_text(&header.targets);
        bend(&mut text["delegations"]["roles"]);
        let targets = sign(text, &[11, 12]).unwrap();
        appliance.refuses(why, code, &whole(&Header { targets, ..header.clone() }, &payload).unwrap());
    };
    bent("bad_signature", "may sign everything", &|roles| roles[0]["paths"] = json!(["*"]));
    bent("bad_signature", "may sign another product's too", &|roles| {
        roles[0]["paths"] = json!(["acme-gateway-*", "acme-router-*"])
    });
    bent("bad_signature", "may sign other files only", &|roles| roles[0]["paths"] = json!(["acme-gateway-9*"]));
    bent("bad_signature", "by hash bins", &|roles| {
        roles[0]["paths"] = Value::Null;
        roles[0]["path_hash_prefixes"] = json!([""]);
    });
    bent("bad_signature", "delegated twice", &|roles| {
        let again = roles[0].clone();
        roles.as_array_mut().unwrap().push(again);
    });
    let mut role = signed_text(&header.role);
    role["delegations"] = signed_text(&header.targets)["delegations"].clone();
    let role = sign(role, &[21, 22]).unwrap();
    appliance.refuses("hands on", "bad_signature", &whole(&Header { role, ..header.clone() }, &payload).unwrap());
    let mut role = signed_text(&header.role);
    role["expires"] = json!("2028-11-22T00:00:00Z");
    let role = sign(role, &[21, 22]).unwrap();
    appliance.refuses("valid for two years", "bad_signature", &whole(&Header { role, ..header }, &payload).unwrap());
}

#[test]
fn roots_are_followed_one_at_a_time() {
    let (manifest, payload, header) = good();
    let root = |version: u64, keys: Vec<u8>, by: &[u8]| {
        let vendor = Vendor { root_version: version, root: keys, ..Vendor::default() };
        sign(vendor.root_text().unwrap(), by).unwrap()
    };
    let appliance = Appliance::new();
    let with = |roots: Vec<Vec<u8>>| whole(&Header { roots, ..header.clone() }, &payload).unwrap();
    // Key 1 is lost: the other two replace it by 4; then 2 goes too.
    let second = root(2, vec![2, 3, 4], &[2, 3]);
    let third = root(3, vec![3, 4, 5], &[3, 4]);
    let verified = appliance.judge(&with(vec![header.roots[0].clone(), second.clone(), third.clone()])).unwrap();
    assert_eq!((verified.root_version, &verified.roots), (3, &vec![second.clone(), third.clone()]));
    appliance.refuses("root n+2", "bad_signature", &with(vec![third.clone()]));
    appliance.refuses("not by the old keys", "bad_signature", &with(vec![root(2, vec![7, 8, 9], &[7, 8])]));
    appliance.refuses("not by its own keys", "bad_signature", &with(vec![root(2, vec![7, 8, 9], &[1, 2])]));
    appliance.refuses("by too few", "bad_signature", &with(vec![root(2, vec![2, 3, 4], &[3])]));
    let mut ahead = Appliance::new();
    ahead.trust.root = third;
    assert!(
        ahead.judge(&with(vec![header.roots[0].clone(), second])).is_ok(),
        "an appliance that is further passes old roots over"
    );
    let retired = Vendor { targets: vec![14, 15, 16], root_version: 2, ..Vendor::default() };
    ahead.trust.root = sign(retired.root_text().unwrap(), &[1, 2]).unwrap();
    ahead.refuses(
        "targets by keys that a newer root retired",
        "bad_signature",
        &Vendor::default().file(&manifest, &payload).unwrap(),
    );
    assert!(signers(&[1], 1).is_ok() && key(1).is_ok());
}

#[test]
fn a_clock_that_is_years_behind_takes_a_good_file() {
    let (_, payload, header) = good();
    let mut appliance = Appliance::new();
    appliance.now = UnixMs(0);
    assert!(appliance.judge(&whole(&header, &payload).unwrap()).is_ok());
}

#[test]
fn documents_only_grow() {
    let withdrawal = |version| {
        let body = Body::Withdrawal(Withdrawal { manifests: ["0".repeat(64)].into() });
        Vendor::default()
            .file(&sample::manifest(format!("withdrawal-{version}"), Version::new(version, 0, 0), body), b"")
            .unwrap()
    };
    let mut appliance = Appliance::new();
    assert_eq!(appliance.judge(&withdrawal(2)).unwrap().payload_length, 0);
    appliance.documents.insert(PatchKind::Withdrawal, Version::new(2, 0, 0));
    appliance.refuses("an older list", "version", &withdrawal(1));
    appliance.refuses("the same list", "version", &withdrawal(2));
    assert!(appliance.judge(&withdrawal(3)).is_ok());
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("MAINSTAY_SOAK").is_some() { 20_000 } else { 300 }))]

    /// No change of any bytes makes the verifier panic, or believe something else than what was signed.
    #[test]
    fn a_mutated_file_is_refused_or_says_the_same(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<Option<prop::sample::Index>>()) {
        let (manifest, payload, header) = good();
        let mut bytes = whole(&header, &payload).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(verified) = Appliance::new().judge(&bytes) {
            prop_assert_eq!(verified.manifest, manifest);
        }
    }

    /// Nor does any text in the place of any part.
    #[test]
    fn any_text_as_metadata_is_refused(part in 0..4_usize, text in "[{}\\[\\]\":,0-9eE.a-z\\\\-]{0,200}") {
        let (_, payload, mut header) = good();
        match part {
            0 => header.roots = vec![text.into()],
            1 => header.targets = text.into(),
            2 => header.role = text.into(),
            _ => header.manifest = text.into(),
        }
        prop_assert!(Appliance::new().judge(&whole(&header, &payload).unwrap()).is_err());
        prop_assert!(mainstay_patchkit::file::PatchFile::open(&file_of(&[0; 40])).is_err());
    }
}
