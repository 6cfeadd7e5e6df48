//! What `materialize` writes: the bytes of the view, as ordinary files.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::jobs::Progress;
use ckptfs::materialize::{Options, Summary, materialize};
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::readback::read_all;
use crate::directory::{files, names};

/// A layer whose dimensions are no multiples of 128 everywhere, in two shards.
fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [
                bf16("model.embed_tokens.weight", &[32, 256]),
                bf16("model.layers.0.input_layernorm.weight", &[256]),
                bf16("model.layers.0.self_attn.q_proj.weight", &[1024, 700]),
                bf16("model.layers.0.self_attn.k_proj.weight", &[300, 256]),
                bf16("model.layers.0.self_attn.v_proj.weight", &[300, 256]),
            ],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [
                bf16("model.layers.0.mlp.down_proj.weight", &[256, 384]),
                bf16("model.layers.0.mlp.gate_proj.weight", &[384, 256]),
                bf16("model.layers.0.mlp.up_proj.weight", &[384, 256]),
                bf16("model.norm.weight", &[255]),
            ],
        )
        .aux("tokenizer/vocabulary/tokens.txt", "a\nb\n")
        .aux("empty.txt", "")
}

fn extra() -> Checkpoint {
    Checkpoint::single([
        bf16("mtp.layers.0.self_attn.o_proj.weight", &[256, 256]),
        bf16("mtp.norm.weight", &[256]),
    ])
}

/// The patched FP8 view, and the directories it is made from.
fn patched_fp8(workspace: &Workspace) -> (Plan, Vec<PathBuf>) {
    let sources = vec![
        workspace.write("base", &base()),
        workspace.write("extra", &extra()),
    ];
    let request = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![sources[1].clone().into()],
            },
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(&sources[0])
    };
    (request.plan().unwrap(), sources)
}

fn write(plan: &Plan, sources: &[PathBuf], out: &Path, options: &Options) -> Summary {
    materialize(plan, sources, out, options, &()).unwrap()
}

fn hardlinked() -> Options {
    Options {
        hardlink: true,
        ..Options::default()
    }
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn every_file_has_the_bytes_of_the_view() {
    for jobs in [1, 3] {
        let workspace = Workspace::new();
        let (plan, sources) = patched_fp8(&workspace);
        let out = workspace.path().join("out");
        let options = Options {
            jobs,
            ..Options::default()
        };
        let summary = write(&plan, &sources, &out, &options);
        let expected = read_all(&plan);
        assert_eq!(files(&out), expected, "{jobs} jobs");
        assert_eq!(summary.files, expected.len());
        assert_eq!(
            summary.bytes,
            expected.values().map(|f| f.len() as u64).sum::<u64>()
        );
        assert_eq!(names(workspace.path()), ["base", "extra", "out"]);
    }
}

#[test]
fn a_large_file_that_several_threads_write_has_the_bytes_of_the_view() {
    // 84 MB of codes in one shard. An odd number of scales is put at the end of the shard.
    let large = |name: &str, rows: usize| {
        let bytes = (0..rows * 4992)
            .flat_map(|i| [(i % 251) as u8, 0x3A + (i % 7) as u8])
            .collect();
        TensorData::new(name, Dtype::BF16, &[rows, 4992], bytes)
    };
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single([
            large("model.layers.0.mlp.gate_proj.weight", 5760),
            large("model.layers.0.mlp.up_proj.weight", 5760),
            large("model.layers.1.mlp.gate_proj.weight", 2816),
            large("model.layers.1.mlp.up_proj.weight", 2816),
        ]),
    );
    let plan = crate::common::plan_by_rules(&base).unwrap();
    let out = workspace.path().join("out");
    let options = Options {
        jobs: 4,
        ..Options::default()
    };
    write(&plan, &[base], &out, &options);
    assert!(files(&out) == read_all(&plan), "the bytes differ");
}

#[test]
fn empty_directories_of_the_view_are_written_too() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    fs::create_dir_all(base.join("outer/empty")).unwrap();
    let plan = ViewRequest::new(&base).plan().unwrap();
    let out = workspace.path().join("out");
    write(&plan, &[base], &out, &Options::default());
    assert!(out.join("outer/empty").is_dir());
}

