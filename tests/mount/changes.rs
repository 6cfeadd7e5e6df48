//! Sources that change under a mount: what was planned is given, or EIO.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use memmap2::{Advice, Mmap};
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::fixture::{Fixture, Kind, eventually};

const PAGE: u64 = 4096;
/// A shard of the base, and the shard of the views that is made of it.
const SOURCE: &str = "model-00001-of-00002.safetensors";
const SHARD: &str = "model-00001-of-00003.safetensors";

/// What is mounted, and how, in each test.
const MOUNTS: [(Kind, &[&str]); 6] = [
    (Kind::Patched, &["--no-passthrough"]),
    (Kind::Patched, &[]),
    (Kind::PatchedFp8, &[]),
    (Kind::PatchedFp8, &["--direct-io"]),
    (Kind::Patched, &["--no-passthrough", "--direct-sources"]),
    (Kind::PatchedFp8, &["--direct-sources"]),
];

/// A mount with a log, nothing of which was read yet.
struct Subject {
    fixture: Fixture,
    kind: Kind,
    expected: BTreeMap<PathBuf, Vec<u8>>,
    /// Of the shard, the first page of each tensor: one that is spliced or part of a whole file,
    /// and in an FP8 view one that is computed.
    pages: Vec<u64>,
}

impl Subject {
    fn new(kind: Kind, more: &[&str]) -> Self {
        Self::mounted(Fixture::new(), kind, more)
    }

    fn mounted(fixture: Fixture, kind: Kind, more: &[&str]) -> Self {
        let expected = fixture.expected(kind);
        let plan = fixture.plan(kind);
        let large = plan.shards[0].tensors.iter().filter(|t| t.len > 2 * PAGE);
        let pages: Vec<u64> = large.map(|t| t.offset.next_multiple_of(PAGE)).collect();
        assert!(pages.len() >= 2);
        let log = fixture.path("log");
        let log = ["--log-file", log.to_str().unwrap()];
        fixture.mount(kind, &[&log, more].concat());
        Subject {
            fixture,
            kind,
            expected,
            pages,
        }
    }

    fn source(&self) -> PathBuf {
        self.fixture.base.join(SOURCE)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.fixture.path("log")).unwrap()
    }

    fn expected(&self, name: &str) -> &[u8] {
        &self.expected[Path::new(name)]
    }

    /// Asserts that the shard gives its bytes, to read(2) and through a mapping.
    fn assert_given(&self) {
        let file = File::open(self.fixture.shard()).unwrap();
        let expected = self.expected(SHARD);
        for &page in &self.pages {
            let expected = &expected[page as usize..][..PAGE as usize];
            assert!(read(&file, page).unwrap() == expected, "at {page}");
            let mapping = map(&file).unwrap();
            assert!(&mapping[page as usize..][..PAGE as usize] == expected);
        }
    }

    /// Asserts that the shard gives EIO, to read(2) and through a mapping.
    fn assert_refused(&self) {
        match File::open(self.fixture.shard()) {
            // The kernel reads whole files by itself, so that they are checked when opened.
            Err(error) => {
                assert_eq!(self.kind, Kind::Patched);
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
            }
            Ok(file) => {
                for &page in &self.pages {
                    assert_eq!(errno(read(&file, page)), Some(libc::EIO), "at {page}");
                    assert_eq!(errno(populate(&file, page)), Some(libc::EFAULT));
                }
            }
        }
    }

    /// Asserts that everything that is not made of the shard can be read.
    fn assert_others_given(&self) {
        let others = self
            .expected
            .iter()
            .filter(|(path, _)| *path != Path::new(SHARD));
        for (path, bytes) in others {
            let read = fs::read(self.fixture.mountpoint.join(path)).unwrap();
            assert!(read == *bytes, "{}", path.display());
        }
    }

    /// Waits until the log has a line that holds all of `parts`; gives how many do.
    fn logged(&self, parts: &[&str]) -> usize {
        let count = || {
            let log = self.log();
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            log.lines().filter(has_all).count()
        };
        eventually(&format!("the log names {parts:?}"), || count() > 0);
        count()
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Reads a page of `file`, not from the page cache.
fn read(file: &File, page: u64) -> io::Result<Vec<u8>> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut bytes = vec![0xAA; PAGE as usize];
    file.read_exact_at(&mut bytes, page).map(|()| bytes)
}

