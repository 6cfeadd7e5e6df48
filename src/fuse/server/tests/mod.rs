//! Requests and their results, without a mount, `/dev/fuse` or root.

mod opening;
mod persisted;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use tempfile::TempDir;

use super::attributes::ROOT;
use super::*;
use crate::fuse::LazyText;
use crate::fuse::figures::About;
use crate::provenance::Files;
use crate::read::Reader;
use crate::recipe::{Plan, ViewRequest};

const SHARD: &str = "model.safetensors";
const WEIGHT: &str = "model.layers.0.mlp.up_proj.weight";
const UNKNOWN: Inode = 1000;

/// A checkpoint of one weight, with a file in a directory.
struct Fixture {
    base: TempDir,
    options: MountOptions,
    fp8: bool,
}

impl Fixture {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0u16..256 * 192).flat_map(u16::to_le_bytes).collect();
        let weight = TensorView::new(Dtype::U16, vec![256, 192], &bytes).unwrap();
        serialize_to_file([(WEIGHT, weight)], None, &base.path().join(SHARD)).unwrap();
        fs::write(base.path().join("config.json"), "{}").unwrap();
        fs::create_dir(base.path().join("deep")).unwrap();
        fs::write(base.path().join("deep/notes.txt"), "some text").unwrap();
        Fixture {
            base,
            options: MountOptions::default(),
            fp8: false,
        }
    }

    /// One whose weight is shown in FP8.
    fn fp8() -> Self {
        let fixture = Fixture::new();
        let ones = [0x80, 0x3f].repeat(256 * 192);
        let weight = TensorView::new(Dtype::BF16, vec![256, 192], &ones).unwrap();
        serialize_to_file([(WEIGHT, weight)], None, &fixture.shard()).unwrap();
        Fixture {
            fp8: true,
            ..fixture
        }
    }

    fn shard(&self) -> PathBuf {
        self.base.path().join(SHARD)
    }

    fn plan(&self) -> Plan {
        let request = ViewRequest::new(self.base.path());
        let request = request
            .with(|asked| asked.quantize.rules = self.fp8.then_some(crate::ops::RuleSet::Exact));
        request.plan().unwrap()
    }

    fn server(&self) -> Server<PathBuf> {
        let about = About {
            mountpoint: PathBuf::new(),
            request: String::new(),
            sources: vec![self.base.path().into()],
        };
        let reader = Arc::new(Reader::new(self.plan().view, 1 << 20));
        let figures = Figures::new(reader, about).persisting(&self.options);
        let figures = Arc::new(figures);
        Server::new(figures, &self.options, None, Ahead::Tiles)
    }
}

impl Server<PathBuf> {
    fn at(&self, path: &str) -> Stat {
        let names = Path::new(path).iter();
        let root = self.getattr(ROOT).unwrap().stat;
        names.fold(root, |parent, name| {
            self.lookup(parent.inode, name).unwrap().unwrap().stat
        })
    }

    fn read_bytes(&self, inode: Inode, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let mut sent = None;
        let send = |bytes: &[u8]| sent = Some(bytes.to_vec());
        self.read(inode, Handle::CACHED, offset, size, OFlags::empty(), send)?;
        Ok(sent.unwrap())
    }

    fn open_cached(&self, inode: Inode, flags: OFlags) -> Answer<Opened<PathBuf>> {
        self.open(inode, flags, |_| {
            panic!("no source is handed to the kernel")
        })
    }

    /// Names in a directory from position `from`, `room` at most, and the position after them.
    fn list(&self, directory: Inode, from: u64, room: usize) -> Answer<(Vec<String>, u64)> {
        let (mut names, mut after) = (Vec::new(), from);
        self.readdir(directory, from, |next, named| {
            let full = names.len() == room;
            if !full {
                names.push(named.name.to_str().unwrap().to_owned());
                after = next;
            }
            full
        })?;
        Ok((names, after))
    }