#[test]
fn progress_is_told_every_byte_and_every_file() {
    #[derive(Default)]
    struct Watch {
        expected: AtomicU64,
        done: AtomicU64,
        files: Mutex<HashMap<PathBuf, usize>>,
    }
    impl Progress for Watch {
        fn start(&self, bytes: u64) {
            self.expected.store(bytes, Ordering::Relaxed);
        }
        fn file(&self, path: &Path) {
            *self
                .files
                .lock()
                .unwrap()
                .entry(path.to_owned())
                .or_default() += 1;
        }
        fn advance(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let workspace = Workspace::new();
    let (plan, sources) = patched_fp8(&workspace);
    let watch = Watch::default();
    let out = workspace.path().join("out");
    let summary = materialize(&plan, &sources, &out, &Options::default(), &watch).unwrap();
    assert_eq!(watch.expected.into_inner(), summary.bytes);
    assert_eq!(watch.done.into_inner(), summary.bytes);
    let seen = watch.files.into_inner().unwrap();
    let with_content = read_all(&plan)
        .into_iter()
        .filter(|(_, bytes)| !bytes.is_empty());
    for (path, _) in with_content {
        assert!(seen.contains_key(&path), "{}", path.display());
    }
}

#[test]
fn files_are_writable_by_their_owner_and_no_more_readable_than_in_the_view() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let shard = "model-00001-of-00002.safetensors";
    fs::set_permissions(base.join(shard), PermissionsExt::from_mode(0o400)).unwrap();
    fs::set_permissions(base.join("empty.txt"), PermissionsExt::from_mode(0o500)).unwrap();
    let plan = ViewRequest::new(&base).plan().unwrap();
    let out = workspace.path().join("out");
    write(&plan, &[base], &out, &Options::default());
    let mode = |name: &str| out.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(shard), 0o600);
    assert_eq!(mode("empty.txt"), 0o700);
    for (_, path, _) in plan.view.files() {
        let entry = plan.view.files().find(|(_, at, _)| *at == path).unwrap().0;
        let shown = plan.view.get(entry).unwrap().attributes.mode;
        let written = out.join(&path).metadata().unwrap().mode() & 0o7777;
        assert_eq!(written & !(shown | 0o200), 0, "{}", path.display());
    }
}

#[test]
fn unchanged_shards_are_hard_links_if_asked_for() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let plan = ViewRequest::new(&base).plan().unwrap();
    let expected = read_all(&plan);
    let out = workspace.path().join("out");
    let summary = write(&plan, std::slice::from_ref(&base), &out, &hardlinked());
    for shard in &plan.shards {
        assert_eq!(inode(out.join(&shard.name)), inode(base.join(&shard.name)));
    }
    // Small files are not linked: they are what people edit.
    assert_ne!(
        inode(out.join("config.json")),
        inode(base.join("config.json"))
    );
    assert_eq!((summary.linked, summary.copied_instead), (2, 0));
    let linked: u64 = plan.shards.iter().map(|shard| shard.len).sum();
    assert_eq!(summary.linked_bytes, linked);
    assert_eq!(files(&out), expected);
}

#[test]
fn shards_that_are_links_to_blobs_are_hard_linked_to_the_blobs() {
    let workspace = Workspace::new();
    let blobs = workspace.write("blobs", &base());
    let snapshot = workspace.path().join("snapshot");
    fs::create_dir(&snapshot).unwrap();
    for name in names(&blobs) {
        symlink(format!("../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    let plan = ViewRequest::new(&snapshot).plan().unwrap();
    let out = workspace.path().join("out");
    let summary = write(&plan, &[snapshot], &out, &hardlinked());
    assert_eq!(summary.linked, 2);
    for shard in &plan.shards {
        assert_eq!(inode(out.join(&shard.name)), inode(blobs.join(&shard.name)));
    }
}

#[test]
fn a_hard_link_is_to_the_planned_file_even_if_its_name_has_another_by_now() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let plan = ViewRequest::new(&base).plan().unwrap();
    let expected = read_all(&plan);
    let shard = &plan.shards[0].name;
    let moved = workspace.path().join("moved");
    fs::rename(base.join(shard), &moved).unwrap();
    fs::write(base.join(shard), "another file").unwrap();
    let out = workspace.path().join("out");
    write(&plan, &[base], &out, &hardlinked());
    assert_eq!(inode(out.join(shard)), inode(&moved));
    assert_eq!(files(&out), expected);
}

#[test]
fn a_shard_that_cannot_be_linked_is_copied() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let plan = ViewRequest::new(&base).plan().unwrap();
    let expected = read_all(&plan);
    // A file without a name cannot be linked; the plan still has it open.
    fs::remove_file(base.join(&plan.shards[1].name)).unwrap();
    let out = workspace.path().join("out");
    let summary = write(&plan, &[base], &out, &hardlinked());
    assert_eq!((summary.linked, summary.copied_instead), (1, 1));
    assert_eq!(files(&out), expected);
}
