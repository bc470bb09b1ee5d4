//! The sample's four tickets, each with its clock, its episode, its story and its notices. Test code only.

use mainstay_shared::time_source::UnixMs;
use serde_json::json;

use super::{BOX_A, BOX_OTHER, MIN, NOW};
use crate::audit;
use crate::db::Conn;
use crate::tickets::subject;

/// 1: the pair down, critical, unanswered. 2: disk nearly full, answered. 3: the other customer's, overdue. 4: recovered.
pub(super) async fn ticket(tx: &mut Conn, n: i64, hostile: &str) -> anyhow::Result<()> {
    let b = "b".repeat(32);
    let (tenant, appliance, component, code, state, impact, reason, age) = match n {
        1 => ("bank", BOX_A, "service:vpn", "service_down", "open", "interrupted", "group_unsure", 12 * MIN),
        2 => ("bank", BOX_A, "disk:/var", "disk_space_low", "open", "slight", "services_up", 200 * MIN),
        3 => ("city", BOX_OTHER, "memory", "memory_low", "open", "slight", "no_service_declared", 41 * MIN),
        _ => ("bank", b.as_str(), "net:eth1", "link_down", "recovered", "slight", "services_up", 700 * MIN),
    };
    let (id, opened) = (format!("T-{n:06}"), NOW.0 - age);
    let check = |attempt: u8, after: i64| {
        json!({ "check": "tcp-443", "kind": "tcp", "state": "down", "reason": "refused", "text": format!("connection refused 127.0.0.1:443{hostile}"),
                "took_ms": 3, "attempt": attempt, "at": opened - 21_000 + after })
    };
    let member = |id: &str, name: &str, state: &str, silent: bool| json!({ "appliance_id": id, "appliance_name": format!("{name}{hostile}"), "service": "vpn", "state": state, "silent": silent });
    let grounds = match n {
        1 => json!({ "about": "service", "appliance_id": appliance, "service": "vpn", "found": "down",
            "seen": { "checks": [check(1, 0), check(2, 10_000), check(3, 20_000)], "last_known": "up", "lasted_ms": 20_000 },
            "group": { "name": "VPN", "needs": 1, "members": [member(BOX_A, "vpn-gw-01", "down", false), member(&b, "vpn-gw-02", "unknown", true)] } }),
        _ => json!({ "about": "machine", "appliance_id": appliance, "component": component, "code": code, "level": "warning",
            "seen": { "value": 91.5, "unit": "percent", "threshold": 90.0, "lasted_ms": 300_000 }, "dependents": [], "services": [] }),
    };
    let answered = (n == 2 || n == 4).then_some(opened + 7 * MIN);
    sqlx::query(
        "INSERT INTO tickets (tenant_id, ticket_id, number, source, state, cause, open_cause, site_id, appliance_id, component, code, summary,
           impact, severity, presumed, reason, grounds, attribution, taken_by, responded_by, opened_at, fault_at, responded_at, recovered_at, changed_at)
         VALUES ($1, $2, $3, 'agent', $4, $2, $2, 'main', $5, $6, $7, $8, $9, $10, $11, $12, $13, 'unknown', $14, $14, $15, $16, $17, $18, $15)",
    )
    .bind(tenant)
    .bind(&id)
    .bind(n)
    .bind(state)
    .bind(appliance)
    .bind(component)
    .bind(code)
    .bind(format!("service {component} is down: 127.0.0.1:443 refused the connection{hostile}"))
    .bind(impact)
    .bind(if impact == "interrupted" { "critical" } else { "general" })
    .bind(i64::from(n == 1 || n == 3))
    .bind(reason)
    .bind(grounds.to_string())
    .bind(answered.map(|_| "li"))
    .bind(opened)
    .bind(opened - 40_000)
    .bind(answered)
    .bind((n == 4).then_some(opened + 90 * MIN))
    .execute(&mut *tx)
    .await?;
    let (clock, due) = (
        if answered.is_some() {
            "met"
        } else if age > 30 * MIN {
            "missed"
        } else {
            "running"
        },
        opened + 30 * MIN,
    );
    sqlx::query(
        "INSERT INTO clocks (tenant_id, ticket_id, clock_no, kind, policy_version, state, started_at, warn_at, due_at, stopped_at)
         VALUES ($1, $2, 1, 'response', 1, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(&id)
    .bind(clock)
    .bind(opened)
    .bind(opened + 20 * MIN)
    .bind(due)
    .bind(answered)
    .execute(&mut *tx)
    .await?;
    episode(tx, n, (tenant, appliance), (component, code), (&id, opened), hostile).await?;
    story(tx, n, (tenant, &id), (impact, reason), (opened, due), answered, hostile).await
}

async fn episode(
    tx: &mut Conn,
    n: i64,
    (tenant, appliance): (&str, &str),
    (component, code): (&str, &str),
    (id, opened): (&str, i64),
    hostile: &str,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO episodes (tenant_id, appliance_id, component, code, episode, state, level, summary, grounds, ticket_id, raised_at,
           received_at, cleared_at) VALUES ($1, $2, $3, $4, $5, $6, 'serious', $7, '{}', $5, $8, $9, $10)",
    )
    .bind(tenant)
    .bind(appliance)
    .bind(component)
    .bind(code)
    .bind(id)
    .bind(if n == 4 { "cleared" } else { "open" })
    .bind(format!("127.0.0.1:443 refused the connection{hostile}"))
    .bind(opened - 40_000)
    .bind(opened)
    .bind((n == 4).then_some(opened + 90 * MIN))
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn story(
    tx: &mut Conn,
    n: i64,
    (tenant, id): (&str, &str),
    (impact, reason): (&str, &str),
    (opened, due): (i64, i64),
    answered: Option<i64>,
    hostile: &str,
) -> anyhow::Result<()> {
    let mut events = vec![
        (
            0,
            "system",
            json!({ "type": "opened", "impact": impact, "presumed": n == 1, "reason": reason, "summary": format!("127.0.0.1:443 refused the connection{hostile}"), "already_recovered": false }),
        ),
        (
            0,
            "system",
            json!({ "type": "clock_started", "clock_no": 1, "kind": "response", "policy_version": 1, "warn_at": opened + 20 * MIN, "due_at": due }),
        ),
        (4_000, "system", json!({ "type": "notice_sent", "kind": "opened", "recipient": format!("zhao@bank.example{hostile}") })),
    ];
    if n == 3 {
        events.push((30 * MIN, "system", json!({ "type": "clock_missed", "clock_no": 1, "kind": "response", "due_at": due })));
    }
    if let Some(at) = answered {
        events.push((5 * MIN, "staff:li", json!({ "type": "taken", "staff_id": "li", "name": "李伟" })));
        events.push((at - opened, "staff:li", json!({ "type": "responded", "staff_id": "li", "name": "李伟", "way": "phone", "note": format!("已电话联系赵敏。{hostile}") })));
        events.push((
            at - opened,
            "system",
            json!({ "type": "clock_stopped", "clock_no": 1, "kind": "response", "in_time": true, "took_ms": at - opened }),
        ));
    }
    for (after, actor, body) in events {
        audit::append(tx, tenant, UnixMs(opened + after), actor, &subject(id), &body).await?;
    }
    for (k, state, recipient) in
        [(1, "sent", "zhao@bank.example"), (2, "refused", "old@bank.example"), (3, "waiting", "li@vendor.example")]
    {
        sqlx::query(
            "INSERT INTO outbox (tenant_id, notice_id, subject_id, kind, channel, recipient, message_id, title, body, in_reply_to, state, tries,
               last_error, created_at, next_try_at, sent_at) VALUES ($1, $2, $3, 'opened', 'mail', $4, $2, '', '', '', $5, 1, $6, $7, NULL, $8)",
        )
        .bind(tenant)
        .bind(format!("{id}-{k}"))
        .bind(id)
        .bind(recipient)
        .bind(state)
        .bind(if state == "refused" { format!("550 no such user{hostile}") } else { String::new() })
        .bind(opened)
        .bind((state == "sent").then_some(opened + 4_000))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
