//! Views over sources that are not files of this machine: here, of memory. They have the bytes of
//! the same views over files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use ckptfs::catalog::{Catalog, Opened};
use ckptfs::error::Code;
use ckptfs::format::{self, OUTPUT, Shard};
use ckptfs::jobs::Progress;
use ckptfs::layout::{self, Plan, Shards};
use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{LoraRequest, Precision, convert};
use ckptfs::read::Reader;
use ckptfs::recipe::{Places, ViewRequest};
use ckptfs::source::{
    Attributes, AuxEntry, AuxFiles, Blob, Class, Directory, Identity, Location, missing,
};
use ckptfs::verify::against_view;
use ckptfs::{Error, Result};

use crate::common::Workspace;
use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;

/// Bytes in memory. They are pinned by a number that is counted up when they are changed.
#[derive(Debug)]
struct MemoryBlob {
    location: Arc<Path>,
    len: u64,
    planned: u64,
    now: Mutex<(u64, Vec<u8>)>,
}

impl MemoryBlob {
    fn new(location: &str, version: u64, content: Vec<u8>) -> Self {
        MemoryBlob {
            location: Path::new(location).into(),
            len: content.len() as u64,
            planned: version,
            now: Mutex::new((version, content)),
        }
    }

    fn change(&self) {
        let mut now = self.now.lock().unwrap();
        now.0 += 1;
        now.1.fill(0xEE);
    }
}

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn identity(&self) -> Identity {
        Identity::new(format!("version {}", self.planned))
    }

    fn location(&self) -> &Arc<Path> {
        &self.location
    }

    fn attributes(&self) -> Attributes {
        ATTRIBUTES
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check()?;
        let now = self.now.lock().unwrap();
        let from = offset as usize;
        buffer.copy_from_slice(&now.1[from..from + buffer.len()]);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match self.now.lock().unwrap().0 {
            now if now == self.planned => Ok(()),
            now => Err(Error::source_changed(
                &self.location,
                format!("it was version {} and is now {now}", self.planned),
            )),
        }
    }
}

const ATTRIBUTES: Attributes = Attributes {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: UNIX_EPOCH,
};

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const TEXT: &str = "tokenizer.json";
const CAST: &str = "model.layers.0.mlp.up_proj.weight";

/// Two shards, the second large enough for what is done with long reads only.
fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(FIRST, [bf16("model.embed_tokens.weight", &[32, 256])])
        .shard(
            SECOND,
            [bf16("model.norm.weight", &[255]), bf16(CAST, &[384, 700])],
        )
        .aux(TEXT, "{}")
}

/// Files in memory.
#[derive(Debug)]
struct MemoryDirectory {
    location: PathBuf,
    blobs: BTreeMap<String, Arc<MemoryBlob>>,
}

impl MemoryDirectory {
    /// The files of `directory`, all of one version.
    fn of(directory: &Path, version: u64) -> Self {
        let location = format!("memory:{}", directory.file_name().unwrap().display());
        let blob = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            let content = fs::read(entry.path()).unwrap();
            let blob = MemoryBlob::new(&format!("{location}/{name}"), version, content);
            (name, Arc::new(blob))
        };
        let entries = fs::read_dir(directory).unwrap();
        MemoryDirectory {
            location: location.clone().into(),
            blobs: entries.map(|entry| blob(entry.unwrap())).collect(),
        }
    }
}

impl Directory for MemoryDirectory {
    fn location(&self) -> &Path {
        &self.location
    }

    fn attributes(&self) -> Attributes {
        ATTRIBUTES
    }

    fn names(&self) -> Result<Vec<OsString>> {
        Ok(self.blobs.keys().map(OsString::from).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.blobs.contains_key(name)
    }

    fn file(&self, name: &str) -> Result<Arc<dyn Blob>> {
        match self.blobs.get(name) {
            Some(blob) => Ok(blob.clone()),
            None => Err(missing(&self.location.join(name), "file")),
        }
    }

    fn aux(&self, names: &[OsString], class: &mut dyn FnMut(&OsStr) -> Class) -> Result<AuxFiles> {
        let mut aux = AuxFiles::default();
        for name in names {
            match class(name) {
                Class::Weights => {}
                Class::Aux => aux.entries.push(AuxEntry::File {
                    file: self.blobs[name.to_str().unwrap()].clone(),
                    name: name.clone(),
                }),
                Class::LeftOut(reason) => aux.left_out.push(reason.to_owned()),
            }
        }
        Ok(aux)
    }
}

/// A view with a shard that is a whole source, and one with a computed tensor.
fn plan(checkpoint: format::Checkpoint) -> Plan {
    let mut catalog = Catalog::from_base(Opened::stored(checkpoint));
    let tensor = catalog.tensors.get_mut(CAST).unwrap();
    *tensor = convert(CAST, tensor, Precision::F32).unwrap();
    layout::shards(catalog, Shards::Keep, u64::MAX).unwrap()
}

fn plan_over(directory: &MemoryDirectory) -> Plan {
    plan(format::Checkpoint::in_directory(directory).unwrap())
}

#[test]
fn a_view_over_memory_has_the_bytes_of_the_view_over_files() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let over_files = plan(format::Checkpoint::open(&directory).unwrap());
    let over_memory = plan_over(&MemoryDirectory::of(&directory, 1));
    assert_eq!(
        over_memory.shards[0].whole_file.as_deref(),
        Some(Path::new("memory:base/model-00001-of-00002.safetensors"))
    );
    assert_eq!(over_memory.shards[1].whole_file, None);
    let expected = read_all(&over_files);
    assert!(read_all(&over_memory) == expected);

