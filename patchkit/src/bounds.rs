//! What a manifest may ask for: hashes that are hashes, paths within the tree, limits on time and size.
//!
//! A signature says who wrote a manifest, not that it is sane: both the signing tool and the appliance look here.

use mainstay_shared::patch::AGENT;

use crate::manifest::{Body, Content, DataChange, Manifest, Patch, Payload, Run, Script};
use crate::refusal::Refusal;

/// The most files and folders of an archive.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// The most bytes of an archive, unpacked: 64 GiB.
pub const MAX_UNPACKED_BYTES: u64 = 64 << 30;
/// The most bytes of an archive as it lies in the file: 16 GiB.
pub const MAX_PAYLOAD_BYTES: u64 = 16 << 30;
/// The longest that a script or an action may run, seconds.
pub const MAX_TIMEOUT_S: u32 = 24 * 3600;

/// Whether a manifest stays within what an appliance can carry out.
///
/// # Errors
/// [`Refusal::Format`] naming the field and what is accepted.
pub fn check(manifest: &Manifest) -> Result<(), Refusal> {
    demand(manifest.product != AGENT, "product", "another name: this one is the agent's")?;
    match &manifest.body {
        Body::Patch(patch) => check_patch(patch),
        Body::Action(action) => {
            within("action: timeout_s", u64::from(action.timeout_s), 1, u64::from(MAX_TIMEOUT_S))?;
            match &action.run {
                Run::RestartService { service } => demand(!service.is_empty(), "action: service", "a name"),
                Run::Program { argv } => {
                    demand(
                        argv.first().is_some_and(|program| program.starts_with('/')),
                        "action: argv",
                        "an absolute path first",
                    )?;
                    demand(argv.iter().all(|part| !part.contains('\0')), "action: argv", "no NUL")
                }
            }
        }
        Body::Withdrawal(withdrawal) => {
            demand(withdrawal.manifests.iter().all(|hash| is_sha256(hash)), "withdrawal: manifests", "SHA-256 in lower-case hex")
        }
        Body::Policy(_) | Body::Profile(_) | Body::Licence(_) | Body::SupportKey(_) => Ok(()),
    }
}

fn check_patch(patch: &Patch) -> Result<(), Refusal> {
    check_payload(&patch.payload)?;
    within("health: consecutive_ok", u64::from(patch.health.consecutive_ok), 1, 1000)?;
    within("health: deadline_s", u64::from(patch.health.deadline_s), 1, u64::from(MAX_TIMEOUT_S))?;
    match &patch.content {
        Content::Tree { tree_sha256, scripts } => {
            demand(is_sha256(tree_sha256), "content: tree_sha256", "SHA-256 in lower-case hex")?;
            scripts.iter().try_for_each(check_script)
        }
        Content::Agent { tree_sha256 } => {
            demand(is_sha256(tree_sha256), "content: tree_sha256", "SHA-256 in lower-case hex")?;
            demand(patch.payload.entries == 1, "payload: entries", "one: the program mainstay-agent")?;
            demand(patch.services.is_empty(), "services", "none: an update of the agent stops nothing but the agent")?;
            // Whoever judges the new agent is the old one.
            demand(
                patch.data_change != DataChange::OneWay,
                "data_change",
                "none or reversible: the old agent must be able to go on",
            )
        }
        Content::Packages { packages } => demand(
            !packages.is_empty() && packages.iter().all(|(name, version)| !name.is_empty() && !version.is_empty()),
            "content: packages",
            "at least one name with its version",
        ),
    }
}

fn check_payload(payload: &Payload) -> Result<(), Refusal> {
    within("payload: length", payload.length, 1, MAX_PAYLOAD_BYTES)?;
    within("payload: entries", payload.entries, 1, MAX_ENTRIES)?;
    within("payload: unpacked_bytes", payload.unpacked_bytes, 0, MAX_UNPACKED_BYTES)?;
    demand(is_sha256(&payload.sha256), "payload: sha256", "SHA-256 in lower-case hex")?;
    demand(payload.delta_from.is_none(), "payload: delta_from", "a whole payload: this version applies no deltas")
}

fn check_script(script: &Script) -> Result<(), Refusal> {
    within("scripts: timeout_s", u64::from(script.timeout_s), 1, u64::from(MAX_TIMEOUT_S))?;
    let program = script.argv.first().map_or("", String::as_str);
    let stays = !program.is_empty() && program.split('/').all(|part| !matches!(part, "" | "." | ".."));
    demand(stays, "scripts: argv", "a path within the tree first, without `.` and `..`")?;
    demand(script.argv.iter().all(|part| !part.contains('\0')), "scripts: argv", "no NUL")
}

/// Whether it is SHA-256 in lower-case hex.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

fn demand(fits: bool, what: &str, expected: &str) -> Result<(), Refusal> {
    if fits { Ok(()) } else { Err(Refusal::Format(format!("manifest: {what}: expected {expected}"))) }
}

fn within(what: &str, value: u64, least: u64, most: u64) -> Result<(), Refusal> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::Format(format!("manifest: {what} = {value}: expected {least} to {most}")))
}
