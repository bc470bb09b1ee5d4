//! The appliances' rows on both databases, and the little world that other rooms' tests stand on.

use super::*;
use crate::appliances::join::{JoinToken, secret_hash};
use crate::appliances::{certificates, tokens};
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};

both_databases!(
    a_token_raced_by_fifty_is_spent_once,
    tenants_do_not_see_each_other,
    a_retired_appliance_stays_retired,
    expected_hours_are_set_and_taken_away
);

/// A customer with one site, and a token with that many uses; its secret is `secret`.
pub(crate) async fn seed(db: &Db, tenant: &str, uses: i64) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        sqlx::query("INSERT INTO customers (tenant_id, name, language, created_at) VALUES ($1, '某银行', 'zh', 1)")
            .bind(tenant)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO sites (tenant_id, site_id, name, city, time_zone) VALUES ($1, 's', 'S', '重庆', 'Asia/Shanghai')",
        )
        .bind(tenant)
        .execute(&mut *tx)
        .await?;
        let token = JoinToken {
            token_id: format!("token-{tenant}"),
            tenant_id: tenant.to_owned(),
            site_id: "s".to_owned(),
            product: "box".to_owned(),
            duty: "single".to_owned(),
            secret_hash: secret_hash("secret"),
            uses_left: uses,
            created_at: UnixMs(1),
            expires_at: UnixMs(i64::MAX),
        };
        tokens::add(tx, &token, "staff:test").await
    });
    Ok(())
}

/// An active appliance named `id`, with a certificate of the fingerprint `fp-{id}`.
pub(crate) async fn seed_appliance(db: &Db, tenant: &str, id: &str) -> anyhow::Result<()> {
    let appliance = Appliance {
        tenant_id: tenant.to_owned(),
        appliance_id: id.to_owned(),
        site_id: "s".to_owned(),
        name: "node-a".to_owned(),
        product: "box".to_owned(),
        vendor: "v".to_owned(),
        model: "m".to_owned(),
        serial: "Default string".to_owned(),
        duty: "single".to_owned(),
        parts: "[]".to_owned(),
        agent_version: "0.1.0".to_owned(),
        platform: "linux".to_owned(),
        state: ApplianceState::Active,
        held_reason: String::new(),
        expected_hours: String::new(),
        enrolled_at: UnixMs(1),
    };
    transact!(db, Turn::Console, |tx| {
        add(tx, &appliance, &format!("attempt-{id}")).await?;
        let certificate = certificates::StoredCertificate {
            fingerprint: format!("fp-{id}"),
            tenant_id: tenant.to_owned(),
            appliance_id: id.to_owned(),
            public_key: "k".to_owned(),
            pem: String::new(),
            not_after_at: UnixMs(1000),
            issued_at: UnixMs(1),
            revoked_at: None,
        };
        Ok(certificates::add(tx, &certificate).await?)
    });
    Ok(())
}

async fn a_token_raced_by_fifty_is_spent_once(db: Db) {
    seed(&db, "t", 1).await.expect("seeds");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let db = db.clone();
        tasks.spawn(async move {
            anyhow::Ok(transact!(db, Turn::Console, |tx| { Ok(tokens::spend(tx, "token-t", UnixMs(5)).await?) }))
        });
    }
    let spent = tasks.join_all().await.into_iter().filter(|spent| matches!(spent, Ok(true))).count();
    assert_eq!(spent, 1);
}

async fn tenants_do_not_see_each_other(db: Db) {
    for tenant in ["a", "b"] {
        seed(&db, tenant, 1).await.expect("seeds");
        seed_appliance(&db, tenant, &format!("box-{tenant}")).await.expect("seeds");
    }
    let mut conn = db.read().await.expect("reads");
    assert!(get(&mut conn, "a", "box-b").await.expect("asks").is_none());
    assert_eq!(list(&mut conn, Some("a")).await.expect("lists").len(), 1);
    assert_eq!(list(&mut conn, None).await.expect("lists").len(), 2);
    assert_eq!(tenant_of(&mut conn, "box-b").await.expect("asks").as_deref(), Some("b"));
}

async fn a_retired_appliance_stays_retired(db: Db) {
    async fn story(db: &Db) -> anyhow::Result<()> {
        seed(db, "t", 1).await?;
        seed_appliance(db, "t", "x").await?;
        let (held, again, retired, released) = transact!(db, Turn::Console, |tx| {
            Ok((
                set_state(tx, "t", "x", ApplianceState::Held, "old_nonce").await?,
                set_state(tx, "t", "x", ApplianceState::Held, "no_nonce").await?,
                set_state(tx, "t", "x", ApplianceState::Retired, "").await?,
                set_state(tx, "t", "x", ApplianceState::Active, "").await?,
            ))
        });
        assert_eq!((held, again, retired, released), (true, false, true, false));
        let mut conn = db.read().await?;
        assert!(certificates::identity_of(&mut conn, "fp-x", UnixMs(5)).await?.is_none(), "its certificate is worth nothing");
        Ok(())
    }
    story(&db).await.expect("the story runs");
}

async fn expected_hours_are_set_and_taken_away(db: Db) {
    async fn story(db: &Db) -> anyhow::Result<()> {
        seed(db, "t", 1).await?;
        seed_appliance(db, "t", "x").await?;
        let hours = "mon-fri 08:00-18:00";
        let (set, again) = transact!(db, Turn::Console, |tx| {
            Ok((set_expected_hours(tx, "t", "x", hours).await?, set_expected_hours(tx, "t", "x", hours).await?))
        });
        assert_eq!((set, again), (true, false));
        let stored = get(&mut *db.read().await?, "t", "x").await?.map(|one| one.expected_hours);
        assert_eq!(stored.as_deref(), Some(hours));
        let (other, away) = transact!(db, Turn::Console, |tx| {
            Ok((set_expected_hours(tx, "other", "x", "").await?, set_expected_hours(tx, "t", "x", "").await?))
        });
        assert_eq!((other, away), (false, true), "another customer's is not touched");
        Ok(())
    }
    story(&db).await.expect("the story runs");
}
