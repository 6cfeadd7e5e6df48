//! A whole view of a small checkpoint: if it can be planned, every byte of every file can be read
//! or is a clean error, every length is exact, every shard is what the safetensors crate expects,
//! and a second plan is the same view.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ckptfs::error::Code;
use ckptfs::ops::{
    Experts, GraftRequest, LoraRequest, PartialBlocks, Precision, QuantizeParams, RuleSet,
};
use ckptfs::provenance::{Files, MAX_ATTRIBUTE_BYTES};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use ckptfs::source::Location;
use ckptfs_fuzz::DIRECTORY;
use ckptfs_fuzz::adapter::Adapter;
use ckptfs_fuzz::checkpoint::Source;
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use serde_json::Value;

#[derive(Debug, Arbitrary)]
struct Input {
    base: Source,
    options: Options,
    other: Option<Source>,
    adapter: Option<(Adapter, i8)>,
}

#[derive(Debug, Arbitrary)]
struct Options {
    other_is_reference: bool,
    /// Which tensors of the other are grafted; not given, it is an extra.
    graft: Option<u8>,
    experts: Option<bool>,
    fp8: Option<Fp8>,
    shards: u8,
    shard_bytes: u16,
    dtype: Option<u8>,
    rename: Option<u8>,
    only: Option<u8>,
    drop: Option<u8>,
}

#[derive(Debug, Arbitrary)]
struct Fp8 {
    rules: bool,
    pattern: Option<u8>,
    any_scale: bool,
    keep_partial: bool,
}

const PATTERNS: [&str; 4] = [".*", ".*proj.*", ".*\\.weight", "model[.]layers[.]0.*"];

const RENAMES: [&str; 4] = ["^model[.]=m.", "[0-9]+=<$0>", "(.)proj=${1}p", "weight$=w"];

impl Options {
    fn request(&self, base: PathBuf, other: Option<PathBuf>) -> ViewRequest {
        let mut request = ViewRequest::new(base);
        let asked = &mut request.operations;
        let pattern = |i: u8| PATTERNS[usize::from(i) % 4].to_owned();
        let renames = self.rename.map(|i| RENAMES[usize::from(i) % 4].to_owned());
        asked.rename.rules = renames.into_iter().collect();
        asked.filter.only = self.only.map(pattern).into_iter().collect();
        asked.filter.drop = self.drop.map(pattern).into_iter().collect();
        asked.dtype.to = self
            .dtype
            .map(|i| [Precision::Bf16, Precision::F16, Precision::F32][usize::from(i) % 3]);
        asked.experts.form = self
            .experts
            .map(|fuse| if fuse { Experts::Fuse } else { Experts::Unfuse });
        if let Some(fp8) = &self.fp8 {
            asked.quantize = QuantizeParams {
                rules: fp8.rules.then_some(RuleSet::Exact),
                patterns: fp8.pattern.map(pattern).into_iter().collect(),
                references: Vec::new(),
                scale_format: Some(if fp8.any_scale {
                    ScaleFormat::Float32
                } else {
                    ScaleFormat::Ue8m0
                }),
                partial_blocks: Some(if fp8.keep_partial {
                    PartialBlocks::Keep
                } else {
                    PartialBlocks::Quantize
                }),
                ..QuantizeParams::default()
            };
        }
        let is_reference = self.fp8.is_some() && self.other_is_reference;
        let other = other.map(Location::from);
        if is_reference {
            asked.quantize.references.extend(other);
        } else if let Some(names) = self.graft {
            let graft = |source| GraftRequest {
                source,
                names: (names % 5 < 4).then(|| pattern(names)),
            };
            asked.graft.grafts.extend(other.map(graft));
        } else {
            asked.patch.extras.extend(other);
        }
        request.shards = [
            None,
            Some(Shards::Repack),
            Some(Shards::Keep),
            Some(Shards::Renumber),
            Some(Shards::Single),
        ][usize::from(self.shards) % 5];
        request.shard_bytes = match self.shard_bytes {
            u16::MAX => u64::MAX,
            bytes => bytes.into(),
        };
        request
    }
}

