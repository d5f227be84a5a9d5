//! tt-metal's shared-memory regions as the tests write and read them, and processes to put into them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::peers;

/// Puts a region at a path: in place where there is one, as tt-metal does, and otherwise whole from the first moment. What it may
/// say is in region.py.
pub fn write_region(path: &Path, region: &Value) {
    let is_new = !path.exists();
    let target = if is_new { path.with_extension("new") } else { path.to_owned() };
    let mut writer = Command::new("python3")
        .arg(peers().join("region.py"))
        .arg("write")
        .arg(&target)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(region.to_string().as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success(), "{}: {region}", path.display());
    if is_new {
        fs::rename(&target, path).unwrap();
    }
}

/// What a region says, without the daemon's help.
pub fn dump_region(path: &Path) -> Value {
    let output =
        Command::new("python3").arg(peers().join("region.py")).arg("dump").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The slot that a region has for a process.
pub fn slot_of(region: &Value, pid: u32) -> Option<&Value> {
    region["processes"].as_array().unwrap().iter().find(|slot| slot["pid"] == pid)
}

/// A process that does nothing but live.
pub struct Sleeper(Child);

impl Sleeper {
    pub fn start() -> Sleeper {
        // It ends by itself long after any test, should the test be killed.
        Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A slot of a region that holds DRAM for it.
    pub fn holding(&self, dram_bytes: u64) -> Value {
        json!({"pid": self.pid(), "name": "sleep", "dram": dram_bytes})
    }

    /// Ends it at once, but leaves it to be waited for.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    /// Ends it at once, and waits for it, so that its pid is free.
    pub fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have been ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
