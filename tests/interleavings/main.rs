//! The tile cache under a model checker: its own source, with locks and atomics whose every
//! interleaving can be had. Small cases are run in all their interleavings, larger ones in many
//! random ones. A failing run prints its schedule, which `shuttle::replay` repeats.

mod accounts;
mod cases;

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

    #[path = "../../../src/read/tiles.rs"]
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod tiles;
}
