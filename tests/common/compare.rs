//! Holding a view against what it must be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ckptfs::recipe::{Plan, Shards};
use serde_json::Value;

use super::Workspace;
use super::checkpoint::TensorData;
use super::oracle::config::assert_config;
use super::oracle::shards::ExpectedShard;
use super::oracle::{ViewTensor, Wanted};
use super::readback::{assert_new_shard, parse, read_all};
use super::safetensors_file::serialize;

const INDEX: &str = "model.safetensors.index.json";

/// Plans the view in a new workspace, reads all of it and asserts that it is what it must be.
pub(crate) fn assert_view(wanted: &Wanted) -> Plan {
    let workspace = Workspace::new();
    let plan = wanted
        .write(&workspace)
        .plan()
        .expect("the view can be planned");
    assert_plan(wanted, &plan);
    plan
}

/// Reads all of a planned view and asserts that it is what it must be.
pub(crate) fn assert_plan(wanted: &Wanted, plan: &Plan) {
    let files = read_all(plan);
    let expected = wanted.shards();
    let names = |shards: &[ExpectedShard]| -> Vec<String> {
        shards.iter().map(|shard| shard.name.clone()).collect()
    };
    let planned: Vec<String> = plan.shards.iter().map(|s| s.name.clone()).collect();
    assert_eq!(planned, names(&expected), "shard names");
    let weights: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| top_level_weights(path))
        .collect();
    assert_eq!(
        weights,
        planned.iter().map(String::as_str).collect(),
        "only the view's shards"
    );
    for (shard, planned) in expected.iter().zip(&plan.shards) {
        let file = &files[Path::new(&shard.name)];
        assert_shard(wanted, shard, file, planned.whole_file.is_some());
        assert_planned_tensors(file, planned);
    }
    let tensors: Vec<ViewTensor> = expected.into_iter().flat_map(|s| s.tensors).collect();
    let has_index = files.contains_key(Path::new(INDEX));
    assert_eq!(has_index, wanted.shards != Some(Shards::Single));
    assert_index(&files, plan);
    assert_other_files(wanted, &tensors, &files);
    let made = tensors.iter().filter(|t| t.computed).count();
    assert_eq!(
        plan.report.count("quantized"),
        made / 2,
        "each has codes and scales"
    );
}

fn assert_shard(wanted: &Wanted, shard: &ExpectedShard, file: &[u8], whole_file: bool) {
    let mut expected: Vec<&TensorData> = shard.tensors.iter().map(|t| &t.data).collect();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = parse(file);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", shard.name);

    match &shard.unchanged {
        Some(source) => {
            let source = wanted
                .base
                .shards
                .iter()
                .find(|s| s.file == *source)
                .unwrap();
            assert!(
                file == serialize(&source.tensors),
                "{} is {}",
                shard.name,
                source.file
            );
            assert!(whole_file, "{} is a whole source file", shard.name);
        }
        // Packing may give just what a source file holds.
        None if whole_file => {
            let sources = std::iter::once(&wanted.base).chain(&wanted.extras);
            let mut files = sources.flat_map(|source| &source.shards);
            let is_source = files.any(|s| file == serialize(s.tensors.iter().chain(&s.unnamed)));
            assert!(is_source, "{} is not a source file", shard.name);
        }
        None => assert_new_shard(&shard.name, file),
    }
}

/// Asserts that the plan tells of a shard what its header says.
fn assert_planned_tensors(file: &[u8], planned: &ckptfs::layout::PlannedShard) {
    assert_eq!(planned.len, file.len() as u64, "{}", planned.name);
    let parsed = parse(file);
    assert_eq!(planned.tensors.len(), parsed.len(), "{}", planned.name);
    assert!(
        planned.tensors.is_sorted_by_key(|t| t.offset),
        "{}",
        planned.name
    );
    let parsed: BTreeMap<&str, &TensorData> = parsed.iter().map(|t| (t.name.as_str(), t)).collect();
    for tensor in &planned.tensors {
        let found = parsed[&*tensor.name];
        let shape: Vec<u64> = found.shape.iter().map(|d| *d as u64).collect();
        assert_eq!(tensor.dtype, found.dtype, "{found:?}");
        assert_eq!(*tensor.shape, *shape, "{found:?}");
        let (start, end) = (
            tensor.offset as usize,
            (tensor.offset + tensor.len) as usize,
        );
        assert!(file[start..end] == *found.bytes, "{found:?} is elsewhere");
    }
}

/// Asserts that the index is the union of the headers, with the size of all tensors.
fn assert_index(files: &BTreeMap<PathBuf, Vec<u8>>, plan: &Plan) {
    let Some(index) = files.get(Path::new(INDEX)) else {
        let names: Vec<&str> = plan.shards.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            ["model.safetensors"],
            "only a single file needs no index"
        );
        return;
    };
    let index: Value = serde_json::from_slice(index).unwrap();
    let mut from_headers = BTreeMap::new();
    let mut total = 0;
    for shard in &plan.shards {
        for tensor in parse(&files[Path::new(&shard.name)]) {
            total += tensor.bytes.len();
            let before = from_headers.insert(tensor.name.clone(), shard.name.clone());
            assert_eq!(before, None, "{tensor:?} is in two shards");
        }
    }
    assert_eq!(index["metadata"]["total_size"], total);
    let map = index["weight_map"].as_object().unwrap();
    let listed: Vec<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    let position = |file: &str| plan.shards.iter().position(|s| s.name == file);
    assert!(
        listed.is_sorted_by_key(|file| position(file)),
        "weight_map is in shard order"
    );
    let listed: BTreeMap<String, String> = map
        .iter()
        .map(|(name, file)| (name.clone(), file.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(
        listed, from_headers,
        "the index is the union of the headers"
    );
}

/// Asserts that the view shows the base's aux files and nothing else beside shards and index.
fn assert_other_files(wanted: &Wanted, tensors: &[ViewTensor], files: &BTreeMap<PathBuf, Vec<u8>>) {
    let mut aux = wanted.base.aux.0.clone();
    if wanted.fp8.is_some() {
        aux.remove(Path::new("hf_quant_config.json"));
        let source = aux
            .remove(Path::new("config.json"))
            .expect("an FP8 view has a config");
        let config = files
            .get(Path::new("config.json"))
            .expect("the view has a config.json");
        assert_config(&source, config, &wanted.config(tensors));
    }
    let config = wanted.fp8.is_some().then_some("config.json");
    let found: BTreeSet<&PathBuf> = files
        .keys()
        .filter(|path| top_level_weights(path).is_none() && path.as_path() != Path::new(INDEX))
        .filter(|path| config.is_none_or(|config| path.as_path() != Path::new(config)))
        .collect();
    assert_eq!(found, aux.keys().collect(), "other files");
    for (path, content) in &aux {
        assert!(files[path] == *content, "{} differs", path.display());
    }
}

/// The name of a safetensors file at the top level.
fn top_level_weights(path: &Path) -> Option<&str> {
    let name = path.to_str()?;
    (name.ends_with(".safetensors") && !name.contains('/')).then_some(name)
}
