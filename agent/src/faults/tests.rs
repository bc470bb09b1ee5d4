//! The detector as a table of what happens over time, told as transcripts: second, what is told.

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::fault::{CODE_CHECK_UNKNOWN, CODE_SERVICE_DEGRADED, CODE_SERVICE_DOWN};
use mainstay_shared::ids::{Epoch, Lane};
use mainstay_shared::record::{Payload, Record};
use proptest::prelude::*;

use super::*;

/// A detector with a clock, and a spool that takes everything or nothing.
struct Stage {
    detector: Detector,
    epoch: Epoch,
    second: u64,
    seq: u64,
    takes: bool,
}

const SERVICE: &str = "[[service]]\nname = \"web\"\n[[service.check]]\nname = \"c\"\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n";

fn config(text: &str) -> Config {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, format!("{text}\n{SERVICE}")).expect("a file");
    Config::load(&path).expect("a good configuration")
}

impl Stage {
    fn new() -> Self {
        Self::with("", Vec::new(), false)
    }

    fn with(text: &str, open: Vec<(EpisodeId, FaultChange)>, safe_mode: bool) -> Self {
        let detector = Detector::new(&config(text), open, safe_mode);
        let epoch: Epoch = "0123456789abcdef0123456789abcdef".parse().expect("an epoch");
        Self { detector, epoch, second: 0, seq: 0, takes: true }
    }

    fn now(&self) -> Moment {
        Moment { at: UnixMs(i64::try_from(self.second * 1000).expect("small")), mono: Duration::from_secs(self.second) }
    }

    fn told(&mut self, changes: Vec<FaultChange>) -> Vec<FaultChange> {
        let now = self.now();
        for change in changes.iter().filter(|_| self.takes) {
            self.seq += 1;
            let id = RecordId { epoch: self.epoch.clone(), lane: Lane::Fault, seq: self.seq };
            self.detector.confirm(now, change, id);
        }
        changes
    }

