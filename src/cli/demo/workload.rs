//! What the workers do, as functions of time alone: the same in every run, and checked to fit the devices without starting a process.

mod evaluator;
mod model_server;
mod notebook;
mod trainer;

pub(super) use evaluator::Evaluator;
pub(super) use model_server::ModelServer;
pub(super) use notebook::Notebook;
pub(super) use trainer::Trainer;

use std::time::Duration;

use super::holdings::Holdings;

/// Something that holds device memory.
pub(super) trait Workload {
    /// Does what is due `elapsed` after the start.
    fn step(&mut self, elapsed: Duration, holdings: &mut Holdings) -> Step;
}

/// What a worker does after a step.
pub(super) struct Step {
    pub(super) next: Next,
    /// A line for whoever watches.
    pub(super) remark: Option<String>,
}

pub(super) enum Next {
    /// Takes the next step after a pause.
    After(Duration),
    /// Ends without freeing, as an interpreter does.
    Leave,
    /// Is killed on the spot.
    Die,
}

impl Step {
    fn after(pause: Duration) -> Self {
        Self { next: Next::After(pause), remark: None }
    }
}

/// What an n150 has: 12 banks of DRAM and 72 of L1.
pub(super) const DEVICE_DRAM_BYTES: u64 = 12 * 1_072_603_072;
const DEVICE_L1_BYTES: u64 = 72 * 1_360_544;

/// What a workload may hold at most on one device. Traces lie in DRAM; circular buffers, kernels and L1_SMALL in L1.
#[derive(Clone, Copy)]
struct Budget {
    dram_bytes: u64,
    l1_bytes: u64,
}

const MODEL_SERVER: Budget = Budget { dram_bytes: 5_800_000_000, l1_bytes: 40_000_000 };
const TRAINER: Budget = Budget { dram_bytes: 3_200_000_000, l1_bytes: 30_000_000 };
const EVALUATOR: Budget = Budget { dram_bytes: 1_200_000_000, l1_bytes: 8_000_000 };

/// The DRAM that the leak may not fill: beyond this the notebook is restarted.
const DRAM_CEILING_BYTES: u64 = DEVICE_DRAM_BYTES / 10 * 9;

const _: () = {
    assert!(MODEL_SERVER.dram_bytes + TRAINER.dram_bytes + EVALUATOR.dram_bytes < DRAM_CEILING_BYTES);
    assert!(MODEL_SERVER.l1_bytes + TRAINER.l1_bytes + EVALUATOR.l1_bytes < DEVICE_L1_BYTES);
};

