//! The repository at the agents' door: who gets what, and in which parts.

use std::path::Path;
use std::sync::Arc;

use mainstay_patchkit::sample::{ISSUED_AT, Vendor, program_action};
use reqwest::StatusCode;

use super::House;
use crate::customers::Role;
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::flow::file_is_offered::{self, Wish};
use crate::flow::repository_is_read::Reader;
use crate::flow::testing::staff;

both_databases!(an_appliance_fetches_what_was_offered_to_it_in_parts_and_nothing_else);

const FILE: &str = "acme-gateway-look-1.mpatch";

async fn an_appliance_fetches_what_was_offered_to_it_in_parts_and_nothing_else(db: Db) {
    let house = House::open(db, 2).await;
    let dir = house.world.config.data_dir.join("repository");
    std::fs::create_dir_all(dir.join("metadata")).expect("a folder");
    std::fs::create_dir_all(dir.join("files")).expect("a folder");
    let now = house.world.time.now().max(ISSUED_AT);
    let vendor = Vendor { issued_at: now.plus_ms(-1000), expires_at: now.plus_ms(100 * 86_400_000), ..Vendor::default() };
    let action = program_action("look-1", &["/bin/true"]);
    std::fs::write(dir.join("metadata/1.root.json"), vendor.root_json().expect("a root")).expect("written");
    let file = vendor.file(&action, b"").expect("a file");
    std::fs::write(dir.join("files").join(FILE), &file).expect("written");
    let reader = Reader::new(&house.world).expect("readable").expect("set up");
    Arc::clone(&reader).once(&house.world).await.expect("reads");
    let (one, other) = (house.enrol().await, house.enrol().await);
    let of = |name: &str| format!("{}/agent/v1/repository/{name}", house.base());
    let path = of(&format!("files/{FILE}"));
    let get = |client: &reqwest::Client, url: &str, range: Option<&str>| {
        let request = client.get(url);
        match range {
            Some(range) => request.header("range", range),
            None => request,
        }
        .send()
    };
    assert_eq!(get(&one.client, &path, None).await.expect("asked").status(), StatusCode::FORBIDDEN, "not offered yet");
    let set = "UPDATE appliances SET product = 'acme-gateway'";
    let done = async {
        crate::db::transact!(house.world.db, crate::db::Turn::Console, |tx| {
            sqlx::query(set).execute(&mut *tx).await?;
            Ok(())
        });
        anyhow::Ok(())
    };
    done.await.expect("set");
    let appliances = vec![one.reply.appliance.to_string()];
    let wish = Wish { file: FILE.into(), appliances, ..Wish::default() };
    let told = file_is_offered::offer(&house.world, &staff("li", Role::SystemEngineer), None, &wish).await.expect("asks");
    told.expect("may")[0].outcome.clone().expect("offered");
    let whole = get(&one.client, &path, None).await.expect("asked");
    let tag = whole.headers()["etag"].to_str().expect("a tag").to_owned();
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.bytes().await.expect("a body"), file);
    let part = get(&one.client, &path, Some("bytes=10-")).await.expect("asked");
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes 10-{}/{}", file.len() - 1, file.len()).as_str());
    assert_eq!(part.bytes().await.expect("a body"), file[10..]);
    let changed = one.client.get(&path).header("range", "bytes=10-").header("if-range", "\"of another\"").send().await;
    assert_eq!(changed.expect("asked").status(), StatusCode::OK, "a file that changed comes whole");
    let same = one.client.get(&path).header("range", "bytes=10-").header("if-range", tag).send().await.expect("asked");
    assert_eq!(same.status(), StatusCode::PARTIAL_CONTENT);
    let beyond = get(&one.client, &path, Some(&format!("bytes={}-", file.len()))).await.expect("asked");
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let head = one.client.head(&path).send().await.expect("asked");
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().ok()),
        (StatusCode::OK, Some(file.len().to_string().as_str()))
    );
    let root = get(&one.client, &of("metadata/1.root.json"), None).await.expect("asked");
    assert_eq!(root.bytes().await.expect("a body"), vendor.root_json().expect("a root"));
    for (client, name, status, why) in [
        (&other.client, format!("files/{FILE}"), StatusCode::FORBIDDEN, "offered to another appliance"),
        (&house.client(None), format!("files/{FILE}"), StatusCode::UNAUTHORIZED, "a stranger"),
        (&one.client, "files/acme-gateway-2.mpatch".to_owned(), StatusCode::NOT_FOUND, "no such file"),
        (&one.client, "metadata/9.root.json".to_owned(), StatusCode::NOT_FOUND, "no such version"),
        (&one.client, "metadata/..%2f..%2fissuing-ca.key".to_owned(), StatusCode::NOT_FOUND, "an odd name"),
        (&one.client, "keys/issuing-ca.key".to_owned(), StatusCode::NOT_FOUND, "another folder"),
        (&one.client, format!("files/{FILE}?x=1"), StatusCode::NOT_FOUND, "a query"),
    ] {
        assert_eq!(get(client, &of(&name), None).await.expect("asked").status(), status, "{why}: {name}");
    }
    let files = dir.join("files");
    a_file_that_is_missing_is_waited_for(&house, &reader, &files, (&one.client, &other.client), &path).await;
    let posted = one.client.post(&path).send().await.expect("asked");
    assert_eq!((posted.status(), posted.headers()["allow"].to_str().ok()), (StatusCode::METHOD_NOT_ALLOWED, Some("GET, HEAD")));
}

async fn a_file_that_is_missing_is_waited_for(
    house: &House,
    reader: &Arc<Reader>,
    files: &Path,
    (one, other): (&reqwest::Client, &reqwest::Client),
    url: &str,
) {
    let get = |client: &reqwest::Client| client.get(url).header("range", "bytes=10-").send();
    let (there, away) = (files.join(FILE), files.join("acme-gateway-other.mpatch"));
    std::fs::rename(&there, &away).expect("moved");
    Arc::clone(reader).once(&house.world).await.expect("reads");
    let gone = get(one).await.expect("asked");
    assert_eq!(gone.status(), StatusCode::SERVICE_UNAVAILABLE, "its offer lasts: it keeps what it has");
    assert_eq!(gone.headers()["retry-after"], "300");
    assert_eq!(get(other).await.expect("asked").status(), StatusCode::NOT_FOUND, "it was not offered to this one");
    std::fs::rename(&away, &there).expect("moved back");
    Arc::clone(reader).once(&house.world).await.expect("reads");
    assert_eq!(get(one).await.expect("asked").status(), StatusCode::PARTIAL_CONTENT);
}
