//! What a server asks of the kernel when a mount begins.

/// What the kernel can do for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) enum Capability {
    /// To map files that are read past the page cache.
    DirectMappings,
    /// To read whole source files by itself.
    Passthrough,
    /// To open files without asking.
    SilentOpen,
    /// To open directories without asking.
    SilentOpendir,
}

/// The kernel at the beginning of a mount.
pub(in crate::fuse) trait Kernel {
    /// Whether it has `capability`.
    fn offers(&self, capability: Capability) -> bool;

    /// Asks it to use `capability`; false if it has none.
    fn enable(&mut self, capability: Capability) -> bool;

    /// Says how many filesystems lie below this one, itself counted; false if those are too many.
    fn set_stack_depth(&mut self, depth: u32) -> bool;
}
