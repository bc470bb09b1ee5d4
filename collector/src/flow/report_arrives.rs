//! A report arrives: its records become faults, samples, declared services, losses; its link moves on; a copy is held.
//!
//! Runs inside the transaction of a batch (`intake_worker`). Nothing is answered from here: what is returned is told to the agent
//! after commit only (R28). A report is refused whole only when it is stale; single records are refused one by one.

use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey};
use mainstay_shared::ids::{Lane, Nonce, RecordId};
use mainstay_shared::record::{Gap, Goodbye, Payload, Started};
use mainstay_shared::report::RefusedRecord;
use mainstay_shared::time_source::UnixMs;

use super::collector_faults;
use super::faults_arrive::{ArrivedChange, ArrivedFrom, faults_arrive};
use super::patch_is_reported::patch_is_reported;
use super::taking::{Outcome, Taken, Taking, lane_key};
use crate::appliances::clone::{HoldReason, NonceVerdict, Remembered, Said, judge};
use crate::appliances::links::{self, Away, Link, LinkKey, LoadedLink};
use crate::appliances::{ApplianceEvent, ApplianceState, Identity, store, subject};
use crate::audit;
use crate::db::Conn;
use crate::faults::store as faults;
use crate::intake::ready::{Content, ReadyRecord, ReadyReport};
use crate::intake::rules::{self, Frame, Made, Place};
use crate::intake::{LaneKey, Loss, StoredSamples, store as records};
use crate::releases::reports::{self, Way};

/// The code of the fault that a copy raises, on the component `agent`.
pub(crate) const CODE_IDENTITY_CLONED: &str = "identity_cloned";

/// Takes one report of a batch.
pub(crate) async fn report_arrives(
    taking: &mut Taking<'_>,
    who: &Identity,
    received_at: UnixMs,
    request: &ReadyReport,
) -> anyhow::Result<Outcome> {
    let key = (who.tenant_id.clone(), who.appliance_id.to_string());
    let Some(loaded) = taking.links.get(&key) else { return Ok(Outcome::Gone) };
    let epoch_known = Lane::ALL.into_iter().any(|lane| taking.marks.knows(&lane_key(&key, &request.epoch, lane)));
    let ended_epochs = taking.ended_epochs.get(&key).copied().unwrap_or_default();
    let verdict = verdict_on(loaded.link(), request, epoch_known, ended_epochs);
    if let NonceVerdict::Stale(reason) = verdict {
        return Ok(Outcome::Stale(reason));
    }
    let mut story = Story {
        from: ArrivedFrom { tenant_id: key.0.clone(), appliance_id: key.1.clone(), site_id: who.site_id.clone() },
        frame: Frame { received_at, epoch: request.epoch.clone(), sent_mono_ms: request.sent_mono_ms },
        key,
        taken: Taken::default(),
        changes: Vec::new(),
    };
    if let NonceVerdict::Copy(reason) = verdict {
        story.taken.ended_epoch = reason == HoldReason::TwoRuns;
        story.hold(taking, reason).await?;
    }
    story.take_records(taking, request).await?;
    if !story.changes.is_empty() {
        let changes = std::mem::take(&mut story.changes);
        faults_arrive(taking.tx, taking.config, received_at, &story.from, changes).await?;
        taking.changed = true;
    }
    story.move_link(taking, request, verdict).await?;
    Ok(Outcome::Taken(Box::new(story.taken)))
}

fn verdict_on(link: &Link, request: &ReadyReport, epoch_known: bool, ended_epochs: u32) -> NonceVerdict {
    let remembered =
        Remembered { epoch: &link.epoch, attempt: link.attempt, nonce: &link.nonce, nonce_before: &link.nonce_before };
    let said = Said {
        epoch: request.epoch.as_str(),
        attempt: i64::try_from(request.attempt).unwrap_or(i64::MAX),
        echo: request.nonce_echo.as_ref().map(Nonce::as_str),
        epoch_known,
        ended_epochs,
    };
    judge(remembered, said)
}

/// One report on its way through.
struct Story {
    key: LinkKey,
    from: ArrivedFrom,
    frame: Frame,
    taken: Taken,
    changes: Vec<ArrivedChange>,
}

