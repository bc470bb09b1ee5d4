//! What must be true of a spool whatever happened to its disk: the model that the sweeps hold it against.
//!
//! The model knows what was answered to the caller (accepted, sent, acknowledged) and what was asked and not answered, which may
//! have happened or not. It plays the collector too, which takes every record once and in order.

use std::collections::BTreeMap;

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::ids::{Epoch, Lane, Nonce, RecordId};
use mainstay_shared::record::{Gap, Payload, Record};

use super::super::state::PastStart;
use super::super::store::Store;
use super::{acks_of, waiting};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Waits,
    /// The acknowledgement was not answered: it may be kept or not.
    Perhaps,
    Acknowledged,
}

#[derive(Debug, Clone)]
struct Accepted {
    id: RecordId,
    payload: Payload,
    life: Life,
    /// It was handed out, so that the collector may have it.
    seen: bool,
    /// The caller had it set aside.
    poison: bool,
    /// The collector has it, or knows that it is lost.
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Record,
    Gap,
}

/// Which losses the run allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Losses {
    /// What a full lane drops by policy.
    ByPolicy,
    /// Samples may give way on a full disk, even sent ones; if the power goes then, their hole is found at the next start.
    FullDisk,
}

/// Where a lane of an epoch stands at the collector.
type Watermarks = BTreeMap<(Epoch, Lane), u64>;

#[derive(Debug)]
pub(super) struct Model {
    losses: Losses,
    epochs: Vec<Epoch>,
    accepted: Vec<Accepted>,
    place: BTreeMap<RecordId, usize>,
    /// Asked, not answered: by the number that it would have got.
    unanswered: Vec<(RecordId, Payload)>,
    nonce: Option<Nonce>,
    unanswered_nonces: Vec<Nonce>,
    collector: Watermarks,
}

impl Model {
    pub(super) fn new(losses: Losses) -> Self {
        Self {
            losses,
            epochs: Vec::new(),
            accepted: Vec::new(),
            place: BTreeMap::new(),
            unanswered: Vec::new(),
            nonce: None,
            unanswered_nonces: Vec::new(),
            collector: Watermarks::new(),
        }
    }

    pub(super) fn begun(&mut self, epoch: &Epoch) {
        self.epochs.push(epoch.clone());
    }

    fn last(&self, epoch: &Epoch, lane: Lane) -> u64 {
        let ids = self.place.keys().filter(|id| id.epoch == *epoch && id.lane == lane);
        ids.map(|id| id.seq).max().unwrap_or(0)
    }

    pub(super) fn accepted(&mut self, id: RecordId, payload: Payload) {
        assert_eq!(id.seq, self.last(&id.epoch, id.lane) + 1, "{id}: numbers are unbroken");
        self.unanswered.retain(|(other, _)| *other != id);
        self.place.insert(id.clone(), self.accepted.len());
        self.accepted.push(Accepted { id, payload, life: Life::Waits, seen: false, poison: false, told: None });
    }

    /// A push that failed: it may be there after the power was gone, under its number, if nothing else took that.
    pub(super) fn refused(&mut self, payload: Payload) {
        let Some(epoch) = self.epochs.last().cloned() else { return };
        let lane = if matches!(payload, Payload::Samples(_)) { Lane::Sample } else { Lane::Fault };
        let seq = self.last(&epoch, lane) + 1;
        self.unanswered.push((RecordId { epoch, lane, seq }, payload));
    }

    /// A batch was handed out: the collector may see it from now on.
    pub(super) fn handed_out(&mut self, batch: &[Record]) {
        for record in batch.iter().filter(|record| !matches!(record.payload, Payload::Gap(_))) {
            self.each_of(std::slice::from_ref(record), |accepted| accepted.seen = true);
        }
    }

    /// The collector took `batch`: every record once and in order; what it has is repeated as it was.
    pub(super) fn collector_takes(&mut self, batch: &[Record]) {
        for record in batch {
            let at = self.collector.entry((record.id.epoch.clone(), record.id.lane)).or_default();
            let from = if let Payload::Gap(gap) = &record.payload { gap.from_seq } else { record.id.seq };
            if record.id.seq <= *at {
                continue;
            }
            // What gives way on a full disk may be known to the collector in part.
            let overlaps = from <= *at && self.losses == Losses::FullDisk && record.id.lane == Lane::Sample;
            assert!(from == *at + 1 || overlaps, "{} does not follow on {at}, which the collector has", record.id);
            *at = record.id.seq;
            let told = if matches!(record.payload, Payload::Gap(_)) { Told::Gap } else { Told::Record };
            self.each_of(std::slice::from_ref(record), |accepted| accepted.told = accepted.told.or(Some(told)));
        }
    }