/// What the others leave of the notebook's device.
fn notebook_budget(devices: u16) -> Budget {
    // The evaluator is on the first device and the notebook on the last.
    let evaluator = if devices == 1 { EVALUATOR } else { Budget { dram_bytes: 0, l1_bytes: 0 } };
    Budget {
        dram_bytes: DRAM_CEILING_BYTES - MODEL_SERVER.dram_bytes - TRAINER.dram_bytes - evaluator.dram_bytes,
        l1_bytes: DEVICE_L1_BYTES - MODEL_SERVER.l1_bytes - TRAINER.l1_bytes - evaluator.l1_bytes,
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ttmem_wire::BufferType;

    use super::super::holdings::{Event, Memory};
    use super::*;

    const LONG: Duration = Duration::from_secs(1200);

    /// What a workload did in simulated time.
    #[derive(Default)]
    struct Trial {
        lasted: Duration,
        ended: bool,
        /// The most it held on any device.
        dram_peak_bytes: u64,
        l1_peak_bytes: u64,
        events: u64,
        refusals: u64,
        first_remark: Option<(Duration, String)>,
        devices: HashMap<u16, (u64, u64)>,
    }

    impl Trial {
        fn of(mut workload: impl Workload) -> Self {
            let mut trial = Self::default();
            let mut holdings = Holdings::new();
            while trial.lasted < LONG {
                let step = workload.step(trial.lasted, &mut holdings);
                for event in holdings.take_events() {
                    trial.count(event);
                }
                if let (None, Some(remark)) = (&trial.first_remark, step.remark) {
                    trial.first_remark = Some((trial.lasted, remark));
                }
                match step.next {
                    Next::After(pause) => trial.lasted += pause,
                    Next::Leave | Next::Die => {
                        trial.ended = true;
                        break;
                    }
                }
            }
            trial
        }

        fn count(&mut self, event: Event) {
            let (Event::Taken(piece) | Event::Released(piece) | Event::Refused(piece)) = event;
            let (dram, l1) = self.devices.entry(piece.device).or_default();
            let held = match piece.memory {
                Memory::Buffer(BufferType::Dram | BufferType::Trace) => &mut *dram,
                _ => &mut *l1,
            };
            match event {
                Event::Taken(_) => *held += piece.size_bytes,
                Event::Released(_) => *held -= piece.size_bytes,
                Event::Refused(_) => {
                    assert!(piece.size_bytes > DEVICE_DRAM_BYTES, "it might have fitted");
                    self.refusals += 1;
                }
            }
            self.dram_peak_bytes = self.dram_peak_bytes.max(*dram);
            self.l1_peak_bytes = self.l1_peak_bytes.max(*l1);
            self.events += 1;
        }

        fn expect_within(&self, budget: Budget) {
            assert!(self.dram_peak_bytes <= budget.dram_bytes, "DRAM: {}", self.dram_peak_bytes);
            assert!(self.l1_peak_bytes <= budget.l1_bytes, "L1: {}", self.l1_peak_bytes);
        }
    }

    #[test]
    fn the_served_model_is_loaded_quickly_and_fits() {
        for devices in [1, 2, 8] {
            let trial = Trial::of(ModelServer::new(devices));
            trial.expect_within(MODEL_SERVER);
            assert_eq!(trial.devices.len(), usize::from(devices));
            let (loaded, _) = trial.first_remark.expect("it says when the model is loaded");
            assert!(loaded < Duration::from_secs(2));
            assert!(trial.dram_peak_bytes > MODEL_SERVER.dram_bytes / 10 * 8, "the budget is used");
            assert!(!trial.ended);
        }
    }

    #[test]
    fn training_fits() {
        for devices in [1, 2] {
            let trial = Trial::of(Trainer::new(devices));
            trial.expect_within(TRAINER);
            assert_eq!(trial.devices.len(), usize::from(devices));
            assert!(trial.dram_peak_bytes > TRAINER.dram_bytes / 10 * 8, "the budget is used");
            assert!(!trial.ended);
        }
    }

    #[test]
    fn the_evaluator_fits_until_it_is_killed() {
        let trial = Trial::of(Evaluator::new());
        trial.expect_within(EVALUATOR);
        assert!(trial.ended);
        assert!((Duration::from_secs(18)..Duration::from_secs(22)).contains(&trial.lasted));
        assert!(trial.devices[&0].0 > 0, "it dies holding memory");
        assert_eq!(trial.refusals, 1);
    }

    #[test]
    fn the_leak_takes_more_than_ten_minutes() {
        for devices in [1, 2, 4] {
            let trial = Trial::of(Notebook::new(devices));
            trial.expect_within(notebook_budget(devices));
            assert!(trial.ended);
            assert!(trial.lasted > Duration::from_secs(600));
            assert!(trial.lasted < Duration::from_secs(720));
            assert_eq!(trial.devices.keys().collect::<Vec<_>>(), [&(devices - 1)]);
        }
    }

    #[test]
    fn nothing_floods_the_daemon() {
        for trial in [Trial::of(ModelServer::new(2)), Trial::of(Trainer::new(2))] {
            assert!(trial.events < 2_000 * LONG.as_secs());
        }
    }
}
