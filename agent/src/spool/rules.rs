//! Which records of a full fault lane are dropped: per key the last episode stays with its raise and its last state. Pure.
//!
//! Nothing that may have reached the collector is dropped, and the clear of an episode whose raise it may know is kept, so
//! that no fault stays open there for ever. What is dropped becomes gaps, one per unbroken run, in the place of its last record.

use std::collections::HashMap;

use mainstay_shared::fault::{FaultChangeKind, FaultKey};
use mainstay_shared::ids::RecordId;
use mainstay_shared::record::{Gap, Payload, Record};

/// Starts, goodbyes and tests kept by a compaction.
const OTHERS_KEPT: usize = 16;

/// A waiting record of the fault lane as the rules need it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: RecordId,
    /// It may have reached the collector.
    pub(super) sent: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Fault { key: u64, episode: RecordId, raise: bool },
    Gap { from: u64, count: u64, compacted: bool },
    Other,
}

impl Item {
    /// The item of `record`; `keys` numbers the fault keys met so far.
    pub(super) fn of(record: &Record, sent: bool, keys: &mut HashMap<FaultKey, u64>) -> Self {
        let what = match &record.payload {
            Payload::Fault(change) => {
                let fresh = keys.len() as u64;
                let key = *keys.entry(change.key.clone()).or_insert(fresh);
                let raise = change.kind == FaultChangeKind::Raised;
                What::Fault { key, episode: change.episode.clone().unwrap_or_else(|| record.id.clone()), raise }
            }
            Payload::Gap(gap) => What::Gap { from: gap.from_seq, count: gap.count, compacted: gap.why == COMPACTED },
            Payload::Started(_)
            | Payload::Goodbye(_)
            | Payload::Samples(_)
            | Payload::OpenFaults(_)
            | Payload::Patch(_)
            | Payload::Test(_) => What::Other,
        };
        Self { id: record.id.clone(), sent, what }
    }
}

/// Why word of a compaction's gap.
pub(super) const COMPACTED: &str = "compacted";

/// A run of records that is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    /// That of its last record.
    pub(super) id: RecordId,
    /// What stands for it.
    pub(super) gap: Gap,
    /// How many of the gap's count were not lost before.
    pub(super) newly: u64,
}

/// The gaps that replace the dropped records, in order; each takes the id of the last record it covers.
pub(super) fn compact(items: &[Item]) -> Vec<Dropped> {
    let dropped = droppable(items);
    let mut gaps: Vec<Dropped> = Vec::new();
    let mut run: Option<Dropped> = None;
    for (item, drop) in items.iter().zip(dropped) {
        let (from, count, old_gap) = match item.what {
            What::Gap { from, count, compacted: true } if !item.sent => (from, count, true),
            _ => (item.id.seq, 1, false),
        };
        let continues = run.as_ref().is_some_and(|run| run.id.epoch == item.id.epoch && run.id.seq + 1 == from);
        if !(continues && (drop || old_gap)) {
            gaps.extend(run.take().filter(|run| run.newly > 0));
        }
        if !(drop || old_gap) {
            continue;
        }
        let begun = Gap { from_seq: from, to_seq: item.id.seq, why: COMPACTED.into(), count: 0 };
        let run = run.get_or_insert_with(|| Dropped { id: item.id.clone(), gap: begun, newly: 0 });
        run.id = item.id.clone();
        run.gap.to_seq = item.id.seq;
        run.gap.count += count;
        run.newly += u64::from(drop);
    }
    gaps.extend(run.filter(|run| run.newly > 0));
    gaps
}

