//! The two languages of the command line. The words for faults, severity and services are those of the commitments.
//!
//! `--lang` decides, else `LC_ALL`, `LC_MESSAGES`, `LANG`; what is not Chinese is English.

use mainstay_shared::check::ServiceState;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lang {
    /// 简体中文.
    Zh,
    /// English.
    En,
}

impl Lang {
    /// The language that `name` (`zh`, `zh_CN.UTF-8`, `en`, ...) stands for.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name.get(..2)? {
            "zh" => Some(Self::Zh),
            "en" => Some(Self::En),
            _ => None,
        }
    }

    /// By the environment.
    pub(crate) fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = set("LC_ALL").or_else(|| set("LC_MESSAGES")).or_else(|| set("LANG"));
        named.and_then(|name| Self::from_name(&name)).unwrap_or(Self::En)
    }
}

/// The text in `lang`.
pub(crate) fn pick<'a>(lang: Lang, zh: &'a str, en: &'a str) -> &'a str {
    match lang {
        Lang::Zh => zh,
        Lang::En => en,
    }
}

/// `label` filled up to `columns` of a terminal, where a Chinese character takes two; one blank at least.
pub(super) fn padded(label: &str, columns: usize) -> String {
    let wide = |c: char| matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{20000}'..='\u{3fffd}');
    let taken: usize = label.chars().map(|c| if wide(c) { 2 } else { 1 }).sum();
    format!("{label}{}", " ".repeat(columns.saturating_sub(taken).max(1)))
}

/// A service's state.
pub(super) fn state_word(lang: Lang, state: ServiceState) -> &'static str {
    match state {
        ServiceState::Up => pick(lang, "正常", "up"),
        ServiceState::Degraded => pick(lang, "性能下降", "degraded"),
        ServiceState::Unknown => pick(lang, "无法判断", "unknown"),
        ServiceState::Down => pick(lang, "中断", "down"),
    }
}

/// `help`, by language.
pub(crate) const HELP: (&str, &str) = (
    "\
mainstay-agent：监测本设备及其业务服务，经 HTTPS 向服务中心上报故障

用法：mainstay-agent [--config 文件] [--lang zh|en] [--json] 命令

  enroll [--join-file 文件] [--again]   用接入串登记本设备（默认从标准输入读取）
  run                                   运行（由 systemd 启动）
  status                                身份、最近联系、待发记录、业务服务、证书
  test [--note 文字] [--no-wait]        发送一条测试消息，显示经过验证的回执（--no-wait：写盘接受后即返回）
  test reach                            试连服务中心一次（不写入任何内容）
  patch list|status|history             补丁：待处理（含六位验证码与安装窗口）、当前版本、历史
  patch verify 文件|链接                只验证，不保留
  patch apply 文件|链接|SHA256 [--now]  同意并安装（链接：邮件中的链接，由本设备下载）；--now：不等安装窗口
  patch refuse SHA256 --reason 文字     拒绝，理由会告知厂商
  patch rollback [agent]                回到上一版本（agent：代理程序自身）
  patch receipt [--out 文件]            写出签名回执，供离线带回或邮寄给厂商
  action list|history                   动作：待处理、历史
  action run 文件|SHA256                同意并执行一次
  check-config                          检查配置
  spool check|dump|repair               检查、列出、修复待发队列
  version                               版本
  help                                  本说明

退出码：0 完成；10 已回退；11 已拒绝；12 等待同意；13 需要人工处理；64 用法或配置错误；65 数据损坏；69 无应答；70 内部错误；75 稍后再试；77 不允许或未登记",
    "\
mainstay-agent: watches this appliance and its business services, reports faults outward over HTTPS

Usage: mainstay-agent [--config FILE] [--lang zh|en] [--json] COMMAND

  enroll [--join-file FILE] [--again]   enrol this appliance with a join string (default: read from standard input)
  run                                   run (started by systemd)
  status                                identity, last contact, backlog, business services, certificate
  test [--note TEXT] [--no-wait]        send a test message, show its verified receipt (--no-wait: only until it is on the disk)
  test reach                            try one request to the collector; writes nothing
  patch list|status|history             patches: what waits (with code and install windows), what runs, what was
  patch verify FILE|LINK                verify only, keep nothing
  patch apply FILE|LINK|SHA256 [--now]  agree and install; LINK: the one of the mail, this box downloads; --now: outside the window
  patch refuse SHA256 --reason TEXT     refuse; the vendor is told the reason
  patch rollback [agent]                back to the version before (agent: of the agent itself)
  patch receipt [--out FILE]            write the signed receipt, to be carried or mailed to the vendor
  action list|history                   actions: what waits, what was
  action run FILE|SHA256                agree and run it once
  check-config                          check the configuration
  spool check|dump|repair               check, list or repair the queue of records to be sent
  version                               the version
  help                                  this text

Exit codes: 0 done; 10 rolled back; 11 refused; 12 needs consent; 13 needs a person; 64 usage or configuration; 65 damaged data; 69 no answer; 70 internal; 75 try later; 77 not allowed or not enrolled",
);

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn labels_of_both_languages_end_in_the_same_column() {
        for (label, shown) in [
            ("bytes", "bytes     |"),
            ("说明", "说明      |"),
            ("原因：", "原因：    |"),
            ("an endless label", "an endless label |"),
        ] {
            assert_eq!(format!("{}|", padded(label, 10)), shown);
        }
    }
}
