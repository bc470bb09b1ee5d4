//! What is shown of what the helper knows: to the reporter without codes, to root with them. Pure.

use mainstay_shared::patch::{Installed, PatchKind, PatchReport, PatchStep};
use mainstay_shared::time_source::UnixMs;

use super::protocol::KnownFile;
use super::rules;
use super::settings::Settings;
use super::state::{Known, State};

/// Reports in one answer.
const MAX_REPORTS: usize = 100;

/// What a view needs beside the state.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) settings: &'a Settings,
    pub(super) now: UnixMs,
    pub(super) wrong_codes: u32,
}

pub(super) fn file(known: &Known, view: &View<'_>, for_root: bool) -> KnownFile {
    let waits = matches!(known.step, PatchStep::AwaitingConsent | PatchStep::AwaitingWindow) && known.kind == PatchKind::Patch;
    let windows = if waits { view.settings.windows.next_three(view.now, &chrono::Local) } else { Vec::new() };
    KnownFile {
        sha256: known.sha256.clone(),
        offer_id: known.offer_id.clone(),
        kind: known.kind,
        product: known.product.clone(),
        from_version: known.from_version.clone(),
        to_version: known.to_version.clone(),
        title: known.title.clone(),
        notes: known.notes.clone(),
        bytes: known.bytes,
        step: known.step,
        reason: known.reason.clone(),
        output: known.output.clone(),
        at: known.at,
        code: known.code.clone().filter(|_| for_root && rules::code_counts(known, view.wrong_codes)),
        is_due: super::rules::is_due(known, view.settings.windows.is_open(view.now, &chrono::Local)),
        next_windows: windows,
    }
}

/// Newest first.
pub(super) fn files(state: &State, view: &View<'_>, for_root: bool) -> Vec<KnownFile> {
    state.files.iter().rev().map(|known| file(known, view, for_root)).collect()
}

/// Oldest first, those after `after`.
pub(super) fn reports(state: &State, after: u64) -> Vec<PatchReport> {
    state.reports.iter().filter(|report| report.number > after).take(MAX_REPORTS).cloned().collect()
}

pub(super) fn installed(state: &State, settings: &Settings) -> Installed {
    Installed {
        product: settings.product.clone(),
        version: state.product.version.to_string(),
        hardware: settings.hardware.clone(),
        patch_consent: settings.patch_consent.as_str().to_owned(),
        action_consent: settings.action_consent.as_str().to_owned(),
    }
}