fn map(file: &File) -> io::Result<Mmap> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    // SAFETY: nothing writes to a view; what a source's bytes are is looked at, not relied on.
    unsafe { Mmap::map(file) }
}

/// Has the kernel do what a read through a mapping would have it do: EFAULT stands for SIGBUS.
fn populate(file: &File, page: u64) -> io::Result<()> {
    map(file)?.advise_range(Advice::PopulateRead, page as usize, PAGE as usize)
}

fn append(path: &Path) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(b"more").unwrap();
}

fn flip_last_byte(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn set_len(path: &Path, len: impl FnOnce(u64) -> u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

/// A file of other content and the same length takes the place of `path`.
fn replace(path: &Path) {
    let other = path.with_extension("new");
    let len = path.metadata().unwrap().len();
    fs::write(&other, vec![b'?'; len as usize]).unwrap();
    fs::rename(other, path).unwrap();
}

type Change = fn(&Path);

#[test]
fn a_source_that_is_changed_in_place_gives_eio_and_the_log_says_what_changed() {
    let changes: [(&str, Change); 6] = [
        ("bytes and now has", |path| set_len(path, |len| len - 1)),
        ("bytes and now has 0", |path| set_len(path, |_| 0)),
        ("bytes and now has", append),
        ("it was written to", flip_last_byte),
        ("it was written to", |path| {
            let whole = path.metadata().unwrap().len();
            set_len(path, |len| len / 2);
            set_len(path, |_| whole);
        }),
        ("it was written to", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, vec![b'?'; bytes.len()]).unwrap();
        }),
    ];
    for (what, change) in changes {
        for (kind, more) in MOUNTS {
            let subject = Subject::new(kind, more);
            change(&subject.source());
            subject.assert_refused();
            subject.assert_others_given();
            subject.logged(&[SHARD, subject.source().to_str().unwrap(), what]);
        }
    }
}

#[test]
fn a_source_whose_name_is_lost_gives_what_was_planned_and_the_log_says_so_once() {
    let changes: [(&str, Change); 3] = [
        ("another file has taken its name", replace),
        ("no such file", |path| fs::remove_file(path).unwrap()),
        ("no such file", |path| {
            fs::rename(path, path.with_extension("away")).unwrap();
        }),
    ];
    for (what, change) in changes {
        for (kind, more) in MOUNTS {
            let subject = Subject::new(kind, more);
            change(&subject.source());
            for _ in 0..3 {
                subject.assert_given();
            }
            subject.assert_others_given();
            let parts = [subject.source().to_str().unwrap().to_owned(), what.into()];
            let parts = [&*parts[0], &parts[1], "its bytes are given"];
            assert_eq!(subject.logged(&parts), 1, "{}", subject.log());
        }
    }
}

#[test]
fn changes_that_concern_no_byte_of_a_source_go_unmentioned() {
    let changes: [Change; 3] = [
        |path| fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap(),
        |path| fs::hard_link(path, path.with_extension("link")).unwrap(),
        |path| std::os::unix::fs::chown(path, Some(1), Some(1)).unwrap(),
    ];
    for change in changes {
        for (kind, more) in MOUNTS {
            let subject = Subject::new(kind, more);
            change(&subject.source());
            subject.assert_given();
            subject.assert_others_given();
            let log = subject.log();
            assert!(!log.contains(SOURCE), "{log}");
        }
    }
}

#[test]
fn a_file_that_another_replaced_before_it_was_ever_opened_gives_eio() {
    for (kind, more) in MOUNTS {
        let subject = Subject::new(kind, more);
        let source = subject.fixture.base.join("README.md");
        replace(&source);
        let read = fs::read(subject.fixture.mountpoint.join("README.md"));
        assert_eq!(errno(read), Some(libc::EIO));
        let parts = [source.to_str().unwrap(), "another file has taken its name"];
        subject.logged(&parts);
        subject.assert_given();
    }
}

