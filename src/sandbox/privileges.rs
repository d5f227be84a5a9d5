//! Privileges: none is ever gained, and those that are of no use are dropped.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::{SandboxError, Scope};

/// What the daemon has a use for, if it was started with it: reading other users' regions; making sockets anywhere, for any group, on any
/// port, and taking the place of a dead daemon's.
const USEFUL: CapabilitySet = CapabilitySet::DAC_READ_SEARCH
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// A kernel has no more capabilities than a set has bits.
const CAPABILITIES_MAX: u32 = u64::BITS;

pub(super) fn renounce_new() -> Result<(), SandboxError> {
    Ok(set_no_new_privs(true).map_err(std::io::Error::from)?)
}

/// Keeps of what there is only what is of use.
pub(super) fn drop_useless(scope: Scope) -> Result<(), SandboxError> {
    drop_all_but(match scope {
        Scope::Full => USEFUL,
        // Looking into other processes is what that scope is for.
        Scope::Calls => USEFUL.union(CapabilitySet::SYS_PTRACE),
    })
    .map_err(|error| SandboxError::Io(error.into()))
}

fn drop_all_but(useful: CapabilitySet) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    let useless = (0..CAPABILITIES_MAX).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in useless.filter(|capability| !useful.contains(*capability)) {
        // The kernel refuses to speak of those that it does not have.
        if !matches!(capability_is_in_bounding_set(capability), Ok(true)) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Who may not do this has no privilege to lose.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    let permitted = capabilities(None)?.permitted.intersection(useful);
    set_capabilities(
        None,
        CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() },
    )
}
