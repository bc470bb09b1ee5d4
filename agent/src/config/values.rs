//! The values that a configuration may hold and how each is written: `"10s"`, `"16MiB"`, `"95%"`, a list of status codes.
//!
//! Each knows in words what it accepts, so that an error can tell it. It stands below the section reader, which names file and
//! key. It must never guess: a bare number for a duration is refused, since nobody can see its unit.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

/// A value that can be read from TOML, or refused with what would have been accepted.
pub(crate) trait Accepted: Sized {
    /// What is accepted, for an error message.
    const EXPECTED: &'static str;

    /// The value, if `value` is one.
    fn accept(value: &Value) -> Option<Self>;
}

/// An amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

/// A share between 0 and 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Percent(pub(crate) f64);

/// The HTTP status codes that a check takes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Any status from 200 to 399.
    pub(crate) fn success() -> Self {
        Self(vec![200..=399])
    }

    /// Whether `status` is among them.
    pub(crate) fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Accepted for String {
    const EXPECTED: &'static str = "a text in quotes";
    fn accept(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Accepted for bool {
    const EXPECTED: &'static str = "true or false";
    fn accept(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Accepted for u32 {
    const EXPECTED: &'static str = "a whole number, 0 or more";
    fn accept(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|n| Self::try_from(n).ok())
    }
}

impl Accepted for f64 {
    const EXPECTED: &'static str = "a number, 0 or more";
    #[expect(clippy::cast_precision_loss, reason = "thresholds are far below 2^53")]
    fn accept(value: &Value) -> Option<Self> {
        let number = value.as_float().or_else(|| value.as_integer().map(|n| n as Self))?;
        (number.is_finite() && number >= 0.0).then_some(number)
    }
}

impl Accepted for Vec<String> {
    const EXPECTED: &'static str = "a list of texts such as [\"a\", \"b\"]";
    fn accept(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::accept).collect()
    }
}

impl Accepted for Duration {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"10s\", \"15m\", \"2h\" or \"1d\"";
    fn accept(value: &Value) -> Option<Self> {
        let (number, unit) = split_unit(value.as_str()?)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(unit_ms).map(Self::from_millis)
    }
}

impl Accepted for Bytes {
    const EXPECTED: &'static str = "a size such as \"512KiB\", \"16MiB\" or \"1GiB\"";
    fn accept(value: &Value) -> Option<Self> {
        let (number, unit) = split_unit(value.as_str()?)?;
        let unit_bytes: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit_bytes).map(Self)
    }
}

impl Accepted for Percent {
    const EXPECTED: &'static str = "a percentage such as \"95%\"";
    fn accept(value: &Value) -> Option<Self> {
        let number: f64 = value.as_str()?.strip_suffix('%')?.trim_end().parse().ok()?;
        (0.0..=100.0).contains(&number).then_some(Self(number))
    }
}

impl Accepted for Statuses {
    const EXPECTED: &'static str = "an HTTP status such as 200, a range such as \"200-299\", or a list of them";
    fn accept(value: &Value) -> Option<Self> {
        let ranges: Vec<_> = match value {
            Value::Array(items) => items.iter().map(status_range).collect::<Option<_>>()?,
            one => vec![status_range(one)?],
        };
        (!ranges.is_empty()).then_some(Self(ranges))
    }
}

fn status_range(value: &Value) -> Option<RangeInclusive<u16>> {
    let (from, to) = match value {
        Value::Integer(n) => (u16::try_from(*n).ok()?, u16::try_from(*n).ok()?),
        Value::String(text) => {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            (from.trim().parse().ok()?, to.trim().parse().ok()?)
        }
        _ => return None,
    };
    (100 <= from && from <= to && to <= 599).then_some(from..=to)
}

/// `"15m"` as `(15, "m")`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        for (given, expected) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("10s", Some(Duration::from_secs(10))),
            ("15 m", Some(Duration::from_secs(900))),
            ("1d", Some(Duration::from_secs(86_400))),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(Duration::accept(&text(given)), expected, "{given}");
        }
        assert_eq!(Duration::accept(&Value::Integer(10)), None);
    }

    #[test]
    fn sizes_and_percentages_need_their_sign() {
        assert_eq!(Bytes::accept(&text("16MiB")), Some(Bytes(16 << 20)));
        assert_eq!(Bytes::accept(&text("16MB")), None);
        assert_eq!(Percent::accept(&text("95%")), Some(Percent(95.0)));
        assert_eq!(Percent::accept(&text("95")), None);
        assert_eq!(Percent::accept(&text("101%")), None);
        assert_eq!(Percent::accept(&text("NaN%")), None);
    }

    #[test]
    fn statuses_are_single_or_ranges() {
        let list = Value::Array(vec![text("200-299"), Value::Integer(401)]);
        let statuses = Statuses::accept(&list).expect("accepted");
        assert!(statuses.contains(204) && statuses.contains(401) && !statuses.contains(403));
        for bad in [text("2xx"), Value::Integer(99), text("300-200"), Value::Array(vec![])] {
            assert_eq!(Statuses::accept(&bad), None, "{bad}");
        }
    }
}
