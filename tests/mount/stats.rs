//! What a mount tells of itself: figures that fit what was read, in files that no copy picks up.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use ckptfs::fast_paths::FastPath;
use ckptfs::stats::Snapshot;
use memmap2::Mmap;
use rustix::process::Signal;
use safetensors::{Dtype, SafeTensors};

use crate::fixture::{Fixture, Kind, assert_same, ckptfs, eventually, read_tree};

fn stats_file(mountpoint: &Path) -> PathBuf {
    mountpoint.join(".ckptfs/stats.json")
}

/// The figures of the mount at `mountpoint`.
fn stats(mountpoint: &Path) -> Snapshot {
    serde_json::from_slice(&fs::read(stats_file(mountpoint)).unwrap()).unwrap()
}

/// Reads all of `path`, every byte by a request and once.
fn read_directly(path: &Path) -> Vec<u8> {
    const STEP: usize = 100_000;
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_DIRECT).open(path);
    let file = file.unwrap();
    let mut bytes = vec![0; path.metadata().unwrap().len() as usize];
    for (number, part) in bytes.chunks_mut(STEP).enumerate() {
        file.read_exact_at(part, (number * STEP) as u64).unwrap();
    }
    bytes
}

/// Bytes of the shard `bytes` that are computed, spliced and made, by what its header says: the base
/// has BF16 alone, and an FP8 view makes FP8 codes and F32 scales of it.
fn by_kind(bytes: &[u8]) -> (u64, u64, u64) {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let sum = |stored: bool| {
        let views = tensors.iter().map(|(_, view)| view);
        let views = views.filter(|view| (view.dtype() == Dtype::BF16) == stored);
        views.map(|view| view.data().len() as u64).sum::<u64>()
    };
    let (computed, spliced) = (sum(false), sum(true));
    (computed, spliced, bytes.len() as u64 - computed - spliced)
}

#[test]
fn bytes_are_counted_exactly_by_where_they_come_from() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
    let at_first = stats(&fixture.mountpoint);
    assert_eq!((at_first.served.bytes(), at_first.requests.reads), (0, 0));

    let bytes = read_directly(&fixture.shard());
    let (computed, spliced, made) = by_kind(&bytes);
    assert!(computed > 0 && spliced > 0 && made > 0);
    for times in 1..=2 {
        let now = stats(&fixture.mountpoint);
        assert_eq!(now.served.computed_bytes, times * computed);
        assert_eq!(now.served.spliced_bytes, times * spliced);
        assert_eq!(now.served.made_bytes, times * made);
        let [file] = &now.files[..] else {
            panic!("{:?}", now.files)
        };
        assert_eq!(Path::new(&file.path), fixture.shard().file_name().unwrap());
        assert_eq!(file.file_bytes, bytes.len() as u64);
        assert_eq!(file.read_bytes, times * bytes.len() as u64);
        assert_eq!(file.reads, now.requests.reads);
        assert_eq!((now.requests.errors, now.files_used), (0, 1));
        read_directly(&fixture.shard());
    }
}

#[test]
fn a_tile_is_counted_once_computed_and_then_as_found() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
    read_directly(&fixture.shard());
    let first = stats(&fixture.mountpoint);
    let tiles = &first.tiles;
    assert!(tiles.computed > 0);
    assert_eq!(tiles.computed, first.cache.misses + tiles.computed_ahead);
    assert_eq!(tiles.computed, tiles.latency.count);
    assert!(0.0 < tiles.latency.p50_us && tiles.latency.p50_us <= tiles.latency.p99_us);
    assert!(tiles.latency.p99_us <= tiles.latency.max_us);
    assert!((1..=first.cache.capacity_bytes).contains(&first.cache.bytes));

    read_directly(&fixture.shard());
    let second = stats(&fixture.mountpoint);
    assert_eq!(second.tiles.computed, tiles.computed);
    assert_eq!(second.cache.misses, first.cache.misses);
    assert!(second.cache.hits > first.cache.hits);
}

