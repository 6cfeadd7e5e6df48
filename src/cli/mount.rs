//! `ckptfs mount`

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use ckptfs::error::{Code, Error};
use ckptfs::format;
use ckptfs::fuse::{Figures, LazyText, MountOptions, Mounted, PersistOpen, PersistOptions};
use ckptfs::json::{self, Details};
use ckptfs::materialize::{self, Persisting};
use ckptfs::named::Named;
use ckptfs::outputs::OutputCheck;
use ckptfs::provenance;
use ckptfs::read::{FactsCache, Reader};
use ckptfs::shown::Show;
use ckptfs::source::Enclosure;
use ckptfs::view::View;

use ckptfs::recipe::{Plan, ViewRequest, parse_size};

use crate::cli::allocator;
use crate::cli::args::{ViewArgs, parse_threads};
use crate::cli::background::{self, Process, Readiness};
use crate::cli::messages::{self, flag};
use crate::cli::purpose::Purpose;
use crate::cli::service::ServiceManager;
use crate::cli::status::bytes;
use crate::cli::{logging, plan, privileges, signals};

/// The heading of these flags.
const MOUNT: &str = "Mount";

/// Where and how to mount.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[arg(skip)]
    pub(crate) mountpoint: PathBuf,

    /// Allow a mountpoint that is not empty; the mount hides its content
    #[arg(long, help_heading = MOUNT)]
    nonempty: bool,

    /// Stay in the foreground and log to standard error
    #[arg(long, help_heading = MOUNT)]
    foreground: bool,

    /// Let other users read, as far as the file modes allow
    #[arg(long, help_heading = MOUNT)]
    allow_other: bool,

    /// With --allow-other: follow links that lead out of the sources
    #[arg(long, requires = "allow_other", help_heading = MOUNT)]
    follow_symlinks: bool,

    /// Memory for computed tensor data
    #[arg(long, help_heading = MOUNT, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    cache_size: u64,

    /// Keep facts about whole tensors (norms, merge thresholds) in DIR for the next mount; facts
    /// about changed sources are not used
    #[arg(long, help_heading = MOUNT, value_name = "DIR")]
    facts_cache: Option<PathBuf>,

    /// Threads that serve requests [default: number of CPUs, at least 2]
    #[arg(long, help_heading = MOUNT, value_name = "N", value_parser = parse_threads)]
    threads: Option<NonZeroUsize>,

    /// Serve unchanged files too, instead of letting the kernel read them from the sources; detects
    /// changes to a source while a file is open
    #[arg(long, help_heading = MOUNT)]
    no_passthrough: bool,

    /// Read-ahead for sequential readers; 0 leaves it to the kernel (128 KiB) [default: 4MiB, or
    /// 1MiB where a source is on another machine]
    #[arg(long, help_heading = MOUNT, value_name = "SIZE", value_parser = parse_size)]
    readahead: Option<u64>,

    /// Bypass the page cache of the mount: faster if each file is read once in large pieces
    /// (copies, uploads, streaming loaders), slower for small or repeated reads. Memory-mapped
    /// files are not affected. Needs Linux 6.6
    #[arg(long, help_heading = MOUNT)]
    direct_io: bool,

    /// Read source data that is not cached with O_DIRECT: faster from most disks, and it does not
    /// evict other files from the page cache; for sources that are read once
    #[arg(long, help_heading = MOUNT)]
    direct_sources: bool,

    /// Write the view to DIR in the background, and serve each file from there once it is complete.
    /// When all is written, DIR holds what `materialize` would write. If the mount ends before, the
    /// next one continues
    #[arg(long, help_heading = MOUNT, value_name = "DIR")]
    persist: Option<PathBuf>,

    /// Bytes per second that --persist writes at most
    #[arg(long, help_heading = MOUNT, value_name = "SIZE", value_parser = parse_rate, requires = "persist")]
    persist_rate: Option<NonZeroU64>,

    /// Let --persist begin where the files take more than the free space
    #[arg(long, help_heading = MOUNT, requires = "persist")]
    no_space_check: bool,

    /// Whether opening a file that is not yet complete waits for it, for a minute at most, to read it
    /// at native speed: "wait" or "pass". The first opening by a program never waits (it may only be
    /// after the header) unless the program has read tensors of other files
    #[arg(long, help_heading = MOUNT, value_name = "HOW", value_parser = parse_persist_open, default_value = "pass", requires = "persist")]
    persist_open: PersistOpen,

    /// Bring the files into the page cache in the background with N threads [default: number of CPUs],
    /// as far as there is memory; those first that somebody reads
    #[arg(long, help_heading = MOUNT, value_name = "N", num_args = 0..=1, require_equals = true, value_parser = parse_threads, conflicts_with_all = ["persist", "direct_io"])]
    prefetch: Option<Option<NonZeroUsize>>,

    /// Append the log to FILE
    #[arg(long, help_heading = MOUNT, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Unmount when process PID ends; its open files stay readable until they are closed
    #[arg(long, help_heading = MOUNT, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    end_with: Option<i32>,

    #[arg(skip)]
    pub(crate) manner: Manner,
}

