//! Kernel passthrough: a file of the view that is a whole source file is read by the kernel
//! straight from that file, at the speed of its filesystem, without a request to us.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::Extents;
use crate::error::Result;
use crate::fast_paths::FastPath;
use crate::fuse::server::attributes::Inode;
use crate::fuse::server::kernel::{Capability, Kernel};
use crate::source::{Blob, LocalFile};
use crate::text::percent;
use crate::view::{EntryId, View};

/// The source files that the kernel reads from now. `Backing` is what the kernel knows one by.
#[derive(Debug)]
pub(super) struct Passthrough<Backing> {
    state: Mutex<State<Backing>>,
}

#[derive(Debug)]
struct State<Backing> {
    /// Granted by the kernel, and not refused since. Once refused it stays off: the kernel does
    /// not let one file be open with and without passthrough at the same time.
    enabled: bool,
    /// The same of files that were written to a directory by now.
    persisted: bool,
    open: HashMap<Inode, Open<Backing>>,
}

/// What the kernel reads instead of a file of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    /// A source.
    Source,
    /// What was written of the view.
    Persisted,
}

/// All handles of a file must share one backing file, which must live as long as they do.
#[derive(Debug)]
struct Open<Backing> {
    backing: Arc<Backing>,
    handles: usize,
}

impl<Backing> Default for Passthrough<Backing> {
    fn default() -> Self {
        Passthrough {
            state: Mutex::new(State {
                enabled: false,
                persisted: false,
                open: HashMap::new(),
            }),
        }
    }
}

impl<Backing> Passthrough<Backing> {
    /// Asks the kernel for passthrough of the whole files of `view`, if they are worth it, and of all
    /// files if they are written to the directory `persist`.
    pub(super) fn request(
        &mut self,
        view: &View,
        persist: Option<&Path>,
        kernel: &mut impl Kernel,
    ) {
        let state = self.state.get_mut();
        let outlook = PassthroughOutlook::new(view);
        let reason = match persist {
            Some(_) => obstacle(),
            None => outlook.obstacle,
        };
        if let Some(reason) = reason {
            return state.turn_off(&reason);
        }
        let depth = stack_depth(view).max(persist.map_or(1, depth_of));
        if kernel.enable(Capability::Passthrough) && kernel.set_stack_depth(depth) {
            let PassthroughOutlook { files, bytes, .. } = outlook;
            log::info!("passthrough: {files} files ({bytes} bytes) are whole source files");
            state.enabled = true;
            state.persisted = persist.is_some();
        } else {
            state.turn_off("the kernel is older than Linux 6.9, or built without it")
        }
    }

    /// Counts one more handle of `inode`, which is all of `source`; returns what it is to be
    /// opened with, or `None` if it must be opened without passthrough. `register` has the kernel
    /// read from a source.
    ///
    /// # Errors
    /// If the source is not the file that was planned: after this, nobody looks at it any more.
    pub(super) fn open(
        &self,
        inode: Inode,
        source: &LocalFile,
        instead: Instead,
        register: impl FnOnce(&File) -> io::Result<Backing>,
    ) -> Result<Option<Arc<Backing>>> {
        let mut state = self.state.lock();
        let enabled = match instead {
            Instead::Source => state.enabled,
            Instead::Persisted => state.persisted,
        };
        if !enabled && !state.open.contains_key(&inode) {
            return Ok(None);
        }
        let file = source.handle()?;
        source.check()?;
        if let Some(open) = state.open.get_mut(&inode) {
            open.handles += 1;
            return Ok(Some(open.backing.clone()));
        }
        match register(&file) {
            Ok(backing) => {
                let backing = Arc::new(backing);
                let open = Open {
                    backing: backing.clone(),
                    handles: 1,
                };
                state.open.insert(inode, open);
                Ok(Some(backing))
            }
            Err(error) => {
                match instead {
                    Instead::Source => state.turn_off(&reason(&error)),
                    Instead::Persisted => state.turn_persisted_off(&reason(&error)),
                }
                Ok(None)
            }
        }
    }

    /// Whether files that were written to a directory are handed to the kernel.
    pub(super) fn takes_persisted(&self) -> bool {
        self.state.lock().persisted
    }

    /// Whether the kernel reads whole files of sources by itself.
    pub(super) fn is_enabled(&self) -> bool {
        self.state.lock().enabled
    }

