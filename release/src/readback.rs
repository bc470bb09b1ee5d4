//! What a signer is shown: every text against the version before it, every new file in words. What can't be explained is not signed.

use std::collections::BTreeMap;

use mainstay_patchkit::authoring::{Named, RootText, TargetsText};
use mainstay_patchkit::bounds;
use mainstay_patchkit::manifest::{Body, Content, Manifest, Patch, Run};
use mainstay_patchkit::verify::ISSUED_FIELD;
use mainstay_shared::time_source::UnixMs;
use serde_json::Value;

use crate::authority::{Authority, ROOT_ROLES};
use crate::bundle::{Bundle, Document};
use crate::changes::named_files;
use crate::exit::{Exit, Failure};

/// The lines that explain a bundle.
pub(crate) fn explain(bundle: &Bundle) -> anyhow::Result<Vec<String>> {
    let mut manifests = BTreeMap::new();
    for bytes in bundle.manifest_bytes()? {
        let manifest = Manifest::read(&bytes).and_then(|manifest| bounds::check(&manifest).map(|()| manifest));
        let manifest = manifest.map_err(|refusal| Failure::because(Exit::Data, format!("bundle: {refusal}")))?;
        manifests.insert(manifest.target_name(), (manifest, Named::of(&bytes)));
    }
    let mut lines = Vec::new();
    for document in &bundle.documents {
        let before = document.before.as_ref().and_then(|text| text["version"].as_u64());
        let before = before.map_or_else(String::new, |version| format!(" (before: {version})"));
        let expires = document.signed["expires"].as_str().unwrap_or("?");
        let missing = match document.missing(&document.wanted) {
            0 => "fully signed".to_owned(),
            missing => format!("{missing} more to sign"),
        };
        lines.push(format!("{} version {}{before}, until {expires}: {missing}", document.role, document.version()));
        demand_plain(document)?;
        let more = if ROOT_ROLES.contains(&document.role.as_str()) { who(document)? } else { files(document, &mut manifests)? };
        lines.extend(more.into_iter().map(|line| format!("  {line}")));
    }
    if let Some(name) = manifests.keys().next() {
        return Err(Failure::because(Exit::Data, format!("bundle: {name} is not named by any of its texts")));
    }
    Ok(lines)
}

/// A text must be exactly what this tool would write for what is shown: no field, key or path beside it.
fn demand_plain(document: &Document) -> anyhow::Result<()> {
    let (signed, version, at) = (&document.signed, document.version(), UnixMs(0));
    let (no_files, no_products) = (BTreeMap::new(), BTreeMap::new());
    let targets = |files, products| TargetsText { version, issued_at: at, expires_at: at, targets: files, products }.to_value();
    let mut plain = match document.role.as_str() {
        "root" => {
            let authority = Authority::read(signed, &Value::Null)?;
            let (root, targets) = (authority.of("root")?, authority.of("targets")?);
            let (snapshot, timestamp) = (authority.of("snapshot")?, authority.of("timestamp")?);
            RootText { version, expires_at: at, root, targets, snapshot, timestamp }.to_value()
        }
        "targets" => targets(&no_files, &Authority::read_products(signed)?),
        _ => targets(&named_files(signed), &no_products),
    };
    for date in ["expires", ISSUED_FIELD] {
        if plain.get(date).is_some() {
            plain[date] = signed[date].clone();
        }
    }
    if plain != *signed {
        return Err(Failure::because(Exit::Data, format!("{}: says more than can be shown", document.role)));
    }
    Ok(())
}

/// Who may sign, where that changes.
fn who(document: &Document) -> anyhow::Result<Vec<String>> {
    let read = |text: &Value| {
        let empty = Value::Null;
        let all = match document.role.as_str() {
            "root" => Authority::read(text, &empty)?.roles,
            _ => Authority::read_products(text)?,
        };
        anyhow::Ok(all)
    };
    let after = read(&document.signed)?;
    let before = document.before.as_ref().map(read).transpose()?.unwrap_or_default();
    let mut lines = Vec::new();
    for (role, signers) in &after {
        let old = before.get(role);
        if old == Some(signers) {
            lines.push(format!("{role}: as before, {} of {}", signers.threshold, signers.keys.len()));
            continue;
        }
        lines.push(format!("{role}: {} of {} keys", signers.threshold, signers.keys.len()));
        for key in &signers.keys {
            let mark = if old.is_some_and(|old| old.keys.contains(key)) { ' ' } else { '+' };
            lines.push(format!("  {mark} {}", key.0));
        }
        let gone = old.into_iter().flat_map(|old| &old.keys).filter(|key| !signers.keys.contains(key));
        lines.extend(gone.map(|key| format!("  - {}", key.0)));
    }
    lines.extend(before.keys().filter(|role| !after.contains_key(*role)).map(|role| format!("{role}: removed")));
    Ok(lines)
}

