//! What the stats pages leave out and HTTP tells: containers, jobs, names of processes without reports, where a card is.

use std::collections::HashMap;

use crate::views::json::{Container, Device, Process, SlurmJob, Untracked};

/// What was last told over HTTP.
#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    processes: HashMap<u32, ProcessDetails>,
    devices: HashMap<u16, DeviceDetails>,
}

#[derive(Clone, Debug)]
struct ProcessDetails {
    /// A process of another daemon, or a later one, may have the same pid.
    name: String,
    ns_pid: Option<u32>,
    container: Option<Container>,
    slurm: Option<SlurmJob>,
}

#[derive(Clone, Debug)]
struct DeviceDetails {
    board: Option<String>,
    asic_id: Option<String>,
    pci_bus_id: Option<String>,
    untracked: Option<Untracked>,
}

impl Details {
    /// Keeps of an answer what the pages leave out.
    pub(super) fn of(devices: Vec<Device>, processes: Vec<Process>) -> Details {
        let living = processes.into_iter().filter(|process| !process.ended);
        let processes = living.map(|process| {
            let Process { pid, process: name, ns_pid, container, slurm, .. } = process;
            (pid, ProcessDetails { name, ns_pid, container, slurm })
        });
        let devices = devices.into_iter().map(|device| {
            let Device { device, board, asic_id, pci_bus_id, untracked, .. } = device;
            (device, DeviceDetails { board, asic_id, pci_bus_id, untracked })
        });
        Details { processes: processes.collect(), devices: devices.collect() }
    }

    /// Adds to a picture what it does not say itself.
    pub(super) fn complete(&self, devices: &mut [Device], processes: &mut [Process]) {
        for process in processes {
            let known = self.processes.get(&process.pid).filter(|known| known.name == process.process);
            let Some(known) = known else { continue };
            process.ns_pid = process.ns_pid.or(known.ns_pid);
            process.container = process.container.take().or_else(|| known.container.clone());
            process.slurm = process.slurm.take().or_else(|| known.slurm.clone());
        }
        for device in devices {
            let known = self.devices.get(&device.device).filter(|known| known.board == device.board);
            let Some(known) = known else { continue };
            device.asic_id = device.asic_id.take().or_else(|| known.asic_id.clone());
            device.pci_bus_id = device.pci_bus_id.take().or_else(|| known.pci_bus_id.clone());
            if let (Some(untracked), Some(told)) = (&mut device.untracked, &known.untracked)
                && untracked.named.is_empty()
                && untracked.processes == told.processes
            {
                untracked.named.clone_from(&told.named);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::invented;

    #[test]
    fn a_picture_is_completed_where_it_is_about_the_same() {
        let told = |pid_of_another: u32| {
            let mut picture = invented::picture(1, 2);
            for process in &mut picture.processes {
                process.slurm = Some(SlurmJob { job_id: 7, step_id: None, source: "cgroup".to_owned() });
                if process.pid == pid_of_another {
                    process.process = "another".to_owned();
                }
            }
            picture.devices.devices[0].pci_bus_id = Some("0000:01:00.0".to_owned());
            Details::of(picture.devices.devices, picture.processes)
        };
        let mut picture = invented::picture(2, 3);
        told(4001).complete(&mut picture.devices.devices, &mut picture.processes);
        let jobs: Vec<_> = picture.processes.iter().map(|process| process.slurm.is_some()).collect();
        assert_eq!(jobs, [true, false, false]);
        let places: Vec<_> =
            picture.devices.devices.iter().map(|device| device.pci_bus_id.is_some()).collect();
        assert_eq!(places, [true, false]);
    }
}
