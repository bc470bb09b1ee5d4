//! What an operator sees of the configuration: defaults, merging, and errors that name the file, the key and what is accepted.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    dir
}

fn load(files: &[(&str, &str)]) -> Result<Config, String> {
    let dir = folder(files);
    Config::load(&dir.path().join("agent.toml")).map_err(|errors| errors.to_string())
}

#[test]
fn no_file_at_all_means_the_defaults() {
    let config = load(&[]).expect("the defaults");
    assert_eq!(config.state_dir, Path::new("/var/lib/mainstay"));
    assert_eq!(config.spool_max_bytes, 16 << 20);
    assert_eq!(config.poll_wait, Duration::from_secs(55));
    assert_eq!(config.probes.interval, Duration::from_secs(10));
    assert_eq!(config.probes.disk.warn_at, 90.0);
    assert!(config.proxy.is_none() && config.services.is_empty());
    assert!(config.check_report().warnings[0].starts_with("severity blind"));
}

#[test]
fn an_error_names_file_key_value_and_what_is_accepted() {
    let error = load(&[("agent.toml", "[probes.disk]\nwarn_at = \"95\"\n")]).expect_err("refused");
    assert_eq!(error, "agent.toml: probes.disk.warn_at = \"95\": expected a percentage such as \"95%\"");
}

#[test]
fn all_errors_of_all_files_are_listed() {
    let error = load(&[
        ("agent.toml", "[agent]\nlog_format = \"xml\"\n[spool]\nmax_size = \"2TiB\"\n"),
        ("agent.d/20-net.toml", "[probes]\ninterval = \"1h\"\nintervall = \"1s\"\n"),
        ("agent.d/10-web.toml", "[[service]]\nname = \"web\"\n[[service.check]]\nname = \"home\"\nkind = \"http\"\n"),
        ("agent.d/30-broken.toml", "a = 1\nb = \n"),
    ])
    .expect_err("refused");
    for line in [
        "agent.toml: agent.log_format = \"xml\": expected \"text\" or \"json\"",
        "agent.toml: spool.max_size = \"2TiB\": expected a size from \"1MiB\" to \"1GiB\"",
        "agent.d/20-net.toml: probes.interval = \"1h\": expected a duration from \"1s\" to \"5m\"",
        "agent.d/20-net.toml: probes.intervall = \"1s\": unknown key; accepted here: clock, cpu,",
        "agent.d/10-web.toml: service.web.check.home.url: is missing: expected an address such as",
        "agent.d/30-broken.toml: line 2:",
    ] {
        assert!(error.lines().any(|found| found.starts_with(line)), "{line}\nnot in\n{error}");
    }
    assert_eq!(error.lines().count(), 6, "{error}");
}

#[test]
fn drop_ins_merge_in_name_order_and_services_are_appended() {
    let service = |name: &str| {
        format!("[[service]]\nname = \"{name}\"\n[[service.check]]\nname = \"port\"\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n")
    };
    let config = load(&[
        ("agent.toml", "[probes.disk]\nwarn_at = \"80%\"\nexclude = [\"/a\"]\n[agent]\nstate_dir = \"/one\"\n"),
        ("agent.d/20.toml", "[agent]\nstate_dir = \"/three\"\n"),
        ("agent.d/10.toml", &format!("[agent]\nstate_dir = \"/two\"\n[probes.disk]\nserious_at = \"85%\"\n{}", service("b"))),
        ("agent.d/30.toml.example", "this is not read"),
        ("profiles.d/gateway.toml", &service("a")),
    ])
    .expect("good");
    assert_eq!(config.state_dir, Path::new("/three"));
    assert_eq!((config.probes.disk.warn_at, config.probes.disk.serious_at), (80.0, Some(85.0)));
    assert_eq!(config.probes.disk_exclude, ["/a"]);
    assert_eq!(config.check_report().services, ["a", "b"]);
    assert_eq!(config.check_report().files.len(), 4);
    assert_eq!(config.declared_services()[0].checks, ["port"]);
    assert_eq!(config.declared_services()[0].interval_s, 60);
}

#[test]
fn one_service_name_in_two_files_is_refused_and_both_are_named() {
    let service = "[[service]]\nname = \"web\"\n[[service.check]]\nname = \"port\"\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n";
    let error = load(&[("profiles.d/p.toml", service), ("agent.d/web.toml", service)]).expect_err("refused");
    assert_eq!(
        error,
        "agent.d/web.toml: service.web: is declared in profiles.d/p.toml as well: expected each service name once over all files"
    );
}

#[test]
fn a_profile_may_not_configure_the_agent() {
    let error = load(&[("profiles.d/p.toml", "[agent]\nstate_dir = \"/x\"\n")]).expect_err("refused");
    assert!(error.starts_with("profiles.d/p.toml: agent: a service profile may hold [[service]] tables only"), "{error}");
}