impl Story {
    async fn take_records(&mut self, taking: &mut Taking<'_>, request: &ReadyReport) -> anyhow::Result<()> {
        let mut touched: Vec<LaneKey> = Vec::new();
        for record in &request.records {
            let lane = lane_key(&self.key, &record.id.epoch, record.id.lane);
            self.take_record(taking, &lane, record, &request.records).await?;
            if !touched.contains(&lane) {
                touched.push(lane);
            }
        }
        self.taken.acks = touched.iter().map(|lane| lane.record(taking.marks.of(lane))).collect();
        if let Some(first) = self.taken.refused.first() {
            let event = ApplianceEvent::RecordsRefused {
                count: self.taken.refused.len() as u64,
                first: first.id.to_string(),
                why: first.why.clone(),
            };
            self.note(taking, &event).await?;
        }
        Ok(())
    }

    async fn take_record(
        &mut self,
        taking: &mut Taking<'_>,
        lane: &LaneKey,
        record: &ReadyRecord,
        all: &[ReadyRecord],
    ) -> anyhow::Result<()> {
        let content = match &record.content {
            Ok(content) => content,
            Err(unfit) => {
                self.taken.refused.push(RefusedRecord { id: record.id.clone(), why: unfit.to_string() });
                self.settle(taking, lane, record, all);
                return Ok(());
            }
        };
        let before = record.id.seq <= taking.marks.of(lane);
        let occurred_at = self.occurred_at(record);
        let mut id = record.id.clone();
        if let (Lane::Fault, Content::Other { payload, json, hash }) = (lane.lane, content) {
            let known = if before { records::known_hashes(taking.tx, &self.key, &record.id).await? } else { Vec::new() };
            self.taken.receipted.push((record.id.clone(), hash.clone()));
            // A gap in the place of a record that arrived after all: the box lost its own copy (damage) before the answer came.
            let lost_copy = !known.is_empty() && matches!(**payload, Payload::Gap(_));
            if known.contains(hash) || lost_copy {
                self.taken.replays += 1;
                return Ok(());
            }
            if !known.is_empty() {
                self.hold(taking, HoldReason::OtherRecordSameId).await?;
                id = rules::id_of_its_own(&record.id, hash);
            }
            let times = (self.frame.received_at, occurred_at);
            records::add_fault_record(taking.tx, &self.key, &record.id, hash, times, json).await?;
        } else if before {
            self.taken.replays += 1;
            return Ok(());
        }
        self.settle(taking, lane, record, all);
        self.taken.new_records[lane_index(lane.lane)] += 1;
        match content {
            Content::Samples(samples) => {
                let (from_at, metrics) = (occurred_at.plus_ms(-samples.span_ms), samples.metrics.clone());
                taking.samples.push((self.key.clone(), StoredSamples { from_at, to_at: occurred_at, metrics }));
                Ok(())
            }
            Content::Other { payload, .. } => self.take_payload(taking, lane, record, (id, occurred_at), payload).await,
        }
    }

    fn occurred_at(&self, record: &ReadyRecord) -> UnixMs {
        rules::occurred_at(&self.frame, Made { epoch: &record.id.epoch, at: record.at, mono_ms: record.mono_ms })
    }

    /// Moves the watermark over a record, noting holes that nobody explains.
    fn settle(&mut self, taking: &mut Taking<'_>, lane: &LaneKey, record: &ReadyRecord, all: &[ReadyRecord]) {
        let mark = taking.marks.of(lane);
        let seq = record.id.seq.min(i64::MAX.unsigned_abs());
        taking.marks.raise(lane, seq);
        if seq > mark + 1
            && let Place::AfterHoles(holes) = rules::place(mark, seq, &explained(lane, all))
        {
            for (from_seq, to_seq) in holes {
                let count = to_seq - from_seq + 1;
                self.taken.lost[lane_index(lane.lane)] += count;
                taking.losses.push(Loss { lane: lane.clone(), from_seq, to_seq, why: "missing".to_owned(), count });
            }
        }
    }

