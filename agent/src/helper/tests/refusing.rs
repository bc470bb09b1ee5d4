//! A disk that lives but refuses: for a while, or for good in one place. Nothing stays stopped for it, nobody needs to call, and no version
//! is taken for gone that only can't be seen.

use mainstay_shared::patch::PatchStep;

use super::own_update::{Appliance, Fate, length};
use super::world::STATE;

#[test]
fn while_the_memory_refuses_the_reporter_runs_and_afterwards_it_goes_on_by_itself() {
    let first = Appliance::new(8, Fate::Good);
    for at in 1..=length(&first) {
        let (this, what) = (first.fork(at), format!("refused from {at} on"));
        let mut engine = this.boot().unwrap();
        this.disk.refuse_after(Some((at, STATE)));
        for _ in 0..20 {
            if engine.renewed || !this.live_once(&mut engine) {
                break;
            }
            let under_way = engine.state().job.is_some();
            assert_eq!(engine.tick().is_some(), under_way, "{what}: the helper ends though something is under way");
        }
        assert!(this.reporter.lock().unwrap().is_some(), "{what}: the appliance is silent");
        this.disk.refuse_after(None);
        // Systemd has started it again if it had ended.
        let mut left = 60;
        while left > 0 && (engine.renewed || this.live_once(&mut engine)) {
            if engine.renewed {
                engine = this.boot().unwrap();
            }
            left -= 1;
        }
        assert_eq!(this.judge(&engine, &what), (PatchStep::Done, String::new()), "{what}");
    }
}
