//! The dependency policy (TRUST R34), read from `deny.toml` and checked against what cargo would build, on every machine.
//! `cargo deny` checks the same file where it is installed; this needs nothing but cargo and no network.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const AGENT_CRATES_AT_MOST: usize = 150;

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO"))
        .args(args)
        .args(["--locked", "--offline"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn packages() -> Vec<Value> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"]))
            .expect("metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn policy() -> toml::Table {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml")).expect("deny.toml");
    text.parse().expect("deny.toml is TOML")
}

fn words(list: &toml::Value) -> BTreeSet<&str> {
    list.as_array().expect("a list").iter().filter_map(|v| v.as_str().or_else(|| v.get("crate")?.as_str())).collect()
}

/// Whether an SPDX expression can be met with the allowed licences: `OR` (and the old `/`) binds weaker than `AND`.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    fn any(words: &mut std::iter::Peekable<std::slice::Iter<'_, String>>, allowed: &BTreeSet<&str>) -> bool {
        let mut good = all(words, allowed);
        while words.next_if(|w| *w == "OR").is_some() {
            good |= all(words, allowed);
        }
        good
    }
    fn all(words: &mut std::iter::Peekable<std::slice::Iter<'_, String>>, allowed: &BTreeSet<&str>) -> bool {
        let mut good = one(words, allowed);
        while words.next_if(|w| *w == "AND").is_some() {
            good &= one(words, allowed);
        }
        good
    }
    fn one(words: &mut std::iter::Peekable<std::slice::Iter<'_, String>>, allowed: &BTreeSet<&str>) -> bool {
        match words.next().map(String::as_str) {
            Some("(") => any(words, allowed) & words.next_if(|w| *w == ")").is_some(),
            Some(licence) => match words.next_if(|w| *w == "WITH").and_then(|_| words.next()) {
                Some(exception) => allowed.contains(format!("{licence} WITH {exception}").as_str()),
                None => allowed.contains(licence),
            },
            None => false,
        }
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.iter().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

#[test]
fn every_crate_has_a_licence_that_the_policy_allows() {
    let policy = policy();
    let allowed = words(&policy["licenses"]["allow"]);
    let refused: Vec<String> = packages()
        .iter()
        .filter(|p| !is_allowed(p["license"].as_str().unwrap_or("none"), &allowed))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(refused.is_empty(), "licences outside deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn no_banned_crate_comes_in_by_any_way() {
    let policy = policy();
    let banned = words(&policy["bans"]["deny"]);
    let found: Vec<_> =
        packages().iter().filter_map(|p| p["name"].as_str().filter(|n| banned.contains(n)).map(str::to_owned)).collect();
    assert!(found.is_empty(), "banned by deny.toml: {found:?}");
}

#[test]
fn every_crate_comes_from_this_folder_or_from_the_one_registry() {
    let packages = packages();
    let sources: BTreeSet<&str> = packages.iter().filter_map(|p| p["source"].as_str()).collect();
    assert!(sources.len() <= 1 && sources.iter().all(|s| s.starts_with("registry+")), "{sources:?}");
}

#[test]
fn the_agent_stays_under_its_number_of_crates() {
    let tree = cargo(&["tree", "--package=mainstay-agent", "--edges=normal", "--prefix=none", "--format={p}"]);
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    assert!(crates.len() < AGENT_CRATES_AT_MOST, "{} crates", crates.len());
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0 WITH LLVM-exception", "ISC"]);
    let table = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("MIT ISC", false),
    ];
    for (expression, good) in table {
        assert_eq!(is_allowed(expression, &allowed), good, "{expression}");
    }
}
