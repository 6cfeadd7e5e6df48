//! Ways in which files are opened, by kernels of different capabilities.

use super::*;
use crate::fast_paths::FastPath;

#[test]
fn files_are_opened_to_be_read_alone() {
    let server = Fixture::new().server();
    let shard = server.at(SHARD).inode;
    let flags = [
        OFlags::WRONLY,
        OFlags::RDWR,
        OFlags::TRUNC,
        OFlags::RDWR | OFlags::DIRECT,
    ];
    for flags in flags {
        let open = server.open_cached(shard, flags);
        assert_eq!(open.unwrap_err(), Errno::ROFS, "{flags:?}");
    }
    let opened = server.open_cached(shard, OFlags::NONBLOCK).unwrap();
    assert_eq!(opened.handle(), Handle::CACHED);
    let handles = || server.figures.snapshot().requests.open_handles;
    assert_eq!(handles(), Some(1));
    server.release(shard, Handle::CACHED);
    assert_eq!(handles(), Some(0));
}

/// A kernel with these capabilities.
struct TestKernel(Vec<Capability>);

impl Kernel for TestKernel {
    fn offers(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    fn enable(&mut self, capability: Capability) -> bool {
        self.offers(capability)
    }

    fn set_stack_depth(&mut self, depth: u32) -> bool {
        depth <= 2
    }
}

#[test]
fn direct_io_needs_mappings_and_leaves_o_direct_to_the_program() {
    let mut fixture = Fixture::new();
    fixture.options.direct_io = true;
    let refused = fixture.server().negotiate(&mut TestKernel(vec![]));
    assert!(refused.unwrap_err().to_string().contains("direct I/O"));
    let mut server = fixture.server();
    let mut kernel = TestKernel(vec![Capability::DirectMappings, Capability::SilentOpen]);
    server.negotiate(&mut kernel).unwrap();
    let shard = server.at(SHARD).inode;
    for (flags, is_forced) in [(OFlags::RDONLY, true), (OFlags::DIRECT, false)] {
        let opened = server.open_cached(shard, flags).unwrap();
        assert!(matches!(opened, Opened::Direct { forced } if forced == is_forced));
        assert_eq!(opened.handle(), Handle::DIRECT);
    }
}

#[test]
fn a_kernel_that_can_opens_by_itself() {
    let silent = [Capability::SilentOpen, Capability::SilentOpendir];
    let mut server = Fixture::new().server();
    server.negotiate(&mut TestKernel(silent.into())).unwrap();
    let shard = server.at(SHARD).inode;
    let opened = server.open_cached(shard, OFlags::RDONLY);
    let opendir = server.opendir(ROOT);
    if FastPath::SilentOpen.is_enabled() {
        assert_eq!(opened.unwrap_err(), Errno::NOSYS);
        assert_eq!(opendir, Err(Errno::NOSYS));
    } else {
        assert_eq!(opened.unwrap().handle(), Handle::CACHED);
        assert_eq!(opendir, Ok(Handle::CACHED));
    }
    let mut asking = Fixture::new().server();
    asking.negotiate(&mut TestKernel(vec![])).unwrap();
    assert!(asking.open_cached(shard, OFlags::RDONLY).is_ok());
    assert_eq!(asking.opendir(ROOT), Ok(Handle::CACHED));
}

#[test]
fn handles_of_a_whole_source_file_share_what_the_kernel_reads() {
    if let Some(obstacle) = obstacle() {
        println!("passthrough was not tested: {obstacle}");
        return;
    }
    let mut fixture = Fixture::new();
    fixture.options.passthrough = true;
    let mut server = fixture.server();
    let offered = [Capability::Passthrough, Capability::SilentOpen];
    server.negotiate(&mut TestKernel(offered.into())).unwrap();
    let shard = server.at(SHARD).inode;
    let open = |backing: &str| {
        let opened = server.open(shard, OFlags::RDONLY, |_| Ok(backing.into()));
        match opened.unwrap() {
            Opened::Passthrough(backing) => backing.to_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([open("first"), open("second")], ["first", "first"]);
    server.release(shard, Handle::PASSTHROUGH);
    assert_eq!(open("third"), "first");
    server.release(shard, Handle::PASSTHROUGH);
    server.release(shard, Handle::PASSTHROUGH);
    assert_eq!(open("fourth"), "fourth");

    // A file that is open stays as it is; others are opened in another way once the kernel refuses.
    let notes = server.at("deep/notes.txt").inode;
    let refuse = |_: &File| Err(io::Error::from_raw_os_error(libc::EPERM));
    let opened = server.open(notes, OFlags::RDONLY, refuse).unwrap();
    assert_eq!(opened.handle(), Handle::CACHED);
    assert_eq!(open("fifth"), "fourth");

    fs::write(fixture.shard(), "another file").unwrap();
    let changed = server.open(shard, OFlags::RDONLY, |_| Ok(PathBuf::new()));
    assert_eq!(changed.unwrap_err(), Errno::IO);
}
