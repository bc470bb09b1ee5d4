//! Signed files with one thing bent each, and what refuses them: what an enemy of the appliance would try, with the vendor's texts but not
//! the vendor's keys, or with archives that no tool of the vendor's makes. All else in each file is right.

use anyhow::{Context as _, Result};
use mainstay_patchkit::archive::Packed;
use mainstay_patchkit::authoring::Envelope;
use mainstay_patchkit::crypto::sha256;
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::{Body, Content, Manifest, Patch, Payload};
use mainstay_patchkit::sample::{DAY_MS, ISSUED_AT, Vendor, sign, tree_patch, whole};
use semver::Version;
use serde_json::{Value, json};

use crate::packing::{Packing, signed_patch};

/// A file, what is wrong with it, and the code of its refusal.
pub type Bent = (&'static str, Vec<u8>, &'static str);

fn patch(manifest: &mut Manifest) -> &mut Patch {
    match &mut manifest.body {
        Body::Patch(patch) => patch,
        _ => unreachable!("the sample is a patch"),
    }
}

fn text_of(bytes: &[u8]) -> Result<Value> {
    Ok(Envelope::read(bytes)?.signed)
}

/// Files that are refused when they are taken: each from a good patch to 2.1.0 of the sample vendor with this packing.
///
/// # Errors
/// When something can't be signed.
pub fn refused_at_once(good: &Packing) -> Result<Vec<Bent>> {
    let manifest = tree_patch(Version::new(2, 1, 0), &good.packed);
    let header = Vendor::default().header(&manifest)?;
    let mut all = damaged(&header, good)?;
    all.extend(unfit(good)?);
    all.extend(badly_signed(&header, &good.bytes)?);
    all.extend(badly_delegated(&header, &good.bytes)?);
    all.extend(wrong_roots(&header, &good.bytes)?);
    Ok(all)
}

