//! The wording: one bilingual template per kind (`templates/mail`), the reader's language first, the other below.
//!
//! A template's first line is the subject. Words are those of COMMITMENTS.md. Plain text only: nothing here makes markup.

use askama::Template;
use mainstay_shared::severity::Severity;

use super::facts::Facts;
pub(crate) use super::facts::one_line;
use super::rules::{Kind, Told, Why};
use crate::customers::{Language, Role};

/// A finished mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// One language's half of a mail about a ticket.
#[derive(Debug)]
struct Half<'a> {
    zh: bool,
    f: &'a Facts,
    severity: &'static str,
    reason: &'static str,
    why: String,
}

macro_rules! ticket_mails {
    ($($kind:ident { $(#[$template:meta])* $name:ident }),+ $(,)?) => {
        $( #[derive(Template)] $(#[$template])* struct $name<'a> { h: &'a Half<'a> } )+

        fn render(kind: Kind, h: &Half<'_>) -> Result<String, askama::Error> {
            match kind { $( Kind::$kind => $name { h }.render() ),+ }
        }
    };
}

ticket_mails! {
    Opened { #[template(path = "mail/opened.txt", escape = "none")] OpenedMail },
    Upgraded { #[template(path = "mail/upgraded.txt", escape = "none")] UpgradedMail },
    Warned { #[template(path = "mail/warned.txt", escape = "none")] WarnedMail },
    Missed { #[template(path = "mail/missed.txt", escape = "none")] MissedMail },
    Taken { #[template(path = "mail/taken.txt", escape = "none")] TakenMail },
    Responded { #[template(path = "mail/responded.txt", escape = "none")] RespondedMail },
    Recovered { #[template(path = "mail/recovered.txt", escape = "none")] RecoveredMail },
    Reopened { #[template(path = "mail/reopened.txt", escape = "none")] ReopenedMail },
    Closed { #[template(path = "mail/closed.txt", escape = "none")] ClosedMail },
}

/// The mail that tells `told` of a kind of event.
pub(crate) fn of_ticket(kind: Kind, facts: &Facts, told: &Told) -> Result<Text, askama::Error> {
    bilingual(told.recipient.language, |language| {
        let zh = language == Language::Zh;
        let half = Half {
            zh,
            f: facts,
            severity: severity_word(facts.severity, language),
            reason: reason_words(&facts.reason, language),
            why: why_words(told.why, language),
        };
        render(kind, &half)
    })
}

/// A customer's day: what failed and recovered before anyone could be told.
#[derive(Debug, Template)]
#[template(path = "mail/digest.txt", escape = "none")]
pub(crate) struct Digest<'a> {
    pub(crate) zh: bool,
    pub(crate) customer: &'a str,
    pub(crate) day: &'a str,
    pub(crate) lines: &'a [String],
    pub(crate) link: &'a str,
}

/// The operators' day: the heads of the chains of events, out of a database owner's reach.
#[derive(Debug, Template)]
#[template(path = "mail/heads.txt", escape = "none")]
pub(crate) struct Heads<'a> {
    pub(crate) zh: bool,
    pub(crate) service_name: &'a str,
    pub(crate) day: &'a str,
    pub(crate) lines: &'a [String],
}

/// Both halves, the reader's language first; the first line of his half is the subject.
pub(crate) fn bilingual(
    first: Language,
    half: impl Fn(Language) -> Result<String, askama::Error>,
) -> Result<Text, askama::Error> {
    let second = if first == Language::Zh { Language::En } else { Language::Zh };
    let (own, other) = (half(first)?, half(second)?);
    let (title, own_body) = own.split_once('\n').unwrap_or((&own, ""));
    let other_body = other.split_once('\n').map_or("", |(_, body)| body);
    Ok(Text {
        title: title.trim().to_owned(),
        body: format!("{}\n\n----------------------------------------\n\n{}\n", own_body.trim(), other_body.trim()),
    })
}

/// 故障级别 (C1).
pub(crate) fn severity_word(severity: Severity, language: Language) -> &'static str {
    match (severity, language) {
        (Severity::Critical, Language::Zh) => "严重故障",
        (Severity::Critical, Language::En) => "critical fault",
        (Severity::General, Language::Zh) => "一般故障",
        (Severity::General, Language::En) => "general fault",
    }
}

/// Why an impact was decided: the words of a `severity::Reason`.
pub(crate) fn reason_words(reason: &str, language: Language) -> &'static str {
    let (zh, en) = match reason {
        "service_down" => ("业务服务无应答", "the business service does not answer"),
        "group_below_need" => ("正常的成员少于业务所需", "fewer members are healthy than the business needs"),
        "group_unsure" => ("已知正常的成员少于业务所需", "fewer members are known to be healthy than the business needs"),
        "redundancy_lost" => ("一个成员中断，其余成员仍在承担业务", "a member is down; the others carry the business"),
        "service_degraded" => ("业务服务有应答，但不如应有", "the business service answers, worse than it should"),
        "check_unknown" => ("检查未能得出结论", "the check could not find out"),
        "check_unknown_presumed" => (
            "检查未能得出结论，而另有成员中断或此前已中断",
            "the check could not find out, and another member is down or it was down before",
        ),
        "dependent_down" => ("依赖该部件的业务服务随之中断", "a business service that depends on it is down with it"),
        "services_up" => ("设备有故障，业务服务正常", "the machine has a fault; the business services are up"),
        "services_unknown" => {
            ("设备有故障，业务服务状态未知", "the machine has a fault; whether the business services are up is not known")
        }
        "no_service_declared" => (
            "设备未声明业务服务：请向客户询问业务是否中断",
            "no business service is declared: ask the customer whether business is interrupted",
        ),
        "silent_uncovered" => {
            ("设备失联，其业务服务无其他成员承担", "the appliance is silent and nothing else is known to carry its services")
        }
        "silent_covered" => ("设备失联，其业务服务由其他成员承担", "the appliance is silent; others carry its services"),
        "human_answer" => ("由人员判定", "a person said so"),
        "internal" => ("供应商内部事项", "the vendor's own affair"),
        _ => ("见工单", "see the ticket"),
    };
    if language == Language::Zh { zh } else { en }
}

/// A role of C8 in a language.
pub(crate) fn role_word(role: Role, language: Language) -> &'static str {
    let (zh, en) = match role {
        Role::Operator => ("运维管理员", "operator"),
        Role::SeniorManagement => ("高层领导", "senior management"),
        Role::ServiceManager => ("售后服务经理", "after-sales service manager"),
        Role::SupportManager => ("客户支持经理", "customer support manager"),
        Role::AccountManager => ("客户经理", "account manager"),
        Role::SystemEngineer => ("系统工程师", "system engineer"),
    };
    if language == Language::Zh { zh } else { en }
}

fn why_words(why: Why, language: Language) -> String {
    match (why, language) {
        (Why::Serves(role), Language::Zh) => format!("您是该客户的{}", role_word(role, language)),
        (Why::Serves(role), Language::En) => format!("you are this customer's {}", role_word(role, language)),
        (Why::NobodyElse(role), Language::Zh) => format!("您是{0}，而该客户尚未指定{0}", role_word(role, language)),
        (Why::NobodyElse(role), Language::En) => {
            format!("you are {0}, and this customer has no {0} of its own", role_word(role, language))
        }
        (Why::LastResort, Language::Zh) => "没有任何人员可供通知，请尽快指定".to_owned(),
        (Why::LastResort, Language::En) => "there is nobody else to tell; please assign staff".to_owned(),
        (Why::Contact, Language::Zh) => "您是登记的联系人".to_owned(),
        (Why::Contact, Language::En) => "you are a registered contact".to_owned(),
    }
}

#[cfg(test)]
mod tests;