    // What needs a file of this machine is asked for all the same.
    let reader = Reader::new(over_memory.view.clone(), 1 << 20).with_direct_sources();
    let mut scratch = Vec::new();
    for (id, path, content) in over_memory.view.files() {
        let len = content.len() as usize;
        let same = |bytes: &[u8]| bytes == &expected[&path][..];
        assert!(reader.read_with(id, 0, len, &mut scratch, same).unwrap());
    }
    let out = workspace.path().join("out");
    let options = Options {
        hardlink: true,
        direct_sources: true,
        sha256: true,
        ..Options::default()
    };
    let summary = materialize(&over_memory, &[], &out, &options, &()).unwrap();
    assert_eq!((summary.linked, summary.copied_instead), (0, 0));
    for (path, bytes) in &expected {
        assert!(&fs::read(out.join(path)).unwrap() == bytes, "{path:?}");
    }
    for plan in [over_files, over_memory] {
        let report = against_view(&plan, &out, 2, &()).unwrap();
        assert_eq!(report.differences.len(), 0);
    }
}

#[test]
fn a_source_in_memory_that_changed_gives_an_error_and_no_bytes() {
    let workspace = Workspace::new();
    let memory = MemoryDirectory::of(&workspace.write("base", &base()), 1);
    let plan = plan_over(&memory);
    let reader = Reader::new(plan.view.clone(), 1 << 20);
    for (shard, changed) in plan.shards.iter().zip([FIRST, SECOND]) {
        let at = shard.len - 16;
        let mut bytes = [0; 16];
        reader.read_at(shard.entry, at, &mut bytes).unwrap();
        memory.blobs[changed].change();
        let stored = shard.tensors.iter().find(|tensor| !tensor.computed);
        let result = reader.read_at(shard.entry, stored.unwrap().offset, &mut bytes);
        let error = result.unwrap_err();
        assert!(error.code() == Code::SourceChanged, "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("memory:base/{changed}"))
        );
    }
    let out = workspace.path().join("out");
    let error = materialize(&plan, &[], &out, &Options::default(), &()).unwrap_err();
    assert!(error.code() == Code::SourceChanged, "{error}");
}

/// Stops a run once a file is complete.
struct StopAfter(u64, AtomicU64);

impl Progress for StopAfter {
    fn advance(&self, bytes: u64) {
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= self.0
    }
}

#[test]
fn a_stopped_run_over_memory_is_resumed_only_from_the_sources_it_was_begun_with() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let out = workspace.path().join("out");
    let options = Options {
        jobs: 1,
        ..Options::default()
    };
    let stopped = |plan: &Plan| {
        let progress = StopAfter(plan.shards[0].len, AtomicU64::new(0));
        materialize(plan, &[], &out, &options, &progress).unwrap_err();
    };
    let kept = |plan: &Plan| materialize(plan, &[], &out, &options, &()).unwrap().kept;
    stopped(&plan_over(&MemoryDirectory::of(&directory, 1)));
    assert_eq!(kept(&plan_over(&MemoryDirectory::of(&directory, 1))), 1);
    fs::remove_dir_all(&out).unwrap();
    stopped(&plan_over(&MemoryDirectory::of(&directory, 1)));
    assert_eq!(
        kept(&plan_over(&MemoryDirectory::of(&directory, 2))),
        0,
        "another version"
    );
}

/// Where `directory` is: in memory, with the same files.
fn in_memory(directory: &Path) -> Location {
    let directory: Arc<dyn Directory> = Arc::new(MemoryDirectory::of(directory, 1));
    directory.into()
}

/// Where `directory` is: on this machine.
fn on_disk(directory: &Path) -> Location {
    directory.into()
}

/// A base, an adapter of one of its weights, and an extra that has more than it.
fn sources(workspace: &Workspace) -> [PathBuf; 3] {
    let config = r#"{"num_hidden_layers": 1, "torch_dtype": "bfloat16"}"#;
    let adapter = Adapter::new(4, 8.0).linear("model.layers.0.mlp.up_proj", [384, 700], 4);
    let more = [
        bf16("model.norm.weight", &[255]),
        bf16("mtp.w", &[256, 128]),
    ];
    [
        workspace.write("base", &base().config(config)),
        adapter.write(workspace, "adapter"),
        workspace.write("extra", &Checkpoint::single(more)),
    ]
}

