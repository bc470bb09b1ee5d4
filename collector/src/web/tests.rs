//! Every page in both languages: no text of the other one, no key without a text, hostile text inert.

use std::collections::BTreeSet;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;

use super::sample;
use crate::customers::Language;
use crate::db::testing::TestDb;
use crate::db::{Db, Turn, transact};
use crate::words::Words;
use crate::words::tests::keys;

/// What of the data is text of people or boxes: taken out before a page's own words are looked at.
const DATA: [&str; 12] = [
    "已电话联系赵敏。",
    "渝江银行",
    "数据中心一号",
    "赵敏",
    "李伟",
    "远程接入",
    "中文",
    "English",
    "Mia Chen",
    "Otto Berg",
    "Riverside City Council",
    "Town Hall",
];

fn pages() -> Vec<String> {
    let mut pages: Vec<String> = [
        "/",
        "/?show=closed",
        "/appliances",
        "/customers",
        "/account",
        "/tickets/open",
        "/account?said=refused_code",
        "/releases",
    ]
    .map(str::to_owned)
    .into();
    pages.extend(
        ["/?find=x", "/appliances?find=x", "/tickets/open?find=x", "/account?find=x", "/customers?find=%22%3E%3Cscript%3Ealert"]
            .map(str::to_owned),
    );
    pages.extend((1..=4).map(|n| format!("/tickets/T-{n:06}")));
    pages.extend([sample::BOX_A, sample::BOX_OTHER].map(|id| format!("/appliances/{id}")));
    pages
}

async fn get(app: &Router, path: &str, cookie: &str) -> String {
    let request = Request::get(path)
        .header("cookie", format!("__Host-mainstay-session={cookie}"))
        .header("accept-language", "zh-CN")
        .body(Body::empty())
        .expect("a request");
    let response = app.clone().oneshot(request).await.expect("an answer");
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let bytes = to_bytes(response.into_body(), 4 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A page's visible text and the attributes that people hear or see.
fn visible(html: &str) -> String {
    let mut out = String::new();
    for piece in html.split('<') {
        let (tag, text) = piece.split_once('>').unwrap_or(("", piece));
        for name in ["title=\"", "aria-label=\"", "placeholder=\"", "alt=\""] {
            if let Some(value) = tag.split(name).nth(1).and_then(|rest| rest.split('"').next()) {
                out.push_str(value);
                out.push('\n');
            }
        }
        if tag != "code" {
            out.push_str(text);
        }
        out.push('\n');
    }
    for data in DATA {
        out = out.replace(data, "");
    }
    out
}

#[tokio::test]
async fn no_page_shows_text_of_the_other_language() {
    let t = TestDb::sqlite().await;
    let (world, _) = sample::world(&t.db, sample::ADDRESS);
    sample::seed(&world, "").await.expect("a seeded world");
    sample::patched(&world, "").await.expect("a file that was offered");
    sample::session(&world, "li", "l").await.expect("a session");
    sample::session(&world, "mia", "m").await.expect("a session");
    let app = crate::router::web(&world, Router::new());
    let english_words = english_words();
    for path in pages() {
        let english = visible(&get(&app, &path, "m").await);
        let chinese: String = english.chars().filter(|c| ('\u{3000}'..='\u{9fff}').contains(c)).collect();
        assert!(chinese.is_empty(), "{path} in English shows {chinese}");
        let page = visible(&get(&app, &path, "l").await);
        for line in page.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(!english_words.contains(line), "{path} in Chinese shows {line:?}");
        }
        assert!(page.contains("工单"), "{path} is Chinese");
    }
}

/// All English texts that differ from their Chinese ones and carry a word.
fn english_words() -> BTreeSet<String> {
    keys()
        .iter()
        .map(|key| (Words(Language::En).t(key).into_owned(), Words(Language::Zh).t(key).into_owned()))
        .filter(|(english, chinese)| english != chinese && english.chars().filter(|c| c.is_alphabetic()).count() > 2)
        .map(|(english, _)| english)
        .filter(|text| !["up", "mail", "agent", "memory", "primary", "standby", "single"].contains(&text.as_str()))
        .collect()
}

#[test]
fn every_key_that_a_page_names_has_a_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known: BTreeSet<String> = keys().into_iter().collect();
    let mut named = 0;
    for folder in ["templates", "src/web", "src/router", "src/notices", "src/commands"] {
        for entry in std::fs::read_dir(root.join(folder))
            .expect("a folder")
            .flatten()
            .filter(|e| e.path().is_file() && !e.path().ends_with("tests.rs"))
        {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            for call in [".t(\"", ".with(\"", "error_page(language, StatusCode::"] {
                for piece in text.split(call).skip(1) {
                    let key = if call.starts_with("error") { piece.split('"').nth(1) } else { piece.split('"').next() };
                    let key = key.unwrap_or_default();
                    // Colours of the terminal.
                    if key.starts_with(|c: char| c.is_ascii_digit()) {
                        continue;
                    }
                    named += 1;
                    assert!(known.contains(key) || key.contains("{}"), "{}: {key:?}", entry.path().display());
                }
            }
        }
    }
    assert!(named > 150, "{named}");
}

