//! The commands of docs/release.md, run as they stand there.

#![expect(clippy::unwrap_used, reason = "tests may")]

use std::fs;
use std::path::Path;
use std::process::Command;

use mainstay_patchkit::sample;
use serde_json::json;

/// The blocks of a language, each with the text before it.
fn blocks<'t>(guide: &'t str, language: &str) -> Vec<(&'t str, &'t str)> {
    let fence = format!("```{language}\n");
    let mut rest = guide;
    let mut found = Vec::new();
    while let Some((before, after)) = rest.split_once(&fence) {
        let (block, behind) = after.split_once("```").unwrap();
        found.push((before, block));
        rest = behind;
    }
    found
}

#[test]
fn the_guide_does_what_it_says() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/release.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["anna", "ben", "cleo", "dora"] {
        fs::write(path(&format!("{name}.pass")), format!("the passphrase of {name}\n")).unwrap();
    }
    let online = |number| sample::key(number).unwrap().public().to_value();
    fs::write(path("online.json"), json!({"snapshot": online(31), "timestamp": online(32)}).to_string()).unwrap();
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/web"), "repaired").unwrap();
    fs::create_dir(path("agent-tree")).unwrap();
    let agent = path("agent-tree/mainstay-agent");
    fs::write(&agent, "a program").unwrap();
    fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (before, block) in blocks(&guide, "toml") {
        let name = ["repair.toml", "agent.toml", "restart.toml"].into_iter().max_by_key(|name| before.rfind(name)).unwrap();
        fs::write(path(name), block).unwrap();
    }
    let tool = Path::new(env!("CARGO_BIN_EXE_mainstay-release"));
    let search = format!("{}:/usr/bin:/bin", tool.parent().unwrap().display());
    let commands: String = blocks(&guide, "sh").into_iter().map(|(_, block)| block).collect();
    assert!(commands.lines().filter(|line| line.starts_with("mainstay-release")).count() > 15);
    // Rehearsal: passphrases that cost less to try.
    let commands = commands.replace("keys new ", "keys new --work-factor 10 ");
    let output = Command::new("sh").arg("-euxc").arg(&commands).current_dir(folder.path()).env("PATH", search).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(path("repository/files/acme-gateway-agent-0.2.0.mpatch").exists());
    assert!(path("repository/files/acme-gateway-restart-web-1.mpatch").exists());
    assert!(path("repository/metadata/2.root.json").exists());
}
