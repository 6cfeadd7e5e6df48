//! What the process asks of its memory allocator.

/// Has threads share two of the C library's pools of memory, unless `MALLOC_ARENA_MAX` says how many.
/// By itself it sets 64 MiB of address space aside for each thread, as long as there is some; what is
/// left under a limit (`ulimit -v`) then decides whether the next small allocation ends the process.
/// What is large has memory of its own, so readers do not wait for each other here.
#[cfg(target_env = "gnu")]
pub(crate) fn share_pools() {
    const POOLS: i32 = 2;
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: this sets a number, under a lock of the allocator's. A number that it does not like
        // changes nothing.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, POOLS) };
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn share_pools() {}