    fn list_plus(&self, directory: Inode, room: usize) -> Vec<(String, Found)> {
        let mut all = Vec::new();
        let added = self.readdirplus(directory, 0, |_, name, found| {
            let full = all.len() == room;
            if !full {
                all.push((name.to_str().unwrap().to_owned(), *found));
            }
            full
        });
        added.unwrap();
        all
    }

    fn errors(&self) -> u64 {
        self.figures.snapshot().requests.errors
    }
}

#[test]
fn lookup_finds_what_is_there_and_nothing_else() {
    let server = Fixture::new().server();
    let root = server.getattr(ROOT).unwrap();
    for name in ["config.json", "deep", SHARD] {
        let found = server.lookup(ROOT, name.as_ref()).unwrap().unwrap();
        assert_eq!(server.getattr(found.stat.inode), Ok(found), "{name}");
        assert_eq!(found.ttl, TTL, "{name}");
        assert_ne!(found, root, "{name}");
    }
    assert_eq!(server.at("deep/notes.txt").size, 9);
    let config = server.at("config.json").inode;
    for (parent, name) in [
        (ROOT, "notes.txt"),
        (ROOT, ""),
        (ROOT, "."),
        (config, "config.json"),
        (UNKNOWN, "config.json"),
        (0, "config.json"),
    ] {
        assert_eq!(server.lookup(parent, name.as_ref()), Ok(None), "{name}");
    }
}

#[test]
fn attributes_are_those_of_the_sources_and_nothing_can_be_written() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    let server = fixture.server();
    for (path, kind, links) in [
        (SHARD, Kind::File, 1),
        ("deep", Kind::Directory, 2),
        ("deep/notes.txt", Kind::File, 1),
        ("", Kind::Directory, 3),
    ] {
        let stat = server.at(path);
        let source = fixture.base.path().join(path).metadata().unwrap();
        assert_eq!((stat.kind, stat.links), (kind, links), "{path}");
        assert_eq!((stat.uid, stat.gid), (source.uid(), source.gid()), "{path}");
        assert_eq!(stat.time, source.modified().unwrap(), "{path}");
        let readable = source.mode() as u16 & 0o7777 & !0o222;
        assert_eq!(stat.mode, readable, "{path}");
        let size = if source.is_dir() { 0 } else { source.len() };
        assert_eq!(stat.size, size, "{path}");
        let access = |mask| server.access(stat.inode, mask);
        assert_eq!(access(Access::READ_OK), Ok(()));
        assert_eq!(access(Access::READ_OK | Access::WRITE_OK), Err(Errno::ROFS));
        let run = match kind {
            Kind::File => Err(Errno::ACCESS),
            Kind::Directory => Ok(()),
        };
        assert_eq!(access(Access::EXEC_OK), run, "{path}");
    }
    // Two directories, and three files beside the index that every view has.
    assert_eq!(server.entries(), 6);
}

#[test]
fn inodes_that_are_none_are_errors() {
    let mut fixture = Fixture::new();
    fixture.options.provenance = Some(Files::new(Arc::new(fixture.plan())).into());
    let server = fixture.server();
    for inode in [0, UNKNOWN, own_files::PLAN_INODE, Inode::MAX] {
        let open = server.open_cached(inode, OFlags::RDONLY);
        assert_eq!(server.getattr(inode), Err(Errno::NOENT));
        assert_eq!(server.access(inode, Access::EXISTS), Err(Errno::NOENT));
        assert_eq!(open.unwrap_err(), Errno::NOENT);
        assert_eq!(server.opendir(inode), Err(Errno::NOENT));
        assert!(server.list(inode, 0, 1).is_err());
        assert!(server.read_bytes(inode, 0, 1).is_err());
        let value = server.getxattr(inode, PROVENANCE_ATTRIBUTE.as_ref(), 0);
        assert_eq!(value, Err(Errno::NODATA));
        server.forget(inode);
        server.release(inode, Handle::OWN);
    }
    let (file, directory) = (server.at(SHARD).inode, server.at("deep").inode);
    let open = server.open_cached(directory, OFlags::RDONLY);
    assert_eq!(open.unwrap_err(), Errno::ISDIR);
    assert_eq!(server.opendir(file), Err(Errno::NOTDIR));
    assert_eq!(server.list(file, 0, 1), Err(Errno::NOTDIR));
    assert_eq!(server.read_bytes(directory, 0, 1), Err(Errno::INVAL));
}