    async fn take_payload(
        &mut self,
        taking: &mut Taking<'_>,
        lane: &LaneKey,
        record: &ReadyRecord,
        (id, occurred_at): (RecordId, UnixMs),
        payload: &Payload,
    ) -> anyhow::Result<()> {
        match payload {
            Payload::Fault(change) => self.changes.push(ArrivedChange { record: id, occurred_at, change: change.clone() }),
            Payload::Gap(gap) => self.take_gap(taking, lane, gap.clone()).await?,
            Payload::OpenFaults(open) if record.id.epoch == self.frame.epoch => {
                self.end_all_but(taking, (&id, occurred_at), &open.episodes).await?;
            }
            Payload::Started(started) if record.id.epoch == self.frame.epoch => self.take_start(taking, started).await?,
            Payload::Goodbye(goodbye) if record.id.epoch == self.frame.epoch => {
                self.take_goodbye(taking, record, occurred_at, goodbye).await?;
            }
            Payload::Test(test) => {
                self.note(taking, &ApplianceEvent::TestReceived { mark: test.mark.clone(), note: test.note.clone() }).await?;
            }
            Payload::Patch(report) => {
                let times = (occurred_at, self.frame.received_at);
                patch_is_reported(taking.tx, taking.config, &self.from, report, Way::Online, times).await?;
                taking.changed = true;
            }
            // A start or goodbye of an epoch that has ended: kept as a record, overtaken as news.
            Payload::Started(_) | Payload::Goodbye(_) | Payload::OpenFaults(_) | Payload::Samples(_) => {}
        }
        Ok(())
    }

    /// The agent told all that is open: what else is held open of it ended after the backup that the collector's memory came from.
    /// A copy's word ends nothing.
    async fn end_all_but(
        &mut self,
        taking: &mut Taking<'_>,
        (id, occurred_at): (&RecordId, UnixMs),
        open: &[RecordId],
    ) -> anyhow::Result<()> {
        if taking.links.get(&self.key).is_none_or(|loaded| loaded.state == ApplianceState::Held) {
            return Ok(());
        }
        for held in faults::open_of_appliance(taking.tx, &self.key.0, &self.key.1).await? {
            // What the collector found itself has no agent's id.
            let Ok(episode) = held.episode.parse::<RecordId>() else { continue };
            if open.contains(&episode) {
                continue;
            }
            let change = FaultChange {
                kind: FaultChangeKind::Cleared,
                key: FaultKey::new(held.component, held.code),
                episode: Some(episode),
                level: held.level,
                summary: String::new(),
                grounds: FaultGrounds::default(),
                at: occurred_at,
                present_at_start: false,
            };
            self.changes.push(ArrivedChange { record: id.clone(), occurred_at, change });
        }
        Ok(())
    }

    async fn take_gap(&mut self, taking: &mut Taking<'_>, lane: &LaneKey, gap: Gap) -> anyhow::Result<()> {
        taking.marks.raise(lane, gap.to_seq);
        self.taken.lost[lane_index(lane.lane)] += gap.count;
        if lane.lane == Lane::Fault {
            let event = ApplianceEvent::RecordsLost { lane: "fault".to_owned(), count: gap.count, why: gap.why.clone() };
            self.note(taking, &event).await?;
        }
        let Gap { from_seq, to_seq, why, count } = gap;
        taking.losses.push(Loss { lane: lane.clone(), from_seq, to_seq, why, count });
        Ok(())
    }

    async fn take_start(&mut self, taking: &mut Taking<'_>, started: &Started) -> anyhow::Result<()> {
        let Started { hostname, agent_version, platform, .. } = started;
        store::set_told(taking.tx, &self.key.0, &self.key.1, hostname, agent_version, platform).await?;
        records::declare_services(taking.tx, &self.key, &started.services, self.frame.received_at).await?;
        if let Some(installed) = &started.installed {
            reports::set_installed(taking.tx, (&self.key.0, &self.key.1), installed, self.frame.received_at).await?;
        }
        taking.changed = true;
        Ok(())
    }

