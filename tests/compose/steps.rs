//! One request against its steps, each written out before the next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ckptfs::ops::lora::AdapterReport;
use ckptfs::ops::{
    DtypeParams, GraftRequest, LoraParams, Operations, Precision, QuantizeParams, RuleSet,
};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use safetensors::Dtype;

use crate::common::readback::read_all;
use crate::common::values::Random;
use crate::common::{Workspace, fp8_names, materialized};
use crate::fixture::{lora, recipe, workspace};

const LINEAR: &str = "
merge_method: linear
models:
- {model: a, parameters: {weight: [0.2, 0.9]}}
- {model: b, parameters: {weight: 0.5}}
";

const SLERP: &str = "
merge_method: slerp
models: [{model: a}, {model: b}]
base_model: a
parameters: {t: [0.1, 0.8]}
dtype: float32
out_dtype: bfloat16
";

const TIES: &str = "
merge_method: ties
models:
- {model: a, parameters: {weight: 0.6, density: 0.5}}
- {model: b, parameters: {weight: 0.4, density: 0.3}}
base_model: c
dtype: bfloat16
";

const VIEW: &str = "
view:
  lora: {path: l, weight: 0.5}
  patch: more
  graft: {path: b, names: '.*[.]layers[.]1[.].*|mtp.*'}
  rename: ['^model[.]layers[.]1[.]=model.layers.5.', 'mtp[.]norm=mtp.final']
  drop: '.*embed.*'
  dtype: f16
  fp8: {rules: true, scale_fmt: float32}
  repack: true
";

/// What `VIEW` says, each thing done to what the one before wrote.
fn in_steps(workspace: &Workspace, merge: &str) -> Plan {
    let at = |name: &str| workspace.path().join(name);
    let write = |name: &str, change: &dyn Fn(&mut ViewRequest), base: PathBuf| {
        let mut request = ViewRequest::new(base);
        change(&mut request);
        materialized(workspace, name, &request)
    };
    let merged = materialized(workspace, "1-merged", &recipe(workspace, merge));
    let adapted = write(
        "2-adapted",
        &|r| r.operations.lora.adapters = vec![lora(at("l"), 0.5)],
        merged,
    );
    let patched = write(
        "3-patched",
        &|r| r.operations.patch.extras = vec![at("more").into()],
        adapted,
    );
    let graft = GraftRequest {
        source: at("b").into(),
        names: Some(".*[.]layers[.]1[.].*|mtp.*".to_owned()),
    };
    let grafted = write(
        "3-grafted",
        &|r| r.operations.graft.grafts = vec![graft.clone()],
        patched,
    );
    let renamed = write(
        "4-renamed",
        &|r| {
            let rules = [
                "^model[.]layers[.]1[.]=model.layers.5.",
                "mtp[.]norm=mtp.final",
            ];
            r.operations.rename.rules = rules.map(str::to_owned).into();
        },
        grafted,
    );
    let filtered = write(
        "5-filtered",
        &|r| r.operations.filter.drop = vec![".*embed.*".to_owned()],
        renamed,
    );
    let cast = write(
        "6-cast",
        &|r| r.operations.dtype.to = Some(Precision::F16),
        filtered,
    );
    let quantized = write(
        "7-quantized",
        &|r| {
            r.operations.quantize = QuantizeParams {
                rules: Some(RuleSet::Exact),
                scale_format: Some(ScaleFormat::Float32),
                ..QuantizeParams::default()
            };
        },
        cast,
    );
    let repacked = ViewRequest {
        shards: Some(Shards::Repack),
        ..ViewRequest::new(quantized)
    };
    repacked.plan().unwrap()
}

#[track_caller]
fn assert_same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    let paths = |files: &BTreeMap<PathBuf, _>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(found), paths(expected));
    for (path, bytes) in found {
        assert!(*bytes == expected[path], "{} differs", path.display());
    }
}

/// Asserts that ranges of the view's files are those of `whole`, read through so small a cache.
fn assert_ranges(plan: &Plan, whole: &BTreeMap<PathBuf, Vec<u8>>, cache: usize, ranges: usize) {
    let reader = Reader::new(Arc::clone(&plan.view), cache);
    let files: Vec<_> = plan.view.files().collect();
    let mut random = Random::new(cache as u64);
    for i in 0..ranges {
        let (id, path, _) = &files[i % files.len()];
        let expected = &whole[path];
        let start = random.below(expected.len());
        let most = if random.one_in(8) { 3 << 20 } else { 5000 };
        let mut bytes = vec![0xaa; random.below(most) + 1];
        let count = reader.read_at(*id, start as u64, &mut bytes).unwrap();
        assert_eq!(count, bytes.len().min(expected.len() - start));
        assert!(
            bytes[..count] == expected[start..start + count],
            "{} from {start}, {count} bytes, cache of {cache}",
            path.display()
        );
        assert!(reader.cached_bytes() <= cache);
    }
}

fn one_request_is_its_steps(merge: &str) {
    let workspace = workspace();
    let steps = in_steps(&workspace, merge);
    let plan = recipe(&workspace, &format!("{merge}{VIEW}"))
        .plan()
        .unwrap();
    let quantized = fp8_names(&plan);
    assert_eq!(quantized.len(), 9, "{quantized:?}");
    let whole = read_all(&plan);
    assert_same(&whole, &read_all(&steps));
    assert_ranges(&plan, &whole, 1, 40);
    assert_ranges(&plan, &whole, 3 << 20, 60);
}

#[test]
fn a_merge_without_facts_and_all_that_follows() {
    one_request_is_its_steps(LINEAR);
}

#[test]
fn a_merge_by_angles_and_all_that_follows() {
    one_request_is_its_steps(SLERP);
}

#[test]
fn a_merge_by_ranks_and_all_that_follows() {
    one_request_is_its_steps(TIES);
}

#[test]
fn a_quantized_base_takes_an_adapter_once_it_is_dequantized() {
    let workspace = workspace();
    let at = |name: &str| workspace.path().join(name);
    let quantized = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(at("a"))
    };
    let base = materialized(&workspace, "a8", &quantized);
    let adapted = |base: PathBuf, dtype| ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![lora(at("l"), 1.0)],
                ..LoraParams::default()
            },
            dtype: DtypeParams { to: dtype },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    assert!(
        adapted(base.clone(), None).plan().is_err(),
        "an adapter of FP8"
    );
    for (to, dtype) in [(Precision::Bf16, Dtype::BF16), (Precision::F32, Dtype::F32)] {
        let one = adapted(base.clone(), Some(to)).plan().unwrap();
        let cast = ViewRequest {
            operations: Operations {
                dtype: DtypeParams { to: Some(to) },
                ..Operations::default()
            },
            ..ViewRequest::new(&base)
        };
        let cast = materialized(&workspace, &format!("{dtype:?}"), &cast);
        let steps = adapted(cast, None).plan().unwrap();
        let whole = read_all(&one);
        assert_same(&whole, &read_all(&steps));
        assert_ranges(&one, &whole, 1, 30);
        let tensors = one.shards.iter().flat_map(|shard| &shard.tensors);
        assert!(tensors.clone().all(|tensor| tensor.dtype == dtype));
        assert_eq!(
            one.report.reports::<AdapterReport>().next().unwrap().merged,
            2
        );
    }
}
