//! What a store answers, and what of it is taken.

use std::sync::atomic::AtomicUsize;

use super::*;

/// What is listed of a store that answers each request by the page of that number: keys, and the token of the next page.
async fn listed(page: impl Fn(usize) -> (Vec<String>, Option<String>) + Clone + Send + Sync + 'static) -> Result<usize, String> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let dir = tempfile::tempdir().expect("a folder");
    let secret_key_file = dir.path().join("secret");
    std::fs::write(&secret_key_file, "s3cret\n").expect("written");
    std::fs::set_permissions(&secret_key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let settings = BucketConfig {
        endpoint: format!("http://{}", listener.local_addr().expect("an address")),
        bucket: "releases".into(),
        region: "us-east-1".into(),
        prefix: String::new(),
        access_key_id: "reader".into(),
        secret_key_file,
    };
    let bucket = Bucket::open(&settings, dir.path()).expect("opens");
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let store = axum::Router::new().fallback(move || {
        let (keys, next) = page(asked.fetch_add(1, Ordering::Relaxed));
        let contents: String = keys.iter().map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")).collect();
        let more = next.map_or_else(String::new, |token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
        let truncated = !more.is_empty();
        let xmlns = "http://s3.amazonaws.com/doc/2006-03-01/";
        let text = format!(
            "<ListBucketResult xmlns=\"{xmlns}\"><IsTruncated>{truncated}</IsTruncated>{contents}{more}</ListBucketResult>"
        );
        async move { text }
    });
    tokio::select! {
        found = bucket.list(Shelf::Files) => found.map(|found| found.len()).map_err(|error| format!("{error:#}")),
        served = axum::serve(listener, store) => Err(format!("the store ended: {served:?}")),
    }
}

#[tokio::test]
async fn a_listing_ends_whatever_the_store_answers() {
    let files = |page: usize, count: usize| (0..count).map(|n| format!("files/a-{page}-{n}.mpatch")).collect::<Vec<_>>();
    let found = listed(move |page| (files(page, 2), (page < 2).then(|| page.to_string()))).await;
    assert_eq!(found, Ok(6), "three pages");
    let found = listed(|page| (vec![], Some(page.to_string()))).await;
    assert!(found.as_ref().is_err_and(|why| why.contains("more than 100 pages")), "empty pages without end: {found:?}");
    let found = listed(move |page| (files(page, 1), Some((page % 3).to_string()))).await;
    assert!(found.as_ref().is_err_and(|why| why.contains("the same page again")), "in a circle: {found:?}");
    let others = |page: usize| (0..1000).map(|n| format!("files/{page}-{n}.tmp")).collect::<Vec<_>>();
    let found = listed(move |page| (others(page), Some(page.to_string()))).await;
    assert!(found.as_ref().is_err_and(|why| why.contains("more than 10000 objects")), "no names of ours: {found:?}");
}

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
