//! What the converter changed is changed back: the tensors of a view are those that the model had.

use std::collections::BTreeMap;

use ckptfs::ops::Precision;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::readback::tensors;
use crate::model::{Model, Values, like, permuted, plan};

/// Asserts that the view of the model's file has the model's tensors, to the bit; those of `near` but for
/// rounding of a logarithm.
fn assert_brought_back(model: &Model, near: &[&str]) {
    let workspace = Workspace::new();
    let like = like(workspace.path());
    let found = tensors(&plan(
        &model.write(workspace.path()),
        Some(Precision::F32),
        Some(&like),
    ));
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(names, model.hf.keys().collect::<Vec<_>>());
    let values: BTreeMap<&str, Values> = found
        .values()
        .map(|tensor| {
            assert_eq!(tensor.dtype, Dtype::F32, "{tensor:?}");
            let values = tensor.bytes.chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let shape = tensor.shape.clone();
            (
                &*tensor.name,
                Values {
                    shape,
                    values: values.collect(),
                },
            )
        })
        .collect();
    for (name, expected) in &model.hf {
        let found = &values[&**name];
        assert_eq!(found.shape, expected.shape, "{name}");
        if near.contains(&&**name) {
            let pairs = found.values.iter().zip(&expected.values);
            pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-6, "{name}: {a} and {b}"));
        } else {
            assert!(
                found.values == expected.values,
                "{name}: {found:?}, expected {expected:?}"
            );
        }
    }
}

#[test]
fn heads_of_llama_rotate_halves_again() {
    let mut model = Model::new("llama", 16, 4, 2);
    model.changed(
        "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_q.weight",
        &[16, 16],
        |w| permuted(w, 4),
    );
    model.changed(
        "model.layers.0.self_attn.k_proj.weight",
        "blk.0.attn_k.weight",
        &[8, 16],
        |w| permuted(w, 2),
    );
    model.changed(
        "model.layers.0.self_attn.k_proj.bias",
        "blk.0.attn_k.bias",
        &[8],
        |w| permuted(w, 2),
    );
    model.same(
        "model.layers.0.self_attn.v_proj.weight",
        "blk.0.attn_v.weight",
        &[8, 16],
    );
    model.same(
        "model.layers.0.self_attn.o_proj.weight",
        "blk.0.attn_output.weight",
        &[16, 16],
    );
    model.same(
        "model.layers.0.input_layernorm.weight",
        "blk.0.attn_norm.weight",
        &[16],
    );
    model.same(
        "model.layers.0.post_attention_layernorm.weight",
        "blk.0.ffn_norm.weight",
        &[16],
    );
    model.same(
        "model.layers.0.mlp.down_proj.weight",
        "blk.0.ffn_down.weight",
        &[16, 32],
    );
    model.same("model.norm.weight", "output_norm.weight", &[16]);
    model.same("lm_head.weight", "output.weight", &[8, 16]);
    assert_brought_back(&model, &[]);
}

#[test]
fn stacks_become_single_experts() {
    for (architecture, module, parts) in [
        (
            "llama",
            "block_sparse_moe",
            [("w1", "gate"), ("w2", "down"), ("w3", "up")],
        ),
        (
            "qwen3moe",
            "mlp",
            [
                ("gate_proj", "gate"),
                ("down_proj", "down"),
                ("up_proj", "up"),
            ],
        ),
        (
            "qwen3next",
            "mlp",
            [
                ("gate_proj", "gate"),
                ("down_proj", "down"),
                ("up_proj", "up"),
            ],
        ),
        (
            "deepseek2",
            "mlp",
            [
                ("gate_proj", "gate"),
                ("down_proj", "down"),
                ("up_proj", "up"),
            ],
        ),
    ] {
        let mut model = Model::new(architecture, 16, 4, 2);
        model.same(
            &format!("model.layers.0.{module}.gate.weight"),
            "blk.0.ffn_gate_inp.weight",
            &[3, 16],
        );
        for (hf, gguf) in parts {
            let shape = if gguf == "down" { [16, 8] } else { [8, 16] };
            let experts: Vec<Values> = (0..3)
                .map(|e| {
                    model.only_hf(
                        &format!("model.layers.0.{module}.experts.{e}.{hf}.weight"),
                        &shape,
                    )
                })
                .collect();
            model.only_gguf(
                &format!("blk.0.ffn_{gguf}_exps.weight"),
                Values::stacked(&experts),
            );
        }
        assert_brought_back(&model, &[]);
    }
}

