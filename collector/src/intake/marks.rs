//! The watermarks of a batch: how far each run of each lane is settled, and which of them moved. Pure.
//!
//! An appliance speaks as one run at a time: the marks of that run lie in its link's row, which intake reads and writes anyway.
//! Those of runs that have ended lie in rows of their own, touched only when such a run's records still come.

use std::collections::HashMap;

use super::LaneKey;

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    seq: u64,
    moved: bool,
}

/// Watermarks by lane; a lane of which nothing was ever taken has none.
#[derive(Debug, Default)]
pub(crate) struct Marks(HashMap<LaneKey, Mark>);

impl Marks {
    /// Takes in what is stored. Of two, the higher one counts.
    pub(crate) fn loaded(&mut self, lane: LaneKey, seq: u64) {
        if seq > 0 {
            let mark = self.0.entry(lane).or_default();
            mark.seq = mark.seq.max(seq);
        }
    }

    /// Whether records of that lane were ever taken.
    pub(crate) fn knows(&self, lane: &LaneKey) -> bool {
        self.0.contains_key(lane)
    }

    /// Up to where the lane is settled.
    pub(crate) fn of(&self, lane: &LaneKey) -> u64 {
        self.0.get(lane).map_or(0, |mark| mark.seq)
    }

    /// Moves a mark forward, never back.
    pub(crate) fn raise(&mut self, lane: &LaneKey, seq: u64) {
        let before = self.of(lane);
        if seq > before || !self.knows(lane) {
            self.0.insert(lane.clone(), Mark { seq: seq.max(before), moved: true });
        }
    }

    /// The marks that need a row of their own: of runs that are not the present one of their appliance, if they moved or if the
    /// run was the present one until now. `present` and `before` tell whether a lane is of the present run, now and when loaded.
    pub(crate) fn ended<'m>(
        &'m self,
        present: impl Fn(&LaneKey) -> bool + 'm,
        before: impl Fn(&LaneKey) -> bool + 'm,
    ) -> impl Iterator<Item = (&'m LaneKey, u64)> {
        self.0
            .iter()
            .filter(move |(lane, mark)| !present(lane) && (mark.moved || before(lane)))
            .map(|(lane, mark)| (lane, mark.seq))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::ids::{Epoch, Lane};
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn only_marks_of_ended_runs_need_rows_and_only_when_they_moved_or_their_run_ends() {
        let lane =
            |epoch: &Epoch| LaneKey { tenant_id: "t".into(), appliance_id: "a".into(), epoch: epoch.clone(), lane: Lane::Fault };
        let epochs: Vec<Epoch> = (0..3).map(|_| Epoch::random(&SystemRandom::new())).collect();
        let (old, was, is) = (lane(&epochs[0]), lane(&epochs[1]), lane(&epochs[2]));
        let mut marks = Marks::default();
        marks.loaded(old.clone(), 5);
        marks.loaded(was.clone(), 7);
        marks.raise(&is, 1);
        let rows = |marks: &Marks| {
            let mut rows: Vec<u64> = marks.ended(|l| *l == is, |l| *l == was).map(|(_, seq)| seq).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(rows(&marks), [7], "the run that ends takes its mark along; an old one that did not move stays as it is");
        marks.raise(&old, 6);
        assert_eq!(rows(&marks), [6, 7]);
        marks.raise(&old, 2);
        assert_eq!(marks.of(&old), 6, "never back");
        assert_eq!((marks.of(&is), marks.knows(&lane(&Epoch::random(&SystemRandom::new())))), (1, false));
    }
}
