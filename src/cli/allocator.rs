//! What the process asks of its memory allocator.

/// Has the C library set no memory aside for the threads of a mount, unless its variables say how much
/// it may.
///
/// By itself it sets 64 MiB of address space aside for each thread, as long as there is some; what is
/// left under a limit (`ulimit -v`) then decides whether the next small allocation ends the process. So
/// threads share two pools. What is large has memory of its own, so they do not wait for each other
/// there; and it has to stay so: once a large buffer was freed, others as large would come from the
/// pools too, which then grow by several MiB for each thread.
#[cfg(target_env = "gnu")]
pub(crate) fn set_nothing_aside() {
    const POOLS: i32 = 2;
    // The C library's own, until it changes it.
    const LARGE: i32 = 128 << 10;
    for (variable, parameter, value) in [
        ("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, POOLS),
        ("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, LARGE),
    ] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: this sets a number, under a lock of the allocator's. A number that it does not
            // like changes nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn set_nothing_aside() {}
