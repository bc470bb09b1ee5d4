//! The oracle about an agent (TRUST: a, f): what was accepted is told exactly once, or waits exactly once; what policy dropped is
//! counted. It compares a side log of accepted numbers with what a ledger took and what the spool still holds, and knows nothing
//! of how the agent works.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::ids::{Lane, RecordId};
use mainstay_shared::record::{Payload, Record};

/// Reasons for which policy may drop an accepted record; every other gap is a loss.
const ALLOWED_GAPS: &[&str] = &["compacted", "lane_full"];

/// What the oracle found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted records that are nowhere, are there twice, or are there as something else; in words.
    pub losses: Vec<String>,
    /// Accepted records that policy dropped and a gap record counts.
    pub dropped: u64,
}

/// Judges: `accepted` are (number, record id) as the agent told them, `taken` what the collector has, `waiting` the spool.
#[must_use]
pub fn judge(accepted: &[(u64, RecordId)], taken: &BTreeMap<RecordId, Record>, waiting: &[Record]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut all = taken.clone();
    let mut seen = BTreeSet::new();
    for record in waiting {
        if !seen.insert(record.id.clone()) {
            verdict.losses.push(format!("{}: waits twice", record.id));
        }
        if let Some(before) = all.insert(record.id.clone(), record.clone()).filter(|before| before.hash() != record.hash()) {
            verdict.losses.push(format!("{}: was told as {:?}, waits as {:?}", record.id, before.payload, record.payload));
        }
    }
    let gaps = Gaps::of(&all);
    for (number, id) in accepted {
        match all.get(id).map(|record| &record.payload) {
            Some(Payload::Test(message)) if message.note == number.to_string() => {}
            Some(Payload::Gap(_)) | None => match gaps.why(id) {
                Some(why) if ALLOWED_GAPS.contains(&why) => verdict.dropped += 1,
                why => verdict.losses.push(format!("{number} was accepted as {id} and is lost (gap: {why:?})")),
            },
            Some(other) => verdict.losses.push(format!("{number} was accepted as {id}, where there is {other:?}")),
        }
    }
    let mut told: BTreeMap<&str, &RecordId> = BTreeMap::new();
    for (id, record) in &all {
        let Payload::Test(message) = &record.payload else { continue };
        if let Some(other) = told.insert(&message.note, id) {
            verdict.losses.push(format!("{} is there twice: {other} and {id}", message.note));
        }
    }
    verdict.losses.extend(gaps.holes(&all));
    verdict
}

/// Epoch and lane.
type Queue = (String, Lane);

/// The ranges that gap records cover, first and last, and why.
struct Gaps(BTreeMap<Queue, Vec<(u64, u64, String)>>);

impl Gaps {
    fn of(all: &BTreeMap<RecordId, Record>) -> Self {
        let mut gaps: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, record) in all {
            if let Payload::Gap(gap) = &record.payload {
                let place = (id.epoch.to_string(), id.lane);
                gaps.entry(place).or_default().push((gap.from_seq, gap.to_seq, gap.why.clone()));
            }
        }
        Self(gaps)
    }

    fn why(&self, id: &RecordId) -> Option<&str> {
        let ranges = self.0.get(&(id.epoch.to_string(), id.lane))?;
        ranges.iter().find(|(from, to, _)| (*from..=*to).contains(&id.seq)).map(|(_, _, why)| why.as_str())
    }

    /// Numbers that no record and no gap accounts for.
    fn holes(&self, all: &BTreeMap<RecordId, Record>) -> Vec<String> {
        let mut next: BTreeMap<Queue, u64> = BTreeMap::new();
        let mut holes = Vec::new();
        for id in all.keys() {
            let next = next.entry((id.epoch.to_string(), id.lane)).or_insert(1);
            for seq in *next..id.seq {
                let missing = RecordId { seq, ..id.clone() };
                if self.why(&missing).is_none() {
                    holes.push(format!("{missing}: neither told nor counted"));
                }
            }
            *next = id.seq + 1;
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::ids::Epoch;
    use mainstay_shared::record::{Gap, TestMessage};
    use mainstay_shared::time_source::UnixMs;

    use super::*;

    fn id(seq: u64) -> RecordId {
        RecordId { epoch: "ab".repeat(16).parse::<Epoch>().unwrap(), lane: Lane::Fault, seq }
    }

    fn record(seq: u64, payload: Payload) -> Record {
        Record { id: id(seq), at: UnixMs(0), mono_ms: 0, payload }
    }

    fn told(seq: u64, number: u64) -> Record {
        record(seq, Payload::Test(TestMessage { mark: String::new(), note: number.to_string() }))
    }

    fn gap(seq: u64, from_seq: u64, why: &str) -> Record {
        record(seq, Payload::Gap(Gap { from_seq, to_seq: seq, why: why.into(), count: seq - from_seq + 1 }))
    }

    #[test]
    fn the_oracle_tells_a_loss_a_double_and_a_counted_drop_apart() {
        type Row<'a> = (&'a str, &'a [(u64, u64)], &'a [Record], &'a [Record], usize, u64);
        let table: &[Row<'_>] = &[
            ("all there", &[(1, 1), (2, 2)], &[told(1, 1)], &[told(2, 2)], 0, 0),
            ("not accepted but there", &[(1, 1)], &[told(1, 1)], &[told(2, 2)], 0, 0),
            ("told and still waiting", &[(1, 1)], &[told(1, 1)], &[told(1, 1)], 0, 0),
            ("lost at the end", &[(1, 1), (2, 2)], &[told(1, 1)], &[], 1, 0),
            ("lost in the middle, a hole too", &[(1, 1), (2, 2), (3, 3)], &[told(1, 1), told(3, 3)], &[], 2, 0),
            ("another under its id", &[(1, 1)], &[told(1, 7)], &[], 1, 0),
            ("under two ids", &[(1, 1)], &[told(1, 1), told(2, 1)], &[], 1, 0),
            ("waits as another than it was told", &[(1, 1)], &[told(1, 1)], &[told(1, 2)], 2, 0),
            ("dropped by policy and counted", &[(1, 1), (2, 2), (3, 3)], &[], &[gap(2, 1, "compacted"), told(3, 3)], 0, 2),
            ("a gap for damage is a loss", &[(1, 1)], &[], &[gap(1, 1, "corrupt")], 1, 0),
            ("waits twice", &[(1, 1)], &[], &[told(1, 1), told(1, 1)], 1, 0),
        ];
        for (sentence, accepted, taken, waiting, losses, dropped) in table {
            let accepted: Vec<_> = accepted.iter().map(|(number, seq)| (*number, id(*seq))).collect();
            let taken = taken.iter().map(|r| (r.id.clone(), r.clone())).collect();
            let verdict = judge(&accepted, &taken, waiting);
            assert_eq!((verdict.losses.len(), verdict.dropped), (*losses, *dropped), "{sentence}: {verdict:?}");
        }
    }
}
