//! Every key has a text in both languages; every fault of docs/faults.md has its text and its advice, word by word as it stands
//! there; every reason that a check can give has one. Also the keys themselves, for the tests of pages.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::appliances::clone::HoldReason;
use crate::customers::Role;
use crate::entitlements::Terms;
use crate::notices::rules::Kind;
use crate::releases::problems::What;
use crate::releases::rules::NotOffered;
use crate::releases::{STEPS, step_name};
use crate::tickets::severity::Reason;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("readable")
}

/// All keys of all files of texts.
pub(crate) fn keys() -> Vec<String> {
    let text: Vec<String> = ["console", "faults", "mails", "patches"].map(|name| read(&format!("locales/{name}.yml"))).into();
    text.iter().flat_map(|text| text.lines()).filter_map(|line| Some(line.split_once(": {")?.0.to_owned())).collect()
}

#[test]
fn every_key_has_a_text_in_both_languages_with_the_same_places() {
    let places =
        |text: &str| text.split("%{").skip(1).map(|p| p.split('}').next().unwrap_or("").to_owned()).collect::<BTreeSet<_>>();
    let keys = keys();
    assert!(keys.len() > 400, "{}", keys.len());
    for key in &keys {
        assert!(Words(Language::En).knows(key) && Words(Language::Zh).knows(key), "{key}");
        let (english, chinese) = (Words(Language::En).t(key), Words(Language::Zh).t(key));
        assert_eq!(places(&english), places(&chinese), "{key}");
        assert!(!english.chars().any(|c| ('\u{3000}'..='\u{9fff}').contains(&c)), "{key}: {english}");
    }
    assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "a key stands twice");
}

#[test]
fn every_fault_of_the_list_has_its_text_and_its_advice_as_the_list_gives_it() {
    let docs = read("../docs/faults.md");
    let mut codes = 0;
    for row in docs.lines().filter(|line| line.starts_with("| `")) {
        let code = row.split('`').nth(1).expect("a code");
        codes += 1;
        for language in Language::ALL {
            assert!(Words(language).knows(&format!("fault.{code}")), "{code}");
        }
        let advice = format!("| {} · {} |", Words(Language::En).action(code), Words(Language::Zh).action(code));
        assert!(row.ends_with(&advice), "{code}: docs/faults.md ends with\n{row}\nthe texts say\n{advice}");
    }
    assert!(codes >= 24, "{codes}");
}

#[test]
fn every_reason_that_the_agents_checks_give_has_a_text() {
    let docs = read("../docs/agent-configuration.md");
    let (_, after) = docs.split_once("Reasons that results carry:").expect("the list of reasons");
    let (list, _) = after.split_once("\n\n").expect("its end");
    let reasons: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert!(reasons.len() >= 18, "{reasons:?}");
    for reason in reasons {
        assert!(Words(Language::Zh).knows(&format!("check_reason.{reason}")), "{reason}");
    }
}

#[test]
fn every_word_that_the_collector_itself_stores_has_a_text() {
    let mut named: Vec<String> = Vec::new();
    named.extend(Reason::ALL.map(|reason| format!("reason.{}", reason.as_str())));
    named.extend(Role::ALL.map(|role| format!("role.{}", role.as_str())));
    named.extend(HoldReason::ALL.map(|reason| format!("hold_reason.{}", reason.as_str())));
    named.extend(["agent", "silence", "human", "internal"].map(|source| format!("said_by.{source}")));
    named.extend(NotOffered::WORDS.map(|word| format!("not_offered.{word}")));
    named.extend(What::ALL.map(|what| format!("repository_problem.{}", what.as_str())));
    named.extend(Terms::NAMES.into_iter().flat_map(|name| [format!("terms.{name}"), format!("patch_reason.{name}")]));
    named.extend(STEPS.map(|step| format!("patch_step.{}", step_name(step))));
    for kind in Kind::ALL.map(Kind::as_str) {
        named.extend([format!("notice.{kind}"), format!("mail.{kind}.title"), format!("mail.{kind}.lead")]);
    }
    for key in named {
        assert!(Words(Language::En).knows(&key) && Words(Language::Zh).knows(&key), "{key}");
    }
}

#[test]
fn a_fault_is_told_by_its_code_with_the_name_of_what_it_is_about() {
    let rows = [
        (Language::Zh, "service:payments", "service_down", "gw", "业务服务无应答：payments"),
        (Language::En, "service:payments", "service_down", "gw", "Business service does not answer: payments"),
        (Language::En, "memory", "memory_low", "gw", "Memory is low: gw"),
        (Language::Zh, "link", "mass_silence", "", "多家客户同时失联"),
        (Language::En, "disk:/var", "of_a_newer_agent", "gw", "of_a_newer_agent: /var"),
    ];
    for (language, component, code, place, told) in rows {
        assert_eq!(Words(language).fault(component, code, place), told);
    }
    assert_eq!(Words(Language::En).action("of_a_newer_agent"), "");
}