#[test]
fn what_the_kernel_has_in_its_page_cache_is_not_counted_again() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
    let files = read_tree(&fixture.mountpoint);
    // The kernel may drop any page at any time but those that are locked.
    let locked: Vec<Mmap> = (files.keys())
        .map(|name| {
            let file = File::open(fixture.mountpoint.join(name)).unwrap();
            // SAFETY: nobody changes the sources, so the file stays as it is.
            let mapping = unsafe { Mmap::map(&file) }.unwrap();
            mapping.lock().unwrap();
            mapping
        })
        .collect();
    let once = stats(&fixture.mountpoint).served.bytes();
    assert!(once >= files.values().map(Vec::len).sum::<usize>() as u64);
    read_tree(&fixture.mountpoint);
    assert_eq!(stats(&fixture.mountpoint).served.bytes(), once);
    drop(locked);
}

#[test]
fn of_passthrough_the_openings_are_known_and_of_other_files_the_bytes() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let server = fixture.serve_logging_to(Kind::Patched, &log);
    let shard = fixture.mountpoint.join("model-00001-of-00003.safetensors");
    let len = shard.metadata().unwrap().len();
    let open: Vec<File> = (0..3).map(|_| File::open(&shard).unwrap()).collect();
    for mut file in &open {
        file.read_to_end(&mut Vec::new()).unwrap();
    }
    let passed = !fs::read_to_string(&log)
        .unwrap()
        .contains("passthrough is off");
    let now = stats(&fixture.mountpoint);
    if !passed {
        assert_eq!((now.passthrough.openings, now.served.bytes()), (0, len));
        return;
    }
    assert_eq!(now.served.bytes(), 0);
    let passthrough = now.passthrough;
    assert_eq!((passthrough.openings, passthrough.open_handles), (3, 3));
    assert_eq!(passthrough.openings_file_bytes, 3 * len);
    assert_eq!(now.files[0].passthrough_openings, 3);
    drop(open);
    eventually("the kernel closes them", || {
        stats(&fixture.mountpoint).passthrough.open_handles == 0
    });
    assert_eq!(stats(&fixture.mountpoint).passthrough.openings, 3);
    drop(server);
}

#[test]
fn open_files_are_counted_where_the_kernel_tells_of_them_and_unknown_where_not() {
    let fixture = Fixture::new();
    let launcher = ["env", "CKPTFS_DISABLE=all"];
    let server = fixture.serve_under(Kind::PatchedFp8, &launcher);
    let handles = || stats(&fixture.mountpoint).requests.open_handles;
    assert_eq!(handles(), Some(0));
    let open = [(); 2].map(|()| File::open(fixture.shard()).unwrap());
    assert_eq!(handles(), Some(2));
    drop(open);
    eventually("the kernel closes them", || handles() == Some(0));
    drop(server);

    if FastPath::SilentOpen.is_enabled() {
        let fixture = Fixture::new();
        fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
        let _open = File::open(fixture.shard()).unwrap();
        let requests = stats(&fixture.mountpoint).requests;
        assert_eq!((requests.open_handles, requests.opens), (None, 1));
    }
}

#[test]
fn reads_that_fail_are_counted() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
    for shard in ["model-00001-of-00002.safetensors", "config.json"] {
        let path = fixture.base.join(shard);
        let options = File::options().write(true).open(&path).unwrap();
        options.set_len(path.metadata().unwrap().len() - 1).unwrap();
    }
    assert!(fs::read(fixture.shard()).is_err());
    assert!(stats(&fixture.mountpoint).requests.errors > 0);
}

#[test]
fn no_listing_copy_or_search_of_a_mount_meets_its_own_files() {
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        let mountpoint = &fixture.mountpoint;
        // Also not once their names are known to the kernel.
        for _ in 0..2 {
            for (program, arguments) in [("ls", &["-laR"][..]), ("find", &["-L"]), ("du", &["-a"])]
            {
                let mut command = Command::new(program);
                let output = command.args(arguments).arg(mountpoint).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(text.contains("README.md"), "{text}");
                assert!(!text.contains(".ckptfs"), "{text}");
            }
            stats(mountpoint);
            fs::read_dir(mountpoint.join(".ckptfs")).unwrap().count();
        }
        let copy = fixture.path("copy");
        let cp = Command::new("cp")
            .arg("-r")
            .args([mountpoint, &copy])
            .status();
        assert!(cp.unwrap().success());
        assert_same(&read_tree(&copy), &fixture.expected(kind));
        assert!(!copy.join(".ckptfs").exists());
    }
}

