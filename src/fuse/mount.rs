//! Mounting a view and serving it until it is unmounted.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use rustix::mount::MountFlags;

use crate::error::setting::THREADS;
use crate::error::{Code, Error, Hint, Result};
use crate::fuse::condition::session_name;
use crate::fuse::figures::{About, Figures};
use crate::fuse::filesystem::ViewFs;
use crate::fuse::mount_table::{self, FILESYSTEM_TYPE, MountEntry};
use crate::fuse::options::MountOptions;
use crate::fuse::persist::Running;
use crate::fuse::prefetch::{MountPages, Prefetching};
use crate::fuse::resolve::resolve;
use crate::fuse::server::Server;
use crate::fuse::waiting::Waiting;
use crate::fuse::{fusermount, mountpoint, read_ahead, rehearsal, unmount};
use crate::jobs::{self, MAX_THREADS};
use crate::materialize::Persisting;
use crate::read::{Ahead, Reader};
use crate::source::with_room;

pub(super) const DEVICE: &str = "/dev/fuse";

/// A mounted view. Dropping it detaches the mount, and whatever is still open stays readable.
#[derive(Debug)]
#[must_use]
pub struct Mounted {
    detacher: Detacher,
    figures: Arc<Figures>,
    session: Option<JoinHandle<io::Result<()>>>,
    /// What tells the kernel, for the job that writes the view to a directory.
    notifier: Option<Notifier>,
    /// What writes the view to a directory, once it was started.
    persist: Option<Running>,
    /// What brings the view into the page cache.
    prefetch: Option<Prefetching>,
}

/// Ends a mount from another thread.
#[derive(Debug, Clone)]
pub struct Detacher {
    entry: MountEntry,
    unique_id: Option<u64>,
}

/// Mounts what `reader` reads on the directory `mountpoint`. The mount answers when this returns;
/// it is served by threads of this process.
///
/// # Errors
/// If `mountpoint` is missing, not an empty directory, already a mount of ours, or overlaps with a
/// source; if FUSE is missing or this user may not use it; if there are no threads or no memory to
/// serve it with. A mount of ours whose process is dead is no error: it is cleared.
pub fn mount(reader: Arc<Reader>, mountpoint: &Path, options: &MountOptions) -> Result<Mounted> {
    let path = resolve(mountpoint)?;
    mountpoint::check(&path, reader.view(), options)?;
    let threads = threads(options);
    // Beside those that answer, some work ahead, one finds facts ahead, and two wait for signals
    // and for the end.
    let ahead = threads_ahead(&reader, threads);
    let persist = options.persist.as_ref().map_or(0, |_| jobs::processors());
    let prefetch = options.prefetch.map_or(0, NonZeroUsize::get);
    rehearsal::threads(threads, ahead + persist + prefetch + 3).map_err(|e| {
        let error = Error::io(format!("start the {threads} threads to serve"), &path, e);
        error.with_hint(Hint::give(THREADS).to("start fewer"))
    })?;
    let device = attach(&path, options)?;
    let Some(entry) = mount_table::at(&path)?.filter(MountEntry::is_ours) else {
        let problem = "the mount is not in the mount table";
        return Err(Error::of_file(Code::NotServing, &path, problem));
    };
    let detacher = Detacher {
        unique_id: mount_table::unique_id(&path),
        entry: entry.clone(),
    };
    let about = About {
        mountpoint: path.clone(),
        request: options.request.clone(),
        sources: options.sources.clone(),
    };
    let figures = Figures::new(reader, about);
    let figures = figures.persisting(options).prefetching(options);
    let figures = Arc::new(figures);
    match start(figures.clone(), device, detacher.clone(), options, threads) {
        Ok((session, notifier)) => {
            let mut mounted = Mounted {
                detacher,
                figures,
                session: Some(session),
                notifier: options.persist.is_some().then(|| notifier.clone()),
                persist: None,
                prefetch: None,
            };
            mounted.prefetch(options, notifier)?;
            Ok(mounted)
        }
        Err(e) => {
            unmount::detach(&entry)?;
            Err(Error::io("start serving", &path, e))
        }
    }
}