#[test]
fn a_directory_is_listed_from_any_position_in_pieces_of_any_length() {
    let server = Fixture::new().server();
    let index = "model.safetensors.index.json";
    let expected = [".", "..", "config.json", "deep", SHARD, index];
    for from in 0..8 {
        let rest = &expected[expected.len().min(from)..];
        let listed = server.list(ROOT, from as u64, 100).unwrap().0;
        assert_eq!(listed, rest, "from {from}");
    }
    assert_eq!(server.list(ROOT, u64::MAX, 100).unwrap().0, [""; 0]);
    for room in 1..7 {
        let (mut all, mut position) = (Vec::new(), 0);
        loop {
            let (names, next) = server.list(ROOT, position, room).unwrap();
            if names.is_empty() {
                break;
            }
            (all, position) = ([all, names].concat(), next);
        }
        assert_eq!(all, expected, "{room} at a time");
    }
    let deep = server.at("deep").inode;
    let parents = [(".", deep), ("..", ROOT)];
    server
        .readdir(deep, 0, |next, named| {
            let at = next as usize - 1;
            if let Some((name, inode)) = parents.get(at) {
                assert_eq!((named.name.to_str(), named.inode), (Some(*name), *inode));
            }
            false
        })
        .unwrap();
    for (name, found) in server.list_plus(ROOT, 100).split_off(2) {
        assert_eq!(found.stat, server.at(&name));
    }
}

#[test]
fn reads_end_where_the_file_does() {
    for fixture in [Fixture::new(), Fixture::fp8()] {
        let server = fixture.server();
        let Stat { inode, size, .. } = server.at(SHARD);
        let whole = server.read_bytes(inode, 0, u32::MAX).unwrap();
        assert_eq!(whole.len() as u64, size);
        if !fixture.fp8 {
            assert!(whole == fs::read(fixture.shard()).unwrap());
        }
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap());
        for edge in [0, header, header + 128 * 192, size] {
            for offset in edge.saturating_sub(3)..edge + 3 {
                for length in [0, 1, 3, 6, 5000] {
                    let from = offset.min(size) as usize;
                    let to = (offset + length).min(size) as usize;
                    let read = server.read_bytes(inode, offset, length as u32).unwrap();
                    assert!(read == whole[from..to], "{length} bytes from {offset}");
                }
            }
        }
        for offset in [size + 1, 1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(server.read_bytes(inode, offset, 10), Ok(vec![]), "{offset}");
        }
        assert_eq!(server.errors(), 0);
    }
}

#[test]
fn a_source_that_changes_gives_eio_and_is_counted() {
    for fixture in [Fixture::new(), Fixture::fp8()] {
        let server = fixture.server();
        let shard = server.at(SHARD).inode;
        server.read_bytes(shard, 0, 100).unwrap();
        let file = File::options().write(true).open(fixture.shard()).unwrap();
        file.set_len(fixture.shard().metadata().unwrap().len() - 1)
            .unwrap();
        let size = server.at(SHARD).size as u32;
        assert_eq!(server.read_bytes(shard, 0, size), Err(Errno::IO));
        assert_eq!(server.errors(), 1);
        let config = server.at("config.json").inode;
        assert!(server.read_bytes(config, 0, 100).is_ok());
    }
}

