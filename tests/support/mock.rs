//! Boards that are not there, and the unmodified ttnn on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::{Directory, Peer, installed_peer, peers};

/// Begins the unique id of every chip of these tests: no factory's chip has it.
const CHIP_ID_BASE: u64 = 0x7e57 << 48;

/// A board of the test's own, with what an unmodified ttnn process needs to open it.
pub struct Board {
    python: PathBuf,
    environment: BTreeMap<String, String>,
    regions: Vec<PathBuf>,
    _directory: Directory,
}

impl Board {
    pub fn new(product: &str, chips: u64) -> Board {
        Board::of("ttnn", product, chips)
    }

    /// One for another ttnn than the newest: that of an installed peer.
    pub fn of(ttnn: &str, product: &str, chips: u64) -> Board {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let python = installed_peer(&format!("{ttnn}/bin/python"));
        let directory = Directory::new();
        let number = u64::from(COUNT.fetch_add(1, Ordering::Relaxed));
        let chip_ids =
            (0..chips).map(|chip| CHIP_ID_BASE | u64::from(std::process::id()) << 16 | number << 4 | chip);
        let mut command = Command::new(&python);
        command.arg(peers().join("mock_cluster.py")).arg(directory.join("board")).args(["--board", product]);
        for chip_id in chip_ids {
            command.args(["--chip-id", &chip_id.to_string()]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let environment = serde_json::from_value(made["env"].clone()).unwrap();
        let board = Board { python, environment, regions: paths(&made["regions"]), _directory: directory };
        // A test of the same pid may have been killed before it could.
        board.remove_regions();
        board
    }

    pub fn n150() -> Board {
        Board::new("n150", 1)
    }

    /// A ttnn process that has not opened a device yet, with more in its environment.
    pub fn process(&self, environment: &[(&str, &str)]) -> Peer {
        let mut command = Command::new(&self.python);
        Peer::start(self.prepare(&mut command).envs(environment.iter().copied()))
    }

    /// What follows a command that starts a program: the ttnn process, in an environment where it finds the board.
    pub fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.arg(peers().join("ttnn_workload.py")).envs(&self.environment);
        // Its greeting would stand among the tests' own output.
        command.env("LOGURU_LEVEL", "WARNING")
    }

    /// The interpreter that has ttnn.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// The files in which tt-metal publishes what it holds.
    pub fn regions(&self) -> &[PathBuf] {
        &self.regions
    }

    /// A ttnn process that has opened device 0.
    pub fn open(&self) -> Peer {
        let mut process = self.process(&[]);
        process.ask(r#"{"op":"open"}"#);
        process
    }

    fn remove_regions(&self) {
        for region in &self.regions {
            // It is there only once a process has opened the chip.
            let _ = fs::remove_file(region);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.remove_regions();
    }
}

fn paths(list: &Value) -> Vec<PathBuf> {
    list.as_array().unwrap().iter().map(|path| PathBuf::from(path.as_str().unwrap())).collect()
}