impl Mounted {
    /// The directory on which the view is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.detacher.entry.mountpoint
    }

    /// Has a job write the view to the directory of [`MountOptions::persist`], which `persisting` is
    /// for, until it is complete or the mount ends. A directory that is complete is served from when
    /// this returns.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn persist(&mut self, persisting: Persisting) -> Result<()> {
        let Some((job, notifier)) = self.figures.persist.clone().zip(self.notifier.take()) else {
            return Ok(());
        };
        let drop_pages = move |inode| {
            // The kernel may not know the file any more.
            let _ = notifier.inval_inode(INodeNo(inode), 0, 0);
        };
        let running = Running::start(job, persisting, drop_pages);
        let running = running.map_err(|e| Error::io("start to write", self.mountpoint(), e))?;
        self.persist = Some(running);
        Ok(())
    }

    /// Has threads bring the view into the page cache, if `options` say so.
    fn prefetch(&mut self, options: &MountOptions, notifier: Notifier) -> Result<()> {
        let Some((prefetch, threads)) = self.figures.prefetch.clone().zip(options.prefetch) else {
            return Ok(());
        };
        let pages = MountPages::new(self.mountpoint(), notifier);
        let started = Prefetching::start(prefetch, threads, pages);
        let started = started.map_err(|e| Error::io("start to prefetch", self.mountpoint(), e))?;
        self.prefetch = Some(started);
        Ok(())
    }

    /// A handle to end the mount while another thread waits for its end.
    pub fn detacher(&self) -> Detacher {
        self.detacher.clone()
    }

    /// What was counted of the mount.
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// Serves until somebody unmounts the view and everything that was open is closed.
    pub fn wait(mut self) -> Result<()> {
        self.join()
    }

    /// Takes the view out of the tree, then serves until everything that was open is closed.
    pub fn unmount(mut self) -> Result<()> {
        self.detacher.detach()?;
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        // Stopped at the end, with whatever else is returned.
        let _jobs = (self.persist.take(), self.prefetch.take());
        let result = session
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the serving thread panicked")));
        result.map_err(|e| Error::io("serve", self.mountpoint(), e))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.session.is_some()
            && let Err(e) = self.detacher.detach()
        {
            log::error!("{e:#}");
        }
    }
}

impl Detacher {
    /// Takes the mount out of the tree, wherever it was moved to. Files that are open stay
    /// readable until they are closed; then the session ends. Does nothing if it is gone already.
    pub fn detach(&self) -> Result<()> {
        let is_this = |entry: &MountEntry| {
            (entry.id, &entry.device) == (self.entry.id, &self.entry.device) && entry.is_ours()
        };
        let Some(entry) = mount_table::entries()?.into_iter().find(is_this) else {
            return Ok(());
        };
        let path = &entry.mountpoint;
        if mount_table::at(path)?.as_ref() != Some(&entry) {
            let problem = "another filesystem is mounted over this view";
            let error = Error::of_file(Code::InUse, path, problem);
            return Err(error.with_hint("unmount that first"));
        }
        if mount_table::unique_id(path) != self.unique_id {
            // Ours was unmounted, and a later mount has its numbers.
            return Ok(());
        }
        unmount::detach(&entry)
    }
}

/// Puts a filesystem at `path`; gives the FUSE device over which the kernel will ask for it.
fn attach(path: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let device = open_device()?;
    let mode = path
        .metadata()
        .map_err(|e| Error::io("read the attributes", path, e))?
        .mode();
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={user},group_id={group}",
        device.as_raw_fd()
    );
    data += access_options(options);
    let data = CString::new(data).expect("numbers and names hold no NUL");
    let mut flags =
        MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    flags.set(MountFlags::NOEXEC, options.no_exec);
    let name = source_name(options);
    match rustix::mount::mount(&*name, path, FILESYSTEM_TYPE, flags, &*data) {
        Ok(()) => Ok(device.into()),
        Err(rustix::io::Errno::PERM) => {
            drop(device);
            fusermount::mount(path, &helper_options(&name, options))
        }
        Err(rustix::io::Errno::NODEV) => {
            let error = Error::new(Code::NoFuse, "this kernel has no FUSE");
            Err(error.with_hint("load its module: modprobe fuse"))
        }
        Err(e) => Err(Error::io("mount", path, e.into())),
    }
}

/// Opens the FUSE device.
///
/// # Errors
/// If it is missing, or not for this user.
pub(super) fn open_device() -> Result<File> {
    let device = with_room(|| File::options().read(true).write(true).open(DEVICE));
    device.map_err(|e| {
        let error = |problem: String| Error::of_file(Code::NoFuse, DEVICE, problem);
        match e.kind() {
            io::ErrorKind::NotFound => error("it is missing".to_owned())
                .with_hint(format!(
                    "load the kernel's FUSE module (modprobe fuse), or in a container, run it with --device {DEVICE} --cap-add SYS_ADMIN"
                )),
            io::ErrorKind::PermissionDenied => error(format!("this user cannot open it ({e})")).with_hint(format!(
                "have root allow it (chmod 666 {DEVICE}, or the group that owns it), or in a container, run it with --device {DEVICE}"
            )),
            _ => error(format!("it cannot be opened: {e}")),
        }
    })
}

