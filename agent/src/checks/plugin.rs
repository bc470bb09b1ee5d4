//! Nagios plugins (Monitoring Plugins Development Guidelines): exit 0 up, 1 degraded, 2 down, 3 unknown; text, `|`, performance data.
//!
//! Any other exit is `unknown`: the plugin itself is broken, which says nothing of the service. Its output is untrusted text.

use std::time::Duration;

use mainstay_shared::check::ServiceState;

use super::command::{End, Output, run};
use super::{Checker, Found};

pub(super) async fn ask(checker: &Checker, argv: &[String], object: &str, limit: Duration) -> Found {
    match run(argv, limit, &checker.aside, object).await {
        Ok(output) => judge(&output, limit),
        Err(error) => Found::cannot_run(error.to_string()),
    }
}

fn judge(output: &Output, limit: Duration) -> Found {
    let (said, perf_data) = parse(&output.stdout);
    let text = if said.is_empty() { output.stderr.lines().next().unwrap_or_default().to_owned() } else { said };
    let (state, reason) = match output.end {
        End::Exited(0) => (ServiceState::Up, "ok"),
        End::Exited(1) => (ServiceState::Degraded, "exit"),
        End::Exited(2) => (ServiceState::Down, "exit"),
        End::Exited(_) => (ServiceState::Unknown, "exit"),
        End::Signalled(_) => (ServiceState::Unknown, "signal"),
        End::TimedOut => return Found { perf_data, ..Found::timeout(limit) },
    };
    let text = match output.end {
        End::Exited(code) if !(0..=3).contains(&code) => format!("exit {code}, which no plugin may give: {text}"),
        End::Signalled(signal) => format!("ended by signal {signal}: {text}"),
        _ => text,
    };
    Found { state, reason, text, perf_data }
}

/// The first line's text, and all performance data: after `|` on the first line, and after the first `|` of the lines below.
pub(crate) fn parse(stdout: &str) -> (String, String) {
    let (first, below) = stdout.split_once('\n').unwrap_or((stdout, ""));
    let (text, perf) = first.split_once('|').unwrap_or((first, ""));
    let more = below.split_once('|').map_or("", |(_, perf)| perf);
    let perf_data: Vec<&str> = [perf, more].iter().flat_map(|perf| perf.split_ascii_whitespace()).collect();
    (text.trim().to_owned(), perf_data.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exit_codes_and_output_mean_what_the_guidelines_say() {
        use ServiceState::{Degraded, Down, Unknown, Up};
        for (row, end, stdout, state, text, perf_data) in [
            ("0 is up", End::Exited(0), "OK - fine|time=0.1s\n", Up, "OK - fine", "time=0.1s"),
            ("1 is degraded", End::Exited(1), "WARNING - slow", Degraded, "WARNING - slow", ""),
            ("2 is down", End::Exited(2), "CRITICAL", Down, "CRITICAL", ""),
            ("3 is unknown", End::Exited(3), "UNKNOWN", Unknown, "UNKNOWN", ""),
            (
                "any other code is a broken plugin",
                End::Exited(127),
                "",
                Unknown,
                "exit 127, which no plugin may give: said on stderr",
                "",
            ),
            ("so is a signal", End::Signalled(11), "", Unknown, "ended by signal 11: said on stderr", ""),
            ("too late is down", End::TimedOut, "half|a=1", Down, "no answer within 5s", "a=1"),
            ("data on later lines are kept", End::Exited(0), "OK|a=1\nlong text\nmore | b=2\nc=3\n", Up, "OK", "a=1 b=2 c=3"),
        ] {
            let output = Output { end, stdout: stdout.to_owned(), stderr: "said on stderr\n".to_owned() };
            let found = judge(&output, Duration::from_secs(5));
            assert_eq!((found.state, found.text.as_str(), found.perf_data.as_str()), (state, text, perf_data), "{row}");
        }
    }

    proptest! {
        #[test]
        fn no_output_makes_the_parser_panic(stdout in "(?s).{0,200}", code in any::<i32>()) {
            drop(judge(&Output { end: End::Exited(code), stdout, stderr: String::new() }, Duration::ZERO));
        }
    }
}