#[test]
fn the_plan_in_a_mount_is_that_of_the_command() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let flags = fixture.flags(Kind::PatchedFp8);
    let output = ckptfs("plan").args(flags).arg("--json").output().unwrap();
    let plan = fs::read(fixture.mountpoint.join(".ckptfs/plan.json")).unwrap();
    assert!(plan == output.stdout);
}

#[test]
fn the_recipe_is_what_plan_writes_and_makes_the_same_view() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let flags = fixture.flags(Kind::PatchedFp8);
    let plan = ckptfs("plan")
        .args(&flags)
        .arg("--emit-recipe")
        .output()
        .unwrap();
    let written = String::from_utf8(plan.stdout).unwrap();
    let (comment, written) = written.split_once('\n').unwrap();
    assert!(comment.starts_with('#'));
    let recipe = fixture.mountpoint.join(".ckptfs/recipe.yml");
    assert_eq!(fs::read_to_string(&recipe).unwrap(), written);
    let again = ckptfs("diff")
        .arg(&recipe)
        .arg(&fixture.mountpoint)
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
}

#[test]
fn who_lists_the_directory_finds_all_files_with_their_lengths() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let directory = fixture.mountpoint.join(".ckptfs");
    for _ in 0..2 {
        let found: BTreeMap<_, _> = read_tree(&directory);
        let names: Vec<_> = found.keys().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, ["plan.json", "recipe.yml", "stats.json"]);
        for name in names {
            // One file: the next of its name may have longer figures.
            let mut file = File::open(directory.join(name)).unwrap();
            let mut text = Vec::new();
            file.read_to_end(&mut text).unwrap();
            assert_eq!(file.metadata().unwrap().len(), text.len() as u64);
            assert!(!text.is_empty());
        }
    }
}

#[test]
fn figures_that_were_opened_stay_as_they_are_and_the_next_to_open_them_has_new_ones() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let path = stats_file(&fixture.mountpoint);
    let mut before = File::open(&path).unwrap();
    let len = before.metadata().unwrap().len();
    let mut text = vec![0; 10];
    before.read_exact(&mut text).unwrap();

    read_directly(&fixture.shard());
    let after = stats(&fixture.mountpoint);
    before.read_to_end(&mut text).unwrap();
    assert_eq!(text.len() as u64, len);
    let before: Snapshot = serde_json::from_slice(&text).unwrap();
    assert_eq!(before.served.bytes(), 0);
    assert!(after.served.bytes() > 0);
    assert!(after.uptime_seconds > before.uptime_seconds);

    // By a program, through a page cache that has seen the file before.
    let cat = Command::new("cat").arg(&path).output().unwrap();
    let by_cat: Snapshot = serde_json::from_slice(&cat.stdout).unwrap();
    assert!(by_cat.uptime_seconds > after.uptime_seconds);
    assert_eq!(by_cat.served, after.served);
}

#[test]
fn programs_that_look_twice_at_a_file_take_the_figures_for_one() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let path = stats_file(&fixture.mountpoint);
    let numbers = [(); 2].map(|()| path.metadata().unwrap().ino());
    let open = File::open(&path).unwrap().metadata().unwrap().ino();
    assert_eq!((numbers[0], numbers[1]), (open, open));
    let copy = fixture.path("copy");
    for arguments in [&["-a"][..], &["--reflink=never"], &["--preserve=all"]] {
        let mut cp = Command::new("cp");
        let output = cp.args(arguments).args([&path, &copy]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let copied = fs::read(&copy).unwrap();
        serde_json::from_slice::<Snapshot>(&copied).unwrap();
        fs::remove_file(&copy).unwrap();
    }
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(path.parent().unwrap()).arg(&copy);
    assert!(cp.status().unwrap().success());
    let plan = fs::read(fixture.mountpoint.join(".ckptfs/plan.json")).unwrap();
    assert!(fs::read(copy.join("plan.json")).unwrap() == plan);
    serde_json::from_slice::<Snapshot>(&fs::read(copy.join("stats.json")).unwrap()).unwrap();
}

