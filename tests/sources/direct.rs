//! Sources that are read past the page cache where they are not in it: the same bytes and errors as
//! through it, and what is not in it stays out of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ckptfs::fast_paths::FastPath;
use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::read::Reader;
use ckptfs::recipe::{Places, Plan, Shards, ViewRequest};
use memmap2::{Advice, Mmap};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::readback::{read_all, read_file};
use crate::common::{Workspace, message};

const PAGE: usize = 4096;
const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];
const CACHE_BYTES: usize = 16 << 20;

/// Shards whose tensors begin and end at no multiple of anything, some of them long enough to be
/// read past the page cache, some too short, and some empty.
fn checkpoint(name: &str) -> Checkpoint {
    let of = |tensor: &str, shape: &[usize]| TensorData {
        name: tensor.to_owned(),
        ..bf16(&format!("{name} {tensor}"), shape)
    };
    Checkpoint::new()
        .shard(
            SHARDS[0],
            [
                of("model.embed_tokens.weight", &[1001, 333]),
                of("model.layers.0.input_layernorm.weight", &[333]),
                of("model.layers.0.self_attn.q_proj.weight", &[384, 1280]),
                of("model.layers.0.empty", &[0, 7]),
                of("model.layers.0.mlp.up_proj.weight", &[2048, 640]),
            ],
        )
        .shard(
            SHARDS[1],
            [
                of("model.layers.1.input_layernorm.weight", &[3]),
                of("model.layers.1.mlp.down_proj.weight", &[256, 512]),
                of("model.norm.weight", &[333]),
                of("lm_head.weight", &[333, 1001]),
            ],
        )
}

/// A checkpoint, and each way of making a view of it.
struct Sources {
    workspace: Workspace,
    base: PathBuf,
    other: PathBuf,
}

impl Sources {
    fn new() -> Self {
        let workspace = Workspace::new();
        Sources {
            base: workspace.write("a", &checkpoint("a")),
            other: workspace.write("b", &checkpoint("b")),
            workspace,
        }
    }

    fn fp8(&self) -> ViewRequest {
        let rules = QuantizeParams::by_rules();
        ViewRequest {
            operations: Operations {
                quantize: rules,
                ..Operations::default()
            },
            ..ViewRequest::new(&self.base)
        }
    }

    fn repacked(&self) -> ViewRequest {
        ViewRequest {
            shards: Some(Shards::Repack),
            shard_bytes: 1 << 20,
            ..ViewRequest::new(&self.base)
        }
    }

    fn merged(&self) -> ViewRequest {
        let recipe = self.workspace.path().join("recipe.yml");
        let text = "merge_method: linear\ndtype: bfloat16\nmodels:\n\
                    - {model: a, parameters: {weight: 1}}\n\
                    - {model: b, parameters: {weight: 0.5}}\n";
        fs::write(&recipe, text).unwrap();
        ViewRequest::from_recipe(&recipe, &Places::default()).unwrap()
    }

    fn requests(&self) -> [ViewRequest; 4] {
        [
            ViewRequest::new(&self.base),
            self.repacked(),
            self.fp8(),
            self.merged(),
        ]
    }

    fn shards(&self) -> Vec<PathBuf> {
        let all = [&self.base, &self.other].into_iter();
        all.flat_map(|directory| SHARDS.map(|shard| directory.join(shard)))
            .collect()
    }

