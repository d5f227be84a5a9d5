//! Files: everything can be read that could be before, nothing run, and nothing changed but below a few directories.
//!
//! Reading is left as it is: regions, /proc, the kubelet's entries and certificates lie anywhere, and a reload may name others. What may not
//! be read is for whoever starts the daemon to hide.

use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError,
};

use super::SandboxError;

/// What is known of Landlock here; a kernel that has less does less.
const KNOWN: ABI = ABI::V5;

pub(super) fn confine(writable: &[PathBuf]) -> Result<(), SandboxError> {
    let changes = AccessFs::from_write(KNOWN);
    // Before it could be allowed, moving a file from one directory to another was always refused, and a socket gets its place that way.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(changes | AccessFs::Execute)?;
    let directories = writable.iter().filter_map(|path| PathFd::new(path).ok());
    let rules = directories.map(|directory| Ok::<_, RulesetError>(PathBeneath::new(directory, changes)));
    ruleset.create()?.add_rules(rules)?.restrict_self()?;
    Ok(())
}
