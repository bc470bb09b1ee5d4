//! Whether a file may be offered: a sentence a row. Also the sample file, for other tests.

use serde_json::json;

use super::*;

/// A verified patch of `acme-gateway` from 2.0 to `version`.
pub(crate) fn sample_file(version: &str) -> ReleaseFile {
    let manifest = json!({
        "format": 1, "product": "acme-gateway", "name": version, "version": version, "hardware": ["gw-2000"],
        "title": {"zh": "网关", "en": "Gateway"}, "notes": {"zh": "", "en": ""},
        "body": {"kind": "patch", "from": ">=2.0.0, <2.9.0",
            "payload": {"length": 1, "sha256": "00", "entries": 1, "unpacked_bytes": 1},
            "content": {"as": "tree", "tree_sha256": "00"}, "data_change": "none",
            "health": {"consecutive_ok": 3, "deadline_s": 60}}
    });
    ReleaseFile {
        file: format!("acme-gateway-{version}.mpatch"),
        sha256: "5".repeat(64),
        bytes: 1000,
        mark: String::new(),
        manifest: Some(serde_json::from_value(manifest).expect("a manifest")),
        manifest_sha256: "6".repeat(64),
        state: FileState::Good,
        refusal: String::new(),
        expires_at: UnixMs(i64::MAX),
    }
}

fn known() -> Circumstances {
    let installed = ("acme-gateway".to_owned(), "2.0.0".to_owned(), "gw-2000".to_owned());
    Circumstances { active: true, product: "vpn".into(), installed: Some(installed), ..Circumstances::default() }
}

fn runs(version: &str, model: &str) -> Circumstances {
    Circumstances { installed: Some(("acme-gateway".into(), version.into(), model.into())), ..known() }
}

#[test]
fn a_file_is_offered_where_it_fits_and_was_not_tried_in_vain() {
    let now = UnixMs(1000);
    let file = || sample_file("2.1.0");
    let rows = [
        ("it fits", file(), known(), "free_nothing_recorded"),
        ("held", file(), Circumstances { active: false, ..known() }, "not_in_service"),
        ("the version that runs", file(), runs("2.1.0", "gw-2000"), "other_version"),
        ("a newer one runs", file(), runs("2.2.0", "gw-2000"), "other_version"),
        ("too old to start from", file(), runs("1.9.0", "gw-2000"), "other_version"),
        ("another model", file(), runs("2.0.0", "gw-1000"), "other_hardware"),
        ("another product", ReleaseFile { ..file() }, Circumstances { installed: None, ..known() }, "other_product"),
        (
            "a box without a network, enrolled for the product",
            file(),
            Circumstances { installed: None, product: "acme-gateway".into(), ..known() },
            "free_nothing_recorded",
        ),
        ("on its way", file(), Circumstances { offered: true, ..known() }, "already_offered"),
        ("it rolled back here", file(), Circumstances { ended: vec![PatchStep::RolledBack], ..known() }, "failed_before"),
        ("it failed here", file(), Circumstances { ended: vec![PatchStep::Failed], ..known() }, "failed_before"),
        (
            "the customer refused it once",
            file(),
            Circumstances { ended: vec![PatchStep::Refused], ..known() },
            "free_nothing_recorded",
        ),
        ("withdrawn", ReleaseFile { state: FileState::Withdrawn, ..file() }, known(), "file_not_good"),
        ("not verified", ReleaseFile { state: FileState::Refused, manifest: None, ..file() }, known(), "file_not_good"),
        ("past its date", ReleaseFile { expires_at: now, ..file() }, known(), "file_expired"),
        (
            "out of warranty",
            file(),
            Circumstances {
                entitlement: Some(Entitlement { software_until_at: Some(UnixMs(9)), ..Entitlement::default() }),
                ..known()
            },
            "charged",
        ),
    ];
    for (sentence, file, known, expected) in rows {
        let told = may_offer(&file, &known, now);
        let word = told.as_ref().map_or_else(NotOffered::word, Terms::as_str);
        assert_eq!(word, expected, "{sentence}");
    }
}