#[test]
fn a_fifo_in_the_place_of_a_file_that_was_never_opened_gives_eio_and_nobody_waits() {
    for (kind, more) in MOUNTS {
        let subject = Subject::new(kind, &[more, &["--threads", "1"]].concat());
        let source = subject.fixture.base.join("README.md");
        fs::remove_file(&source).unwrap();
        mknod_fifo(&source);
        let path = subject.fixture.mountpoint.join("README.md");
        let reader = thread::spawn(move || errno(fs::read(path)));
        eventually("the reader gets an answer", || reader.is_finished());
        assert_eq!(reader.join().unwrap(), Some(libc::EIO));
        subject.logged(&[source.to_str().unwrap(), "it is no longer a regular file"]);
        subject.assert_given();
    }
}

fn mknod_fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn what_the_kernel_has_of_a_view_stays_what_was_planned() {
    let subject = Subject::new(Kind::PatchedFp8, &[]);
    let bytes = fs::read(subject.fixture.shard()).unwrap();
    flip_last_byte(&subject.source());
    match fs::read(subject.fixture.shard()) {
        Ok(again) => assert!(again == bytes),
        // The kernel may have dropped pages meanwhile.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
    assert!(bytes == subject.expected(SHARD));
}

#[test]
fn a_reader_of_a_mapping_gets_sigbus_where_read_gets_eio() {
    let subject = Subject::new(Kind::PatchedFp8, &[]);
    flip_last_byte(&subject.source());
    let file = File::open(subject.fixture.shard()).unwrap();
    let mapping = map(&file).unwrap();
    let byte = &raw const mapping[subject.pages[0] as usize];
    // SAFETY: the child reads one byte and ends; it takes no lock that another thread may have.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            byte.read_volatile();
            libc::_exit(0);
        }
        child
    };
    let child = rustix::process::Pid::from_raw(child).unwrap();
    let options = rustix::process::WaitOptions::empty();
    let (_, status) = rustix::process::waitpid(Some(child), options)
        .unwrap()
        .unwrap();
    assert_eq!(status.terminating_signal(), Some(libc::SIGBUS));
    // Who asked for it is gone; the one who serves is not.
    subject.assert_others_given();
}

/// A filesystem in memory that holds the base.
pub(crate) struct InMemory(PathBuf);

impl InMemory {
    /// Of type tmpfs or ramfs.
    pub(crate) fn below(fixture: &Fixture, filesystem: &str) -> Self {
        let real = fixture.path("real");
        fs::rename(&fixture.base, &real).unwrap();
        fs::create_dir(&fixture.base).unwrap();
        let flags = MountFlags::empty();
        rustix::mount::mount("none", &fixture.base, filesystem, flags, None).unwrap();
        let copy = format!("cp -a '{}/.' '{}'", real.display(), fixture.base.display());
        let status = std::process::Command::new("sh")
            .args(["-c", &copy])
            .status();
        assert!(status.unwrap().success());
        InMemory(fixture.base.clone())
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // A test may have done it.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_filesystem_of_sources_that_becomes_read_only_goes_unmentioned() {
    for (kind, more) in MOUNTS {
        let fixture = Fixture::new();
        let tmpfs = InMemory::below(&fixture, "tmpfs");
        let subject = Subject::mounted(fixture, kind, more);
        rustix::mount::mount_remount(&tmpfs.0, MountFlags::RDONLY, "").unwrap();
        subject.assert_given();
        subject.assert_others_given();
        assert!(!subject.log().contains(SOURCE));
    }
}

#[test]
fn sources_whose_filesystem_is_detached_give_what_was_planned_if_they_were_ever_opened() {
    for (kind, more) in MOUNTS {
        let fixture = Fixture::new();
        let tmpfs = InMemory::below(&fixture, "tmpfs");
        let subject = Subject::mounted(fixture, kind, more);
        rustix::mount::unmount(&tmpfs.0, UnmountFlags::DETACH).unwrap();
        subject.assert_given();
        let never_opened = fs::read(subject.fixture.mountpoint.join("README.md"));
        assert_eq!(errno(never_opened), Some(libc::EIO));
        let path = subject.fixture.base.join("README.md");
        subject.logged(&[path.to_str().unwrap(), "no such file"]);
    }
}