#[test]
fn norms_of_gemma_lose_the_one_that_was_added() {
    let mut model = Model::new("gemma3", 16, 4, 2);
    let plus_one = |w: &Values| w.map(|v| v + 1.0);
    for (hf, gguf) in [
        ("model.norm", "output_norm"),
        ("model.layers.0.input_layernorm", "blk.0.attn_norm"),
        (
            "model.layers.0.post_attention_layernorm",
            "blk.0.post_attention_norm",
        ),
        ("model.layers.0.pre_feedforward_layernorm", "blk.0.ffn_norm"),
        (
            "model.layers.0.post_feedforward_layernorm",
            "blk.0.post_ffw_norm",
        ),
        ("model.layers.0.self_attn.q_norm", "blk.0.attn_q_norm"),
    ] {
        model.changed(
            &format!("{hf}.weight"),
            &format!("{gguf}.weight"),
            &[16],
            plus_one,
        );
    }
    model.same(
        "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_q.weight",
        &[16, 16],
    );
    assert_brought_back(&model, &[]);
}

/// 2 key heads of 3 rows, and 3 value heads of 2 rows for each of them.
const KEYS: usize = 2;
const KEY_WIDTH: usize = 3;
const VALUES_PER_KEY: usize = 3;
const VALUE_WIDTH: usize = 2;
const VALUES: usize = KEYS * VALUES_PER_KEY;

fn linear(architecture: &str) -> Model {
    let mut model = Model::new(architecture, 16, 4, 2);
    for (key, number) in [
        ("state_size", KEY_WIDTH),
        ("group_count", KEYS),
        ("time_step_rank", VALUES),
        ("inner_size", VALUES * VALUE_WIDTH),
    ] {
        model.number(&format!("{architecture}.ssm.{key}"), number);
    }
    model
}

#[test]
fn linear_attention_of_qwen3_next_is_by_key_head_again() {
    let mut model = linear("qwen3next");
    let of_key = VALUES_PER_KEY * VALUE_WIDTH;
    let rows = KEYS * (2 * KEY_WIDTH + 2 * of_key);
    let name = "model.layers.0.linear_attn.in_proj_qkvz.weight";
    let whole = model.only_hf(name, &[rows, 16]);
    // Of each key head: q, k, v, z.
    let part = |start: usize, width: usize| {
        let of_head = 2 * KEY_WIDTH + 2 * of_key;
        whole.rows(KEYS * width, |row| {
            row / width * of_head + start + row % width
        })
    };
    let q = part(0, KEY_WIDTH);
    let k = part(KEY_WIDTH, KEY_WIDTH);
    let v = part(2 * KEY_WIDTH, of_key);
    let z = part(2 * KEY_WIDTH + of_key, of_key);
    model.only_gguf("blk.0.attn_qkv.weight", Values::joined(&[q, k, v]));
    model.only_gguf("blk.0.attn_gate.weight", z);
    let channels = 2 * KEYS * KEY_WIDTH + VALUES * VALUE_WIDTH;
    let squeezed = |w: &Values| w.reshaped(&[channels, 4]);
    model.changed(
        "model.layers.0.linear_attn.conv1d.weight",
        "blk.0.ssm_conv1d.weight",
        &[channels, 1, 4],
        squeezed,
    );
    model.changed(
        "model.layers.0.linear_attn.A_log",
        "blk.0.ssm_a",
        &[VALUES],
        |w| w.map(|v| -v.exp()),
    );
    model.same(
        "model.layers.0.linear_attn.dt_bias",
        "blk.0.ssm_dt.bias",
        &[VALUES],
    );
    model.same(
        "model.layers.0.linear_attn.norm.weight",
        "blk.0.ssm_norm.weight",
        &[VALUE_WIDTH],
    );
    model.same(
        "model.layers.0.linear_attn.in_proj_ba.weight",
        "blk.0.ssm_ba.weight",
        &[2 * VALUES, 16],
    );
    model.changed(
        "model.layers.0.mlp.shared_expert_gate.weight",
        "blk.0.ffn_gate_inp_shexp.weight",
        &[1, 16],
        |w| w.reshaped(&[16]),
    );
    assert_brought_back(&model, &["model.layers.0.linear_attn.A_log"]);
}

