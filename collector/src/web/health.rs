//! An appliance's health over a span, ready to draw: processor, memory and disks from its samples, its business services and its
//! faults from episodes. Pure.

use std::collections::BTreeMap;

use mainstay_shared::time_source::UnixMs;

use super::drawing::{self, Chart, Mark, Point};
use crate::appliances::listing::{DeclaredLine, Sample};
use crate::faults::Episode;
use crate::words::Words;
use crate::words::when;

/// Everything drawn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub(crate) charts: Vec<Chart>,
    pub(crate) services: Vec<Strip>,
    /// All faults of the machine itself.
    pub(crate) faults: Vec<Mark>,
    pub(crate) ticks: Vec<Tick>,
    /// Where the green ground of the strips begins.
    pub(crate) known_from: String,
}

/// One business service over the span.
#[derive(Debug, Clone)]
pub(crate) struct Strip {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) interval_s: i64,
    pub(crate) marks: Vec<Mark>,
}

/// A time on the axis.
#[derive(Debug, Clone)]
pub(crate) struct Tick {
    pub(crate) x: String,
    pub(crate) label: String,
}

/// Charts shown at most; a box with a hundred mounts shows its first.
const MAX_CHARTS: usize = 12;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) from: UnixMs,
    pub(crate) to: UnixMs,
    /// Before it nothing is known, and nothing is green.
    pub(crate) enrolled_at: UnixMs,
    /// The site's time zone, as IANA names it.
    pub(crate) zone: &'a str,
}

/// What is drawn of `samples` and `episodes`.
pub(crate) fn health(
    w: Words,
    samples: &[Sample],
    declared: &[DeclaredLine],
    episodes: &[Episode],
    window: &Window<'_>,
) -> Health {
    let Window { from, to, enrolled_at, zone } = *window;
    let mut series: BTreeMap<(u8, &str), Vec<Point>> = BTreeMap::new();
    for sample in samples {
        for (name, folded) in &sample.metrics {
            if let Some(order) = drawn(name) {
                series.entry((order, name)).or_default().push((sample.to_at, *folded));
            }
        }
    }
    let charts = series.iter().take(MAX_CHARTS).map(|((_, name), points)| {
        let (component, metric) = name.rsplit_once('.').unwrap_or((name, ""));
        drawing::chart(component, metric, points, (from, to))
    });
    let mark = |episode: &Episode| {
        let kind = if episode.component.starts_with("service:") { "down" } else { "fault" };
        let span = when::moment(episode.raised_at, zone);
        let title = format!("{} ({span})", w.fault(&episode.component, &episode.code, ""));
        drawing::mark(episode.raised_at, episode.cleared_at.unwrap_or(to), (from, to), kind, title)
    };
    let known_from = x_of_known(enrolled_at, (from, to));
    let strip = |service: &DeclaredLine| Strip {
        name: service.service.clone(),
        title: service.title.clone(),
        interval_s: service.interval_s,
        marks: episodes.iter().filter(|e| e.component.strip_prefix("service:") == Some(&service.service)).map(mark).collect(),
    };
    Health {
        charts: charts.collect(),
        services: declared.iter().map(strip).collect(),
        faults: episodes.iter().filter(|e| !e.component.starts_with("service:")).map(mark).collect(),
        ticks: ticks(from, to, zone),
        known_from,
    }
}

fn x_of_known(enrolled_at: UnixMs, (from, to): (UnixMs, UnixMs)) -> String {
    drawing::mark(enrolled_at.max(from), to, (from, to), "ok", String::new()).x
}

/// Whether a metric is drawn, and in which order.
fn drawn(name: &str) -> Option<u8> {
    match name {
        "cpu.busy_percent" => Some(0),
        "memory.used_percent" => Some(1),
        _ if name.starts_with("disk") && name.ends_with(".used_percent") => Some(2),
        _ if name.starts_with("temperature") => Some(3),
        _ => None,
    }
}

fn ticks(from: UnixMs, to: UnixMs, zone: &str) -> Vec<Tick> {
    const COUNT: i64 = 6;
    let span = to.since_ms(from);
    (0..=COUNT)
        .map(|n| {
            let at = from.plus_ms(span * n / COUNT);
            let label = if span > 2 * 86_400_000 { when::brief(at, zone) } else { when::hour(at, zone) };
            Tick { x: format!("{:.1}", drawing::x(at, from, to)), label }
        })
        .collect()
}