/// Settings that only the mount helper has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// Do not print the summary of the plan.
    pub(crate) quiet: bool,
    /// What the mount table names as the source, instead of the base.
    pub(crate) source_name: Option<OsString>,
    /// Have no program of the mount be run.
    pub(crate) no_exec: bool,
}

/// Mounts a view. Unless in the foreground, it returns in this process as soon as the mount
/// answers, and in a background process once it was unmounted.
pub(crate) fn run(view: &ViewArgs, args: &MountArgs) -> anyhow::Result<()> {
    allocator::set_nothing_aside();
    let readiness = if args.foreground {
        None
    } else {
        match background::split()? {
            Process::Front => return answers(&args.mountpoint),
            Process::Background(readiness) => Some(readiness),
        }
    };
    let service = Arc::new(if args.foreground {
        ServiceManager::from_environment()
    } else {
        ServiceManager::none()
    });
    service.status("planning the view");
    let mounted = match plan_and_mount(view, args, readiness.as_ref(), &service) {
        Ok(mounted) => mounted,
        Err(error) => {
            service.status(&messages::said(&error));
            let Some(readiness) = readiness else {
                return Err(error);
            };
            // The process in front prints it.
            readiness.failed(&error);
            return Ok(());
        }
    };
    if let Some(readiness) = readiness {
        readiness.ready();
    }
    service.ready(&format!("serving {}", mounted.mountpoint().shown()));
    let result = mounted.wait();
    service.stopping("unmounted");
    match &result {
        Ok(()) => log::info!("unmounted"),
        Err(error) => log::error!("{}", error.logged(flag)),
    }
    Ok(result?)
}