fn damaged(header: &Header, good: &Packing) -> Result<Vec<Bent>> {
    let bytes = whole(header, &good.bytes)?;
    let mut one_bit = bytes.clone();
    *one_bit.last_mut().context("a file")? ^= 1;
    let mut huge = bytes.clone();
    huge[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let half = |text: &[u8]| text[..text.len() / 2].to_vec();
    let torn = |bend: &dyn Fn(&mut Header)| {
        let mut torn = header.clone();
        bend(&mut torn);
        whole(&torn, &good.bytes)
    };
    Ok(vec![
        ("nothing", Vec::new(), "bad_format"),
        ("another form", [b"PK".as_slice(), &bytes].concat(), "bad_format"),
        ("cut in its first bytes", bytes[..10].to_vec(), "bad_format"),
        ("cut in its header", bytes[..200].to_vec(), "bad_format"),
        ("cut before its payload", bytes[..bytes.len() - good.bytes.len()].to_vec(), "bad_format"),
        ("one byte short", bytes[..bytes.len() - 1].to_vec(), "bad_format"),
        ("a byte behind the end", [&bytes[..], b"x"].concat(), "bad_format"),
        ("one bit of the payload", one_bit, "bad_content"),
        ("a header of 4 GiB", huge, "bad_format"),
        ("deep nesting", torn(&|h| h.targets = format!("{{\"signed\":{}", "[".repeat(100_000)).into_bytes())?, "bad_format"),
        ("a torn root", torn(&|h| h.roots = vec![half(&h.roots[0])])?, "bad_format"),
        ("torn targets", torn(&|h| h.targets = half(&h.targets))?, "bad_format"),
        ("a torn role", torn(&|h| h.role = half(&h.role))?, "bad_format"),
        ("a torn manifest", torn(&|h| h.manifest = half(&h.manifest))?, "bad_content"),
        ("a manifest with a space more", torn(&|h| h.manifest.push(b' '))?, "bad_content"),
    ])
}

fn unfit(good: &Packing) -> Result<Vec<Bent>> {
    let to = |version: &str, bend: &dyn Fn(&mut Manifest)| signed_patch(version, good, bend);
    let long_ago =
        Vendor { issued_at: ISSUED_AT.plus_ms(-200 * DAY_MS), expires_at: ISSUED_AT.plus_ms(-30 * DAY_MS), ..Vendor::default() };
    let mut router = tree_patch(Version::new(2, 1, 0), &good.packed);
    "acme-router".clone_into(&mut router.product);
    let sister = Vendor { product: "acme-router".into(), ..Vendor::default() };
    let expired = long_ago.file(&tree_patch(Version::new(2, 1, 0), &good.packed), &good.bytes)?;
    Ok(vec![
        ("another product", sister.file(&router, &good.bytes)?, "other_product"),
        ("the same version", to("2.0.0", &|_| ())?, "version"),
        ("an older version", to("1.9.9", &|_| ())?, "version"),
        ("from a version that is not here", to("2.1.0", &|m| patch(m).from = "=1.4.0".parse().unwrap_or_default())?, "version"),
        ("another model", to("2.1.0", &|m| m.hardware = ["gw-9".to_owned()].into())?, "other_hardware"),
        (
            "a feature that was not bought",
            to("2.1.0", &|m| patch(m).features = ["ha".to_owned()].into())?,
            "feature_not_licensed",
        ),
        ("a service that is not here", to("2.1.0", &|m| patch(m).services.push("db".into()))?, "bad_content"),
        ("a health gate that demands nothing", to("2.1.0", &|m| patch(m).health.consecutive_ok = 0)?, "bad_format"),
        ("expired", expired, "expired"),
    ])
}

fn badly_signed(header: &Header, payload: &[u8]) -> Result<Vec<Bent>> {
    let role = text_of(&header.role)?;
    let with_role = |role: Vec<u8>| whole(&Header { role, ..header.clone() }, payload);
    let one = Envelope::read(&sign(role.clone(), &[21])?)?;
    let (id, signature) = one.signatures.first_key_value().context("a signature")?;
    let by = |id: &str| json!({"keyid": id, "sig": signature});
    let signed_by = |ids: &[&str]| {
        json!({"signed": role, "signatures": ids.iter().map(|id| by(id)).collect::<Vec<_>>()}).to_string().into_bytes()
    };
    let mut aliased = text_of(&header.targets)?;
    aliased["delegations"]["keys"]["alias"] = aliased["delegations"]["keys"][id].clone();
    aliased["delegations"]["roles"][0]["keyids"].as_array_mut().context("keys")?.push(json!("alias"));
    let two_ids = Header { targets: sign(aliased, &[11, 12])?, role: signed_by(&[id, "alias"]), ..header.clone() };
    let mut unknown = text_of(&header.targets)?;
    for key in unknown["delegations"]["keys"].as_object_mut().context("keys")?.values_mut() {
        key["scheme"] = json!("ed448");
    }
    let mut no_threshold = text_of(&header.targets)?;
    no_threshold["delegations"]["roles"][0]["threshold"] = json!(0);
    let unsigned = Header { targets: sign(no_threshold, &[11, 12])?, role: signed_by(&[]), ..header.clone() };
    Ok(vec![
        ("one signature of two", with_role(sign(role.clone(), &[21])?)?, "bad_signature"),
        ("one good signature repeated", with_role(signed_by(&[id, id]))?, "bad_signature"),
        ("two signatures by one key under two ids", whole(&two_ids, payload)?, "bad_signature"),
        ("keys of strangers", with_role(sign(role.clone(), &[91, 92])?)?, "bad_signature"),
        ("the online keys", with_role(sign(role.clone(), &[31, 32])?)?, "bad_signature"),
        (
            "targets by the online keys",
            whole(&Header { targets: sign(text_of(&header.targets)?, &[31, 32])?, ..header.clone() }, payload)?,
            "bad_signature",
        ),
        (
            "an unknown algorithm",
            whole(&Header { targets: sign(unknown, &[11, 12])?, ..header.clone() }, payload)?,
            "bad_signature",
        ),
        ("a threshold of none", whole(&unsigned, payload)?, "bad_format"),
    ])
}

fn badly_delegated(header: &Header, payload: &[u8]) -> Result<Vec<Bent>> {
    let delegated = |bend: &dyn Fn(&mut Value)| {
        let mut text = text_of(&header.targets)?;
        bend(&mut text["delegations"]["roles"]);
        anyhow::Ok(whole(&Header { targets: sign(text, &[11, 12])?, ..header.clone() }, payload)?)
    };
    let role = |bend: &dyn Fn(&mut Value)| {
        let mut text = text_of(&header.role)?;
        bend(&mut text);
        anyhow::Ok(whole(&Header { role: sign(text, &[21, 22])?, ..header.clone() }, payload)?)
    };
    let delegations = text_of(&header.targets)?["delegations"].clone();
    Ok(vec![
        ("a delegation of everything", delegated(&|roles| roles[0]["paths"] = json!(["*"]))?, "bad_signature"),
        (
            "a delegation of another product's files too",
            delegated(&|roles| roles[0]["paths"] = json!(["acme-gateway-*", "acme-router-*"]))?,
            "bad_signature",
        ),
        ("a file outside the delegation", delegated(&|roles| roles[0]["paths"] = json!(["acme-gateway-9*"]))?, "bad_signature"),
        ("a role that hands on", role(&|text| text["delegations"] = delegations.clone())?, "bad_signature"),
        ("a role valid for two years", role(&|text| text["expires"] = json!("2028-11-22T00:00:00Z"))?, "bad_signature"),
    ])
}

fn wrong_roots(header: &Header, payload: &[u8]) -> Result<Vec<Bent>> {
    let root = |version: u64, keys: Vec<u8>, by: &[u8]| {
        anyhow::Ok(sign(Vendor { root_version: version, root: keys, ..Vendor::default() }.root_text()?, by)?)
    };
    let with = |root: Vec<u8>| whole(&Header { roots: vec![root], ..header.clone() }, payload);
    Ok(vec![
        ("root n+2", with(root(3, vec![2, 3, 4], &[2, 3])?)?, "bad_signature"),
        ("the next root by strangers", with(root(2, vec![7, 8, 9], &[7, 8])?)?, "bad_signature"),
        ("the next root by its old keys alone", with(root(2, vec![7, 8, 9], &[1, 2])?)?, "bad_signature"),
        ("the next root by one of the old keys", with(root(2, vec![2, 3, 4], &[3])?)?, "bad_signature"),
    ])
}

/// An entry of a tar: name, type, rights, target of a link, content.
pub type Row<'r> = (&'r str, u8, u32, &'r str, &'r [u8]);