    /// Whether the kernel must ask before it opens a file.
    pub(super) fn needs_opens(&self) -> bool {
        let state = self.state.lock();
        state.enabled || !state.open.is_empty()
    }

    /// Counts one handle less that was opened with passthrough.
    pub(super) fn close(&self, inode: Inode) {
        let mut state = self.state.lock();
        if let Some(open) = state.open.get_mut(&inode) {
            open.handles -= 1;
            if open.handles == 0 {
                state.open.remove(&inode);
            }
        }
    }
}

impl<Backing> State<Backing> {
    fn turn_persisted_off(&mut self, reason: &str) {
        self.persisted = false;
        log::info!("persist: complete files are read through this process: {reason}");
    }

    fn turn_off(&mut self, reason: &str) {
        self.enabled = false;
        log::info!("passthrough is off, whole files are read through this process: {reason}");
    }
}

/// How much of a view the kernel can read straight from the sources, when it is mounted by this
/// user on this machine.
#[derive(Debug, Clone)]
pub struct PassthroughOutlook {
    /// Files that are whole source files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why the kernel will not read them from the sources all the same; `None` if it will, as far
    /// as can be told before it is asked.
    pub obstacle: Option<String>,
}

impl PassthroughOutlook {
    /// What is to be expected for `view`.
    pub fn new(view: &View) -> Self {
        /// Passthrough costs a request for each opening of any file, so this part of all bytes
        /// must be worth it.
        const WORTHWHILE_SHARE: u64 = 64;
        let (mut files, mut bytes, mut all) = (0, 0, 0);
        for content in (0..view.len()).filter_map(|id| view.file(id)) {
            all += content.len();
            if local_source(content).is_some() {
                files += 1;
                bytes += content.len();
            }
        }
        let obstacle = if files == 0 {
            Some("no file is a whole source file".to_owned())
        } else if bytes < all / WORTHWHILE_SHARE {
            Some(format!("{} is whole source files", percent(bytes, all)))
        } else {
            obstacle()
        };
        PassthroughOutlook {
            files,
            bytes,
            obstacle,
        }
    }
}

/// Why this user on this machine has no passthrough, as far as can be told before the kernel is
/// asked.
pub(in crate::fuse) fn obstacle() -> Option<String> {
    let problem = if !FastPath::Passthrough.is_enabled() {
        "it is switched off by the environment"
    } else if !rustix::process::geteuid().is_root() {
        "it needs root (CAP_SYS_ADMIN)"
    } else if !is_since(rustix::system::uname().release(), (6, 9)) {
        "the kernel is older than Linux 6.9"
    } else {
        return None;
    };
    Some(problem.to_owned())
}

/// Whether a kernel's release, such as `6.12.9-amd64`, is at least `version`. One that cannot be
/// read counts as new: the kernel itself has the last word.
fn is_since(release: &CStr, version: (u32, u32)) -> bool {
    let release = release.to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= version,
        _ => true,
    }
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "it needs root (CAP_SYS_ADMIN)".to_owned(),
        Some(libc::ELOOP) => "they lie on a filesystem that is itself stacked".to_owned(),
        _ => error.to_string(),
    }
}

/// The file that the kernel can read instead of `content`.
pub(in crate::fuse) fn local_source(content: &Extents) -> Option<&LocalFile> {
    content.whole_file()?.as_local()
}

/// How many filesystems lie below this one, itself counted, if it passes `path` through.
fn depth_of(path: &Path) -> u32 {
    /// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    let statistics = path
        .ancestors()
        .find_map(|path| rustix::fs::statfs(path).ok());
    match statistics {
        Some(statistics) if statistics.f_type.cast_unsigned() == OVERLAYFS => 2,
        _ => 1,
    }
}

/// How many filesystems lie below this one, itself counted. The kernel allows 2, and whatever is
/// taken here is missing to an overlay that somebody lays over the view; so 2 only where needed.
fn stack_depth(view: &View) -> u32 {
    let on_overlay = |id: &EntryId| {
        let source = view.file(*id).and_then(local_source);
        source.is_some_and(|source| depth_of(source.path()) > 1)
    };
    match (0..view.len()).find(on_overlay) {
        Some(_) => 2,
        None => 1,
    }
}