/// Which files a product's role names anew. Each must be a manifest of the bundle or the payload of one.
fn files(document: &Document, manifests: &mut BTreeMap<String, (Manifest, Named)>) -> anyhow::Result<Vec<String>> {
    let after = named_files(&document.signed);
    let before = document.before.as_ref().map(named_files).unwrap_or_default();
    let unexplained =
        |name: &str| Failure::because(Exit::Data, format!("{}: {name}: is not what the bundle's manifests say", document.role));
    let mut added: BTreeMap<&String, &Named> = after.iter().filter(|(name, file)| before.get(*name) != Some(file)).collect();
    let mut lines = Vec::new();
    let names: Vec<String> = added.keys().map(|name| (*name).clone()).filter(|name| name.ends_with(".manifest.json")).collect();
    for name in names {
        let (manifest, named) = manifests.remove(&name).ok_or_else(|| unexplained(&name))?;
        let is_it = added.remove(&name) == Some(&named) && Manifest::role_name(&manifest.product) == document.role;
        if !is_it {
            return Err(unexplained(&name));
        }
        if let Body::Patch(Patch { payload, .. }) = &manifest.body {
            let payload_name = manifest.payload_target_name();
            let signed = added.remove(&payload_name);
            if !signed.is_some_and(|signed| signed.length == payload.length && signed.sha256 == payload.sha256) {
                return Err(unexplained(&payload_name));
            }
        }
        lines.push(format!("+ {}", manifest.file_name()));
        lines.extend(in_words(&manifest).into_iter().map(|line| format!("    {line}")));
    }
    if let Some(name) = added.keys().next() {
        return Err(unexplained(name));
    }
    lines.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {name}")));
    if lines.is_empty() {
        lines.push(format!("renewed; {} files as before", after.len()));
    }
    Ok(lines)
}

/// A manifest in words.
pub(crate) fn in_words(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![
        format!("{} / {}", manifest.title.en, manifest.title.zh),
        format!("{} {}, version {} of {}", manifest.product, manifest.name, manifest.version, manifest.subject()),
    ];
    if !manifest.hardware.is_empty() {
        lines.push(format!("models: {}", manifest.hardware.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    match &manifest.body {
        Body::Patch(patch) => lines.extend(patch_in_words(patch)),
        Body::Action(action) => {
            lines.push(match &action.run {
                Run::RestartService { service } => format!("restarts the service {service}"),
                Run::Program { argv } => format!("runs {argv:?}"),
            });
            lines.push(format!("at most {} s, at most once in {} s", action.timeout_s, action.min_interval_s));
        }
        Body::Policy(document) => lines.push(format!("policy, {} bytes:\n{}", document.text.len(), document.text)),
        Body::Profile(document) => lines.push(format!("service profile, {} bytes:\n{}", document.text.len(), document.text)),
        Body::SupportKey(document) => lines.push(format!("key for evidence: {}", document.text.trim())),
        Body::Licence(licence) => lines.push(format!("licence of {:?} for {:?} (none: all)", licence.features, licence.serials)),
        Body::Withdrawal(withdrawal) => lines.push(format!("withdraws the manifests {:?}", withdrawal.manifests)),
    }
    lines
}

fn patch_in_words(patch: &Patch) -> Vec<String> {
    let payload = &patch.payload;
    let mut lines = vec![
        format!("from {}; data change: {:?}; security fix: {}", patch.from, patch.data_change, patch.security_fix),
        format!("payload: {} bytes, SHA-256 {}", payload.length, payload.sha256),
        format!("unpacked: {} entries, {} bytes", payload.entries, payload.unpacked_bytes),
        format!(
            "stops and starts: {:?}; believed after {} good looks within {} s",
            patch.services, patch.health.consecutive_ok, patch.health.deadline_s
        ),
    ];
    if !patch.features.is_empty() {
        lines.push(format!("needs the features {:?}", patch.features));
    }
    match &patch.content {
        Content::Tree { tree_sha256, scripts } => {
            lines.push(format!("a tree of files, hash {tree_sha256}"));
            lines.extend(scripts.iter().map(|script| format!("runs {:?}, at most {} s", script.argv, script.timeout_s)));
        }
        Content::Packages { packages } => lines.push(format!("packages: {packages:?}")),
        Content::Agent { tree_sha256 } => {
            lines.push(format!("the agent itself, in the place of the agent that runs, hash {tree_sha256}"))
        }
    }
    lines
}
