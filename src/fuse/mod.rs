//! The mount: a thin adapter between a view's reader and the kernel, and the life of a mount from
//! the first check of its mountpoint to its end. The one place that knows FUSE, inodes as the
//! kernel sees them, and errno.

mod ancestors;
mod checkup;
mod condition;
mod figures;
mod filesystem;
mod fusermount;
mod gone_requests;
mod holders;
mod mount;
mod mount_plan;
mod mount_table;
mod mountpoint;
mod mounts;
mod options;
mod persist;
mod prefetch;
mod read_ahead;
mod rehearsal;
mod resolve;
mod server;
mod unmount;
mod waiting;

pub use checkup::{Check, Level, checkup};
pub use condition::ServingProcess;
pub use figures::Figures;
pub use gone_requests::is_of_gone_request;
pub use mount::{Detacher, Mounted, mount};
pub use mount_plan::{MountPlan, mount_plan};
pub use mounts::{
    Answer, HoldingProcess, OurMount, ask, holding_processes, mount_at, mounts, server_of,
};
pub use options::{LazyText, MountOptions, PersistOpen, PersistOptions};
pub use resolve::check_answers;
pub use server::{PROVENANCE_ATTRIBUTE, PassthroughOutlook};
pub use unmount::unmount;