    /// Has the page cache forget all shards, as far as their filesystem lets it.
    fn forget(&self) {
        for path in self.shards() {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }

    /// Which pages of the shards of the base are in the page cache.
    fn cached(&self) -> Vec<bool> {
        let shards = SHARDS.map(|shard| pages_in_cache(&self.base.join(shard)));
        shards.concat()
    }
}

fn pages_in_cache(path: &Path) -> Vec<bool> {
    let file = File::open(path).unwrap();
    // SAFETY: nothing is read from the mapping.
    let map = unsafe { Mmap::map(&file) }.unwrap();
    map.advise(Advice::Random).unwrap();
    let mut pages = vec![0u8; map.len().div_ceil(PAGE)];
    // SAFETY: the mapping has that many bytes, and there is a byte of `pages` for each of its pages.
    let asked = unsafe {
        libc::mincore(
            map.as_ptr().cast_mut().cast(),
            map.len(),
            pages.as_mut_ptr(),
        )
    };
    assert_eq!(asked, 0);
    pages.iter().map(|page| page & 1 == 1).collect()
}

fn share(pages: &[bool]) -> f64 {
    let cached = pages.iter().filter(|page| **page).count();
    cached as f64 / pages.len() as f64
}

/// Asserts that `check` holds in one of some attempts: the kernel may drop any page at any time, though
/// it seldom does.
fn in_one_attempt(what: &str, mut check: impl FnMut() -> bool) {
    assert!((0..5).any(|_| check()), "never: {what}");
}

/// Whether the page cache forgets what it is told to, and sources are read past it at all.
fn can_be_told(sources: &Sources) -> bool {
    sources.forget();
    FastPath::DirectSources.is_enabled() && share(&sources.cached()) == 0.0
}

fn direct_reader(plan: &Plan, cache_bytes: usize) -> Reader {
    Reader::new(plan.view.clone(), cache_bytes).with_direct_sources()
}

/// A range to read of a file: where it begins between the beginning and the end, and its length.
type Wanted = (Index, Index, usize, bool);

fn wanted() -> impl Strategy<Value = Wanted> {
    let len = prop_oneof![0..=300usize, 60_000..=70_000usize, 0..=3_000_000usize];
    (any::<Index>(), any::<Index>(), len, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn any_range_of_any_view_is_what_is_read_through_the_page_cache(
        ranges in vec(wanted(), 1..30),
        cache_bytes in prop_oneof![Just(0), Just(1 << 20), Just(CACHE_BYTES)],
    ) {
        let sources = Sources::new();
        for request in sources.requests() {
            let plan = request.plan().unwrap();
            let expected: BTreeMap<PathBuf, Vec<u8>> = read_all(&plan);
            let files: Vec<(usize, PathBuf)> =
                plan.view.files().map(|(id, path, _)| (id, path)).collect();
            let reader = direct_reader(&plan, cache_bytes);
            let mut scratch = Vec::new();
            for (file, place, len, forget) in &ranges {
                let (id, path) = file.get(&files);
                let bytes = &expected[path];
                let start = place.index(bytes.len() + 1);
                let range = start..bytes.len().min(start + len);
                if *forget {
                    sources.forget();
                }
                let mut read = vec![0xAA; *len];
                let count = reader.read_at(*id, start as u64, &mut read).unwrap();
                prop_assert!(read[..count] == bytes[range.clone()], "{}: {range:?}", path.display());
                if *forget {
                    sources.forget();
                }
                let same = reader.read_with(*id, start as u64, *len, &mut scratch, |lent| {
                    lent == &bytes[range.clone()]
                });
                prop_assert!(same.unwrap(), "{}: {range:?}", path.display());
            }
        }
    }
}

#[test]
fn what_is_not_in_the_page_cache_stays_out_of_it() {
    let sources = Sources::new();
    if !can_be_told(&sources) {
        return;
    }
    for request in sources.requests() {
        let plan = request.plan().unwrap();
        let read = |reader: &Reader| {
            sources.forget();
            for (id, _, _) in plan.view.files() {
                read_file(reader, id).unwrap();
            }
            share(&sources.cached())
        };
        in_one_attempt("all is in the page cache", || {
            read(&Reader::new(plan.view.clone(), CACHE_BYTES)) > 0.95
        });
        // Short tensors come in, with some of what lies beside them.
        let past = read(&direct_reader(&plan, CACHE_BYTES));
        assert!(past < 0.4, "{past}");
    }
}

#[test]
fn what_is_in_the_page_cache_in_part_is_read_and_stays_there() {
    let sources = Sources::new();
    let told = can_be_told(&sources);
    let plan = sources.fp8().plan().unwrap();
    let expected = read_all(&plan);
    in_one_attempt("what was in the page cache stays there", || {
        sources.forget();
        let file = File::open(sources.base.join(SHARDS[0])).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        file.read_exact_at(&mut vec![0; 700_000], 300_000).unwrap();
        let before = sources.cached();
        let reader = direct_reader(&plan, CACHE_BYTES);
        for (id, path, _) in plan.view.files() {
            assert!(
                read_file(&reader, id).unwrap() == expected[&path],
                "{}",
                path.display()
            );
        }
        let after = sources.cached();
        assert!(!told || share(&after) < 0.5);
        let mut pages = before.iter().zip(&after);
        let stays = pages.all(|(before, after)| *after || !*before);
        !told || (share(&before) > 0.05 && stays)
    });
}

/// What becomes of a source under a reader.
type Change = fn(&Path);

fn set_len(path: &Path, len: impl FnOnce(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn a_source_that_changed_gives_the_same_error_as_through_the_page_cache() {
    let changes: [Change; 6] = [
        |path| set_len(path, |len| len - 1),
        |path| set_len(path, |len| len / 2),
        |path| set_len(path, |_| 0),
        |path| set_len(path, |len| len + 1),
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, vec![b'?'; bytes.len()]).unwrap();
        },
        |path| {
            let whole = path.metadata().unwrap().len();
            set_len(path, |len| len / 2);
            set_len(path, |_| whole);
        },
    ];
    for change in changes {
        for was_open in [false, true] {
            let errors = [false, true].map(|direct| {
                let sources = Sources::new();
                let plan = sources.fp8().plan().unwrap();
                let reader = if direct {
                    direct_reader(&plan, 0)
                } else {
                    Reader::new(plan.view.clone(), 0)
                };
                let shard = plan.shards[0].entry;
                if was_open {
                    sources.forget();
                    read_file(&reader, shard).unwrap();
                }
                change(&sources.base.join(SHARDS[0]));
                sources.forget();
                let tensors = plan.shards[0].tensors.iter();
                let errors = tensors.filter(|tensor| tensor.len > 100_000).map(|tensor| {
                    let mut bytes = vec![0; tensor.len as usize];
                    message(reader.read_at(shard, tensor.offset, &mut bytes))
                });
                let errors = errors.collect::<Vec<_>>().join("\n");
                errors.replace(sources.workspace.path().to_str().unwrap(), "")
            });
            assert!(errors[0].contains(SHARDS[0]), "{}", errors[0]);
            assert_eq!(errors[0], errors[1]);
        }
    }
}

#[test]
fn a_source_that_another_replaced_gives_what_was_planned() {
    let sources = Sources::new();
    let plan = sources.repacked().plan().unwrap();
    let expected = read_all(&plan);
    let shard = plan.shards[0].entry;
    let (_, path, _) = plan.view.files().find(|(id, _, _)| *id == shard).unwrap();
    let reader = direct_reader(&plan, 0);
    // A short read opens the source; the second descriptor is opened when its name is lost.
    reader.read_at(shard, 5000, &mut [0]).unwrap();
    sources.forget();
    let source = sources.base.join(SHARDS[0]);
    let other = source.with_extension("new");
    let len = source.metadata().unwrap().len();
    fs::write(&other, vec![b'?'; len as usize]).unwrap();
    fs::rename(other, source).unwrap();
    assert!(read_file(&reader, shard).unwrap() == expected[&path]);
}

#[test]
fn the_view_on_disk_is_the_same() {
    let sources = Sources::new();
    let told = can_be_told(&sources);
    for (number, request) in sources.requests().into_iter().enumerate() {
        let plan = request.plan().unwrap();
        let expected = read_all(&plan);
        let out = sources.workspace.path().join(format!("out-{number}"));
        let options = Options {
            direct_sources: true,
            ..Options::default()
        };
        sources.forget();
        materialize(&plan, &request.inputs(), &out, &options, &()).unwrap();
        if told {
            let cached = share(&sources.cached());
            assert!(cached < 0.4, "{cached}");
        }
        for (path, bytes) in expected {
            assert!(
                fs::read(out.join(&path)).unwrap() == bytes,
                "{}",
                path.display()
            );
        }
    }
}