#[test]
fn secrets_are_refused_where_they_do_not_belong_and_never_shown() {
    let error =
        load(&[("agent.toml", "[proxy]\nurl = \"http://me:hush@proxy:3128\"\npassword = \"hush\"\n")]).expect_err("refused");
    assert!(error.contains("proxy.url: expected") && error.contains("proxy.password: unknown key"), "{error}");
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn every_kind_of_check_says_what_it_needs() {
    for (keys, expected) in [
        ("kind = \"ftp\"", "kind = \"ftp\": expected \"http\", \"tcp\", \"process\", \"unit\" or \"plugin\""),
        (
            "kind = \"http\"\nurl = \"gopher://x\"",
            "url = \"gopher://x\": expected an address such as \"https://127.0.0.1/health\"",
        ),
        ("kind = \"http\"\nurl = \"http://x\"\nmethod = \"POST\"", "method = \"POST\": expected \"GET\" or \"HEAD\""),
        ("kind = \"tcp\"\naddress = \"127.0.0.1\"", "address = \"127.0.0.1\": expected HOST:PORT"),
        ("kind = \"tcp\"\naddress = \"::1:80\"", "address = \"::1:80\": expected HOST:PORT"),
        ("kind = \"process\"", "process: is missing: expected process, cmdline, or both"),
        ("kind = \"unit\"\nunit = \"-H root\"", "unit = \"-H root\": expected a unit name"),
        ("kind = \"plugin\"\ncommand = \"check_x\"", "command = \"check_x\": expected a program with its full path"),
        ("kind = \"plugin\"\ncommand = [\"check_x\"]", "command = [\"check_x\"]: expected a program with its full path"),
        (
            "kind = \"unit\"\nunit = \"a.service\"\ncommand = []",
            "command = []: unknown key; accepted here: kind, name, timeout, unit",
        ),
    ] {
        let text = format!("[[service]]\nname = \"s\"\n[[service.check]]\nname = \"c\"\n{keys}\n");
        let error = load(&[("agent.toml", &text)]).expect_err(keys);
        assert!(error.contains(&format!("agent.toml: service.s.check.c.{expected}")), "{keys}\n{error}");
    }
}

#[test]
fn the_shipped_examples_are_good() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/agent");
    let shipped = Config::load(&packaging.join("agent.toml")).expect("the shipped agent.toml");
    assert_eq!(
        shipped,
        Config { files: shipped.files.clone(), ..load(&[]).expect("the defaults") },
        "it only repeats the defaults"
    );

    let read = |folder: &str, ending: &str, into: &str| -> Vec<(String, String)> {
        let entries = fs::read_dir(packaging.join(folder)).expect("a folder").flatten();
        let texts = entries.filter(|entry| entry.path().to_string_lossy().ends_with(ending)).map(|entry| {
            let name = entry.file_name().to_string_lossy().replace(".example", "");
            (format!("{into}/{name}"), fs::read_to_string(entry.path()).expect("readable"))
        });
        texts.collect()
    };
    let mut files = read("agent.d", ".toml.example", "agent.d");
    files.extend(read("profiles", ".toml", "profiles.d"));
    assert!(files.len() >= 3, "examples and a profile are shipped");
    let borrowed: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let config = load(&borrowed).expect("the examples");
    assert!(config.services.len() >= 2);
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-configuration.md");
    let text = fs::read_to_string(reference).expect("the reference");
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "the reference has examples");
    for block in blocks {
        load(&[("agent.toml", block)]).unwrap_or_else(|error| panic!("{error}\nin\n{block}"));
    }
}

#[test]
fn the_reference_tells_of_every_key() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-configuration.md");
    let reference = fs::read_to_string(reference).expect("the reference");
    let sections = ["agent", "collector", "proxy", "spool", "uplink", "probes", "probes.disk", "probes.network", "probes.cpu"];
    let mut texts: Vec<String> = sections.iter().map(|section| format!("[{section}]\nzz = 1\n")).collect();
    let kinds = ["http", "tcp", "process", "unit", "plugin"];
    texts.extend(kinds.map(|kind| {
        let needed = "url = \"http://x\"\naddress = \"a:1\"\nprocess = \"a\"\nunit = \"a\"\ncommand = [\"/a\"]\n";
        format!("[[service]]\nname = \"s\"\nzz = 1\n[[service.check]]\nname = \"c\"\nkind = \"{kind}\"\n{needed}")
    }));
    for text in texts {
        let error = load(&[("agent.toml", &text)]).expect_err("an unknown key");
        let lists: Vec<&str> =
            error.lines().filter_map(|line| line.split_once("accepted here: ")).map(|(_, keys)| keys).collect();
        assert!(!lists.is_empty(), "{error}");
        for key in lists.iter().flat_map(|keys| keys.split(", ")) {
            assert!(reference.contains(&format!("`{key}`")) || reference.contains(&format!(".{key}`")), "{key} of\n{text}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        drop(load(&[("agent.toml", &text)]));
    }

    #[test]
    fn no_value_makes_the_reader_panic(
        key in "(agent|proxy|spool|probes|probes.disk|collector)",
        name in "(state_dir|url|max_size|interval|warn_at|for|addresses|exclude|[a-z]{1,5})",
        value in "(-?[0-9]{1,20}|\"[0-9a-zA-Z%@:/.-]{0,30}\"|true|\\[\\]|\\[1, \"a\"\\]|\\{\\})",
    ) {
        let text = format!("[{key}]\n{name} = {value}\n[[service]]\n{name} = {value}\n[[service.check]]\n{name} = {value}\n");
        drop(load(&[("agent.toml", &text)]));
    }
}