    fn read(&mut self, readings: &[(&str, &'static str, f64)]) -> Vec<FaultChange> {
        let readings: Vec<Reading> = readings
            .iter()
            .map(|(component, metric, value)| Reading { component: (*component).to_owned(), metric, value: *value })
            .collect();
        let changes = self.detector.observe_readings(self.now(), &readings);
        self.told(changes)
    }

    /// Every ten seconds for `seconds`; what was told, with its second.
    fn read_for(&mut self, seconds: u64, component: &str, metric: &'static str, value: f64) -> Vec<(u64, FaultChange)> {
        let mut told = Vec::new();
        for _ in 0..seconds / 10 {
            let changes = self.read(&[(component, metric, value)]);
            told.extend(changes.into_iter().map(|change| (self.second, change)));
            self.second += 10;
        }
        told
    }

    fn round(&mut self, state: ServiceState) -> Vec<FaultChange> {
        let now = self.now();
        let tries = vec![result(state, "it said something")];
        let round = ServiceRound { service: "web".to_owned(), state, tries, began_at: now.at, began_mono: now.mono };
        let changes = self.detector.observe_round(now, &round);
        self.second += 60;
        self.told(changes)
    }
}

fn result(state: ServiceState, text: &str) -> CheckResult {
    CheckResult {
        check: "c".to_owned(),
        kind: "tcp".to_owned(),
        state,
        reason: "refused".to_owned(),
        text: text.to_owned(),
        took_ms: 1,
        attempt: 1,
        at: UnixMs(0),
        perf_data: String::new(),
    }
}

/// `raised disk_space_low warning`.
fn line(change: &FaultChange) -> String {
    format!("{} {} {}", change.kind.as_str(), change.key.code, change.level.as_str())
}

fn lines(changes: &[FaultChange]) -> Vec<String> {
    changes.iter().map(line).collect()
}

fn transcript(told: &[(u64, FaultChange)]) -> Vec<(u64, String)> {
    told.iter().map(|(second, change)| (*second, line(change))).collect()
}

#[test]
fn a_full_disk_is_raised_worsens_and_is_cleared_each_after_its_time() {
    let mut stage = Stage::new();
    let mut told = stage.read_for(30, "disk:/var", "used_percent", 50.0);
    told.extend(stage.read_for(120, "disk:/var", "used_percent", 91.0));
    told.extend(stage.read_for(120, "disk:/var", "used_percent", 98.0));
    told.extend(stage.read_for(120, "disk:/var", "used_percent", 89.0));
    told.extend(stage.read_for(120, "disk:/var", "used_percent", 80.0));
    let expected = [
        (90, "raised disk_space_low warning"),
        (210, "worsened disk_space_low serious"),
        (330, "worsened disk_space_low warning"),
        (450, "cleared disk_space_low warning"),
    ];
    assert_eq!(transcript(&told), expected.map(|(second, line)| (second, line.to_owned())));

    let raised = &told[0].1;
    assert_eq!((raised.at, raised.present_at_start), (UnixMs(30_000), false), "it began when it was first seen");
    assert_eq!((raised.grounds.value, raised.grounds.threshold, raised.grounds.lasted_ms), (Some(91.0), Some(90.0), 60_000));
    assert_eq!(raised.summary, "disk:/var: space used 91.0 percent (threshold 90.0)");
    assert!(raised.episode.is_none(), "the record of the raise is the episode");
    assert_eq!(told[3].1.episode.as_ref().map(|id| id.seq), Some(1));
}

#[test]
fn what_does_not_last_is_not_told() {
    for (row, seconds, value) in [("a burst", 50, 99.0), ("just under the threshold", 600, 89.9), ("no number", 600, f64::NAN)] {
        let mut stage = Stage::new();
        let mut told = stage.read_for(seconds, "disk:/", "used_percent", value);
        told.extend(stage.read_for(600, "disk:/", "used_percent", 10.0));
        assert_eq!(transcript(&told), [], "{row}");
    }
}

#[test]
fn a_value_at_the_edge_raises_once_and_is_not_cleared() {
    let mut stage = Stage::new();
    let mut told = Vec::new();
    for step in 0..200 {
        told.extend(stage.read_for(10, "disk:/", "used_percent", if step % 7 < 5 { 90.1 } else { 88.5 }));
    }
    assert!(told.len() <= 1, "{:?}", transcript(&told));
    told.extend(stage.read_for(60, "disk:/", "used_percent", 90.1));
    told.extend(stage.read_for(600, "disk:/", "used_percent", 88.5));
    assert_eq!(told.len(), 1, "within the slack it stays open");
}

#[test]
fn what_is_wrong_at_the_first_look_is_marked_so() {
    let mut stage = Stage::new();
    let told = stage.read_for(120, "memory", "used_percent", 95.0);
    assert_eq!(told.len(), 0);
    let told = stage.read_for(10, "memory", "used_percent", 95.0);
    assert!(told[0].1.present_at_start);
}

#[test]
fn a_change_that_was_not_taken_is_proposed_again_until_it_is() {
    let mut stage = Stage::new();
    stage.takes = false;
    let told = stage.read_for(100, "disk:/", "used_percent", 95.0);
    assert_eq!(told.len(), 4, "once the minute is over, at every look");
    assert!(told.iter().all(|(_, change)| change.at == UnixMs(0)), "it still began when it began");
    assert_eq!(lines(&stage.round(ServiceState::Down)), ["raised service_down serious"]);
    assert_eq!(lines(&stage.round(ServiceState::Down)), ["raised service_down serious"]);
    stage.takes = true;
    assert_eq!(lines(&stage.round(ServiceState::Down)), ["raised service_down serious"]);
    assert_eq!(lines(&stage.round(ServiceState::Down)), [""; 0]);
    assert_eq!(stage.read_for(60, "disk:/", "used_percent", 95.0).len(), 1);
}

#[test]
fn a_link_is_lost_only_if_it_was_there() {
    let mut stage = Stage::new();
    assert_eq!(transcript(&stage.read_for(120, "net:eth1", "link_down", 1.0)), [], "a port that never had a cable");
    stage.read_for(10, "net:eth1", "link_down", 0.0);
    let told = stage.read_for(40, "net:eth1", "link_down", 1.0);
    assert_eq!(lines(&[told[0].1.clone()]), ["raised link_down serious"]);
}

#[test]
fn a_hung_measurement_is_a_fault_and_keeps_what_is_open_on_the_object() {
    let mut stage = Stage::new();
    stage.read_for(80, "disk:/nfs", "used_percent", 99.0);
    let told = stage.read_for(600, "disk:/nfs", HUNG, 1.0);
    assert_eq!(transcript(&told), [(80, "raised probe_hung serious".to_owned())], "nobody can say that the disk has room now");
    assert_eq!(lines(&stage.read(&[("disk:/nfs", HUNG, 0.0)])), ["cleared probe_hung serious"]);
}

#[test]
fn what_is_measured_no_more_is_cleared_with_that_as_the_reason() {
    let mut stage = Stage::new();
    stage.read_for(80, "disk:/usb", "used_percent", 99.0);
    let told = stage.read_for(200, "cpu", "busy_percent", 1.0);
    assert_eq!(transcript(&told), [(190, "cleared disk_space_low serious".to_owned())]);
    assert_eq!(told[0].1.summary, "disk:/usb: not measured any more");
}

/// An episode from before this start.
fn episode(component: &str, code: &str) -> (EpisodeId, FaultChange) {
    let id = RecordId { epoch: "ffffffffffffffffffffffffffffffff".parse().expect("an epoch"), lane: Lane::Fault, seq: 7 };
    let last = FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new(component, code),
        episode: None,
        level: Level::Serious,
        summary: String::new(),
        grounds: FaultGrounds::default(),
        at: UnixMs(0),
        present_at_start: false,
    };
    (id, last)
}

#[test]
fn an_episode_open_before_the_start_goes_on_and_ends_under_its_own_name() {
    let open =
        vec![episode("disk:/var", "disk_space_low"), episode("service:web", CODE_SERVICE_DOWN), episode("net:eth0", "link_down")];
    let before = open[0].0.clone();
    let mut stage = Stage::with("", open, false);
    assert_eq!(transcript(&stage.read_for(120, "disk:/var", "used_percent", 98.0)), [], "it is not raised again");
    assert_eq!(stage.round(ServiceState::Down), [], "nor is the service");
    let over = stage.round(ServiceState::Up);
    assert_eq!((lines(&over), over[0].episode.clone()), (vec!["cleared service_down serious".to_owned()], Some(before)));
    assert_eq!(over[0].grounds.last_known, Some(ServiceState::Down));
    let told = stage.read_for(300, "net:eth0", "link_down", 1.0);
    assert!(!told.iter().any(|(_, change)| change.key.code == "link_down"), "a lost link stays lost over a restart");
}

#[test]
fn what_nothing_can_close_any_more_is_closed_at_the_start() {
    let open = || {
        vec![episode("service:gone", CODE_SERVICE_DOWN), episode("cpu", "cpu_saturated"), episode("agent", CODE_AGENT_SAFE_MODE)]
    };
    let mut stage = Stage::with("[probes.cpu]\nenabled = false", open(), false);
    let told = stage.read(&[]);
    let summaries: Vec<&str> = told.iter().map(|change| change.summary.as_str()).collect();
    assert_eq!(
        summaries,
        ["agent: safe mode was left", "cpu: not measured any more", "service gone: declared on this appliance no longer"]
    );
    assert_eq!(stage.read(&[]), []);

    let safe = Stage::with("[probes.cpu]\nenabled = false", open(), true);
    assert_eq!(
        lines(&safe.detector.observe_orphans(safe.now())),
        ["cleared service_down serious"],
        "in safe mode the rest stays"
    );
}

#[test]
fn a_service_has_one_fault_open_and_the_new_one_is_raised_first() {
    use ServiceState::{Degraded, Down, Unknown, Up};
    let mut stage = Stage::new();
    for (state, expected) in [
        (Up, &[][..]),
        (Degraded, &["raised service_degraded warning"]),
        (Degraded, &[]),
        (Down, &["raised service_down serious", "cleared service_degraded warning"]),
        (Unknown, &["raised check_unknown warning", "cleared service_down serious"]),
        (Unknown, &[]),
        (Up, &["cleared check_unknown warning"]),
    ] {
        assert_eq!(lines(&stage.round(state)), expected, "{state:?} at {}", stage.second);
    }
}

#[test]
fn an_unknown_service_tells_what_it_was_known_to_be() {
    use ServiceState::{Down, Unknown, Up};
    for (row, rounds, expected) in [
        ("never known", &[Unknown][..], None),
        ("it was well", &[Up, Unknown], Some(Up)),
        ("it was down", &[Up, Down, Unknown], Some(Down)),
    ] {
        let mut stage = Stage::new();
        let told: Vec<FaultChange> = rounds.iter().flat_map(|state| stage.round(*state)).collect();
        let raised = told.iter().find(|change| change.key.code == CODE_CHECK_UNKNOWN).expect("raised");
        assert_eq!(raised.grounds.last_known, expected, "{row}");
        assert_eq!(raised.present_at_start, rounds.len() == 1, "{row}");
    }
}

#[test]
fn a_raise_that_was_not_taken_keeps_what_was_known_before() {
    let mut stage = Stage::new();
    stage.round(ServiceState::Up);
    stage.takes = false;
    stage.round(ServiceState::Down);
    stage.takes = true;
    let told = stage.round(ServiceState::Down);
    assert_eq!((told[0].grounds.last_known, told[0].at), (Some(ServiceState::Up), UnixMs(60_000)));
    assert_eq!(told[0].summary, "service web is down: c (refused) it said something");
}

#[test]
fn a_flapping_service_is_cleared_only_after_it_stayed_up() {
    use ServiceState::{Down, Up};
    let mut stage = Stage::new();
    let told: Vec<String> = [Down, Up, Down, Up, Down].iter().flat_map(|state| lines(&stage.round(*state))).collect();
    assert_eq!(told.iter().filter(|line| line.starts_with("raised")).count(), 3);
    for _ in 0..15 {
        assert_eq!(stage.round(Up), [], "at {}", stage.second);
    }
    let over = stage.round(Up);
    assert_eq!(lines(&over), ["cleared service_down serious"]);
    assert_eq!(over[0].at, UnixMs(5 * 60_000), "it ended when it came up");
    assert_eq!(lines(&stage.round(Down)), ["raised service_down serious"]);
    assert_eq!(lines(&stage.round(Up)), ["cleared service_down serious"], "it is flapping no longer");
}

#[test]
fn the_grounds_of_a_long_round_fit_a_record() {
    let tries: Vec<CheckResult> = (0..48)
        .map(|_| CheckResult { perf_data: "界".repeat(1000), ..result(ServiceState::Degraded, &"界\"".repeat(512)) })
        .collect();
    let mut stage = Stage::new();
    let now = stage.now();
    let round =
        ServiceRound { service: "web".to_owned(), state: ServiceState::Degraded, tries, began_at: now.at, began_mono: now.mono };
    let told = stage.detector.observe_round(now, &round);
    assert_eq!((told[0].grounds.checks.len(), told[0].key.code.as_str()), (48, CODE_SERVICE_DEGRADED));
    let id = RecordId { epoch: stage.epoch.clone(), lane: Lane::Fault, seq: 1 };
    let record = Record { id, at: now.at, mono_ms: 0, payload: Payload::Fault(told[0].clone()) };
    let json = serde_json::to_vec(&record).expect("json");
    assert!(json.len() < mainstay_shared::limits::MAX_RECORD_BYTES, "{}", json.len());
}

#[test]
fn the_reference_lists_every_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let reference = std::fs::read_to_string(path).expect("docs/faults.md");
    let rules = rules::all(&config("").probes);
    let codes = rules.iter().map(|rule| rule.code).chain([
        CODE_SERVICE_DOWN,
        CODE_SERVICE_DEGRADED,
        CODE_CHECK_UNKNOWN,
        CODE_AGENT_SAFE_MODE,
    ]);
    for code in codes {
        assert!(reference.contains(&format!("| `{code}` |")), "{code}");
    }
}

