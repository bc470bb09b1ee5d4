//! `enroll`: a join string in, an identity out. Local command only, once (R4); again only when asked to.
//!
//! The join string comes from a file or standard input, never from an argument, where others could read it (R33).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mainstay_shared::enrolment::{Hardware, JoinString};
use mainstay_shared::limits::{MAX_NAME_CHARS, clean_text};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use serde::Serialize;

use super::words::pick;
use super::{Exit, Failure, Output, say, say_json};
use crate::atomic_file;
use crate::probes::{Host, Place};
use crate::uplink::{Attempt, EnrolFailed, Identity, IdentityError, Settings, TrustedClock, enrol};

const MAX_JOIN_BYTES: u64 = 8192;

#[derive(Serialize)]
struct Enrolled<'a> {
    appliance: &'a str,
    addresses: &'a [String],
    certificate_not_after: String,
}

/// Enrols this appliance.
///
/// # Errors
/// [`Exit::Usage`] when already enrolled, [`Exit::BadData`] for a damaged join string, [`Exit::NotAllowed`] when the collector
/// refuses it, [`Exit::Unavailable`] when it can't be reached (the same command may be repeated).
pub(crate) async fn enroll(
    state_dir: &Path,
    settings: &Settings,
    join_file: Option<PathBuf>,
    again: bool,
    time: &TimeSource,
    output: Output,
) -> Result<(), Failure> {
    match Identity::load(state_dir) {
        Ok(identity) if !again => {
            let error = anyhow::anyhow!("already enrolled as {}; to enrol anew give --again", identity.appliance);
            return Err(Failure::new(Exit::Usage, error));
        }
        Err(error @ IdentityError::Unreadable { .. }) => return Err(error.into()),
        _ => {}
    }
    let join: JoinString =
        read_join(join_file.as_deref())?.parse().map_err(|error| Failure::new(Exit::BadData, anyhow::Error::new(error)))?;
    atomic_file::private_dir(state_dir)?;
    let attempt = Attempt::resume_or_begin(state_dir, &join.token_id, &SystemRandom::new())?;
    let clock = TrustedClock::new(time.clone(), state_dir);
    let host = Host::look(&Place::here(time.clone()));
    let enrolled =
        enrol(&join, &attempt, clean_text(&host.hostname, MAX_NAME_CHARS), hardware(Path::new("/")), settings, &clock).await;
    let identity = enrolled.map_err(|error| match error {
        EnrolFailed::Refused { .. } => Failure::new(Exit::NotAllowed, error),
        EnrolFailed::Unavailable { .. } => Failure::new(Exit::Unavailable, error),
        EnrolFailed::Local(error) => Failure::from(error),
    })?;
    identity.save(state_dir)?;
    Attempt::forget(state_dir);
    let not_after = identity.validity().not_after.to_string();
    if output.json {
        let enrolled =
            Enrolled { appliance: identity.appliance.as_str(), addresses: &identity.addresses, certificate_not_after: not_after };
        say_json(&enrolled)?;
    } else {
        say(format_args!("{} {}", pick(output.lang, "已登记，设备标识：", "enrolled as appliance"), identity.appliance));
        say(format_args!("{} {not_after}", pick(output.lang, "证书有效期至", "certificate valid until")));
        say(pick(output.lang, "启动：systemctl restart mainstay-agent", "to start: systemctl restart mainstay-agent"));
    }
    Ok(())
}

fn read_join(file: Option<&Path>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_JOIN_BYTES).read_to_string(&mut text))
            .with_context(|| format!("{}: can't be read", path.display())),
        None => std::io::stdin().take(MAX_JOIN_BYTES).read_to_string(&mut text).context("standard input can't be read as text"),
    };
    read.map_err(|error| Failure::new(Exit::BadData, error))?;
    Ok(text)
}

/// What the machine says it is: DMI, else the device tree.
fn hardware(root: &Path) -> Hardware {
    let first = |paths: &[&str]| {
        let said = paths.iter().find_map(|path| std::fs::read_to_string(root.join(path)).ok());
        clean_text(said.unwrap_or_default().trim_matches(|c: char| c == '\0' || c.is_whitespace()), MAX_NAME_CHARS)
    };
    Hardware {
        vendor: first(&["sys/class/dmi/id/sys_vendor"]),
        model: first(&["sys/class/dmi/id/product_name", "proc/device-tree/model"]),
        serial: first(&["sys/class/dmi/id/product_serial", "proc/device-tree/serial-number"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_read_from_dmi_and_what_is_missing_stays_empty() {
        let root = tempfile::tempdir().unwrap();
        let dmi = root.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&dmi).unwrap();
        std::fs::write(dmi.join("product_name"), "SG-2000\n").unwrap();
        assert_eq!(hardware(root.path()), Hardware { model: "SG-2000".into(), ..Hardware::default() });
    }
}