fn plan_and_mount(
    view: &ViewArgs,
    args: &MountArgs,
    readiness: Option<&Readiness>,
    service: &Arc<ServiceManager>,
) -> anyhow::Result<Mounted> {
    let request = view.request_for(Purpose::Mount)?;
    let plan = Arc::new(request.plan()?);
    let log_file = outputs(&request, &plan, args)?;
    let process = args.end_with.map(process_to_end_with).transpose()?;
    let persisting = persisting(&request, &plan, args)?;
    if !args.manner.quiet {
        plan::print_summary(&plan)?;
    }
    if let Some(readiness) = readiness {
        readiness.leave_terminal()?;
    }
    match (log_file, args.foreground) {
        (Some(file), _) => logging::start(file),
        (None, true) => logging::start(std::io::stderr()),
        (None, false) => {}
    }
    // Signals are caught from here on, so that none can end the process between the mount and the
    // wait for its end and leave a dead mount behind.
    let signals = [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter();
    let signals = Signals::new(signals.filter(|signal| !signals::is_ignored(*signal)))?;
    let mut mounted = mount(&request, plan, args, persisting.as_ref())?;
    if let Some(persisting) = persisting {
        mounted.persist(persisting)?;
    }
    obey_signals(signals, &mounted, service.clone())?;
    if let Some(process) = process {
        end_with(process, &mounted)?;
    }
    if !args.foreground {
        // A background process must not keep the filesystem busy that it was started in.
        std::env::set_current_dir("/")?;
    }
    Ok(mounted)
}

/// Checks what the mount writes to, and opens the log file.
fn outputs(request: &ViewRequest, plan: &Plan, args: &MountArgs) -> anyhow::Result<Option<File>> {
    if args.log_file.is_none() && args.facts_cache.is_none() && args.persist.is_none() {
        return Ok(None);
    }
    ckptfs::fuse::check_answers(&args.mountpoint)?;
    let mut check =
        OutputCheck::new(&request.inputs(), &plan.view)?.with_mountpoint(&args.mountpoint);
    if let Some(directory) = &args.persist {
        check.check(directory)?;
        check = check.with_destination(directory);
    }
    if let Some(directory) = &args.facts_cache {
        check.check(directory)?;
    }
    let Some(path) = &args.log_file else {
        return Ok(None);
    };
    check.check(path)?;
    let opened = File::options().append(true).create(true).open(path);
    let opened = opened.map_err(|e| anyhow::Error::new(Error::io("open the log file", path, e)));
    opened.map(Some)
}

/// Takes the directory that the view is to be written to, and says what that needs.
fn persisting(
    request: &ViewRequest,
    plan: &Arc<Plan>,
    args: &MountArgs,
) -> anyhow::Result<Option<Persisting>> {
    let Some(directory) = &args.persist else {
        return Ok(None);
    };
    let options = materialize::Options {
        check_space: !args.no_space_check,
        direct_sources: args.direct_sources,
        // The job begins after this process has left its directory.
        facts_cache: args
            .facts_cache
            .as_ref()
            .map(std::path::absolute)
            .transpose()?,
        ..materialize::Options::default()
    };
    let inputs = request.inputs();
    let persisting = Persisting::begin(plan.clone(), &inputs, directory, options, &())?;
    if !args.manner.quiet {
        let left = persisting.bytes_left();
        let line = if persisting.is_finished() {
            format!("{} is complete, and is served", directory.shown())
        } else {
            format!(
                "{} are written to {} while the view is mounted",
                bytes(left),
                directory.shown()
            )
        };
        plan::to_stdout(&format!("persist: {line}\n"))?;
    }
    Ok(Some(persisting))
}

fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A number of bytes in a second.
fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = NonZeroU64::new(parse_size(text)?);
    rate.ok_or_else(|| "at this rate nothing would be written".to_owned())
}

fn parse_persist_open(text: &str) -> Result<PersistOpen, String> {
    PersistOpen::named(text).ok_or_else(|| format!("{text:?} is neither wait nor pass"))
}

/// Mounts the view of `request`, whose plan is `plan`.
fn mount(
    request: &ViewRequest,
    plan: Arc<Plan>,
    args: &MountArgs,
    persisting: Option<&Persisting>,
) -> anyhow::Result<Mounted> {
    privileges::drop_unneeded(persisting.is_some()).context("cannot give up privileges")?;
    let cache_size = usize::try_from(args.cache_size).unwrap_or(usize::MAX);
    let mut reader = Reader::new(plan.view.clone(), cache_size);
    if args.direct_sources {
        reader = reader.with_direct_sources();
    }
    if let Some(directory) = &args.facts_cache {
        reader = reader.with_facts_cache(FactsCache::new(std::path::absolute(directory)?)?);
    }
    let reader = Arc::new(reader);
    let directories = request.directories();
    let source_name = args.manner.source_name.clone();
    let options = MountOptions {
        allow_other: args.allow_other,
        threads: args.threads.map(NonZeroUsize::get),
        source_name: source_name.unwrap_or_else(|| request.base.as_path().into()),
        no_exec: args.manner.no_exec,
        plan: Some(plan_text(plan.clone(), directories.clone())),
        recipe: request.to_recipe().ok(),
        sources: request.sources(),
        nonempty: args.nonempty,
        passthrough: !args.no_passthrough,
        read_ahead: args
            .readahead
            .unwrap_or_else(|| MountOptions::default_read_ahead(&reader)),
        request: command_line(std::env::args_os().skip(1)),
        direct_io: args.direct_io,
        persist: persisting.map(|persisting| PersistOptions {
            directory: persisting.directory().to_owned(),
            open: args.persist_open,
            rate: args.persist_rate,
        }),
        prefetch: args
            .prefetch
            .map(|threads| threads.unwrap_or_else(processors)),
        provenance: Some(Arc::new(provenance::Files::new(plan.clone()))),
        spelling: flag,
    };
    if args.allow_other && !args.follow_symlinks {
        refuse_links_outside(reader.view(), &directories)?;
    }
    let mounted = ckptfs::fuse::mount(reader, &args.mountpoint, &options)?;
    log::info!(
        "mounted a view of {} on {}",
        options.source_name.shown(),
        mounted.mountpoint().shown()
    );
    Ok(mounted)
}

