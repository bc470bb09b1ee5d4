//! Health over time as server-drawn SVG: a band from minimum to maximum, the mean as a line, faults as marks below. Pure numbers in,
//! attributes out: no style attribute and no script, so the strict policy stands. A gap in the samples is a gap in the line.

use mainstay_shared::record::Folded;
use mainstay_shared::time_source::UnixMs;

/// The picture's inner width and height, in its own units.
pub(crate) const WIDTH: f64 = 720.0;
/// See [`WIDTH`].
pub(crate) const HEIGHT: f64 = 84.0;
/// Samples further apart than this are not joined: two folds were missed.
const GAP_MS: i64 = 11 * 60_000;

/// One metric, drawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    /// The component's name: hostile text.
    pub(crate) name: String,
    /// Key of `metric.*`.
    pub(crate) metric: String,
    pub(crate) band: String,
    pub(crate) line: String,
    pub(crate) last: String,
    pub(crate) highest: String,
    pub(crate) top: String,
}

/// One sample of one metric, at the end of its span.
pub(crate) type Point = (UnixMs, Folded);

/// Draws `points` between `from` and `to`; percentages against 100, anything else against its own maximum.
pub(crate) fn chart(name: &str, metric: &str, points: &[Point], (from, to): (UnixMs, UnixMs)) -> Chart {
    let unit = unit_of(metric);
    let highest = points.iter().map(|(_, folded)| folded.max).fold(0.0_f64, f64::max);
    let top = if unit == "percent" { 100.0 } else { round_up(highest) };
    let y = |value: f64| HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT;
    let (mut band, mut line) = (String::new(), String::new());
    for run in points.chunk_by(|left, right| right.0.since_ms(left.0) <= GAP_MS) {
        let upper = run.iter().map(|(at, folded)| (x(*at, from, to), y(folded.max)));
        let lower = run.iter().rev().map(|(at, folded)| (x(*at, from, to), y(folded.min)));
        path(&mut band, upper.chain(lower));
        band.push('Z');
        path(&mut line, run.iter().map(|(at, folded)| (x(*at, from, to), y(folded.avg))));
    }
    Chart {
        name: name.to_owned(),
        metric: metric.to_owned(),
        band,
        line,
        last: points.last().map(|(_, folded)| figure(folded.last, unit)).unwrap_or_default(),
        highest: if points.is_empty() { String::new() } else { figure(highest, unit) },
        top: figure(top, unit),
    }
}

fn path(out: &mut String, points: impl Iterator<Item = (f64, f64)>) {
    for (n, (x, y)) in points.enumerate() {
        out.push_str(&format!("{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' }));
    }
}

/// A moment's place across the picture.
pub(crate) fn x(at: UnixMs, from: UnixMs, to: UnixMs) -> f64 {
    (at.since_ms(from) as f64 / to.since_ms(from).max(1) as f64 * WIDTH).clamp(0.0, WIDTH)
}

/// A span of a fault across the picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) x: String,
    pub(crate) width: String,
    /// `down` for a service, `fault` otherwise.
    pub(crate) kind: &'static str,
    /// For the mark's title: hostile text.
    pub(crate) title: String,
}

/// A mark from `begin` to `end`, at least visible.
pub(crate) fn mark(begin: UnixMs, end: UnixMs, (from, to): (UnixMs, UnixMs), kind: &'static str, title: String) -> Mark {
    let (left, right) = (x(begin, from, to), x(end, from, to));
    let width = (right - left).max(2.0);
    Mark { x: format!("{:.1}", left.min(WIDTH - width)), width: format!("{width:.1}"), kind, title }
}

/// The unit that a metric's name ends in.
pub(crate) fn unit_of(metric: &str) -> &'static str {
    const UNITS: [(&str, &str); 6] = [
        ("percent", "percent"),
        ("bytes_per_s", "bytes_per_s"),
        ("bytes", "bytes"),
        ("celsius", "celsius"),
        ("_per_s", "per_s"),
        ("_ms", "ms"),
    ];
    UNITS.iter().find(|(end, _)| metric.ends_with(end)).map_or("", |(_, unit)| unit)
}

/// A value with its unit, short.
pub(crate) fn figure(value: f64, unit: &str) -> String {
    match unit {
        "percent" => format!("{value:.0} %"),
        "celsius" => format!("{value:.0} °C"),
        "ms" => format!("{value:.0} ms"),
        "per_s" => format!("{value:.1} /s"),
        "bytes" => bytes(value),
        "bytes_per_s" => format!("{}/s", bytes(value)),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn bytes(value: f64) -> String {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut name = 0;
    while value.abs() >= 1024.0 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    if name == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", NAMES[name]) }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64, value: f64) -> Point {
        (UnixMs(minute * 60_000), Folded { min: value - 10.0, avg: value, max: value + 10.0, last: value })
    }

    #[test]
    fn a_gap_in_the_samples_is_a_gap_in_the_line() {
        let span = (UnixMs(0), UnixMs(60 * 60_000));
        let chart = chart("cpu", "busy_percent", &[at(5, 50.0), at(10, 50.0), at(40, 50.0), at(45, 50.0)], span);
        assert_eq!(chart.line.matches('M').count(), 2);
        assert_eq!(chart.line, "M60.0 42.0L120.0 42.0M480.0 42.0L540.0 42.0");
        assert_eq!((chart.last.as_str(), chart.highest.as_str(), chart.top.as_str()), ("50 %", "60 %", "100 %"));
    }

    #[test]
    fn no_value_draws_outside_the_picture_or_breaks_it() {
        let span = (UnixMs(0), UnixMs(60_000 * 10));
        for value in [f64::NAN, f64::INFINITY, -1e300, 1e300, 0.0] {
            let chart = chart("x", "avg1", &[at(5, value), at(20, value)], span);
            assert!(!chart.band.contains("inf"), "{value}: {}", chart.band);
        }
        assert_eq!(mark(UnixMs(0), UnixMs(1), span, "down", String::new()).width, "2.0");
    }

    #[test]
    fn figures_are_short_and_carry_their_unit() {
        let rows = [
            (42.4, "percent", "42 %"),
            (1536.0, "bytes", "1.5 KiB"),
            (12.0, "", "12"),
            (0.125, "", "0.12"),
            (5e9, "bytes_per_s", "4.7 GiB/s"),
        ];
        for (value, unit, text) in rows {
            assert_eq!(figure(value, unit), text);
        }
    }
}