#[tokio::test]
async fn a_storm_of_newer_tickets_hides_no_critical_one_and_no_failing_box() {
    let t = TestDb::sqlite().await;
    let (world, _announce) = sample::world(&t.db, sample::ADDRESS);
    sample::seed(&world, "").await.expect("the sample");
    sample::session(&world, "li", "cookie").await.expect("a session");
    storm(&t.db).await.expect("a storm");
    let app = crate::router::web(&world, Router::new());
    let first = get(&app, "/", "cookie").await;
    assert!(first.contains("T-000001"), "critical and unanswered: on the first page");
    let boxes = get(&app, "/appliances", "cookie").await;
    assert!(boxes.contains(sample::BOX_A), "a box with open tickets stands before 300 quiet ones");
    assert!(boxes.contains("after="), "and the others are a page away");
}

/// Three hundred newer tickets, three hundred boxes of which nobody complains.
async fn storm(db: &Db) -> anyhow::Result<()> {
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO";
    let rows = [
        "tickets SELECT 'city', 'T-' || CAST(100000 + i AS TEXT), 100000 + i, 'agent', 'open', 'c', 'c' || CAST(i AS TEXT), 'main', '', 'memory',
         'memory_low', '', 'slight', 'general', 0, 'services_up', '{}', 'unknown', NULL, NULL, NULL, i, i, NULL, NULL, NULL, i FROM n",
        "appliances SELECT 'city', '1' || CAST(100000 + i AS TEXT), 'main', 'quiet', 'p', 'v', 'm', 's', 'single', '[]', '0', 'Linux', 'active', '',
         'e' || CAST(i AS TEXT), '', 0 FROM n",
    ];
    transact!(db, Turn::Console, |tx| {
        for rows in rows {
            sqlx::query(sqlx::AssertSqlSafe(format!("{count} {rows}"))).execute(&mut *tx).await?;
        }
        Ok(())
    });
    Ok(())
}

#[tokio::test]
async fn hostile_text_from_agents_and_customers_stays_text() {
    let t = TestDb::sqlite().await;
    let (world, _) = sample::world(&t.db, sample::ADDRESS);
    let hostile = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>' onmouseover='x {{7*7}} %{impact}";
    sample::seed(&world, hostile).await.expect("a seeded world");
    sample::patched(&world, hostile).await.expect("a file that was offered");
    sample::session(&world, "mia", "m").await.expect("a session");
    let app = crate::router::web(&world, Router::new());
    for path in pages() {
        let html = get(&app, &path, "m").await;
        assert!(!html.contains("<script>alert") && !html.contains("<img src=x"), "{path}");
        assert!(!html.contains("\"><img src=x"), "{path}: an attribute was left");
        assert_eq!(html.matches("<script").count(), 1, "{path}: only our own script");
        assert!(!html.contains(" style="), "{path}: an inline style");
    }
}
