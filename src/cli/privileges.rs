//! What the process that serves a mount gives up first: it answers other users, from files that
//! it did not write.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// What serving needs of root's powers: `SYS_ADMIN` to mount, to unmount and for passthrough,
/// `DAC_READ_SEARCH` to open sources that root may read only because it is root.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_READ_SEARCH);

/// What writing needs of them: to write where root may only because it is root.
const NEEDED_TO_WRITE: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Gives up, for good, whatever this process has beyond [`NEEDED`], and with `writes` beyond
/// [`NEEDED_TO_WRITE`], and the way back by running
/// a setuid program. Must come before any thread is started: threads have capabilities each for
/// themselves.
///
/// A process that cannot mount by itself keeps what it has: it has nothing to give up, and needs
/// the setuid program `fusermount3` to unmount.
pub(crate) fn drop_unneeded(writes: bool) -> rustix::io::Result<()> {
    let has = rustix::thread::capabilities(None)?;
    if !has.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(());
    }
    let mut needed = NEEDED;
    needed.set(NEEDED_TO_WRITE, writes);
    let kept = has.permitted & needed;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    rustix::thread::set_no_new_privs(true)
}