    async fn take_goodbye(
        &mut self,
        taking: &mut Taking<'_>,
        record: &ReadyRecord,
        occurred_at: UnixMs,
        goodbye: &Goodbye,
    ) -> anyhow::Result<()> {
        let Some(loaded) = taking.links.get_mut(&self.key) else { return Ok(()) };
        // The agent's clock may be off: the span to its return is what counts.
        let back = goodbye.expected_return_at.map(|back| occurred_at.plus_ms(back.since_ms(record.at).max(0)));
        let away = Away { reason: goodbye.reason.clone(), since_at: occurred_at, expected_back_at: back };
        links::set_away(taking.tx, &self.key, Some(&away)).await?;
        loaded.said_goodbye = true;
        self.taken.says_goodbye = true;
        taking.changed = true;
        Ok(())
    }

    /// A copy speaks: the appliance is held, recorded and told of, once; its faults are still taken (R25).
    async fn hold(&mut self, taking: &mut Taking<'_>, reason: HoldReason) -> anyhow::Result<()> {
        let Some(loaded) = taking.links.get_mut(&self.key) else { return Ok(()) };
        if loaded.state != ApplianceState::Active {
            return Ok(());
        }
        loaded.state = ApplianceState::Held;
        store::set_state(taking.tx, &self.key.0, &self.key.1, ApplianceState::Held, reason.as_str()).await?;
        self.note(taking, &ApplianceEvent::Held { reason: reason.as_str().to_owned() }).await?;
        let now = self.frame.received_at;
        collector_faults::raise(taking.tx, taking.config, now, &self.from, "agent", CODE_IDENTITY_CLONED, "").await?;
        self.taken.newly_held = true;
        taking.changed = true;
        Ok(())
    }

    async fn move_link(&mut self, taking: &mut Taking<'_>, request: &ReadyReport, verdict: NonceVerdict) -> anyhow::Result<()> {
        let received_at = self.frame.received_at;
        let Some(loaded) = taking.links.get_mut(&self.key) else { return Ok(()) };
        if loaded.link().epoch != request.epoch.as_str() && !self.taken.says_goodbye {
            forget_goodbye(taking.tx, &self.key, loaded).await?;
        }
        let link = loaded.touch();
        let nonce = match link.nonce.parse() {
            Ok(nonce) if verdict == NonceVerdict::HandOutAgain => nonce,
            _ => {
                let nonce = Nonce::random(taking.rng);
                link.nonce_before = std::mem::replace(&mut link.nonce, nonce.to_string());
                nonce
            }
        };
        link.epoch = request.epoch.to_string();
        link.attempt = i64::try_from(request.attempt).unwrap_or(i64::MAX);
        link.clock_offset_ms = request.sent_at.since_ms(received_at);
        link.last_seen_at = link.last_seen_at.max(received_at);
        self.taken.nonce = Some(nonce);
        self.taken.held = loaded.state == ApplianceState::Held;
        hear(taking, &self.key, &self.from, received_at).await
    }

    async fn note(&self, taking: &mut Taking<'_>, event: &ApplianceEvent) -> anyhow::Result<()> {
        let actor = subject(&self.key.1);
        audit::append(taking.tx, &self.key.0, self.frame.received_at, &actor, &actor, event).await.map(drop)
    }
}

/// A goodbye is over when another run of the agent speaks.
pub(crate) async fn forget_goodbye(tx: &mut Conn, key: &LinkKey, loaded: &mut LoadedLink) -> Result<(), sqlx::Error> {
    if std::mem::take(&mut loaded.said_goodbye) {
        links::set_away(tx, key, None).await?;
    }
    Ok(())
}

/// An appliance that was silent is heard again.
pub(crate) async fn hear(taking: &mut Taking<'_>, key: &LinkKey, from: &ArrivedFrom, now: UnixMs) -> anyhow::Result<()> {
    let was_silent = taking.links.get_mut(key).and_then(|loaded| loaded.silent_since_at.take()).is_some();
    if was_silent {
        collector_faults::appliance_is_back(taking.tx, taking.config, now, from).await?;
        taking.changed = true;
    }
    Ok(())
}

/// The ranges that the report's own gap records explain for a lane.
fn explained(lane: &LaneKey, all: &[ReadyRecord]) -> Vec<(u64, u64)> {
    all.iter()
        .filter(|record| record.id.epoch == lane.epoch && record.id.lane == lane.lane)
        .filter_map(ReadyRecord::explains)
        .collect()
}

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Fault => 0,
        Lane::Sample => 1,
    }
}