/// A tar of these entries, whatever they are.
#[must_use]
pub fn tar(entries: &[Row<'_>]) -> Vec<u8> {
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

/// A patch to `version`, rightly signed by the vendor, over an archive of these entries; the manifest says `unpacked_bytes`.
///
/// # Errors
/// When it can't be packed or signed.
pub fn signed_archive(version: &str, entries: &[Row<'_>], unpacked_bytes: u64) -> Result<Vec<u8>> {
    let bytes = zstd::encode_all(&tar(entries)[..], 1)?;
    let payload = Payload {
        length: bytes.len() as u64,
        sha256: hex::encode(sha256(&bytes)),
        entries: entries.len() as u64,
        unpacked_bytes,
        delta_from: None,
    };
    signed_patch(version, &Packing { packed: Packed { payload, tree_sha256: "0".repeat(64) }, bytes }, |_| ())
}

/// A patch to `version` whose archive is good and whose tree is not the one that was signed.
///
/// # Errors
/// When it can't be signed.
pub fn signed_with_another_tree(version: &str, good: &Packing) -> Result<Vec<u8>> {
    signed_patch(version, good, |manifest| {
        if let Content::Tree { tree_sha256, .. } = &mut patch(manifest).content {
            *tree_sha256 = "5".repeat(64);
        }
    })
}
