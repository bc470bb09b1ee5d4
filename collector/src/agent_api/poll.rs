//! `POST /agent/v1/poll`: the heartbeat, and directives as soon as there are any. Waiting touches no database.

use std::time::Duration;

use hyper::body::Bytes;
use mainstay_shared::heartbeat::{PollReply, PollRequest};

use super::{Answered, Door, Refusal, check_claim, check_version, reports};
use crate::appliances::{Identity, links};
use crate::flow::batch::{Answer, Message};

/// No poll waits longer.
const LONGEST_S: u32 = 60;

pub(super) async fn answer(
    door: &Door,
    identity: Identity,
    path: &str,
    (request, bytes): (PollRequest, Bytes),
) -> Result<Answered, Refusal> {
    let received_at = door.world.time.now();
    check_version(request.version)?;
    check_claim(door, &identity, path, &bytes).await?;
    let wait = Duration::from_secs(u64::from(request.wait_s.min(LONGEST_S)));
    let place = door.board.place(&links::key(&identity));
    let answer = door.intake.take(identity, received_at, Message::Heartbeat(request)).await.map_err(reports::not_taken)?;
    let directives = match answer {
        Answer::Heartbeat(directives) if directives.is_empty() && !wait.is_zero() => {
            door.intake.counts.waiting_polls.inc();
            let waited = place.wait(&door.world, wait, &door.stop).await;
            door.intake.counts.waiting_polls.dec();
            waited?
        }
        Answer::Heartbeat(directives) => directives,
        Answer::Gone | Answer::Report(..) => return Err(Refusal::not_enrolled()),
    };
    let collector_epoch = door.intake.collector_epoch.clone();
    Answered::ok(&PollReply { directives, now: door.world.time.now(), collector_epoch })
}
