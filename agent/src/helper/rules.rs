//! What the helper decides, without doing it: what a found journal asks for, how the business services must be before and after, what
//! waits for whom. Pure.

use std::collections::BTreeMap;

use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{PatchKind, PatchStep};

use super::settings::{Consent, Settings};
use super::state::{AgreedBy, How, Install, Known, Stage};

/// A step that crashed so often is not begun again: the machine itself does not survive it.
pub(super) const MAX_ROUNDS: u32 = 3;
/// A wrong code so often, and the code is worth nothing any more.
pub(super) const MAX_CODE_TRIES: u32 = 5;
/// So many wrong codes on whatever files, with no right one and no word of root's between, and no code is judged any more: files may be
/// repacked and offered again without end, and each brings a fresh code.
const MAX_WRONG_CODES: u32 = 20;
/// Files of the reporter's that wait at a time.
const MAX_WAITING: usize = 16;

/// Whether a code for `file` is still worth anything, after so many wrong ones on the whole box.
pub(super) fn code_counts(file: &Known, wrong_codes: u32) -> bool {
    file.tries < MAX_CODE_TRIES && wrong_codes < MAX_WRONG_CODES
}

/// Whether one more file may wait that root did not bring.
pub(super) fn has_room_for_another(files: &[Known]) -> bool {
    files.iter().filter(|file| !file.by_hand && !file.step.is_final()).count() < MAX_WAITING
}

/// What a job found in the journal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing that runs was touched: clean up, the file waits again.
    Forget,
    /// Finish from this stage on.
    GoOn(Stage),
    /// Back to what ran before, for this reason.
    GoBack(&'static str),
}

/// The file may be tried again after it.
pub(super) const INTERRUPTED: &str = "interrupted";

/// What recovery does; `can_go_back` is false where the old version could not read the data any more, or is not there.
pub(super) fn recover(install: &Install, can_go_back: bool) -> Recovery {
    let worn_out = install.rounds + 1 >= MAX_ROUNDS;
    // dpkg goes forward: half an installation is neither the old nor the new.
    let forward = matches!(install.how, How::Packages { .. }) && !worn_out;
    match install.stage {
        Stage::Staging => Recovery::Forget,
        Stage::GoingBack => Recovery::GoBack(""),
        Stage::Swapping | Stage::Scripts if can_go_back && !forward => Recovery::GoBack(INTERRUPTED),
        Stage::Starting | Stage::Probation if can_go_back && worn_out => Recovery::GoBack("crashes"),
        Stage::Swapping => Recovery::GoOn(Stage::Swapping),
        Stage::Scripts => Recovery::GoOn(Stage::Scripts),
        Stage::Starting | Stage::Probation => Recovery::GoOn(Stage::Starting),
    }
}

/// Whether the business services are well enough to begin. Those that the patch itself stops and starts may be down if a person has agreed:
/// it may be what repairs them.
///
/// # Errors
/// [`Refusal::Unhealthy`] naming the services.
pub(super) fn baseline(
    services: &BTreeMap<String, ServiceState>,
    own: &[String],
    agreed: Option<AgreedBy>,
) -> Result<(), Refusal> {
    let a_person = matches!(agreed, Some(AgreedBy::Administrator | AgreedBy::Code));
    let sick: Vec<_> = services
        .iter()
        .filter(|(name, state)| **state >= ServiceState::Unknown && !(a_person && own.contains(name)))
        .map(|(name, state)| format!("{name}: {}", state_word(*state)))
        .collect();
    if sick.is_empty() { Ok(()) } else { Err(Refusal::Unhealthy(sick.join(", "))) }
}

fn state_word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Up => "up",
        ServiceState::Degraded => "degraded",
        ServiceState::Unknown => "unknown",
        ServiceState::Down => "down",
    }
}

/// What one look at the services says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    Good,
    Bad(String),
}

/// Every service that there was must answer, none worse than before; one that was sick before must answer too.
pub(super) fn look(baseline: &BTreeMap<String, ServiceState>, now: &BTreeMap<String, ServiceState>) -> Look {
    let bad: Vec<_> = baseline
        .iter()
        .filter_map(|(name, before)| {
            let at_most = if *before == ServiceState::Up { ServiceState::Up } else { ServiceState::Degraded };
            match now.get(name) {
                Some(state) if *state <= at_most => None,
                Some(state) => Some(format!("{name}: {}", state_word(*state))),
                None => Some(format!("{name}: not told")),
            }
        })
        .collect();
    if bad.is_empty() { Look::Good } else { Look::Bad(bad.join(", ")) }
}