    pub(super) fn acknowledged(&mut self, batch: &[Record], nonce: Nonce) {
        self.each_of(batch, |accepted| accepted.life = Life::Acknowledged);
        self.nonce = Some(nonce);
        self.unanswered_nonces.clear();
    }

    /// An acknowledgement that could not be kept: it may be there after the power was gone.
    pub(super) fn acknowledgement_refused(&mut self, batch: &[Record], nonce: Nonce) {
        self.each_of(batch, |accepted| accepted.life = accepted.life.max(Life::Perhaps));
        self.unanswered_nonces.push(nonce);
    }

    pub(super) fn set_aside(&mut self, id: &RecordId) {
        if let Some(at) = self.place.get(id) {
            self.accepted[*at].poison = true;
        }
    }

    fn each_of(&mut self, batch: &[Record], mut change: impl FnMut(&mut Accepted)) {
        for record in batch {
            let from = if let Payload::Gap(gap) = &record.payload { gap.from_seq } else { record.id.seq };
            for seq in from..=record.id.seq {
                if let Some(at) = self.place.get(&RecordId { seq, ..record.id.clone() }) {
                    change(&mut self.accepted[*at]);
                }
            }
        }
    }

    /// Holds an opened spool against all that was answered.
    pub(super) fn check(&mut self, store: &mut Store) {
        let found = waiting(store);
        self.check_order(&found);
        let mut covered: BTreeMap<RecordId, &Record> = BTreeMap::new();
        for record in &found {
            match &record.payload {
                Payload::Gap(gap) => {
                    for seq in gap.from_seq..=gap.to_seq {
                        let twice = covered.insert(RecordId { seq, ..record.id.clone() }, record);
                        assert!(twice.is_none(), "{} is accounted for twice", record.id);
                    }
                }
                _ => {
                    self.check_record(record);
                    assert!(covered.insert(record.id.clone(), record).is_none(), "{} is there twice", record.id);
                }
            }
        }
        for record in &found {
            if let Payload::Gap(gap) = &record.payload {
                self.check_gap(&record.id, gap);
            }
        }
        for accepted in &mut self.accepted {
            let gives_way = self.losses == Losses::FullDisk && accepted.id.lane == Lane::Sample;
            match (covered.contains_key(&accepted.id), accepted.life) {
                // An acknowledgement may overtake the gap that reaches over what it acknowledges.
                (true, Life::Acknowledged) if gives_way && matches!(covered[&accepted.id].payload, Payload::Gap(_)) => {}
                (true, Life::Acknowledged) => panic!("{} was acknowledged and is back", accepted.id),
                (false, Life::Waits) => panic!("{} was accepted and is gone", accepted.id),
                (true, Life::Perhaps) => accepted.life = Life::Waits,
                (false, Life::Perhaps) => accepted.life = Life::Acknowledged,
                _ => {}
            }
        }
        self.unanswered.clear();
        self.check_memory(store);
    }

    fn check_order(&self, found: &[Record]) {
        let key = |r: &Record| (r.id.lane, self.epochs.iter().position(|e| *e == r.id.epoch), r.id.seq);
        for pair in found.windows(2) {
            assert!(key(&pair[0]) < key(&pair[1]), "{} stands before {}", pair[0].id, pair[1].id);
        }
    }

    fn check_record(&mut self, record: &Record) {
        if let Some(at) = self.place.get(&record.id) {
            assert_eq!(self.accepted[*at].payload, record.payload, "{} is another record", record.id);
            return;
        }
        let asked = self.unanswered.iter().position(|(id, payload)| *id == record.id && *payload == record.payload);
        let Some(asked) = asked else { panic!("{} was never pushed: {record:?}", record.id) };
        let (id, payload) = self.unanswered.remove(asked);
        self.accepted(id, payload);
    }

