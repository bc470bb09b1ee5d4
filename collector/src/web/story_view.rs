//! A ticket's timeline in words: one sentence an event, in the reader's language. Every kind of event has its sentence; the match
//! has no wildcard, so a new kind can't be forgotten. Pure.

use std::collections::HashMap;

use mainstay_shared::severity::BusinessImpact;

use super::offers_view::step_words;
use crate::appliances::PatchNews;
use crate::tickets::store::TimelineEntry;
use crate::tickets::{ResponseWay, TicketEvent};
use crate::words::Words;
use crate::words::when;

/// One line of the timeline.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: String,
    pub(crate) who: String,
    /// `bad`, `good`, `plain`: how it is marked.
    pub(crate) tone: &'static str,
    pub(crate) what: String,
    /// Somebody's own words; hostile text.
    pub(crate) quoted: String,
}

/// The timeline, newest first.
pub(crate) fn lines(w: Words, entries: &[TimelineEntry], zone: &str, staff: &HashMap<String, String>) -> Vec<Line> {
    entries.iter().rev().map(|entry| line(w, entry, zone, staff)).collect()
}

fn line(w: Words, entry: &TimelineEntry, zone: &str, staff: &HashMap<String, String>) -> Line {
    let (tone, what, quoted) = tell(w, &entry.event, zone);
    Line { at: when::moment(entry.at, zone), who: actor(w, &entry.actor, staff), tone, what, quoted }
}

fn actor(w: Words, actor: &str, staff: &HashMap<String, String>) -> String {
    match actor.split_once(':') {
        Some(("staff", id)) => staff.get(id).cloned().unwrap_or_else(|| id.to_owned()),
        Some(("appliance", _)) => w.t("actor.appliance").into_owned(),
        Some(("link", address)) => w.with("actor.link", &[("address", &address)]),
        Some(("token", _)) => w.t("actor.token").into_owned(),
        _ => w.t("actor.system").into_owned(),
    }
}

fn tell(w: Words, event: &TicketEvent, zone: &str) -> (&'static str, String, String) {
    let impact = |impact: &BusinessImpact| w.of("impact", impact.as_str());
    let none = String::new();
    match event {
        TicketEvent::Opened { impact: found, reason, summary, already_recovered, .. } => {
            let key = if *already_recovered { "event.opened_recovered" } else { "event.opened" };
            let text = w.with(key, &[("impact", &impact(found)), ("reason", &w.of("reason", reason))]);
            ("bad", text, summary.clone())
        }
        TicketEvent::Joined { component, code, summary, .. } => (
            "bad",
            w.with("event.joined", &[("component", &w.component(component)), ("code", &w.of("fault", code))]),
            summary.clone(),
        ),
        TicketEvent::ImpactChanged { from, to, reason, why, customer_word, .. } => {
            let tone = if to > from { "bad" } else { "good" };
            let text =
                w.with("event.impact", &[("from", &impact(from)), ("to", &impact(to)), ("reason", &w.of("reason", reason))]);
            (tone, text, [why.as_str(), customer_word.as_str()].join(" ").trim().to_owned())
        }
        TicketEvent::EpisodeCleared { component, code, summary, .. } => (
            "good",
            w.with("event.cleared", &[("component", &w.component(component)), ("code", &w.of("fault", code))]),
            w.of("cleared_why", summary).into_owned(),
        ),
        TicketEvent::Reopened { summary, .. } => ("bad", w.t("event.reopened").into_owned(), summary.clone()),
        TicketEvent::Recovered => ("good", w.t("event.recovered").into_owned(), none),
        TicketEvent::Closed { why } => ("good", w.t("event.closed").into_owned(), w.of("closed_why", why).into_owned()),
        TicketEvent::Taken { name, .. } => ("plain", w.with("event.taken", &[("name", name)]), none),
        TicketEvent::Responded { name, way, note, .. } => {
            ("good", w.with("event.responded", &[("name", name), ("way", &w.of("way", way_name(*way)))]), note.clone())
        }
        TicketEvent::Assigned { to_name, .. } => ("plain", w.with("event.assigned", &[("name", to_name)]), none),
        TicketEvent::Noted { text } => ("plain", w.t("event.noted").into_owned(), text.clone()),
        TicketEvent::Attributed { attribution, why } => {
            let whose = w.of("attribution", attribution.as_str());
            ("plain", w.with("event.attributed", &[("attribution", &whose)]), why.clone())
        }
        TicketEvent::ClockStarted { .. }
        | TicketEvent::ClockWarned { .. }
        | TicketEvent::ClockMissed { .. }
        | TicketEvent::ClockStopped { .. } => tell_clock(w, event, zone),
        TicketEvent::Patch { news, .. } => tell_patch(w, news),
        TicketEvent::NoticeSent { kind, recipient } => {
            ("plain", w.with("event.notice_sent", &[("kind", &w.of("notice", kind)), ("recipient", recipient)]), none)
        }
        TicketEvent::NoticeRefused { kind, recipient, error } => {
            let text = w.with("event.notice_refused", &[("kind", &w.of("notice", kind)), ("recipient", recipient)]);
            ("bad", text, error.clone())
        }
    }
}

fn tell_clock(w: Words, event: &TicketEvent, zone: &str) -> (&'static str, String, String) {
    let text =
        |key: &str, kind: &str, more: &dyn std::fmt::Display| w.with(key, &[("clock", &w.of("clock", kind)), ("value", more)]);
    match event {
        TicketEvent::ClockStarted { kind, due_at, .. } => {
            ("plain", text("event.clock_started", kind, &when::moment(*due_at, zone)), String::new())
        }
        TicketEvent::ClockWarned { kind, due_at, .. } => {
            ("bad", text("event.clock_warned", kind, &when::moment(*due_at, zone)), String::new())
        }
        TicketEvent::ClockMissed { kind, due_at, .. } => {
            ("bad", text("event.clock_missed", kind, &when::moment(*due_at, zone)), String::new())
        }
        TicketEvent::ClockStopped { kind, in_time: true, took_ms, .. } => {
            ("good", text("event.clock_met", kind, &when::lasting(w, *took_ms)), String::new())
        }
        TicketEvent::ClockStopped { kind, took_ms, .. } => {
            ("bad", text("event.clock_late", kind, &when::lasting(w, *took_ms)), String::new())
        }
        _ => ("plain", String::new(), String::new()),
    }
}

fn tell_patch(w: Words, news: &PatchNews) -> (&'static str, String, String) {
    let tone = match news.what.as_str() {
        "done" => "good",
        "rolled_back" | "failed" | "refused" | "unknown" => "bad",
        _ => "plain",
    };
    let (kind, what) = (w.of("patch_kind", &news.kind), step_words(w, &news.kind, &news.what));
    let mut text = w.with("event.patch", &[("kind", &kind), ("file", &news.file), ("what", &what)]);
    if !news.reason.is_empty() {
        text = w.pair(&text, &w.of("patch_reason", &news.reason));
    }
    (tone, text, news.text.clone())
}

/// The name of a way of responding, as forms send it.
pub(crate) fn way_name(way: ResponseWay) -> &'static str {
    match way {
        ResponseWay::Phone => "phone",
        ResponseWay::Mail => "mail",
        ResponseWay::OnSite => "on_site",
        ResponseWay::Diagnosis => "diagnosis",
    }
}