/// Row `new` of value heads that are tiled: head `j·K + k` is head `k·r + j`.
fn untiled(new: usize, width: usize) -> usize {
    let (head, at) = (new / width, new % width);
    let (j, k) = (head / KEYS, head % KEYS);
    (k * VALUES_PER_KEY + j) * width + at
}

#[test]
fn value_heads_of_qwen35_are_grouped_again() {
    let mut model = linear("qwen35");
    let keys = 2 * KEYS * KEY_WIDTH;
    let values = VALUES * VALUE_WIDTH;
    let tiled = |w: &Values, before: usize, width: usize| {
        w.rows(w.shape[0], |row| match row.checked_sub(before) {
            None => row,
            Some(row) => before + untiled(row, width),
        })
    };
    let layer = |name: &str| format!("model.layers.0.linear_attn.{name}");
    model.changed(
        &layer("in_proj_qkv.weight"),
        "blk.0.attn_qkv.weight",
        &[keys + values, 16],
        |w| tiled(w, keys, VALUE_WIDTH),
    );
    model.changed(
        &layer("in_proj_z.weight"),
        "blk.0.attn_gate.weight",
        &[values, 16],
        |w| tiled(w, 0, VALUE_WIDTH),
    );
    model.changed(
        &layer("in_proj_a.weight"),
        "blk.0.ssm_alpha.weight",
        &[VALUES, 16],
        |w| tiled(w, 0, 1),
    );
    model.changed(
        &layer("in_proj_b.weight"),
        "blk.0.ssm_beta.weight",
        &[VALUES, 16],
        |w| tiled(w, 0, 1),
    );
    model.changed(&layer("dt_bias"), "blk.0.ssm_dt.bias", &[VALUES], |w| {
        tiled(w, 0, 1)
    });
    model.changed(&layer("A_log"), "blk.0.ssm_a", &[VALUES], |w| {
        tiled(w, 0, 1).map(|v| -v.exp())
    });
    model.changed(
        &layer("conv1d.weight"),
        "blk.0.ssm_conv1d.weight",
        &[keys + values, 1, 4],
        |w| tiled(&w.reshaped(&[keys + values, 4]), keys, VALUE_WIDTH),
    );
    model.changed(
        &layer("out_proj.weight"),
        "blk.0.ssm_out.weight",
        &[16, values],
        |w| tiled(&w.transposed(), 0, VALUE_WIDTH).transposed(),
    );
    assert_brought_back(&model, &["model.layers.0.linear_attn.A_log"]);
}