/// All files; a file that holds values which cannot be quantized is left out.
fn read_all(plan: &Plan) -> BTreeMap<PathBuf, Vec<u8>> {
    let reader = Reader::new(Arc::clone(&plan.view), 1 << 20);
    let mut files = BTreeMap::new();
    for (id, path, content) in plan.view.files() {
        let mut bytes = vec![0; content.len() as usize + 1];
        let end = bytes.len() / 3;
        let read = reader
            .read_at(id, end as u64, &mut bytes[end..])
            .and_then(|rest| Ok(rest + reader.read_at(id, 0, &mut bytes[..end])?));
        match read {
            Ok(len) => {
                assert_eq!(
                    len as u64,
                    content.len(),
                    "{} has the length it says",
                    path.display()
                );
                bytes.truncate(len);
                files.insert(path, bytes);
            }
            Err(error) if [Code::NonFinite, Code::Inexact].contains(&error.code()) => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    files
}

fn check(plan: &Plan, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let index = Path::new("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&files[index]).expect("the index is JSON");
    let map = index["weight_map"].as_object().expect("it has a map");
    let named: usize = plan.shards.iter().map(|shard| shard.tensors.len()).sum();
    assert_eq!(map.len(), named, "the index names every tensor once");
    for shard in &plan.shards {
        let Some(bytes) = files.get(Path::new(&shard.name)) else {
            continue;
        };
        assert_eq!(bytes.len() as u64, shard.len);
        let parsed = SafeTensors::deserialize(bytes).expect("a shard can be parsed");
        // A whole source file may hold tensors that its index does not name.
        assert!(shard.whole_file.is_some() || parsed.len() == shard.tensors.len());
        for tensor in &shard.tensors {
            assert_eq!(map[&*tensor.name], shard.name.as_str());
            let theirs = parsed.tensor(&tensor.name).expect("it is in its shard");
            assert!(
                theirs
                    .shape()
                    .iter()
                    .map(|&d| d as u64)
                    .eq(tensor.shape.iter().copied())
            );
            let from = tensor.offset as usize;
            assert_eq!(theirs.data(), &bytes[from..from + tensor.len as usize]);
        }
    }
}

/// Every file has an account; where that is of each tensor and a tensor is one source as it is, its
/// bytes are there.
fn check_provenance(plan: &Arc<Plan>, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let accounts = Files::new(plan.clone());
    for (id, path, _) in plan.view.files() {
        let account = accounts.json(id).expect("a file has an account");
        assert!(account.len() <= MAX_ATTRIBUTE_BYTES);
        let account: Value = serde_json::from_slice(&account).expect("it is JSON");
        let (Some(tensors), Some(bytes)) = (account["tensors"].as_array(), files.get(&path)) else {
            continue;
        };
        let range = |bytes: &Value| {
            let [from, to] = [0, 1].map(|i| bytes[i].as_u64().expect("an offset") as usize);
            from..to
        };
        for tensor in tensors {
            let steps = tensor["steps"].as_array().expect("it has a list of steps");
            let is_moved = steps
                .iter()
                .all(|s| s["operator"] == "rename" || s["operator"] == "slice");
            if let ([source], true) = (&tensor["from"].as_array().expect("sources")[..], is_moved) {
                let text = |key: &str| source[key].as_str().expect("a path");
                let there = fs::read(Path::new(text("checkpoint")).join(text("file")));
                let there = there.expect("a source is a file");
                assert_eq!(
                    bytes[range(&tensor["bytes"])],
                    there[range(&source["bytes"])]
                );
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let (base, other) = (
        DIRECTORY.path().join("base"),
        DIRECTORY.path().join("other"),
    );
    let mut written = input.base.write(&base).expect("the base can be written");
    if let Some(source) = &input.other {
        written += source.write(&other).expect("the other can be written");
    }
    let mut request = input
        .options
        .request(base.clone(), input.other.is_some().then(|| other.clone()));
    let lora = DIRECTORY.path().join("lora");
    if let Some((adapter, weight)) = &input.adapter {
        written += adapter.write(&lora).expect("the adapter can be written");
        request.operations.lora.adapters.push(LoraRequest {
            adapter: (&lora).into(),
            weight: f64::from(*weight),
        });
    }
    bounded(written, 24 << 20, 200, || {
        if let Ok(plan) = request.plan().map(Arc::new) {
            let files = read_all(&plan);
            check(&plan, &files);
            check_provenance(&plan, &files);
            let again = request
                .plan()
                .expect("what was planned can be planned again");
            assert_eq!(plan.report.warnings, again.report.warnings);
            assert!(
                files == read_all(&again),
                "the same request gives the same view"
            );
        }
    });
    fs::remove_dir_all(base).expect("the base can be removed");
    if input.other.is_some() {
        fs::remove_dir_all(other).expect("the other can be removed");
    }
    if input.adapter.is_some() {
        fs::remove_dir_all(lora).expect("the adapter can be removed");
    }
});
