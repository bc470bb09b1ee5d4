//! A status for people: aligned lines in Chinese or English, in colour on a terminal, plain in a pipe.
//!
//! What is wrong stands out; what is fine takes one line. It decides nothing and asks nobody.

use std::io::IsTerminal as _;

use mainstay_shared::check::ServiceState;

use super::super::say;
use super::super::words::{Lang, padded, pick, state_word};
use super::{ServiceStatus, StatusReport, Unreported};

/// Prints `report`.
pub(super) fn print(report: &StatusReport, lang: Lang) {
    let terminal = std::io::stdout().is_terminal();
    let paint = |colour: &str, text: &str| if terminal { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() };
    let good_or_bad = |good: bool, text: &str| paint(if good { "32" } else { "31" }, text);
    let line = |zh: &str, en: &str, value: String| {
        let label = pick(lang, zh, en);
        say(format_args!("{}{value}", padded(label, 18)));
    };
    let running = if report.running { pick(lang, "运行中", "running") } else { pick(lang, "未运行", "not running") };
    let safe = if report.safe_mode { pick(lang, "（安全模式）", " (safe mode)") } else { "" };
    line(
        "代理程序",
        "agent",
        format!("{} {}", good_or_bad(report.running && !report.safe_mode, &format!("{running}{safe}")), report.agent_version),
    );
    line("设备标识", "appliance", report.appliance.clone().unwrap_or_default());
    line("服务中心", "collector", report.addresses.join(" "));
    if report.running {
        let at = report.contact.last_contact_at.map_or(pick(lang, "尚未", "not yet").to_owned(), |at| at.to_string());
        line("最近联系", "last contact", good_or_bad(report.unreported().is_none(), &at));
    }
    if let Some(why) =
        report.unreported().filter(|why| matches!(why, Unreported::NoContact | Unreported::NotTaken | Unreported::NotRecorded))
    {
        let what = pick(lang, "本设备的故障无法上报，请致电厂商", "faults of this box are not told: call the vendor");
        line("本机告警", "LOCAL ALARM", paint("31", &format!("{}; {what}", why.text(lang))));
    }
    if let Some(trouble) = &report.contact.trouble {
        line("联系故障", "trouble", paint("31", trouble));
    }
    if report.contact.held {
        line(
            "已挂起",
            "held",
            paint(
                "31",
                pick(lang, "服务中心认为这是克隆或回滚的快照", "the collector takes this for a clone or a restored snapshot"),
            ),
        );
    }
    if report.contact.renewal_waits {
        line("证书续期", "renewal", paint("33", pick(lang, "等待运维人员批准", "waits for an operator")));
    }
    if let Some(days) = report.certificate_days_left {
        let text = format!("{days} {}", pick(lang, "天后到期", "days left"));
        line("证书", "certificate", good_or_bad(days > 14, &text));
    }
    let spool = &report.spool;
    let waiting = format!(
        "{} {} + {} {} ({} KiB / {} KiB)",
        spool.fault_records,
        pick(lang, "条故障", "fault"),
        spool.sample_records,
        pick(lang, "条采样", "sample"),
        spool.bytes / 1024,
        spool.max_bytes / 1024
    );
    line("待发记录", "backlog", waiting);
    if let Some(error) = &report.spool_error {
        line("队列故障", "spool trouble", paint("31", error));
    }
    if let Some(busy_ms) = report.spool_busy_ms {
        line("磁盘停顿", "disk hangs", paint("31", &format!("{busy_ms} ms")));
    }
    print_services(report, lang, &line, &good_or_bad);
}

fn print_services(
    report: &StatusReport,
    lang: Lang,
    line: &dyn Fn(&str, &str, String),
    good_or_bad: &dyn Fn(bool, &str) -> String,
) {
    for (name, ServiceStatus { state }) in &report.services {
        let (good, word) = match state {
            Some(state) => (*state == ServiceState::Up, state_word(lang, *state)),
            None => (report.running, pick(lang, "尚未检查", "not asked yet")),
        };
        line("业务服务", "service", format!("{} {name}", good_or_bad(good, word)));
    }
    if report.severity_blind {
        let text = pick(lang, "未声明业务服务：无法判断业务是否中断", "severity blind: no business service is declared");
        line("故障级别", "severity", good_or_bad(false, text));
    }
    for fault in &report.open_faults {
        line("未恢复故障", "open fault", format!("{} {} {}", good_or_bad(false, &fault.code), fault.component, fault.summary));
    }
}