#[test]
fn layers_that_predict_more_tokens_have_their_names_again() {
    let mut model = linear("qwen35");
    let keys = model.keys.iter_mut();
    for (_, value) in keys.filter(|(key, _)| key == "qwen35.block_count") {
        *value = crate::bytes::u32_value(2);
    }
    model.number("qwen35.nextn_predict_layers", 1);
    let plus_one = |w: &Values| w.map(|v| v + 1.0);
    model.same(
        "model.layers.0.mlp.up_proj.weight",
        "blk.0.ffn_up.weight",
        &[32, 16],
    );
    model.same(
        "mtp.layers.0.mlp.up_proj.weight",
        "blk.1.ffn_up.weight",
        &[32, 16],
    );
    model.same("mtp.fc.weight", "blk.1.nextn.eh_proj.weight", &[16, 32]);
    model.changed(
        "mtp.pre_fc_norm_embedding.weight",
        "blk.1.nextn.enorm.weight",
        &[16],
        plus_one,
    );
    model.changed(
        "mtp.pre_fc_norm_hidden.weight",
        "blk.1.nextn.hnorm.weight",
        &[16],
        plus_one,
    );
    model.changed(
        "mtp.norm.weight",
        "blk.1.nextn.shared_head_norm.weight",
        &[16],
        plus_one,
    );
    assert_brought_back(&model, &[]);
}

#[test]
fn keys_and_values_of_deepseek_are_one_projection_again() {
    let mut model = Model::new("deepseek2", 16, 2, 1);
    let (heads, nope, width, rank) = (2, 3, 4, 5);
    let name = "model.layers.0.self_attn.kv_b_proj.weight";
    let whole = model.only_hf(name, &[heads * (nope + width), rank]);
    let part = |head: usize, start: usize, count: usize| {
        whole.rows(count, |row| head * (nope + width) + start + row)
    };
    let keys: Vec<Values> = (0..heads)
        .map(|head| part(head, 0, nope).transposed())
        .collect();
    let values: Vec<Values> = (0..heads).map(|head| part(head, nope, width)).collect();
    model.only_gguf("blk.0.attn_k_b.weight", Values::stacked(&keys));
    model.only_gguf("blk.0.attn_v_b.weight", Values::stacked(&values));
    model.same(
        "model.layers.0.mlp.gate.e_score_correction_bias",
        "blk.0.exp_probs_b.bias",
        &[4],
    );
    model.same(
        "model.layers.0.mlp.shared_experts.up_proj.weight",
        "blk.0.ffn_up_shexp.weight",
        &[8, 16],
    );
    assert_brought_back(&model, &[]);
}

#[test]
fn experts_of_gpt_oss_are_interleaved_again() {
    let mut model = Model::new("gpt-oss", 16, 4, 2);
    let (experts, hidden, width) = (2, 4, 3);
    let whole = model.only_hf(
        "model.layers.0.mlp.experts.gate_up_proj",
        &[experts, hidden, 2 * width],
    );
    let halves = [0, 1].map(|half| {
        let rows = (0..experts).map(|e| {
            let matrix = whole
                .with(&[hidden, 2 * width], whole.row(e).to_vec())
                .transposed();
            matrix.rows(width, |row| 2 * row + half)
        });
        Values::stacked(&rows.collect::<Vec<_>>())
    });
    let [gate, up] = halves;
    model.only_gguf("blk.0.ffn_gate_exps.weight", gate);
    model.only_gguf("blk.0.ffn_up_exps.weight", up);
    model.changed(
        "model.layers.0.mlp.experts.down_proj",
        "blk.0.ffn_down_exps.weight",
        &[experts, width, hidden],
        |w| {
            let matrices =
                (0..experts).map(|e| w.with(&[width, hidden], w.row(e).to_vec()).transposed());
            Values::stacked(&matrices.collect::<Vec<_>>())
        },
    );
    let biases = model.only_hf(
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        &[experts, 2 * width],
    );
    for (half, name) in ["gate", "up"].into_iter().enumerate() {
        let values = (0..experts * width)
            .map(|i| biases.values[2 * i + half])
            .collect();
        model.only_gguf(
            &format!("blk.0.ffn_{name}_exps.bias"),
            biases.with(&[experts, width], values),
        );
    }
    model.same(
        "model.layers.0.self_attn.sinks",
        "blk.0.attn_sinks.weight",
        &[4],
    );
    model.same(
        "model.layers.0.mlp.router.weight",
        "blk.0.ffn_gate_inp.weight",
        &[experts, 16],
    );
    assert_brought_back(&model, &[]);
}