/// With `allow_other`, the kernel holds every user to the modes of the files. Without, the only
/// user is the one who reads the sources, and they have had their say already (an access control
/// list may have let that user in where the mode alone would not).
fn access_options(options: &MountOptions) -> &'static str {
    if options.allow_other {
        ",allow_other,default_permissions"
    } else {
        ""
    }
}

fn source_name(options: &MountOptions) -> OsString {
    if options.source_name.is_empty() {
        "ckptfs".into()
    } else {
        options.source_name.clone()
    }
}

/// The helper's options: `,` and `\` of a name are escaped.
fn helper_options(name: &OsStr, options: &MountOptions) -> OsString {
    let mut text = b"ro,nodev,nosuid,noatime,subtype=ckptfs,fsname=".to_vec();
    for &byte in name.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.extend_from_slice(access_options(options).as_bytes());
    if options.no_exec {
        text.extend_from_slice(b",noexec");
    }
    OsString::from_vec(text)
}

/// The number of threads that answer requests.
fn threads(options: &MountOptions) -> usize {
    let cores = || thread::available_parallelism().map_or(2, |count| count.get().max(2));
    options.threads.unwrap_or_else(cores).min(MAX_THREADS)
}

/// The number of those that work ahead of readers, beside `threads` that answer.
fn threads_ahead(reader: &Reader, threads: usize) -> usize {
    /// While some wait for a disk that nobody reads ahead, others compute.
    const LEAST_WITH_DIRECT_SOURCES: usize = 8;
    if reader.has_direct_sources() {
        threads.max(LEAST_WITH_DIRECT_SOURCES)
    } else {
        threads
    }
}

/// Starts the threads that serve the mount.
fn start(
    figures: Arc<Figures>,
    device: OwnedFd,
    detacher: Detacher,
    options: &MountOptions,
    threads: usize,
) -> io::Result<(JoinHandle<io::Result<()>>, Notifier)> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = can_clone(&device);
    let acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let bdi = &detacher.entry.device;
    let kernel_setting = read_ahead::by_kernel(bdi, options.read_ahead);
    let ahead_of_cache = match kernel_setting {
        // Its many requests at once keep all processors busy, unless these wait for a disk.
        Some(_) => Ahead::SlowTiles,
        None => Ahead::Tiles,
    };
    let ahead = threads_ahead(&figures.reader, threads);
    let ahead = read_ahead::here(&figures.reader, options.read_ahead, ahead)?;
    // The session gets a bare device: whoever mounts with it also has it unmount at its end, by
    // path, which could hit another filesystem that is mounted there by then.
    let server = Server::new(figures, options, ahead, ahead_of_cache);
    let session = Session::from_fd(
        ViewFs(Arc::new(server), Waiting::default()),
        device,
        acl,
        config,
    )?;
    if let Some(setting) = kernel_setting {
        setting.apply();
    }
    let notifier = session.notifier();
    let thread = thread::Builder::new()
        .name(session_name(&detacher.entry.device))
        .spawn(move || {
            let result = session.run().or_else(ended_by_unmounting);
            if result.is_err() {
                // A session that fails leaves its mount behind, dead. One that ends well has been
                // unmounted, and what is at the mountpoint now is another's.
                detacher.detach().map_err(io::Error::other)?;
            }
            result
        })?;
    Ok((thread, notifier))
}

/// `error` with which a session ended, unless it says that the view was unmounted: the kernel says
/// `ECONNABORTED` instead of `ENODEV` to a thread that is just taking a request then, such as that a
/// file was closed whose closing ended the mount.
fn ended_by_unmounting(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ECONNABORTED) => Ok(()),
        _ => Err(error),
    }
}

/// Whether each thread can have a device of its own, which spares them a common queue. Some
/// containers forbid it.
fn can_clone(device: &OwnedFd) -> bool {
    /// `_IOR(229, 0, uint32_t)` of linux/fuse.h.
    const FUSE_DEV_IOC_CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);
    let Ok(probe) = File::options().read(true).write(true).open(DEVICE) else {
        return false;
    };
    let mut source = device.as_raw_fd().cast_unsigned();
    // SAFETY: this request reads the number of a descriptor from a u32, as linux/fuse.h says.
    let cloned = unsafe {
        let request = rustix::ioctl::Updater::<FUSE_DEV_IOC_CLONE, u32>::new(&mut source);
        rustix::ioctl::ioctl(&probe, request)
    };
    cloned.is_ok()
}
