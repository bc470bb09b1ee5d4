//! `POST /agent/v1/reports`: spooled records in, an acknowledgement after commit out (R28).

use axum::http::StatusCode;
use hyper::body::Bytes;
use mainstay_shared::api::error_words;
use mainstay_shared::ids::Lane;
use mainstay_shared::limits::MAX_RECORDS;
use mainstay_shared::receipt::{Receipt, ReceiptBody};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::UnixMs;

use super::{Answered, Door, Refusal, check_claim, check_version};
use crate::appliances::Identity;
use crate::flow::batch::{Answer, Message};
use crate::flow::intake_worker::NotTaken;
use crate::flow::report_arrives::{Outcome, Taken};
use crate::intake::ready::ready;

pub(super) async fn answer(
    door: &Door,
    identity: Identity,
    path: &str,
    (request, bytes): (ReportRequest, Bytes),
) -> Result<Answered, Refusal> {
    let received_at = door.world.time.now();
    check_version(request.version)?;
    check_claim(door, &identity, path, &bytes).await?;
    if request.records.len() > MAX_RECORDS {
        return Err(Refusal::bad_message(format!("{} records: at most {MAX_RECORDS} are accepted", request.records.len())));
    }
    if !request.records.is_empty() && request.records.iter().all(|record| record.id.lane == Lane::Sample) {
        door.rates.samples(&door.world, &identity)?;
    }
    let answer = door.intake.take(identity.clone(), received_at, Message::Report(ready(request)?)).await.map_err(not_taken)?;
    match answer {
        Answer::Report(Outcome::Taken(taken), head) => Answered::ok(&reply(door, &identity, received_at, *taken, head)?),
        Answer::Report(Outcome::Stale(_), _) => Err(Refusal::new(
            StatusCode::CONFLICT,
            error_words::STALE_REQUEST,
            "a newer request of this appliance came before this one".to_owned(),
        )),
        Answer::Report(Outcome::Gone, _) | Answer::Gone | Answer::Heartbeat(_) => Err(Refusal::not_enrolled()),
    }
}

fn reply(
    door: &Door,
    identity: &Identity,
    received_at: UnixMs,
    taken: Taken,
    audit_head: (i64, String),
) -> anyhow::Result<ReportReply> {
    let collector_epoch = door.intake.collector_epoch.clone();
    let receipt = if taken.receipted.is_empty() {
        None
    } else {
        let body = ReceiptBody {
            appliance: identity.appliance_id.clone(),
            records: taken.receipted,
            received_at,
            collector_epoch: collector_epoch.clone(),
            audit_head,
        };
        Some(Receipt::sign(&body, door.authority.receipt_key())?)
    };
    let nonce = taken.nonce.ok_or_else(|| anyhow::anyhow!("a taken report without a nonce"))?;
    Ok(ReportReply { acks: taken.acks, nonce, collector_epoch, received_at, refused: taken.refused, receipt, held: taken.held })
}

/// A message that was not committed stays with the agent.
pub(super) fn not_taken(why: NotTaken) -> Refusal {
    match why {
        NotTaken::Busy | NotTaken::Failed => {
            Refusal::slow_down(StatusCode::SERVICE_UNAVAILABLE, 5, "the collector could not take it now; try again")
        }
        NotTaken::Poison => Refusal::bad_message("the collector can't store this message".to_owned()),
    }
}
