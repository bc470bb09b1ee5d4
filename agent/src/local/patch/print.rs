//! How patches and actions are shown to a person: what, from where to where, how it stands, why, the code, the windows.
//!
//! Texts of the files come from the vendor and are already cleaned by the helper. Nothing is decided here.

use std::io::IsTerminal as _;

use mainstay_shared::patch::{Installed, PatchKind, PatchStep};

use super::super::say;
use super::super::words::{Lang, padded, pick};
use crate::helper::protocol::KnownFile;

/// A step in words.
pub(super) fn step(lang: Lang, step: PatchStep) -> &'static str {
    match step {
        PatchStep::Fetching => pick(lang, "下载中", "being fetched"),
        PatchStep::AwaitingConsent => pick(lang, "等待同意", "waits for consent"),
        PatchStep::AwaitingWindow => pick(lang, "已同意，等待安装窗口", "agreed, waits for the install window"),
        PatchStep::Applying => pick(lang, "安装中", "being applied"),
        PatchStep::Probation => pick(lang, "已就位，正在确认业务服务", "in place, the business services are being asked"),
        PatchStep::Done => pick(lang, "完成", "done"),
        PatchStep::RolledBack => pick(lang, "已自动回退", "rolled back"),
        PatchStep::Refused => pick(lang, "已拒绝", "refused"),
        PatchStep::Failed => pick(lang, "失败，需要人工处理", "failed, a person must look"),
        PatchStep::Unknown => pick(lang, "结果未知，不会重复执行", "its end was not seen, it is not repeated"),
    }
}

/// A code in brackets; nothing for none.
fn code(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!("({code})") }
}

/// How it ended, and why, in one line.
pub(super) fn end(lang: Lang, at: PatchStep, (reason, detail): (&str, &str)) -> String {
    let why = why(lang, (reason, detail));
    if why.is_empty() { step(lang, at).to_owned() } else { format!("{}{}{why}", step(lang, at), pick(lang, "：", ": ")) }
}

/// The box's text and its code; in Chinese with the code's meaning before it.
fn why(lang: Lang, (reason, detail): (&str, &str)) -> String {
    let meaning = match reason {
        "unhealthy" => "新版本下业务服务未在期限内恢复",
        "unhealthy_before" => "安装前业务服务已异常",
        "script_failed" => "脚本执行失败",
        "refused_by_customer" => "客户拒绝",
        "by_administrator" => "由管理员操作",
        "wrong_code" => "验证码不正确",
        "too_many_codes" => "验证码错误次数过多",
        "taken_back" => "厂商已收回",
        "no_space" => "磁盘空间不足",
        "bad_signature" | "bad_content" | "bad_format" | "bad_archive" => "文件未通过验证",
        _ => "",
    };
    let meaning = if lang == Lang::Zh { meaning } else { "" };
    format!("{meaning} {detail} {}", code(reason)).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn coloured(step: PatchStep, text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let colour = match step {
        PatchStep::Done => 32,
        PatchStep::RolledBack | PatchStep::Refused | PatchStep::Failed | PatchStep::Unknown => 31,
        _ => 33,
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}

/// Local time, to the minute.
fn local(at: mainstay_shared::time_source::UnixMs) -> String {
    at.to_utc().with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M").to_string()
}

/// What is installed.
pub(super) fn installed(installed: Option<&Installed>, lang: Lang) {
    let Some(found) = installed else {
        return say(pick(lang, "本设备未配置补丁", "this box was not set up for patches"));
    };
    line(lang, "产品", "product", &format!("{} {} ({})", found.product, found.version, found.hardware));
    let consents = format!("{} / {}", found.patch_consent, found.action_consent);
    line(lang, "同意方式：补丁 / 动作", "consent: patches / actions", &consents);
}

fn line(lang: Lang, zh: &str, en: &str, value: &str) {
    if !value.is_empty() {
        say(format_args!("  {}{value}", padded(pick(lang, zh, en), 28)));
    }
}

/// Several.
pub(super) fn files(files: &[KnownFile], over: bool, lang: Lang) {
    if files.is_empty() {
        return say(if over {
            pick(lang, "无历史", "nothing was applied yet")
        } else {
            pick(lang, "无待处理项", "nothing waits")
        });
    }
    files.iter().for_each(|one| file(one, lang));
}

/// One.
pub(super) fn file(file: &KnownFile, lang: Lang) {
    let versions = match (&file.from_version, file.kind) {
        (Some(from), PatchKind::Patch) => format!("{from} → {}", file.to_version),
        _ => file.to_version.clone(),
    };
    say(format_args!("{} {versions}  {}", file.product, coloured(file.step, step(lang, file.step))));
    line(lang, "内容", "what", pick(lang, &file.title.0, &file.title.1));
    line(lang, "说明", "notes", pick(lang, &file.notes.0, &file.notes.1));
    line(lang, "原因", "why", &why(lang, (&file.reason.0, &file.reason.1)));
    line(lang, "时间", "since", &local(file.at));
    line(lang, "SHA-256", "SHA-256", &file.sha256);
    line(lang, "大小（字节）", "bytes", &file.bytes.to_string());
    line(lang, "验证码（用于邮件链接页面）", "code for the link's page", file.code.as_deref().unwrap_or_default());
    let windows: Vec<_> = file.next_windows.iter().map(|at| local(*at)).collect();
    line(lang, "下三个安装窗口", "next install windows", &windows.join(", "));
    if !file.output.is_empty() {
        say(pick(lang, "  脚本输出：", "  output of its scripts:"));
        file.output.lines().for_each(|text| say(format_args!("    {text}")));
    }
}