proptest! {
    /// Whatever is measured and whatever the spool takes: raises and clears of a key alternate, and each clear names its raise.
    #[test]
    fn episodes_begin_and_end_in_turn(steps in proptest::collection::vec((0u8..6, any::<bool>(), 1u64..200), 1..200)) {
        let mut stage = Stage::new();
        let mut open: BTreeMap<FaultKey, u64> = BTreeMap::new();
        for (what, takes, seconds) in steps {
            stage.takes = takes;
            let before = stage.seq;
            let changes = match what {
                0 => stage.round(ServiceState::Up),
                1 => stage.round(ServiceState::Down),
                2 => stage.round(ServiceState::Unknown),
                3 => stage.read(&[("disk:/", "used_percent", 99.0)]),
                4 => stage.read(&[("disk:/", "used_percent", 92.0)]),
                _ => stage.read(&[("disk:/", "used_percent", 10.0)]),
            };
            stage.second += seconds;
            for (change, seq) in changes.iter().zip(before + 1..).filter(|_| takes) {
                match change.kind {
                    FaultChangeKind::Raised => prop_assert_eq!(open.insert(change.key.clone(), seq), None),
                    FaultChangeKind::Cleared => prop_assert_eq!(open.remove(&change.key), change.episode.as_ref().map(|id| id.seq)),
                    FaultChangeKind::Worsened | FaultChangeKind::Restated =>
                        prop_assert_eq!(open.get(&change.key).copied(), change.episode.as_ref().map(|id| id.seq)),
                }
            }
        }
    }
}
