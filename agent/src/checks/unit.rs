//! systemd units, by `systemctl show`: active is up, on its way up is degraded, anything else is down.
//!
//! A machine without systemd, or a unit that it does not know, is `unknown`: the question was wrong, not the service.

use std::path::Path;
use std::time::Duration;

use mainstay_shared::check::ServiceState;

use super::command::{End, run};
use super::{Checker, Found};

pub(super) async fn ask(checker: &Checker, unit: &str, object: &str, limit: Duration) -> Found {
    // sd_booted(3): this folder is there if and only if systemd runs the machine.
    if !Path::new("/run/systemd/system").exists() {
        return Found::new(ServiceState::Unknown, "no_systemd", "this machine is not run by systemd");
    }
    let properties = "--property=LoadState,ActiveState,SubState,Result";
    let argv = ["systemctl", "show", properties, "--", unit].map(str::to_owned);
    match run(&argv, limit, &checker.aside, object).await {
        Ok(output) if output.end == End::Exited(0) => judge(&output.stdout),
        // systemctl hanging says that systemd is in trouble, not that the unit is.
        Ok(output) if output.end == End::TimedOut => Found::cannot_run(format!("systemctl gave no answer within {limit:?}")),
        Ok(output) => Found::cannot_run(output.stderr),
        Err(error) => Found::cannot_run(error.to_string()),
    }
}

fn judge(shown: &str) -> Found {
    let value = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        shown.lines().find_map(of).unwrap_or_default()
    };
    let (load, active) = (value("LoadState"), value("ActiveState"));
    let text = format!("{active} ({}), result {}", value("SubState"), value("Result"));
    match (load.as_str(), active.as_str()) {
        ("loaded", "active" | "reloading" | "refreshing") => Found::up(text),
        ("loaded", "activating") => Found::new(ServiceState::Degraded, "activating", text),
        ("loaded", "inactive" | "failed" | "deactivating" | "maintenance") => Found::down("inactive", text),
        _ => Found::new(ServiceState::Unknown, "missing", format!("systemd has no such unit ({load})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_states_mean_what_a_user_of_the_service_would_say() {
        use ServiceState::{Degraded, Down, Unknown, Up};
        for (load, active, state) in [
            ("loaded", "active", Up),
            ("loaded", "reloading", Up),
            ("loaded", "activating", Degraded),
            ("loaded", "failed", Down),
            ("loaded", "inactive", Down),
            ("not-found", "inactive", Unknown),
            ("masked", "inactive", Unknown),
            ("", "", Unknown),
        ] {
            let shown = format!("Result=success\nLoadState={load}\nActiveState={active}\nSubState=x\n");
            assert_eq!(judge(&shown).state, state, "{load} {active}");
        }
    }
}
