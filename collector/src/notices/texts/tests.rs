//! Every mail in both languages, compared with its golden file in `golden/`. `MAINSTAY_WRITE_GOLDEN=1` writes them anew.

use std::path::Path;

use mainstay_shared::severity::BusinessImpact;
use mainstay_shared::time_source::UnixMs;

use super::*;
use crate::customers::Role;
use crate::notices::Recipient;
use crate::notices::facts::checks_of;
use crate::notices::testing::ticket;

fn facts() -> Facts {
    let ticket = Ticket { presumed: true, reason: "group_unsure".into(), ..ticket(42, BusinessImpact::Interrupted) };
    Facts {
        service_name: "Mainstay".into(),
        customer: "某银行".into(),
        site: "主机房 (重庆)".into(),
        appliance: "gw-1".into(),
        zone: "Asia/Shanghai".into(),
        checks: checks_of(&ticket.grounds),
        due_at: UnixMs(1_800_001_800_000),
        link: "https://support.example.com/tickets/T-000042".into(),
        who: "李伟".into(),
        note: "已电话联系 / called the customer".into(),
        ticket,
    }
}

fn told(language: Language) -> Told {
    Told {
        recipient: Recipient { name: "li".into(), email: "li@vendor.example".into(), language },
        why: Why::Serves(Role::SystemEngineer),
    }
}

#[test]
fn every_mail_reads_as_its_golden_file() {
    for kind in Kind::ALL {
        for language in Language::ALL {
            let told_more = matches!(kind, Kind::Responded | Kind::Reopened | Kind::Closed);
            let facts = Facts { note: if told_more { facts().note } else { String::new() }, ..facts() };
            let text = of_ticket(kind, &facts, &told(language));
            compare(&format!("{}.{}.txt", kind.as_str(), language.as_str()), &format!("{}\n\n{}", text.title, text.body));
        }
    }
    let over = Ticket { component: "disk:/var".into(), code: "disk_space_low".into(), ..ticket(41, BusinessImpact::Slight) };
    let over = [Over { ticket: over, place: "gw-1".into() }];
    let chains = ["bank  1042  9f86d081884c7d659a2feaa0c55ad015".to_owned()];
    for first in Language::ALL {
        let digest = digest(first, "某银行", "2027-01-14", &over, "https://support.example.com/");
        let heads = heads(first, "Mainstay", "2027-01-14", &chains);
        for (name, text) in [("digest", digest), ("heads", heads)] {
            compare(&format!("{name}.{}.txt", first.as_str()), &format!("{}\n\n{}", text.title, text.body));
        }
    }
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notices/texts/golden").join(name);
    if std::env::var_os("MAINSTAY_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for golden files");
        std::fs::write(&path, text).expect("writes a golden file");
    }
    let golden = std::fs::read_to_string(&path).expect("a golden file; MAINSTAY_WRITE_GOLDEN=1 writes it");
    assert_eq!(text, golden, "{name}");
}

#[test]
fn a_subject_names_severity_number_and_fault_in_the_readers_language() {
    let zh = of_ticket(Kind::Opened, &facts(), &told(Language::Zh));
    assert_eq!(zh.title, "[严重故障] T-000042 业务服务无应答：web");
    let en = of_ticket(Kind::Opened, &facts(), &told(Language::En));
    assert_eq!(en.title, "[Critical fault] T-000042 Business service does not answer: web");
    assert!(en.body.find("Severity:") < en.body.find("故障级别："), "the reader's language comes first");
}

#[test]
fn a_component_without_a_name_is_told_by_its_appliance_and_hostile_names_stay_one_line() {
    let subject = |component: &str, code: &str| {
        let ticket = Ticket { component: component.into(), code: code.into(), ..facts().ticket };
        of_ticket(Kind::Opened, &Facts { ticket, ..facts() }, &told(Language::En)).title
    };
    assert_eq!(subject("memory", "memory_low"), "[Critical fault] T-000042 Memory is low: gw-1");
    assert_eq!(subject("link", "silent"), "[Critical fault] T-000042 Appliance is silent: gw-1");
    let hostile = subject("service:a\r\nBcc: all@example.com", "a newer agent's code");
    assert_eq!(hostile, "[Critical fault] T-000042 a newer agent's code: a Bcc: all@example.com");
}
