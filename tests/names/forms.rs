//! Tensors that are others in the other layout, element by element.

use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, bf16, tensor};
use crate::common::values::bits;
use crate::fixture::*;

/// The rows of `tensor`, each as bytes: all dimensions but the last are rows.
fn rows(tensor: &TensorData) -> Vec<Vec<u8>> {
    let width = tensor.shape[tensor.shape.len() - 1] * bits(tensor.dtype) / 8;
    tensor.bytes.chunks(width).map(<[u8]>::to_vec).collect()
}

fn of_rows(name: &str, like: &TensorData, shape: &[usize], rows: &[Vec<u8>]) -> TensorData {
    TensorData::new(name, like.dtype, shape, rows.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Of each expert the rows of w1, then those of w3; and those of w2.
    #[test]
    fn experts_are_stacked_with_gate_before_up(
        layers in 1usize..3, experts in 1usize..12, hidden in 1usize..9, intermediate in 1usize..9,
        dtype in select(&[Dtype::U8, Dtype::BF16, Dtype::F32][..]), seed in any::<u32>(),
    ) {
        let (mut released, mut transformers) = (Vec::new(), Vec::new());
        for layer in 0..layers {
            let single = |expert: usize, which: &str| {
                let shape = if which == "w2" { [hidden, intermediate] } else { [intermediate, hidden] };
                let name = format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{which}.weight");
                tensor(&name, dtype, &shape, u64::from(seed) + (layer * 100 + expert * 3) as u64 + which.len() as u64)
            };
            let all = |which: &'static str| (0..experts).map(move |expert| single(expert, which));
            let gate_up: Vec<_> = all("w1").zip(all("w3")).flat_map(|(w1, w3)| [rows(&w1), rows(&w3)].concat()).collect();
            let down: Vec<_> = all("w2").flat_map(|w2| rows(&w2)).collect();
            let fused = format!("model.layers.{layer}.mlp.experts");
            let like = single(0, "w1");
            transformers.push(of_rows(&format!("{fused}.gate_up_proj"), &like, &[experts, 2 * intermediate, hidden], &gate_up));
            transformers.push(of_rows(&format!("{fused}.down_proj"), &like, &[experts, hidden, intermediate], &down));
            released.extend(["w1", "w2", "w3"].into_iter().flat_map(all));
            for (tensors, block) in [(&mut released, "block_sparse_moe"), (&mut transformers, "mlp")] {
                let gate = bf16("gate", &[experts, hidden]);
                tensors.push(TensorData { name: format!("model.layers.{layer}.{block}.gate.weight"), ..gate });
            }
        }
        let more = format!(r#", "num_local_experts": {experts}, "hidden_size": {hidden}"#);
        assert_layouts("mixtral", &more, &released, &transformers);
    }

    /// Each row of a head of q and k is where rotary embeddings of halves have it; those of v stay.
    #[test]
    fn fused_projections_are_apart_with_rotary_rows_in_halves(
        heads in 1usize..5, half in 1usize..5, columns in 1usize..9, seed in any::<u32>(),
        key in select(&["num_attention_heads", "vt_num_attention_heads"][..]),
    ) {
        let of_head = 2 * half;
        let each = heads * of_head;
        let (mut released, mut transformers) = (Vec::new(), Vec::new());
        for (which, width) in [("weight", columns), ("bias", 0)] {
            let shape = if width == 0 { vec![3 * each] } else { vec![3 * each, width] };
            let name = format!("vision_tower.encoder.blocks.1.wqkv.{which}");
            let fused = tensor(&name, Dtype::BF16, &shape, seed.into());
            let row_bytes = width.max(1) * 2;
            for (part, projection) in ["q", "k", "v"].into_iter().enumerate() {
                let mut bytes = Vec::new();
                for row in 0..each {
                    let (head, in_head) = (row / of_head, row % of_head);
                    let from = if projection == "v" {
                        row
                    } else {
                        // The pairs of the released rows, all of their first rows before all of their second ones.
                        head * of_head + 2 * (in_head % half) + in_head / half
                    };
                    let start = (part * each + from) * row_bytes;
                    bytes.extend(&fused.bytes[start..start + row_bytes]);
                }
                let name = format!("model.vision_tower.layers.1.attn.{projection}_proj.{which}");
                let shape = [&[each], &shape[1..]].concat();
                transformers.push(TensorData::new(&name, Dtype::BF16, &shape, bytes));
            }
            released.push(fused);
        }
        let more = format!(r#", "vision_config": {{"{key}": {heads}}}"#);
        assert_layouts("kimi_k25", &more, &released, &transformers);
    }

    /// `[E, H, 2I]` and `[E, I, H]`, which are called as what they become.
    #[test]
    fn transposed_experts_are_told_by_their_shapes(
        experts in 1usize..4, hidden in 2usize..9, intermediate in 2usize..9, seed in any::<u32>(),
    ) {
        let names = ["gate_up_proj", "down_proj"]
            .map(|projection| format!("model.language_model.layers.0.mlp.experts.{projection}"));
        let shapes = [[hidden, 2 * intermediate], [intermediate, hidden]];
        let (mut released, mut transformers) = (Vec::new(), Vec::new());
        for (name, [outer, inner]) in names.iter().zip(shapes) {
            let columns = tensor(name, Dtype::F16, &[experts, outer, inner], seed.into());
            let mut bytes = Vec::new();
            for expert in 0..experts {
                for i in 0..inner {
                    for o in 0..outer {
                        let at = 2 * ((expert * outer + o) * inner + i);
                        bytes.extend(&columns.bytes[at..at + 2]);
                    }
                }
            }
            transformers.push(TensorData::new(name, Dtype::F16, &[experts, inner, outer], bytes));
            released.push(columns);
        }
        assert_layouts("qwen3_vl_moe", "", &released, &transformers);
    }
}

#[test]
fn a_projection_that_was_released_as_one_is_apart() {
    let fused = bf16("model.H_module.layers.0.attn.gqkv_proj.weight", &[8, 3]);
    let output = bf16("model.H_module.layers.0.attn.o_proj.weight", &[3, 2]);
    let all = rows(&fused);
    let mut transformers: Vec<TensorData> = ["gate", "q", "k", "v"]
        .into_iter()
        .zip(all.chunks(2))
        .map(|(projection, rows)| {
            let name = format!("model.H_module.layers.0.self_attn.{projection}_proj.weight");
            of_rows(&name, &fused, &[2, 3], rows)
        })
        .collect();
    transformers.push(TensorData {
        name: "model.H_module.layers.0.self_attn.o_proj.weight".to_owned(),
        ..output.clone()
    });
    assert_layouts("hrm_text", "", &[fused, output], &transformers);
}

#[test]
fn convolutions_are_one_after_the_other() {
    let parts = ["q", "k", "v"].map(|part| {
        let name = format!("model.layers.0.self_attn.{part}_conv1d.weight");
        bf16(&name, &[4, 1, 2])
    });
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied());
    let name = "model.layers.0.self_attn.conv1d.weight";
    let one = TensorData::new(name, Dtype::BF16, &[12, 1, 2], bytes.collect());
    assert_layouts("kimi_linear", "", &parts, &[one]);
}

#[test]
fn new_tensors_stand_where_the_first_of_the_old_ones_stood_and_are_ranges_of_bytes() {
    let workspace = crate::common::Workspace::new();
    let single = |expert: usize, projection: &str| {
        let shape = if projection == "down" {
            [4, 64]
        } else {
            [64, 4]
        };
        bf16(
            &format!("model.layers.0.mlp.experts.{expert}.{projection}_proj.weight"),
            &shape,
        )
    };
    let experts = (0..3).flat_map(|expert| ["down", "gate", "up"].map(|p| single(expert, p)));
    let norms = ["model.layers.0.input_layernorm.weight", "model.norm.weight"];
    let [before, after] = norms.map(|name| bf16(name, &[4]));
    let all: Vec<TensorData> = std::iter::once(before)
        .chain(experts)
        .chain([after])
        .collect();
    let base = workspace.write("base", &checkpoint("olmoe", "", &all));
    let fused = plan(&base, ckptfs::ops::NameLayout::Transformers).unwrap();
    let mut planned = fused.shards.iter().flat_map(|shard| &shard.tensors);
    assert!(planned.all(|tensor| !tensor.computed));
    let notes = fused.report.notes.join("\n");
    assert!(
        notes.contains("2 tensors made of 9"),
        "the plan says what it fused: {notes}"
    );
}
