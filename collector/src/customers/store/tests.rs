//! Accounts and customers on both databases.

use super::*;
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};

both_databases!(
    customers_and_their_parts_are_read_back_apart,
    a_disabled_account_loses_sessions_tokens_and_its_place,
    a_sign_in_is_stored,
    an_account_serves_a_customer_until_it_serves_no_more,
);

const NOW: UnixMs = UnixMs(1_000);

fn customer_named(tenant_id: &str) -> Customer {
    Customer { tenant_id: tenant_id.into(), name: "某银行".into(), language: Language::Zh, created_at: NOW }
}

fn account(username: &str, role: Role) -> Staff {
    Staff {
        staff_id: format!("id-{username}"),
        username: username.into(),
        name: username.into(),
        email: format!("{username}@vendor.example"),
        phone: String::new(),
        role,
        language: Language::En,
        created_at: NOW,
        disabled_at: None,
    }
}

fn secrets() -> Secrets {
    Secrets { password_hash: "h".into(), totp_secret: "s".into(), totp_last_step: 0, failed_count: 0, locked_until_at: None }
}

async fn fill(db: &Db) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        for tenant_id in ["a", "b"] {
            add_customer(tx, &customer_named(tenant_id)).await?;
            let site = Site {
                tenant_id: tenant_id.into(),
                site_id: "main".into(),
                name: "主机房".into(),
                city: "重庆".into(),
                time_zone: "Asia/Shanghai".into(),
            };
            add_site(tx, &site).await?;
        }
        let contact = Contact {
            tenant_id: "a".into(),
            contact_id: "c1".into(),
            site_id: None,
            name: "王".into(),
            email: "wang@bank.example".into(),
            phone: String::new(),
            language: Language::Zh,
        };
        add_contact(tx, &contact).await?;
        add_staff(tx, &account("li", Role::SystemEngineer), &secrets()).await?;
        serve(tx, "a", "id-li", Role::SystemEngineer).await?;
        serve(tx, "a", "id-li", Role::SystemEngineer).await?;
        Ok(())
    });
    Ok(())
}

async fn customers_and_their_parts_are_read_back_apart(db: Db) {
    fill(&db).await.expect("fills");
    let mut conn = db.read().await.expect("reads");
    assert_eq!(customers(&mut conn).await.expect("customers").len(), 2);
    assert_eq!(customer(&mut conn, "a").await.expect("customer"), Some(customer_named("a")));
    assert_eq!(sites(&mut conn, "b").await.expect("sites").len(), 1);
    assert!(site(&mut conn, "b", "other").await.expect("site").is_none());
    assert_eq!(contacts(&mut conn, "a").await.expect("contacts")[0].site_id, None);
    assert!(contacts(&mut conn, "b").await.expect("contacts").is_empty());
    let told = serving(&mut conn, "a").await.expect("serving");
    assert_eq!(told, [Serving { staff: account("li", Role::SystemEngineer), role: Role::SystemEngineer }]);
    assert!(serving(&mut conn, "b").await.expect("serving").is_empty());
}

async fn a_disabled_account_loses_sessions_tokens_and_its_place(db: Db) {
    fill(&db).await.expect("fills");
    disable(&db).await.expect("disables");
    let mut conn = db.read().await.expect("reads");
    assert!(serving(&mut conn, "a").await.expect("serving").is_empty());
    let found = staff(&mut conn, "id-li").await.expect("staff").expect("still there");
    assert_eq!(found.disabled_at, Some(UnixMs(2_000)));
    let ends: i64 = sqlx::query_scalar("SELECT expires_at FROM sessions").fetch_one(&mut *conn).await.expect("session");
    assert_eq!(ends, 2_000);
}

async fn disable(db: &Db) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        sqlx::query("INSERT INTO sessions VALUES ('h', 'id-li', 'full', 'c', 1, 1, 9000)").execute(&mut *tx).await?;
        disable_staff(tx, "id-li", UnixMs(2_000)).await?;
        Ok(())
    });
    Ok(())
}

async fn a_sign_in_is_stored(db: Db) {
    fill(&db).await.expect("fills");
    sign_in(&db).await.expect("stores");
    let mut conn = db.read().await.expect("reads");
    let (_, secrets) = staff_to_sign_in(&mut conn, "li").await.expect("staff").expect("there");
    assert_eq!((secrets.failed_count, secrets.totp_last_step, secrets.locked_until_at), (3, 7, Some(UnixMs(5))));
    assert!(staff_to_sign_in(&mut conn, "nobody").await.expect("staff").is_none());
}

async fn sign_in(db: &Db) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        store_sign_in(tx, "id-li", 3, Some(UnixMs(5)), 7).await?;
        Ok(())
    });
    Ok(())
}

async fn an_account_serves_a_customer_until_it_serves_no_more(db: Db) {
    async fn story(db: &Db) -> anyhow::Result<()> {
        fill(db).await?;
        let (ended, again) = transact!(db, Turn::Console, |tx| {
            for tenant_id in ["a", "b"] {
                serve(tx, tenant_id, "id-li", Role::SystemEngineer).await?;
                serve(tx, tenant_id, "id-li", Role::SystemEngineer).await?;
            }
            Ok((serve_no_more(tx, "a", "id-li").await?, serve_no_more(tx, "a", "id-li").await?))
        });
        assert_eq!((ended, again), (true, false));
        let mut conn = db.read().await?;
        assert!(!serving(&mut conn, "a").await?.iter().any(|one| one.staff.staff_id == "id-li"));
        assert!(
            serving(&mut conn, "b").await?.iter().any(|one| one.staff.staff_id == "id-li"),
            "the other customer is served still"
        );
        Ok(())
    }
    story(&db).await.expect("the story runs");
}
