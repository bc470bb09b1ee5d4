//! Every mail in both languages, compared with its golden file in `golden/`. `MAINSTAY_WRITE_GOLDEN=1` writes them anew.

use std::path::Path;

use super::*;
use crate::notices::Recipient;
use crate::notices::testing::ticket;
use crate::tickets::severity::Reason;

fn facts() -> Facts {
    let ticket = ticket(42, mainstay_shared::severity::BusinessImpact::Interrupted);
    Facts {
        service_name: "Mainstay".into(),
        number: ticket.ticket_id,
        severity: ticket.severity,
        presumed: true,
        reason: "group_unsure".into(),
        customer: "某银行".into(),
        site: "主机房 (重庆)".into(),
        appliance: "gw-1".into(),
        component: "service:web / service_down".into(),
        what: ticket.summary,
        checks: vec!["http (http): down, refused: connection refused".into()],
        fault_at: "2027-01-15 15:59:50 (UTC+08:00)".into(),
        opened_at: "2027-01-15 16:00:00 (UTC+08:00)".into(),
        due_at: "2027-01-15 16:30:00 (UTC+08:00)".into(),
        link: "https://support.example.com/tickets/T-000042".into(),
        who: "李伟".into(),
        note: "已电话联系 / called the customer".into(),
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
            let text = of_ticket(kind, &facts(), &told(language)).expect("renders");
            compare(&format!("{}.{}.txt", kind.as_str(), language.as_str()), &format!("{}\n\n{}", text.title, text.body));
        }
    }
    let lines = ["T-000041: 磁盘 / disk".to_owned()];
    for first in Language::ALL {
        let digest = bilingual(first, |language| {
            let zh = language == Language::Zh;
            Digest { zh, customer: "某银行", day: "2027-01-14", lines: &lines, link: "https://support.example.com/tickets" }
                .render()
        });
        let heads = bilingual(first, |language| {
            Heads { zh: language == Language::Zh, service_name: "Mainstay", day: "2027-01-14", lines: &lines }.render()
        });
        for (name, text) in [("digest", digest), ("heads", heads)] {
            let text = text.expect("renders");
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
fn a_subject_is_one_line_in_the_readers_language_with_number_and_severity() {
    let zh = of_ticket(Kind::Opened, &facts(), &told(Language::Zh)).expect("renders");
    assert!(zh.title.starts_with("【严重故障】工单 T-000042") && !zh.title.contains('\n'), "{}", zh.title);
    let en = of_ticket(Kind::Opened, &facts(), &told(Language::En)).expect("renders");
    assert!(en.title.starts_with("[critical fault] Ticket T-000042"), "{}", en.title);
    assert!(en.body.find("Ticket:") < en.body.find("工单："), "the reader's language comes first");
}

#[test]
fn every_reason_of_a_decision_has_its_words() {
    for reason in Reason::ALL.map(Reason::as_str) {
        assert_ne!(reason_words(reason, Language::Zh), reason_words("?", Language::Zh), "{reason}");
        assert_ne!(reason_words(reason, Language::En), reason_words("?", Language::En), "{reason}");
    }
}
