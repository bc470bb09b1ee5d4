//! What is shipped beside the programs: the systemd units as systemd judges them, the example settings as the real programs read
//! them. Where systemd is not installed its part is left out; it must never start a unit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::process::{Output, program, run};

const LIMIT: Duration = Duration::from_secs(60);

/// Name, where its program is installed, and the highest exposure that `systemd-analyze security` may find, in tenths: what the agent's plugins and the machine's
/// measurement need stays open, the collector needs less.
const UNITS: [(&str, &str, &str); 2] =
    [("mainstay-agent", "/usr/lib/mainstay/current/", "25"), ("mainstay-collector", "/usr/bin/", "15")];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// The unit as it is shipped, but starting the program where this build has it.
fn unit_of_this_build(name: &str, place: &str, folder: &Path) -> Result<PathBuf> {
    let shipped = std::fs::read_to_string(packaging().join(format!("systemd/{name}.service")))?;
    let installed = format!("ExecStart={place}{name} ");
    assert!(shipped.contains(&installed), "{name}.service starts the installed program");
    let path = folder.join(format!("{name}.service"));
    std::fs::write(&path, shipped.replace(&installed, &format!("ExecStart={} ", program(name)?.display())))?;
    Ok(path)
}

async fn systemd_analyze(arguments: &[&str], unit: &Path) -> Result<Output> {
    let mut command = Command::new("systemd-analyze");
    command.arg("--no-pager").args(arguments).arg(unit);
    run(command, "", LIMIT).await
}

fn has_systemd() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn systemd_finds_nothing_to_complain_about_in_the_units() -> Result<()> {
    if !has_systemd() {
        eprintln!("systemd-analyze is not installed: the units were not looked at");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (name, place, _) in UNITS {
        let verdict =
            systemd_analyze(&["verify", "--recursive-errors=no"], &unit_of_this_build(name, place, folder.path())?).await?;
        assert_eq!((verdict.code, verdict.stderr.as_str()), (0, ""), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn the_units_leave_the_programs_few_rights() -> Result<()> {
    if !has_systemd() {
        eprintln!("systemd-analyze is not installed: the units were not looked at");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (name, place, threshold) in UNITS {
        let threshold = format!("--threshold={threshold}");
        let unit = unit_of_this_build(name, place, folder.path())?;
        systemd_analyze(&["security", "--offline=true", &threshold], &unit).await?.good().context(name)?;
    }
    Ok(())
}

fn copy(from: PathBuf, to: PathBuf) -> Result<()> {
    std::fs::create_dir_all(to.parent().context("a folder")?)?;
    std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

async fn check_config(name: &str, config: &Path) -> Result<Output> {
    let mut command = Command::new(program(name)?);
    command.arg("--config").arg(config).arg("check-config").env("LC_ALL", "C");
    run(command, "", LIMIT).await
}

#[tokio::test]
async fn the_agent_takes_every_example_that_is_shipped_with_it() -> Result<()> {
    let (folder, shipped) = (tempfile::tempdir()?, packaging().join("agent"));
    let config = folder.path().join("agent.toml");
    copy(shipped.join("agent.toml"), config.clone())?;
    let plain = check_config("mainstay-agent", &config).await?.good()?;
    assert!(plain.stdout.contains("severity blind"), "without a service it warns: {}", plain.stdout);
    for name in ["proxy.toml", "web-service.toml"] {
        copy(shipped.join(format!("agent.d/{name}.example")), folder.path().join("agent.d").join(name))?;
    }
    copy(shipped.join("profiles/security-gateway.toml"), folder.path().join("profiles.d/security-gateway.toml"))?;
    let full = check_config("mainstay-agent", &config).await?.good()?;
    for said in ["service gateway", "service web-portal", "the configuration is good"] {
        assert!(full.stdout.contains(said), "{said}: {}", full.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn the_collector_takes_the_example_that_is_shipped_with_it_and_its_sign_in_once_the_password_is_there() -> Result<()> {
    const PASSWORD: &str = "/etc/mainstay/mail-password";
    let shipped = packaging().join("collector/collector.toml");
    check_config("mainstay-collector", &shipped).await?.good()?;
    let folder = tempfile::tempdir()?;
    let (config, password) = (folder.path().join("collector.toml"), folder.path().join("mail-password"));
    let signs_in =
        std::fs::read_to_string(shipped)?.replace("# username", "username").replace("# password_file", "password_file");
    assert!(signs_in.contains(PASSWORD), "the example names a password file");
    std::fs::write(&config, signs_in.replace(PASSWORD, &password.display().to_string()))?;
    let without = check_config("mainstay-collector", &config).await?;
    assert!(without.code != 0 && without.stderr.contains("mail-password"), "{without:?}");
    std::fs::write(&password, "for the test only\n")?;
    check_config("mainstay-collector", &config).await?.good()?;
    Ok(())
}
