//! The rows of both forms, and that one made from the other and back is what it was.

use ckptfs::ops::LinearAttention::{Join, Split};
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, bf16, tensor};
use crate::common::oracle::numbers::scale_name;
use crate::common::readback::{read_all, read_path, tensors};
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_row_is_that_of_its_head_and_one_form_made_from_the_other_and_back_is_what_it_was(
        key_heads in 1usize..6, ratio in 1usize..5, key_dim in 1usize..10,
        value_dim in 1usize..10, hidden in 1usize..12, seed in any::<u32>(),
        dtype in select(&[Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::F64][..]),
    ) {
        let heads = Heads { key_heads, ratio, key_dim, value_dim, hidden };
        let others = [bf16("model.layers.0.linear_attn.conv1d.weight", &[4, 1, 4])];
        let joined = heads.joined(dtype, seed.into());
        let split = [heads.split(&joined), others.to_vec()].concat();
        let joined = [joined, others.to_vec()].concat();
        let workspace = Workspace::new();
        for (from, to, form, back) in [(&joined, &split, Split, Join), (&split, &joined, Join, Split)] {
            let base = workspace.write(&format!("{form:?}"), &heads.checkpoint(from));
            let there = plan(&base, form).unwrap();
            prop_assert!(there.report.warnings.is_empty(), "{:?}", there.report.warnings);
            prop_assert_eq!(tensors(&there), by_name(to));
            let mut planned = there.shards.iter().flat_map(|shard| &shard.tensors);
            prop_assert!(planned.all(|tensor| !tensor.computed), "rows are ranges");
            let between = workspace.path().join(format!("after-{form:?}"));
            std::fs::create_dir(&between).unwrap();
            for (path, bytes) in read_all(&there) {
                std::fs::write(between.join(path), bytes).unwrap();
            }
            prop_assert_eq!(tensors(&plan(&between, back).unwrap()), by_name(from));
        }
    }
}

/// Heads of whole blocks.
const BLOCKS: Heads = Heads {
    key_heads: 2,
    ratio: 2,
    key_dim: 128,
    value_dim: 64,
    hidden: 130,
};

/// `weight` and scales of 128 × 128 blocks.
fn with_scales(weight: TensorData, seed: u64) -> [TensorData; 2] {
    let shape = [weight.shape[0].div_ceil(128), weight.shape[1].div_ceil(128)];
    let scales = tensor(&scale_name(&weight.name), Dtype::F32, &shape, seed);
    [weight, scales]
}

#[test]
fn fp8_scales_go_with_the_rows_that_they_scale() {
    let [qkvz, ba] = <[_; 2]>::try_from(BLOCKS.joined(Dtype::F8_E4M3, 1)).unwrap();
    let ba = tensor(&ba.name, Dtype::BF16, &ba.shape, 2);
    let [qkvz, scales] = with_scales(qkvz, 3);
    let mut split = BLOCKS.split(&[qkvz.clone(), ba.clone()]);
    // A row of scales for each block of rows.
    for i in 0..2 {
        let projection = ["in_proj_qkv", "in_proj_z"][i];
        let rows = BLOCKS.rows(projection);
        let blocks = rows.chunks(128).map(|rows| rows[0] / 128);
        let bytes = blocks.flat_map(|block| &scales.bytes[block * 8..(block + 1) * 8]);
        let name = scale_name(&split[i].name);
        let shape = [rows.len() / 128, 2];
        split.push(TensorData::new(
            &name,
            Dtype::F32,
            &shape,
            bytes.copied().collect(),
        ));
    }
    let workspace = Workspace::new();
    let joined = [qkvz, scales, ba];
    for (from, to, form) in [
        (&joined[..], &split[..], Split),
        (&split[..], &joined[..], Join),
    ] {
        let base = workspace.write(&format!("{form:?}"), &BLOCKS.checkpoint(from));
        assert_eq!(tensors(&plan(&base, form).unwrap()), by_name(to));
    }
}

#[test]
fn skip_lists_follow() {
    let joined = BLOCKS.joined(Dtype::BF16, 1);
    let with = |listed: &[&str]| {
        let listed = listed
            .iter()
            .map(|projection| format!("{MODULE}.{projection}"));
        let declared = serde_json::json!({
            "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": listed.collect::<Vec<_>>()},
        });
        let declared = declared.to_string();
        format!(
            "{}, {}",
            BLOCKS.config().trim_end_matches('}'),
            &declared[1..]
        )
    };
    let workspace = Workspace::new();
    for (tensors, form, listed, expected) in [
        (
            joined.clone(),
            Split,
            &["in_proj_ba"][..],
            &["in_proj_b", "in_proj_a"][..],
        ),
        (
            BLOCKS.split(&joined),
            Join,
            &["in_proj_a", "in_proj_b"],
            &["in_proj_ba"],
        ),
    ] {
        let checkpoint = BLOCKS.checkpoint(&tensors).config(&with(listed));
        let base = workspace.write(&format!("{form:?}"), &checkpoint);
        let config = read_path(&plan(&base, form).unwrap(), "config.json").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let list = config["quantization_config"]["modules_to_not_convert"].as_array();
        let list = list
            .unwrap()
            .iter()
            .map(|entry| entry.as_str().unwrap().to_owned());
        let mut list: Vec<String> = list.collect();
        let mut expected: Vec<String> = expected.iter().map(|p| format!("{MODULE}.{p}")).collect();
        list.sort();
        expected.sort();
        assert_eq!(list, expected);
    }
}

#[test]
fn a_view_without_such_projections_is_the_base_and_the_plan_says_so() {
    let workspace = Workspace::new();
    let joined = BLOCKS.joined(Dtype::BF16, 1);
    let base = workspace.write("base", &BLOCKS.checkpoint(&joined));
    let plan = plan(&base, Join).unwrap();
    assert_eq!(plan.report.warnings.len(), 1);
    assert_names(
        &plan.report.warnings[0],
        &["no effect", "in_proj_qkv", "in_proj_a"],
    );
    assert!(plan.shards[0].whole_file.is_some());
}