fn droppable(items: &[Item]) -> Vec<bool> {
    let mut last_episode: HashMap<u64, &RecordId> = HashMap::new();
    let mut last_of_episode: HashMap<&RecordId, usize> = HashMap::new();
    let mut raise_waits: HashMap<&RecordId, bool> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        if let What::Fault { key, episode, raise } = &item.what {
            last_episode.insert(*key, episode);
            last_of_episode.insert(episode, at);
            if *raise {
                raise_waits.insert(episode, !item.sent);
            }
        }
    }
    let others = items.iter().filter(|i| matches!(i.what, What::Other)).count();
    let mut others_seen = 0;
    let judge = |(at, item): (usize, &Item)| match &item.what {
        _ if item.sent => false,
        What::Gap { .. } => false,
        What::Other => {
            others_seen += 1;
            others_seen + OTHERS_KEPT <= others
        }
        What::Fault { key, episode, raise } => {
            let is_last_state = last_of_episode.get(episode) == Some(&at);
            let is_last_episode = last_episode.get(key) == Some(&episode);
            let unknown_to_collector = raise_waits.get(episode).copied().unwrap_or(false);
            if is_last_episode || !unknown_to_collector { !is_last_state && !raise } else { true }
        }
    };
    items.iter().enumerate().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use mainstay_shared::fault::{FaultChange, FaultGrounds, Level};
    use mainstay_shared::ids::{Epoch, Lane};
    use mainstay_shared::record::Goodbye;
    use mainstay_shared::time_source::UnixMs;

    use super::*;

    fn id(seq: u64) -> RecordId {
        RecordId { epoch: "ab".repeat(16).parse::<Epoch>().unwrap(), lane: Lane::Fault, seq }
    }

    /// `A+` raises A, `A!` worsens, `A-` clears its latest episode, `g` is a goodbye; `^` behind it: perhaps sent.
    fn items(script: &str) -> Vec<Item> {
        let mut keys = HashMap::new();
        let mut latest: HashMap<char, RecordId> = HashMap::new();
        let mut items = Vec::new();
        for (at, word) in script.split_whitespace().enumerate() {
            let id = id(at as u64 + 1);
            let name = word.chars().next().unwrap();
            let kind = match word.chars().nth(1) {
                Some('+') => FaultChangeKind::Raised,
                Some('!') => FaultChangeKind::Worsened,
                _ => FaultChangeKind::Cleared,
            };
            if kind == FaultChangeKind::Raised {
                latest.insert(name, id.clone());
            }
            let episode = latest.get(&name).cloned().filter(|e| *e != id);
            let change = FaultChange {
                kind,
                key: FaultKey::new(name, "x"),
                episode,
                level: Level::Serious,
                summary: String::new(),
                grounds: FaultGrounds::default(),
                at: UnixMs(0),
                present_at_start: false,
            };
            let goodbye = Goodbye { reason: "stop".into(), expected_return_at: None };
            let payload = if name == 'g' { Payload::Goodbye(goodbye) } else { Payload::Fault(change) };
            let record = Record { id, at: UnixMs(0), mono_ms: 0, payload };
            items.push(Item::of(&record, word.ends_with('^'), &mut keys));
        }
        items
    }

    #[test]
    fn a_full_fault_lane_keeps_the_last_state_of_every_key() {
        type Row = (&'static str, &'static str, &'static [(u64, u64)]);
        let table: &[Row] = &[
            ("one open fault is kept", "A+", &[]),
            ("the last episode of a key is kept even when it is over", "A+ A-", &[]),
            ("earlier episodes of a key are dropped whole", "A+ A- A+ A- A+", &[(1, 4)]),
            ("steps between raise and last state are dropped", "A+ A! A! A-", &[(2, 3)]),
            ("an episode that the collector may know keeps its clear", "A+^ A! A- A+", &[(2, 2)]),
            ("runs do not reach across what is kept", "A+ B+ A- B- A+ B!", &[(1, 1), (3, 4)]),
            ("what may have been sent stays", "A+^ A-^ A+ A- A+", &[(3, 4)]),
            ("few goodbyes stay", "g g g", &[]),
        ];
        for (sentence, script, expected) in table {
            let gaps: Vec<_> = compact(&items(script)).into_iter().map(|d| (d.gap.from_seq, d.gap.to_seq)).collect();
            assert_eq!(gaps, *expected, "{sentence}");
        }
    }
}
