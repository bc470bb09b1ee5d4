//! What a person who edits the file sees: the shipped example is good, and a bad one is told whole.

use super::*;

const LEAST: &str =
    "[agents]\naddresses = [\"https://support.example.com:8443\"]\n[web]\npublic_url = \"https://support.example.com/\"\n";

#[test]
fn the_shipped_example_is_accepted() {
    let config = parse("collector.toml", include_str!("../../../../packaging/collector/collector.toml")).expect("accepted");
    assert_eq!(config.silence_after, Duration::from_secs(300));
    assert!(config.mail.is_some());
}

#[test]
fn the_least_file_gets_the_documented_defaults() {
    let config = parse("collector.toml", LEAST).expect("accepted");
    assert_eq!(config.database_url, "sqlite:/var/lib/mainstay-collector/collector.db");
    assert_eq!(config.web_public_url, "https://support.example.com");
    assert_eq!(config.flap_window, Duration::from_secs(900));
    assert_eq!(config.close_recovered_after, Duration::from_secs(3 * 86_400));
    assert!(config.mail.is_none() && !config.log_json);
}

#[test]
fn every_wrong_value_is_told_at_once_with_file_key_value_and_what_is_accepted() {
    let text = "[service]\nlanguage = \"fr\"\n[agents]\nlisten = \"8443\"\naddresses = [\"http://a\"]\n\
                [web]\nlisten = \"0.0.0.0:80\"\npublic_url = \"support\"\n\
                [mail]\nserver = \"mail.example.com\"\nsecurity = \"none\"\nfrom = \"x\"\nusername = \"u\"\n\
                [tickets]\nflap_window = \"15 minutes\"\n[log]\nformat = \"xml\"\n";
    let BadConfig(faults) = parse("c.toml", text).expect_err("refused");
    for part in [
        "c.toml: service.language = \"fr\": expected \"zh\" or \"en\"",
        "agents.listen = \"8443\"",
        "agents.addresses = \"http://a\"",
        "web.listen = \"0.0.0.0:80\": expected a loopback address",
        "web.public_url = \"support\"",
        "mail.server = \"mail.example.com\": expected a loopback address",
        "mail.from = \"x\"",
        "mail.username, mail.password_file",
        "tickets.flap_window = \"15 minutes\": expected a time such as",
        "log.format = \"xml\"",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is missing in {faults:#?}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_known_ones() {
    let BadConfig(faults) = parse("c.toml", &format!("{LEAST}publik_url = \"x\"\n")).expect_err("refused");
    assert!(faults[0].starts_with("c.toml: line 5: unknown field `publik_url`, expected one of"), "{faults:?}");
}

#[test]
fn a_password_in_the_database_address_is_refused_and_not_repeated() {
    let text = format!("{LEAST}[database]\nurl = \"postgres://mainstay:hunter2@db/mainstay\"\n");
    let error = parse("c.toml", &text).expect_err("refused").to_string();
    assert!(error.contains(".pgpass") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_broken_line_is_told_without_repeating_it() {
    let error = parse("c.toml", "[mail]\nfrom = \"hunter2\n").expect_err("refused").to_string();
    assert!(error.starts_with("c.toml: line 2:") && !error.contains("hunter2"), "{error}");
}

#[test]
fn times_are_read_as_people_write_them() {
    let table = [("90s", Some(90)), ("15min", Some(900)), ("24h", Some(86_400)), ("3d", Some(259_200))];
    let refused = ["", "5", "0s", "-1h", "5 min", "1w", "99999999999d", "五min"].map(|text| (text, None));
    for (text, seconds) in table.into_iter().chain(refused) {
        assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn a_repository_lies_in_a_folder_or_in_a_bucket() {
    let read = |text: &str| parse("c.toml", &format!("{LEAST}[releases]\n{text}"));
    let from = |text: &str| read(text).expect("accepted").releases.expect("set").from;
    assert_eq!(from("dir = \"/srv/releases\"\n"), ReleasesFrom::Dir("/srv/releases".into()));
    let key = "access_key_id = \"AK\"\nsecret_key_file = \"/etc/mainstay/s3.secret\"\n";
    let bucket = format!("bucket = \"releases\"\nendpoint = \"https://s3.example.com\"\nprefix = \"a/b\"\n{key}");
    let ReleasesFrom::Bucket(read_bucket) = from(&bucket) else { panic!("a bucket") };
    assert_eq!((read_bucket.prefix.as_str(), read_bucket.region.as_str()), ("a/b/", "us-east-1"));
    let rows = [
        ("neither", String::new(), "releases.dir, releases.bucket = \"neither\": expected one of the two"),
        ("both", format!("dir = \"/srv\"\n{bucket}"), "releases.dir, releases.bucket = \"both\""),
        ("a key beside a folder", format!("dir = \"/srv\"\n{key}"), "releases.dir = \"/srv\": expected no keys of a bucket"),
        ("in clear over the net", bucket.replace("https", "http"), "releases.endpoint: expected the store's https://"),
        ("a secret in the address", bucket.replace("//s3", "//u:hunter2@s3"), "releases.endpoint: expected"),
        ("no key", "bucket = \"releases\"\nendpoint = \"http://127.0.0.1:9000\"\n".to_owned(), "releases.secret_key_file"),
        ("a way out", bucket.replace("a/b", "../b"), "releases.prefix = \"../b\""),
    ];
    for (sentence, text, part) in rows {
        let error = read(&text).expect_err(sentence).to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{sentence}: {error}");
    }
}