/// Refuses a view of `directories` that would show other users what lies outside of them.
fn refuse_links_outside(view: &View, directories: &[PathBuf]) -> anyhow::Result<()> {
    let enclosure = Enclosure::new(directories)?;
    let mut files = BTreeMap::new();
    view.for_each_source(&mut |blob| {
        files
            .entry(blob.location().clone())
            .or_insert_with(|| blob.clone());
    });
    for file in files.values().filter_map(|blob| blob.as_local()) {
        enclosure.check_file(file)?;
    }
    // What a view edits is not a source of it any more.
    for name in ["config.json"].into_iter().chain(format::index_files()) {
        for path in directories.iter().map(|source| source.join(name)) {
            if path.exists() {
                enclosure.check(&path)?;
            }
        }
    }
    Ok(())
}

/// Unmounts at the first signal to end, and serves open files until they are closed; ends at once at the second.
/// Logs the figures at SIGUSR1.
fn obey_signals(
    mut signals: Signals,
    mounted: &Mounted,
    service: Arc<ServiceManager>,
) -> std::io::Result<()> {
    let (detacher, figures) = (mounted.detacher(), mounted.figures());
    let obey = move || {
        let mut ending = false;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                log_figures(&figures);
                continue;
            }
            if ending {
                log::warn!(
                    "signal {signal}: ending, files that were open are lost to their readers"
                );
                std::process::exit(1);
            }
            ending = true;
            service.stopping("unmounting; files that are open are served until they are closed");
            log::info!(
                "signal {signal}: unmounting; files that are open stay readable until they are \
                 closed, or until another signal"
            );
            if let Err(error) = detacher.detach() {
                log::error!("{}", error.logged(flag));
            }
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(obey).map(drop)
}

/// The process whose end is waited for.
fn process_to_end_with(pid: i32) -> ckptfs::Result<OwnedFd> {
    let opened = Pid::from_raw(pid).ok_or(Errno::SRCH);
    let opened = opened.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    opened.map_err(|errno| {
        let path = format!("/proc/{pid}");
        Error::io("find the process to end with", path, errno.into())
    })
}

/// Unmounts when `process` ends; files that are open then are served until they are closed.
fn end_with(process: OwnedFd, mounted: &Mounted) -> std::io::Result<()> {
    let detacher = mounted.detacher();
    let wait = move || {
        let mut ended = libc::pollfd {
            fd: process.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: it is told of one descriptor, which is open until the closure ends.
        while unsafe { libc::poll(&raw mut ended, 1, -1) } < 1 {}
        log::info!("the process to end with has ended: unmounting");
        if let Err(error) = detacher.detach() {
            log::error!("{}", error.logged(flag));
        }
    };
    let thread = thread::Builder::new().name("end-with".to_owned());
    thread.spawn(wait).map(drop)
}

/// What `.ckptfs/plan.json` says: made only if somebody looks, as it takes longer than to mount.
fn plan_text(plan: Arc<Plan>, directories: Vec<PathBuf>) -> LazyText {
    let details = Details {
        directories,
        spelling: flag,
        ..Details::default()
    };
    LazyText::new(move || json::plan(&plan, &details).into_bytes().into())
}

/// In one line of JSON, the same as `.ckptfs/stats.json`.
fn log_figures(figures: &Figures) {
    match serde_json::to_string(&figures.snapshot()) {
        Ok(json) => log::info!("stats {json}"),
        Err(error) => log::error!("cannot log the figures: {error}"),
    }
}

/// `arguments` as one would type them.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let quoted = |argument: OsString| {
        let argument = argument.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.map(quoted).collect::<Vec<_>>().join(" ")
}

/// A last check from outside of the process that serves the mount.
fn answers(mountpoint: &Path) -> anyhow::Result<()> {
    match mountpoint.metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = format!("mounted, but it does not answer: {error}");
            Err(Error::of_file(Code::NotServing, mountpoint, problem).into())
        }
    }
}