#[test]
fn the_figures_tell_what_is_mounted_and_by_whom() {
    let fixture = Fixture::new();
    let server = fixture.serve(Kind::PatchedFp8);
    let now = stats(&fixture.mountpoint);
    assert_eq!(now.pid, server.id());
    assert_eq!(Path::new(&now.mountpoint), fixture.mountpoint);
    let sources: Vec<PathBuf> = now.view.sources.iter().map(PathBuf::from).collect();
    assert_eq!(sources, [fixture.base.clone(), fixture.extra.clone()]);
    let flags = format!("--base {} --extra", fixture.base.display());
    assert!(now.view.request.contains(&flags), "{}", now.view.request);
    // A shell understands it.
    let mountpoint = format!("'{}'", fixture.mountpoint.display());
    assert!(now.view.request.ends_with(&mountpoint));
    let view = fixture.plan(Kind::PatchedFp8).view;
    assert_eq!(now.view.files, view.files().count() as u64);
    assert_eq!(
        now.view.bytes,
        view.files().map(|(_, _, file)| file.len()).sum::<u64>()
    );
}

#[test]
fn what_a_source_has_of_that_name_gives_way() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.base.join(".ckptfs")).unwrap();
    fs::write(fixture.base.join(".ckptfs/stats.json"), "the source's").unwrap();
    fs::write(fixture.base.join(".ckptfs/more"), "").unwrap();
    fixture.mount(Kind::Patched, &[]);
    stats(&fixture.mountpoint);
    assert!(!fixture.mountpoint.join(".ckptfs/more").exists());
    assert!(!read_tree(&fixture.mountpoint).contains_key(Path::new(".ckptfs/stats.json")));
}

#[test]
fn the_files_cannot_be_changed() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let path = stats_file(&fixture.mountpoint);
    let refused = [
        fs::write(&path, "x"),
        fs::remove_file(&path),
        fs::write(fixture.mountpoint.join(".ckptfs/new"), "x"),
        fs::remove_dir(fixture.mountpoint.join(".ckptfs")),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }
    let missing = fixture.mountpoint.join(".ckptfs/missing").metadata();
    assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(path.metadata().unwrap().mode() & 0o222, 0);
}

#[test]
fn other_users_read_the_figures_where_they_may_list_the_view() {
    for mode in [0o755, 0o700] {
        let fixture = Fixture::new();
        fs::set_permissions(fixture.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&fixture.base, fs::Permissions::from_mode(mode)).unwrap();
        fixture.mount(Kind::Patched, &["--allow-other"]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        let output = command.arg("cat").arg(stats_file(&fixture.mountpoint));
        assert_eq!(output.output().unwrap().status.success(), mode == 0o755);
    }
}

#[test]
fn a_signal_has_the_figures_logged_and_the_mount_goes_on() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let mut server = fixture.serve_logging_to(Kind::PatchedFp8, &log);
    let bytes = read_directly(&fixture.shard());
    for times in 1..=2 {
        server.signal(Signal::USR1);
        let logged = || {
            let text = fs::read_to_string(&log).unwrap();
            let lines = text.lines().filter(|line| line.ends_with('}'));
            let json = lines.filter_map(|line| Some(line.split_once(" stats ")?.1));
            json.map(|json| serde_json::from_str::<Snapshot>(json).unwrap())
                .collect::<Vec<_>>()
        };
        eventually("the figures are in the log", || logged().len() == times);
        let logged = logged().pop().unwrap();
        assert_eq!(logged.served, stats(&fixture.mountpoint).served);
        assert_eq!(logged.files[0].read_bytes, bytes.len() as u64);
    }
    assert!(server.is_running());
    server.signal(Signal::TERM);
    assert!(server.status().success());
}