#[test]
fn base_adapter_and_extra_in_another_place_make_the_view_that_they_make_on_this_machine() {
    let workspace = Workspace::new();
    let [base, adapter, extra] = sources(&workspace);
    let request = |place: fn(&Path) -> Location| {
        let mut request = ViewRequest::new(place(&base));
        let asked = &mut request.operations;
        asked.patch.extras.push(place(&extra));
        asked.quantize.patterns.push("mtp.w".to_owned());
        asked.lora.adapters.push(LoraRequest {
            adapter: place(&adapter),
            weight: 0.5,
        });
        request
    };
    let there = request(in_memory);
    assert_eq!((there.sources().len(), there.inputs().len()), (3, 0));
    let [here, plan] = [&request(on_disk), &there].map(|request| request.plan().unwrap());
    let expected = read_all(&here);
    assert!(read_all(&plan) == expected);
    assert_eq!(
        plan.report.sources[1].path,
        Path::new("memory:extra"),
        "reports say where it is"
    );

    let out = workspace.path().join("out");
    materialize(&plan, &there.inputs(), &out, &Options::default(), &()).unwrap();
    for (path, bytes) in &expected {
        assert!(&fs::read(out.join(path)).unwrap() == bytes, "{path:?}");
    }
    let report = against_view(&plan, &out, 2, &()).unwrap();
    assert_eq!(report.differences.len(), 0);
    let error = there.to_recipe().unwrap_err();
    assert_eq!(error.code(), Code::NoRecipe);
    assert!(error.to_string().contains("memory:base"), "{error}");
}

#[test]
fn models_of_a_merge_may_be_in_another_place() {
    let workspace = Workspace::new();
    let [base, adapter, _] = sources(&workspace);
    let recipe = workspace.path().join("merge.yml");
    let text = "merge_method: linear\nmodels:\n  - {model: a+l, parameters: {weight: 0.25}}\n  \
                - {model: b, parameters: {weight: 0.5}}\n";
    fs::write(&recipe, text).unwrap();
    let plan = |place: fn(&Path) -> Location| {
        let named = [("a", &base), ("l", &adapter), ("b", &base)];
        let named = named.map(|(id, directory)| (id.to_owned(), place(directory)));
        let places = Places {
            named: named.into(),
            hub: None,
        };
        let request = ViewRequest::from_recipe(&recipe, &places).unwrap();
        request.plan().unwrap()
    };
    assert!(read_all(&plan(in_memory)) == read_all(&plan(on_disk)));
}

#[test]
fn an_adapter_that_another_place_lacks_is_named_as_it_is_there() {
    let workspace = Workspace::new();
    let [base, adapter, _] = sources(&workspace);
    fs::remove_file(adapter.join("adapter_model.safetensors")).unwrap();
    let mut request = ViewRequest::new(base);
    request.operations.lora.adapters.push(LoraRequest {
        adapter: in_memory(&adapter),
        weight: 1.0,
    });
    let error = request.plan().unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let path = "memory:adapter/adapter_model.safetensors";
    assert!(error.to_string().starts_with(path), "{error}");
}

/// `checkpoint` as if it were in a container of other file names, which also has room for a tensor
/// that the checkpoint does not name.
fn in_another_container(mut checkpoint: format::Checkpoint) -> format::Checkpoint {
    for (number, shard) in checkpoint.shards.iter_mut().enumerate() {
        let mut tensors = shard.tensors.clone();
        tensors.insert("room".into(), tensors[0].clone());
        *shard = Arc::new(Shard {
            name: format!("part{number}.raw"),
            checkpoint: shard.checkpoint.clone(),
            container: shard.container,
            blob: shard.blob.clone(),
            tensors,
        });
    }
    checkpoint
}

#[test]
fn shards_that_are_kept_from_another_container_have_names_of_the_container_of_views() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let checkpoint = format::Checkpoint::in_directory(&MemoryDirectory::of(&directory, 1));
    let plan = plan(in_another_container(checkpoint.unwrap()));
    let names: Vec<&str> = plan.shards.iter().map(|shard| &*shard.name).collect();
    assert_eq!(names, OUTPUT.standard_names(2).unwrap().collect::<Vec<_>>());
    let out = workspace.path().join("out");
    materialize(&plan, &[], &out, &Options::default(), &()).unwrap();
    let written = format::Checkpoint::open(&out).unwrap();
    let shard_of = |checkpoint: &format::Checkpoint, name| checkpoint.tensors[name];
    let source = format::Checkpoint::open(&directory).unwrap();
    for name in source.tensors.keys() {
        assert_eq!(shard_of(&written, name), shard_of(&source, name), "{name}");
    }
    assert_eq!(written.tensors.len(), source.tensors.len());
}
