//! Customers a page at a time, and found by a part of their name, on both databases.

use mainstay_shared::time_source::UnixMs;

use super::*;
use crate::customers::Language;
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};

both_databases!(customers_come_by_name_a_page_at_a_time, a_part_of_the_name_or_the_id_finds_a_customer_and_no_pattern_does);

async fn fill(db: &Db) -> anyhow::Result<()> {
    let all =
        [("c3", "Bank of Rivers"), ("vendor", "A vendor"), ("c1", "City 100%"), ("c2", "Bank of Rivers"), ("c4", "渝江银行")];
    transact!(db, Turn::Console, |tx| {
        for (tenant_id, name) in all {
            let (tenant_id, name) = (tenant_id.to_owned(), name.to_owned());
            let customer = Customer { tenant_id, name, language: Language::En, created_at: UnixMs(0) };
            store::add_customer(tx, &customer).await?;
        }
        Ok(())
    });
    Ok(())
}

async fn ids(db: &Db, wanted: Wanted<'_>, limit: i64) -> Vec<String> {
    let mut conn = db.read().await.expect("reads");
    page(&mut conn, wanted, limit).await.expect("a page").into_iter().map(|customer| customer.tenant_id).collect()
}

async fn customers_come_by_name_a_page_at_a_time(db: Db) {
    fill(&db).await.expect("fills");
    assert_eq!(ids(&db, Wanted::default(), 9).await, ["c2", "c3", "c1", "c4"], "two of one name by id; the vendor is none");
    assert_eq!(ids(&db, Wanted::default(), 2).await, ["c2", "c3"]);
    assert_eq!(ids(&db, Wanted { after: "c2", ..Wanted::default() }, 2).await, ["c3", "c1"]);
    assert_eq!(ids(&db, Wanted { after: "c4", ..Wanted::default() }, 2).await, [""; 0]);
    assert_eq!(ids(&db, Wanted { only: Some("c4"), ..Wanted::default() }, 9).await, ["c4"]);
}

async fn a_part_of_the_name_or_the_id_finds_a_customer_and_no_pattern_does(db: Db) {
    fill(&db).await.expect("fills");
    let rows: [(&str, &[&str]); 7] = [
        ("rivers", &["c2", "c3"]),
        ("江", &["c4"]),
        ("C3", &["c3"]),
        ("100%", &["c1"]),
        ("%", &["c1"]),
        ("_", &[]),
        ("vendor", &[]),
    ];
    for (find, found) in rows {
        assert_eq!(ids(&db, Wanted { find, ..Wanted::default() }, 9).await, found, "{find}");
    }
    assert_eq!(ids(&db, Wanted { find: "rivers", after: "c2", ..Wanted::default() }, 9).await, ["c3"]);
}