/// Who agrees to a freshly verified file without being asked.
pub(super) fn agreed_at_once(settings: &Settings, kind: PatchKind, one_way: bool) -> Option<AgreedBy> {
    let consent = match kind {
        PatchKind::Patch => settings.patch_consent,
        PatchKind::Action => settings.action_consent,
        // Settings of the vendor's own, which change nothing by themselves.
        _ => Consent::Automatic,
    };
    (consent == Consent::Automatic && !one_way).then_some(AgreedBy::Settings)
}

/// Whether a waiting file may begin now.
pub(super) fn is_due(file: &Known, window_is_open: bool) -> bool {
    // An action waits for consent alone: it is there for faults.
    let open = window_is_open || file.kind != PatchKind::Patch;
    file.step == PatchStep::AwaitingWindow && file.agreed.is_some() && open
}

/// Whether a refusal at the last moment may be over the next time: the file waits on.
pub(super) fn passes(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Space { .. } | Refusal::Unhealthy(_) | Refusal::Io(_))
}

#[cfg(test)]
mod tests {
    use mainstay_patchkit::manifest::Health;
    use semver::Version;

    use super::super::state::Subject;
    use super::*;

    fn install(stage: Stage, rounds: u32) -> Install {
        Install {
            stage,
            subject: Subject::Product,
            how: How::Tree { from_release: None, to_release: "2".into(), tree_sha256: String::new(), scripts: Vec::new() },
            from_version: Version::new(1, 0, 0),
            to_version: Version::new(2, 0, 0),
            services: Vec::new(),
            baseline: BTreeMap::new(),
            health: Health { consecutive_ok: 1, deadline_s: 1 },
            one_way: false,
            rounds,
        }
    }

    #[test]
    fn a_found_journal_is_finished_or_undone() {
        use Recovery::{Forget, GoBack, GoOn};
        let table = [
            ("cut while staging", Stage::Staging, 0, true, Forget),
            ("cut around the swap", Stage::Swapping, 0, true, GoBack(INTERRUPTED)),
            ("cut in a script", Stage::Scripts, 0, true, GoBack(INTERRUPTED)),
            ("cut in a script, no way back", Stage::Scripts, 0, false, GoOn(Stage::Scripts)),
            ("cut around the swap, no way back", Stage::Swapping, 0, false, GoOn(Stage::Swapping)),
            ("cut while starting", Stage::Starting, 0, true, GoOn(Stage::Starting)),
            ("the first crash in probation", Stage::Probation, 0, true, GoOn(Stage::Starting)),
            ("the third crash in probation", Stage::Probation, 2, true, GoBack("crashes")),
            ("the third crash, no way back", Stage::Probation, 2, false, GoOn(Stage::Starting)),
            ("cut on the way back", Stage::GoingBack, 0, true, GoBack("")),
        ];
        for (what, stage, rounds, can_go_back, asked) in table {
            assert_eq!(recover(&install(stage, rounds), can_go_back), asked, "{what}");
        }
    }

    fn states(states: &[(&str, ServiceState)]) -> BTreeMap<String, ServiceState> {
        states.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
    }

    #[test]
    fn a_sick_appliance_is_not_patched_but_by_a_person_who_repairs_that_service() {
        use ServiceState::{Degraded, Down, Unknown, Up};
        let (web, none) = (vec!["web".to_owned()], Vec::new());
        let table = [
            ("all well", states(&[("web", Up), ("db", Degraded)]), &none, None, true),
            ("no service declared", states(&[]), &none, None, true),
            ("one down", states(&[("web", Down)]), &none, Some(AgreedBy::Administrator), false),
            ("one not known", states(&[("web", Unknown)]), &none, None, false),
            ("its own down, a person agreed", states(&[("web", Down)]), &web, Some(AgreedBy::Code), true),
            ("its own down, nobody was asked", states(&[("web", Down)]), &web, Some(AgreedBy::Settings), false),
            ("another down", states(&[("web", Down), ("db", Down)]), &web, Some(AgreedBy::Code), false),
        ];
        for (what, services, own, agreed, well) in table {
            assert_eq!(baseline(&services, own, agreed).is_ok(), well, "{what}");
        }
    }

    #[test]
    fn a_look_is_good_when_every_service_answers_no_worse_than_before() {
        use ServiceState::{Degraded, Down, Up};
        let table = [
            ("as before", &[("web", Up)][..], &[("web", Up)][..], true),
            ("worse", &[("web", Up)], &[("web", Degraded)], false),
            ("as degraded as before", &[("web", Degraded)], &[("web", Degraded)], true),
            ("repaired", &[("web", Down)], &[("web", Up)], true),
            ("still down", &[("web", Down)], &[("web", Down)], false),
            ("not told", &[("web", Up)], &[], false),
            ("a new one is down", &[("web", Up)], &[("web", Up), ("new", Down)], true),
        ];
        for (what, before, now, good) in table {
            assert_eq!(look(&states(before), &states(now)) == Look::Good, good, "{what}");
        }
    }
}