    fn check_gap(&self, id: &RecordId, gap: &Gap) {
        assert_eq!(id.seq, gap.to_seq);
        let hole_of_full_disk = self.losses == Losses::FullDisk && id.lane == Lane::Sample;
        match (gap.why.as_str(), id.lane) {
            ("lane_full", Lane::Sample) | ("compacted", Lane::Fault) | ("poison", _) => {}
            ("corrupt", Lane::Sample) if hole_of_full_disk => {}
            (why, lane) => panic!("{id}: lost as {why} in the lane {lane:?}"),
        }
        let mut count = 0;
        for seq in gap.from_seq..=gap.to_seq {
            let id = RecordId { seq, ..id.clone() };
            let Some(at) = self.place.get(&id) else { panic!("{id} is called lost and was never accepted") };
            let accepted = &self.accepted[*at];
            let by_policy = gap.why != "poison" && !accepted.poison;
            assert!(!(by_policy && accepted.seen) || hole_of_full_disk, "{id} was dropped though the collector may have seen it");
            count += 1;
        }
        assert_eq!(gap.count, count, "{id}: as many are counted as are lost");
    }

    fn check_memory(&mut self, store: &Store) {
        let state = &store.state;
        let is_known = state.nonce == self.nonce || state.nonce.as_ref().is_some_and(|n| self.unanswered_nonces.contains(n));
        assert!(is_known, "the nonce went back to {:?} from {:?}", state.nonce, self.nonce);
        self.nonce.clone_from(&state.nonce);
        self.unanswered_nonces.clear();
        let open: Vec<(&RecordId, &str)> = state.open.iter().map(|o| (&o.episode, o.last.summary.as_str())).collect();
        let (expected, starts) = self.remembered();
        assert_eq!(open, expected, "the open episodes");
        assert_eq!(state.starts.iter().cloned().collect::<Vec<_>>(), starts, "the starts");
        assert_eq!(state.counters.corrupt_ranges, 0, "a power cut is no corruption");
    }

    /// Open episodes with their newest change, and the last starts, as the accepted records tell them.
    fn remembered(&self) -> (Vec<(&RecordId, &str)>, Vec<PastStart>) {
        let mut open: Vec<(&RecordId, &mainstay_shared::fault::FaultKey, &str)> = Vec::new();
        let mut starts: Vec<PastStart> = Vec::new();
        for Accepted { id, payload, .. } in &self.accepted {
            match payload {
                Payload::Fault(change) => {
                    let episode = change.episode.as_ref().unwrap_or(id);
                    match change.kind {
                        FaultChangeKind::Raised => {
                            open.retain(|o| o.1 != &change.key);
                            open.push((episode, &change.key, &change.summary));
                        }
                        FaultChangeKind::Cleared => open.retain(|o| o.0 != episode),
                        _ => open.iter_mut().filter(|o| o.0 == episode).for_each(|o| o.2 = &change.summary),
                    }
                }
                Payload::Started(s) => {
                    starts.push(PastStart { boot_id: s.boot_id.clone(), uptime_s: s.uptime_s, goodbye: false });
                }
                Payload::Goodbye(_) => starts.last_mut().into_iter().for_each(|s| s.goodbye = true),
                _ => {}
            }
        }
        let kept = starts.len().saturating_sub(8);
        (open.into_iter().map(|(id, _, summary)| (id, summary)).collect(), starts.split_off(kept))
    }

    /// The open episode of `name`, as the detector would know it.
    pub(super) fn open_episode(&self, component: &str) -> Option<RecordId> {
        let mut open = None;
        for Accepted { id, payload, .. } in &self.accepted {
            if let Payload::Fault(change) = payload
                && change.key.component == component
            {
                open = match change.kind {
                    FaultChangeKind::Cleared => None,
                    FaultChangeKind::Raised => Some(id.clone()),
                    _ => open,
                };
            }
        }
        open
    }

    /// Drains the spool; the collector must end with everything accepted, or told that it is lost.
    pub(super) fn drain(&mut self, store: &mut Store, mut nonce: impl FnMut() -> Nonce) {
        loop {
            let batch = store.next_batch(7, 10_000).expect("the disk is well again");
            if batch.is_empty() {
                break;
            }
            self.handed_out(&batch);
            self.collector_takes(&batch);
            let nonce = nonce();
            store.ack(acks_of(&batch), Some(nonce.clone()), None).expect("the disk is well again");
            self.acknowledged(&batch, nonce);
        }
        for accepted in &self.accepted {
            assert!(accepted.told.is_some(), "{} never reached the collector", accepted.id);
        }
    }

    /// How many losses the collector was told of.
    pub(super) fn told_lost(&self) -> u64 {
        self.accepted.iter().filter(|accepted| accepted.told == Some(Told::Gap)).count() as u64
    }
}
