//! The mount: a thin adapter between a view's reader and the kernel, and the life of a mount from
//! the first check of its mountpoint to its end. The one place that knows FUSE, inodes as the
//! kernel sees them, and errno.

mod ancestors;
mod attributes;
mod checkup;
mod condition;
mod figures;
mod filesystem;
mod fusermount;
mod holders;
mod mount;
mod mount_plan;
mod mount_table;
mod mountpoint;
mod mounts;
mod opening;
mod options;
mod own_files;
mod passthrough;
mod provenance;
mod read_ahead;
mod rehearsal;
mod resolve;
mod unmount;

pub use checkup::{Check, Level, checkup};
pub use condition::ServingProcess;
pub use figures::Figures;
pub use mount::{Detacher, Mounted, mount};
pub use mount_plan::{MountPlan, mount_plan};
pub use mounts::{
    Answer, HoldingProcess, OurMount, ask, holding_processes, mount_at, mounts, server_of,
};
pub use options::{LazyText, MountOptions};
pub use passthrough::PassthroughOutlook;
pub use provenance::PROVENANCE_ATTRIBUTE;
pub use resolve::check_answers;
pub use unmount::unmount;