#[test]
fn a_panic_is_eio_and_the_next_request_is_answered() {
    let server = Fixture::new().server();
    let answer: Answer<()> = server.guard(ROOT, || panic!("a bug"));
    assert_eq!(answer, Err(Errno::IO));
    assert_eq!(server.errors(), 1);
    assert!(server.getattr(ROOT).is_ok());
}

#[test]
fn an_attribute_has_a_size_and_needs_room() {
    let mut fixture = Fixture::new();
    fixture.options.provenance = Some(Files::new(Arc::new(fixture.plan())).into());
    let server = fixture.server();
    let shard = server.at(SHARD).inode;
    let get = |inode, size| server.getxattr(inode, PROVENANCE_ATTRIBUTE.as_ref(), size);
    let Ok(Xattr::Size(size)) = get(shard, 0) else {
        panic!("its size was asked for");
    };
    assert_eq!(get(shard, size - 1), Err(Errno::RANGE));
    for room in [size, size + 1] {
        let Ok(Xattr::Value(value)) = get(shard, room) else {
            panic!("there is room for it");
        };
        assert_eq!(value.len(), size as usize);
    }
    assert_eq!(get(ROOT, 0), Err(Errno::NODATA));
    let other = server.getxattr(shard, "user.other".as_ref(), 0);
    assert_eq!(other, Err(Errno::OPNOTSUPP));
    let without = Fixture::new().server();
    let value = without.getxattr(shard, PROVENANCE_ATTRIBUTE.as_ref(), 0);
    assert_eq!(value, Err(Errno::NOSYS));
}

#[test]
fn the_mounts_own_files_are_found_by_name_and_each_lookup_of_figures_is_a_file() {
    let mut fixture = Fixture::new();
    fixture.options.plan = Some(LazyText::new(|| b"the plan".as_slice().into()));
    fixture.options.recipe = Some("base: a\n".to_owned());
    let server = fixture.server();
    let directory = server.at(".ckptfs").inode;
    let recipe = server.at(".ckptfs/recipe.yml");
    assert_eq!(
        server.read_bytes(recipe.inode, 0, 100).unwrap(),
        b"base: a\n"
    );
    let plan = server.at(".ckptfs/plan.json");
    assert_eq!(server.read_bytes(plan.inode, 4, 100).unwrap(), b"plan");
    assert_eq!(server.read_bytes(plan.inode, u64::MAX, 1), Ok(vec![]));
    let opened = server.open_cached(plan.inode, OFlags::RDONLY).unwrap();
    assert_eq!(opened.handle(), Handle::OWN);

    let find = || server.lookup(directory, STATS.as_ref()).unwrap().unwrap();
    let (first, second) = (find(), find());
    assert_ne!(first.stat.inode, second.stat.inode);
    assert_eq!((first.ttl, first.stat.links), (Duration::ZERO, 0));
    let inode = first.stat.inode;
    let text = server.read_bytes(inode, 0, u32::MAX).unwrap();
    assert_eq!(text.len() as u64, first.stat.size);
    serde_json::from_slice::<serde_json::Value>(&text).unwrap();
    server.forget(inode);
    assert_eq!(server.read_bytes(inode, 0, 1), Err(Errno::NOENT));
    assert!(server.read_bytes(second.stat.inode, 0, 1).is_ok());

    let names = server.list(directory, 0, 10).unwrap().0;
    assert_eq!(names, [".", "..", "plan.json", "recipe.yml", "stats.json"]);
    assert!(
        !server
            .list(ROOT, 0, 100)
            .unwrap()
            .0
            .contains(&".ckptfs".to_owned())
    );
    // What had no room is not known to the kernel.
    for (room, is_known) in [(4, false), (5, true)] {
        let listed = server.list_plus(directory, room);
        assert_eq!(listed.len(), room);
        let next = find().stat.inode - 1;
        assert_eq!(server.getattr(next).is_ok(), is_known);
    }
}
