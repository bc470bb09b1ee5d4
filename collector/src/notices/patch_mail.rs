//! The mail with a patch's link: what it is, for which boxes, its notes, size and hash. Both languages, the reader's first and whole.
//!
//! The link identifies and authorises nothing; the mail says so. Plain text only.

use mainstay_shared::time_source::UnixMs;

use super::texts::{Half, Text, bilingual, one_line};
use crate::customers::Language;
use crate::releases::ReleaseFile;
use crate::releases::problems::Problem;
use crate::words::{Words, when};

/// The kind in the outbox.
pub(crate) const KIND: &str = "patch_link";

/// What the mail tells.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) file: &'a ReleaseFile,
    /// Names and serials.
    pub(crate) boxes: &'a [String],
    pub(crate) link: String,
    pub(crate) expires_at: UnixMs,
    /// The time zone of the first box's site.
    pub(crate) zone: &'a str,
    pub(crate) service_name: &'a str,
}

/// The mail.
pub(crate) fn text(language: Language, told: &Told<'_>) -> Text {
    bilingual(language, |w, half| {
        let name = title_of(w, told.file);
        let title = w.with("mail.patch_link.title", &[("name", &one_line(&name)), ("service", &one_line(told.service_name))]);
        let mut lines = vec![w.t("mail.patch_link.lead").into_owned(), String::new()];
        lines.push(w.pair(&w.t("mail.patch_link.what"), &one_line(&name)));
        lines.push(w.pair(&w.t("mail.patch_link.file"), &told.file.file));
        lines.push(w.pair(&w.t("mail.patch_link.boxes"), &one_line(&told.boxes.join(&w.t("mail.comma")))));
        if half == Half::Whole {
            lines.extend(notes_of(w, told.file).lines().map(|line| format!("  {line}")));
            lines.push(w.pair(&w.t("mail.patch_link.size"), &format!("{} B", told.file.bytes)));
            lines.push(w.pair("SHA-256", &told.file.sha256));
            lines.push(w.pair(&w.t("mail.patch_link.until"), &when::moment(told.expires_at, told.zone)));
            lines.extend([String::new(), told.link.clone(), String::new()]);
            lines.push(w.t("mail.patch_link.how").into_owned());
            lines.push(told.service_name.to_owned());
        }
        (title, lines.join("\n"))
    })
}

/// What a file is, in the reader's language.
pub(crate) fn title_of(w: Words, file: &ReleaseFile) -> String {
    let Some(manifest) = &file.manifest else { return file.file.clone() };
    let title = if w.0 == Language::Zh { &manifest.title.zh } else { &manifest.title.en };
    format!("{title} {} {}", manifest.subject(), manifest.version).trim().to_owned()
}

/// What a person should know before they agree.
pub(crate) fn notes_of(w: Words, file: &ReleaseFile) -> String {
    let notes = file.manifest.as_ref().map(|manifest| if w.0 == Language::Zh { &manifest.notes.zh } else { &manifest.notes.en });
    notes.cloned().unwrap_or_default()
}

/// To operators: something is wrong with the repository, and lasts.
pub(crate) fn repository_problem(language: Language, service_name: &str, problem: &Problem) -> Text {
    bilingual(language, |w, _| {
        let about = one_line(&problem.about);
        let title = w.with("mail.repository.title", &[("about", &about), ("service", &one_line(service_name))]);
        let what = w.of("repository_problem", problem.what.as_str());
        (title, w.with("mail.repository.lead", &[("about", &about), ("what", &what), ("why", &one_line(&problem.why))]))
    })
}

/// To operators: signatures end, and with them installs, on that day.
pub(crate) fn signatures_end(language: Language, service_name: &str, role: &str, expires_at: UnixMs) -> Text {
    bilingual(language, |w, _| {
        let at = when::moment(expires_at, "UTC");
        let title = w.with("mail.expiry.title", &[("role", &role), ("service", &one_line(service_name)), ("at", &at)]);
        (title, w.with("mail.expiry.lead", &[("role", &role), ("at", &at)]))
    })
}
