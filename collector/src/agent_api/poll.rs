//! `POST /agent/v1/poll`: the heartbeat, and directives as soon as there are any. Waiting touches no database.

use std::time::Duration;

use hyper::body::Bytes;
use mainstay_shared::directive::Directive;
use mainstay_shared::heartbeat::{PollReply, PollRequest};

use super::{Answered, Door, Refusal, check_claim, check_version, reports};
use crate::appliances::{Identity, links};
use crate::flow::batch::{Answer, Message};
use crate::flow::directives_wait::Place;
use crate::intake::counts::Counts;

/// No poll waits longer.
const LONGEST_S: u32 = 60;

/// A poll that was taken and has nothing to do yet: what it needs while it waits, and nothing else.
pub(super) struct Waiting {
    place: Place,
    wait: Duration,
    /// Counted until it goes, whatever ends it.
    counted: Counted,
}

/// What became of a poll.
pub(super) enum Polled {
    Answered(Answered),
    Waits(Waiting),
}

/// One more in the figure of waiting polls, one less when it is dropped.
struct Counted(Counts);

impl Counted {
    fn new(counts: &Counts) -> Self {
        counts.waiting_polls.inc();
        Self(counts.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.waiting_polls.dec();
    }
}

pub(super) async fn answer(
    door: &Door,
    identity: Identity,
    path: &str,
    (request, bytes): (PollRequest, Bytes),
) -> Result<Polled, Refusal> {
    let received_at = door.world.time.now();
    check_version(request.version)?;
    check_claim(door, &identity, path, &bytes).await?;
    let wait = Duration::from_secs(u64::from(request.wait_s.min(LONGEST_S)));
    let place = door.board.place(&links::key(&identity));
    let answer = door.intake.take(identity, received_at, Message::Heartbeat(request)).await.map_err(reports::not_taken)?;
    match answer {
        Answer::Heartbeat(directives) if directives.is_empty() && !wait.is_zero() => {
            Ok(Polled::Waits(Waiting { place, wait, counted: Counted::new(&door.intake.counts) }))
        }
        Answer::Heartbeat(directives) => Ok(Polled::Answered(reply(door, directives)?)),
        Answer::Gone | Answer::Report(..) => Err(Refusal::not_enrolled()),
    }
}

impl Waiting {
    /// Waits, and answers.
    pub(super) async fn answer(self, door: &Door) -> Result<Answered, Refusal> {
        let directives = self.place.wait(&door.world, self.wait, &door.stop).await?;
        drop(self.counted);
        reply(door, directives)
    }
}

fn reply(door: &Door, directives: Vec<Directive>) -> Result<Answered, Refusal> {
    let collector_epoch = door.intake.collector_epoch.clone();
    Answered::ok(&PollReply { directives, now: door.world.time.now(), collector_epoch })
}
