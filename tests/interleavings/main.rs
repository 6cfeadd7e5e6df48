//! The tile cache and the pool of open sources under a model checker: their own source, with locks
//! and atomics whose every interleaving can be had. Small cases are run in all their interleavings, larger ones in many
//! random ones. A failing run prints its schedule, which `shuttle::replay` repeats.

mod accounts;
mod cases;
mod pool;

/// What the source of the cache imports from its crate.
use ckptfs::{catalog, error};

#[path = "../../src/memory.rs"]
#[allow(dead_code, unreachable_pub)]
mod memory;

mod read {
    pub(crate) mod sync;

    #[path = "../../../src/read/buffers.rs"]
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod buffers;

    #[path = "../../../src/read/single_flight.rs"]
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod single_flight;

    #[path = "../../../src/read/tiles.rs"]
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod tiles;
}

mod source {
    pub(crate) mod sync;

    #[path = "../../../src/source/pool.rs"]
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod pool;
}
