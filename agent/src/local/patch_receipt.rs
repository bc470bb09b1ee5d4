//! `patch receipt`: what became of signed files here, signed by the appliance's key, to be carried or mailed where there is no network.
//!
//! The helper tells, the identity signs, nobody is called. The vendor verifies it against the certificate that it issued; a receipt
//! that is delivered twice changes nothing. It must never hold more than the helper's own reports.

use std::path::Path;

use anyhow::Context as _;
use mainstay_shared::patch::PatchReport;
use mainstay_shared::patch_receipt::{MAX_BYTES, MAX_REPORTS, PatchReceipt, SignedReceipt};
use mainstay_shared::time_source::TimeSource;
use ring::digest;
use ring::rand::SystemRandom;

use super::words::pick;
use super::{Exit, Failure, Output, say};
use crate::atomic_file;
use crate::config::Config;
use crate::helper::Conversation;
use crate::helper::protocol::{Answer, Request};
use crate::uplink::Identity;

/// Of a script's output, in a receipt that would be too long.
const SHORT_OUTPUT_CHARS: usize = 1000;

/// Writes it to `out`, or to standard output.
///
/// # Errors
/// [`Exit::Unavailable`] without a helper; not enrolled; the file can't be written.
pub(crate) fn patch_receipt(config: &Config, out: Option<&Path>, time: &TimeSource, output: Output) -> Result<(), Failure> {
    let identity = Identity::load(&config.state_dir)?;
    let mut reports = final_reports(&config.patches.helper_socket).map_err(|error| Failure::new(Exit::Unavailable, error))?;
    reports.drain(..reports.len().saturating_sub(MAX_REPORTS));
    let count = reports.len();
    let mut text = signed(&identity, reports.clone(), time)?;
    if text.len() > MAX_BYTES {
        for report in &mut reports {
            let begin = report.output.chars().count().saturating_sub(SHORT_OUTPUT_CHARS);
            report.output = report.output.chars().skip(begin).collect();
        }
        text = signed(&identity, reports, time)?;
    }
    let Some(path) = out else {
        say(text);
        return Ok(());
    };
    atomic_file::write_private(path, text.as_bytes())?;
    let words = pick(output.lang, "条最终结果已写入签名回执", "final reports are in the signed receipt");
    say(format_args!("{count} {words} {}", path.display()));
    Ok(())
}

fn signed(identity: &Identity, reports: Vec<PatchReport>, time: &TimeSource) -> anyhow::Result<String> {
    let receipt = PatchReceipt { appliance: identity.appliance.clone(), reports, at: time.now() };
    let leaf = identity.chain().into_iter().next().context("identity: no certificate")?;
    let fingerprint = hex::encode(digest::digest(&digest::SHA256, &leaf));
    let key = identity.key()?;
    let signed = SignedReceipt::sign(&receipt, key.secret_der(), &fingerprint, &SystemRandom::new())?;
    Ok(serde_json::to_string(&signed)?)
}

fn final_reports(socket: &Path) -> anyhow::Result<Vec<PatchReport>> {
    let absent = || format!("{}: the helper does not answer", socket.display());
    let mut helper = Conversation::open(socket).with_context(absent)?;
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let answer = helper.ask(&Request::Reports { after }, None, &mut |_| {}).with_context(absent)?;
        let Answer::Reports(reports) = answer else { anyhow::bail!("the helper does not tell its reports: {answer:?}") };
        let Some(last) = reports.last() else { return Ok(found) };
        after = last.number;
        found.extend(reports.into_iter().filter(|report| report.step.is_final()));
    }
}
