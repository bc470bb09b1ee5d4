//! Free, charged or refused: pure, with the reason. Nothing here reads or writes.

use std::collections::BTreeSet;

use mainstay_shared::time_source::UnixMs;

use super::{Entitlement, FreeBecause, Terms, Withheld};

/// What an offer is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// An action, which is support and no upgrade.
    pub(crate) is_action: bool,
    /// Features that the file needs.
    pub(crate) features: &'a BTreeSet<String>,
    /// It closes a security hole.
    pub(crate) security_fix: bool,
    /// The appliance has a critical ticket that is not closed.
    pub(crate) critical_ticket: bool,
    /// Staff say that the customer ordered it.
    pub(crate) ordered: bool,
}

/// The terms of an offer. A security fix is never withheld during an open critical ticket, only quoted.
///
/// # Errors
/// [`Withheld`] says why it is not offered.
pub(crate) fn terms(recorded: Option<&Entitlement>, wanted: Wanted<'_>, now: UnixMs) -> Result<Terms, Withheld> {
    if wanted.is_action {
        return Ok(Terms::Free(FreeBecause::Action));
    }
    let Some(recorded) = recorded else { return Ok(Terms::Free(FreeBecause::NothingRecorded)) };
    let urgent = wanted.security_fix && wanted.critical_ticket;
    let missing = wanted.features.iter().find(|feature| !recorded.features.contains(*feature));
    if let Some(feature) = missing.filter(|_| !urgent) {
        return Err(Withheld::Feature(feature.clone()));
    }
    let lasts = |until: Option<UnixMs>| until.is_some_and(|until| now < until);
    match () {
        () if missing.is_some() => Ok(Terms::Quoted),
        () if lasts(recorded.software_until_at) => Ok(Terms::Free(FreeBecause::Warranty)),
        () if lasts(recorded.service_until_at) => Ok(Terms::Free(FreeBecause::ServicePeriod)),
        () if recorded.software_until_at.is_none() && recorded.service_until_at.is_none() => {
            Ok(Terms::Free(FreeBecause::NothingRecorded))
        }
        () if wanted.ordered => Ok(Terms::Ordered),
        () if urgent => Ok(Terms::Quoted),
        () => Err(Withheld::Charged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1000);
    const OVER: Option<UnixMs> = Some(UnixMs(1000));
    const LASTS: Option<UnixMs> = Some(UnixMs(1001));

    fn recorded(software: Option<UnixMs>, service: Option<UnixMs>) -> Entitlement {
        let features = BTreeSet::from(["vpn".to_owned()]);
        Entitlement { software_until_at: software, service_until_at: service, hardware_until_at: LASTS, features }
    }

    #[test]
    fn warranty_service_period_and_features_decide_and_say_so() {
        let (none, vpn, ha) = (BTreeSet::new(), BTreeSet::from(["vpn".to_owned()]), BTreeSet::from(["ha".to_owned()]));
        let plain = Wanted { is_action: false, features: &none, security_fix: false, critical_ticket: false, ordered: false };
        let fix = Wanted { security_fix: true, ..plain };
        let urgent = Wanted { critical_ticket: true, ..fix };
        let over = recorded(OVER, OVER);
        let rows = [
            ("in warranty", Some(recorded(LASTS, None)), plain, Ok("free_warranty")),
            ("a service period was bought", Some(recorded(OVER, LASTS)), plain, Ok("free_service_period")),
            ("the hardware warranty alone is none for software", Some(over.clone()), plain, Err(Withheld::Charged)),
            ("ordered", Some(over.clone()), Wanted { ordered: true, ..plain }, Ok("charged_ordered")),
            ("a security fix without trouble is charged too", Some(over.clone()), fix, Err(Withheld::Charged)),
            ("never withheld during a critical ticket", Some(over.clone()), urgent, Ok("charged_quoted")),
            ("a bought feature", Some(recorded(LASTS, None)), Wanted { features: &vpn, ..plain }, Ok("free_warranty")),
            (
                "a feature that was not bought",
                Some(recorded(LASTS, None)),
                Wanted { features: &ha, ordered: true, ..plain },
                Err(Withheld::Feature("ha".into())),
            ),
            ("its fix in an emergency", Some(over.clone()), Wanted { features: &ha, ..urgent }, Ok("charged_quoted")),
            ("nothing recorded", None, Wanted { features: &ha, ..plain }, Ok("free_nothing_recorded")),
            ("an action is support", Some(over), Wanted { is_action: true, ..plain }, Ok("free_action")),
        ];
        for (sentence, recorded, wanted, expected) in rows {
            let told = terms(recorded.as_ref(), wanted, NOW);
            assert_eq!(told.as_ref().map(Terms::as_str).map_err(Clone::clone), expected, "{sentence}");
        }
    }
}
