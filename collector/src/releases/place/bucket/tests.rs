//! What a store answers, and what of it is taken.

use super::*;

#[test]
fn what_a_store_answers_is_told_so_that_its_reader_knows_what_to_do() {
    let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    let rows =
        [("nothing there", 404, xml("NoSuchKey"), Told::NoObject), ("no bucket", 404, xml("NoSuchBucket"), Told::NoBucket)];
    for (sentence, status, body, expected) in rows {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(told(status, "application/xml", &body), expected, "{sentence}");
    }
    let wrong = [
        ("a wrong secret", 403, xml("SignatureDoesNotMatch"), "secret_key_file"),
        ("a clock", 403, xml("RequestTimeTooSkewed"), "clocks"),
        ("another region", 301, xml("PermanentRedirect"), "releases.region"),
        ("too busy", 503, xml("SlowDown"), "503 Service Unavailable, SlowDown"),
        ("a web server", 404, "<html>not here</html>".to_owned(), "not answer as an S3 store: 404 Not Found, text/html"),
        ("markup as code", 500, xml("<script>"), "not answer as an S3 store"),
    ];
    for (sentence, status, body, words) in wrong {
        let kind = if body.starts_with("<html") { "text/html" } else { "application/xml" };
        let answer = told(StatusCode::from_u16(status).expect("a status"), kind, &body);
        assert!(matches!(&answer, Told::Wrong(why) if why.contains(words)), "{sentence}: {answer:?}");
    }
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("secret");
    std::fs::write(&path, "s3cret\n").expect("written");
    let set = |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    set(0o640);
    let refused = secret_key(&path).expect_err("others may read it").to_string();
    assert!(refused.contains("0600") && !refused.contains("s3cret"), "{refused}");
    set(0o400);
    assert_eq!(secret_key(&path).expect("its owner's"), "s3cret");
}

#[test]
fn an_object_is_copied_only_where_that_leaves_room() {
    const GIB: u64 = 1 << 30;
    let rows = [
        ("a usual one", 2 * GIB, 50 * GIB, 100 * GIB, ""),
        ("the largest there can be", MAX_FILE_BYTES, 50 * GIB, 100 * GIB, ""),
        ("a byte more", MAX_FILE_BYTES + 1, 5000 * GIB, 9000 * GIB, "no signed file is larger than 16388 MiB"),
        ("it would leave a byte less than a gibibyte", 9 * GIB + 1, 10 * GIB, 100 * GIB, "has room for 9216"),
        ("it leaves a gibibyte", 9 * GIB, 10 * GIB, 100 * GIB, ""),
        ("a small disk keeps a tenth", GIB, GIB + GIB / 2, 5 * GIB, ""),
        ("a full disk", 1, GIB / 2, 100 * GIB, "has room for 0"),
    ];
    for (sentence, bytes, free, disk, words) in rows {
        match demand_room(bytes, free, disk) {
            Ok(()) => assert_eq!(words, "", "{sentence}"),
            Err(why) => assert!(!words.is_empty() && why.contains(words), "{sentence}: {why}"),
        }
    }
}
