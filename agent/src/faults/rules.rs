//! Which value of which component is wrong from where on: one [`Rule`] per code, made from the settings.
//!
//! A level once reached is held until the value is `slack` better than its threshold, so that a value at the edge raises one
//! fault and not fifty. It must never know about time: `state` does.

use std::time::Duration;

use mainstay_shared::fault::{CODE_CLOCK_OFFSET, Level};

use super::state::Timing;
use crate::config::{ProbeSettings, Threshold};
use crate::probes::{HUNG, Reading};

/// How a metric becomes a fault.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// The fault's code.
    pub(crate) code: &'static str,
    /// The component's kind, before its colon; empty for every kind.
    kind: &'static str,
    metric: &'static str,
    /// What is wrong, for a person.
    what: &'static str,
    /// The value's unit, as grounds tell it.
    pub(crate) unit: &'static str,
    warn_at: Option<f64>,
    serious_at: Option<f64>,
    slack: f64,
    lasting: Duration,
    settling: Duration,
    /// Raised only where the value was seen good before: a port that never had a cable is no fault.
    pub(crate) only_after_good: bool,
}

impl Rule {
    /// The level of `value` (its magnitude counts) for a condition that now has the level `current`.
    pub(crate) fn judge(&self, value: f64, current: Option<Level>) -> Option<Level> {
        let reaches = |threshold: Option<f64>, held: bool| {
            threshold.is_some_and(|threshold| value.abs() >= if held { threshold - self.slack } else { threshold })
        };
        if reaches(self.serious_at, current == Some(Level::Serious)) {
            Some(Level::Serious)
        } else if reaches(self.warn_at, current.is_some()) {
            Some(Level::Warning)
        } else {
            None
        }
    }

    /// How long things must last.
    pub(crate) fn timing(&self, flap_window: Duration) -> Timing {
        Timing { lasting: self.lasting, settling: self.settling, flap_window }
    }

    /// The threshold of `level`.
    pub(crate) fn threshold(&self, level: Level) -> f64 {
        let (first, second) = match level {
            Level::Warning => (self.warn_at, self.serious_at),
            Level::Serious => (self.serious_at, self.warn_at),
        };
        first.or(second).unwrap_or_default()
    }

    /// One line for a person.
    pub(crate) fn summary(&self, component: &str, value: f64, threshold: f64) -> String {
        let (what, unit) = (self.what, self.unit);
        if self.unit == "state" {
            let answer = if value >= 1.0 { "yes" } else { "no" };
            return format!("{component}: {what}: {answer}");
        }
        format!("{component}: {what} {value:.1} {unit} (threshold {threshold:.1})")
    }
}

/// The readings that a rule speaks of, in the order of the rules.
pub(crate) fn matching<'a>(rules: &'a [Rule], readings: &'a [Reading]) -> impl Iterator<Item = (&'a Rule, &'a Reading)> {
    rules.iter().flat_map(move |rule| {
        let speaks_of = move |reading: &&Reading| {
            let kind = reading.component.split(':').next().unwrap_or_default();
            reading.metric == rule.metric && (rule.kind.is_empty() || rule.kind == kind)
        };
        readings.iter().filter(speaks_of).map(move |reading| (rule, reading))
    })
}

/// All rules of the probes that are enabled.
pub(crate) fn all(settings: &ProbeSettings) -> Vec<Rule> {
    let s = settings;
    let disk_and = |code, metric, what| Rule { only_after_good: false, ..state_rule(code, "disk", metric, what, Level::Serious) };
    let link = Rule { only_after_good: true, ..state_rule("link_down", "net", "link_down", "link lost", Level::Serious) };
    let listed = [
        (true, state_rule("probe_hung", "", HUNG, "measuring hangs in the kernel", Level::Serious)),
        (s.disk.enabled, disk_and("filesystem_read_only", "read_only", "turned read-only by the kernel")),
        (s.network.enabled, Rule { lasting: Duration::from_secs(20), settling: Duration::from_secs(20), ..link }),
        (s.disk.enabled, value_rule("disk_space_low", "disk", "used_percent", ("space used", "percent", 2.0), s.disk)),
        (s.disk.enabled, value_rule("inodes_low", "disk", "inodes_used_percent", ("inodes used", "percent", 2.0), s.inodes)),
        (s.memory.enabled, value_rule("memory_low", "memory", "used_percent", ("memory used", "percent", 3.0), s.memory)),
        (s.swap.enabled, value_rule("swap_storm", "swap", "pages_per_s", ("pages swapped per second", "pages/s", 200.0), s.swap)),
        (s.cpu.enabled, value_rule("cpu_saturated", "cpu", "busy_percent", ("busy", "percent", 5.0), s.cpu)),
        (s.load.enabled, value_rule("load_high", "load", "avg5_per_cpu", ("load per processor", "count", 0.5), s.load)),
        (
            s.pressure.enabled,
            value_rule("pressure_high", "pressure", "stalled_percent", ("work stalled", "percent", 5.0), s.pressure),
        ),
        (s.disk_io.enabled, value_rule("disk_saturated", "block", "busy_percent", ("busy", "percent", 5.0), s.disk_io)),
        (
            s.network.enabled,
            value_rule("net_errors", "net", "errors_per_min", ("errors per minute", "errors/min", 10.0), s.network),
        ),
        (
            s.temperature.enabled,
            value_rule("temperature_high", "temperature", "celsius", ("temperature", "celsius", 3.0), s.temperature),
        ),
        (s.clock.enabled, value_rule(CODE_CLOCK_OFFSET, "clock", "offset_ms", ("off by", "ms", 1000.0), s.clock)),
    ];
    listed.into_iter().filter_map(|(enabled, rule)| enabled.then_some(rule)).collect()
}

/// A rule with thresholds from the settings. `what`: words, unit, slack (at most half the threshold).
fn value_rule(
    code: &'static str,
    kind: &'static str,
    metric: &'static str,
    what: (&'static str, &'static str, f64),
    at: Threshold,
) -> Rule {
    Rule {
        code,
        kind,
        metric,
        what: what.0,
        unit: what.1,
        warn_at: Some(at.warn_at),
        serious_at: at.serious_at,
        slack: what.2.min(at.warn_at / 2.0),
        lasting: at.lasting,
        settling: Duration::from_secs(60),
        only_after_good: false,
    }
}

/// A rule about something that is so (1) or not (0), with one level.
fn state_rule(code: &'static str, kind: &'static str, metric: &'static str, what: &'static str, level: Level) -> Rule {
    let at = |wanted: Level| (wanted == level).then_some(1.0);
    Rule {
        code,
        kind,
        metric,
        what,
        unit: "state",
        warn_at: at(Level::Warning),
        serious_at: at(Level::Serious),
        slack: 0.5,
        lasting: Duration::ZERO,
        settling: Duration::ZERO,
        only_after_good: false,
    }
}
