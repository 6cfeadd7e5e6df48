//! `quantize.rules: official` quantizes what the FP8 releases of each family quantize. The names are
//! those of the releases (their bf16 twins have the same), written out here by hand; each family has
//! two layers, or three where the third is its MTP block.

use std::collections::BTreeSet;

use ckptfs::error::Code;
use ckptfs::ops::{QuantizeParams, RuleSet};
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::{Workspace, assert_names, fp8_names, plan_fp8};

fn official() -> QuantizeParams {
    QuantizeParams {
        rules: Some(RuleSet::Official),
        ..QuantizeParams::default()
    }
}

/// The weights of `modules`, separated by spaces, inside of `parent`.
fn inside(parent: &str, modules: &str) -> Vec<String> {
    let modules = modules.split_whitespace();
    modules
        .map(|module| format!("{parent}.{module}.weight"))
        .collect()
}

/// The tensors of a model.
#[derive(Default)]
struct Model {
    quantized: Vec<String>,
    kept: Vec<String>,
}

impl Model {
    /// A model with embeddings, head and final norm.
    fn new() -> Self {
        let kept = "model.embed_tokens model.norm";
        let kept = kept.split(' ').map(|module| format!("{module}.weight"));
        Model {
            quantized: Vec::new(),
            kept: kept.chain(["lm_head.weight".to_owned()]).collect(),
        }
    }

    fn quantized(mut self, parent: &str, modules: &str) -> Self {
        self.quantized.extend(inside(parent, modules));
        self
    }

    fn kept(mut self, parent: &str, modules: &str) -> Self {
        self.kept.extend(inside(parent, modules));
        self
    }

    /// Tensors that are no `weight` of a module.
    fn kept_tensors(mut self, names: &[&str]) -> Self {
        self.kept
            .extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    fn norms(self, layer: &str) -> Self {
        self.kept(layer, "input_layernorm post_attention_layernorm")
    }

    /// The same model with the experts of all layers fused.
    fn fused(mut self) -> Self {
        let mut quantized: Vec<String> = Vec::new();
        for name in self.quantized {
            match name.split_once(".experts.") {
                None => quantized.push(name),
                Some((layer, _)) => {
                    let fused = ["gate_up_proj", "down_proj"];
                    let fused = fused.map(|projection| format!("{layer}.experts.{projection}"));
                    quantized.extend(fused.into_iter().filter(|name| !self.kept.contains(name)));
                }
            }
        }
        quantized.sort();
        quantized.dedup();
        self.quantized = quantized;
        self
    }

    fn tensors(&self) -> Vec<TensorData> {
        let tensor = |name: &String| {
            let shape: &[usize] = match name.rsplit('.').nth(1) {
                _ if name.ends_with(".experts.gate_up_proj") => &[2, 8, 4],
                _ if name.ends_with(".experts.down_proj") => &[2, 4, 4],
                Some("conv1d") => &[4, 1, 2],
                _ if !name.ends_with(".weight") => &[4],
                Some(module) if module.contains("norm") => &[4],
                _ => &[4, 4],
            };
            bf16(name, shape)
        };
        let all = self.quantized.iter().chain(&self.kept);
        all.map(tensor).collect()
    }

    /// Asserts what is quantized of it as a model of each of `model_types`, byte for byte, and that
    /// config.json lists the rest.
    fn assert(&self, model_types: &[&str]) {
        for model_type in model_types {
            let config = json!({"model_type": model_type, "torch_dtype": "bfloat16"});
            let base = Checkpoint::single(self.tensors()).aux("config.json", config.to_string());
            let selected = self.quantized.iter().map(String::as_str);
            assert_view(&Wanted::new(base).fp8(official(), selected));
        }
    }
}

const ATTENTION: &str = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj";
const MLP: &str = "mlp.gate_proj mlp.up_proj mlp.down_proj";
const EXPERTS: &str = "mlp.experts.0.gate_proj mlp.experts.0.up_proj mlp.experts.0.down_proj \
    mlp.experts.1.gate_proj mlp.experts.1.up_proj mlp.experts.1.down_proj";
const W_EXPERTS: &str = "block_sparse_moe.experts.0.w1 block_sparse_moe.experts.0.w2 \
    block_sparse_moe.experts.0.w3 block_sparse_moe.experts.1.w1 block_sparse_moe.experts.1.w2 \
    block_sparse_moe.experts.1.w3";
const SHARED_EXPERT: &str =
    "mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_expert.down_proj";
const SHARED_EXPERTS: &str =
    "mlp.shared_experts.gate_proj mlp.shared_experts.up_proj mlp.shared_experts.down_proj";
const LATENT: &str = "self_attn.q_a_proj self_attn.q_b_proj self_attn.kv_a_proj_with_mqa \
    self_attn.kv_b_proj self_attn.o_proj";

/// A dense layer, a MoE layer, and the MTP block as a third layer.
fn latent_attention_model() -> Model {
    let mut model = Model::new().quantized("model.layers.0", MLP).kept(
        "model.layers.2",
        "embed_tokens enorm hnorm eh_proj shared_head.norm shared_head.head",
    );
    for layer in ["model.layers.0", "model.layers.1", "model.layers.2"] {
        model = model
            .norms(layer)
            .quantized(layer, LATENT)
            .kept(layer, "self_attn.q_a_layernorm self_attn.kv_a_layernorm");
    }
    for layer in ["model.layers.1", "model.layers.2"] {
        let bias = format!("{layer}.mlp.gate.e_score_correction_bias");
        model = model
            .quantized(layer, SHARED_EXPERTS)
            .quantized(layer, EXPERTS)
            .kept(layer, "mlp.gate")
            .kept_tensors(&[&bias]);
    }
    model
}

#[test]
fn deepseek_v3_quantizes_latent_attention_shared_experts_and_the_mtp_block_but_its_eh_proj() {
    latent_attention_model().assert(&["deepseek_v3"]);
    latent_attention_model().fused().assert(&["deepseek_v3"]);
}

#[test]
fn models_of_deepseek_without_a_low_rank_query_quantize_q_proj() {
    Model::new()
        .quantized(
            "model.layers.0",
            "self_attn.q_proj self_attn.kv_a_proj_with_mqa",
        )
        .quantized("model.layers.0", "self_attn.kv_b_proj self_attn.o_proj")
        .quantized("model.layers.0", MLP)
        .assert(&["deepseek_v3"]);
}

#[test]
fn kimi_k2_quantizes_what_deepseek_v3_does() {
    latent_attention_model()
        .kept_tensors(&["model.layers.0.self_attn.rotary_emb.inv_freq"])
        .assert(&["kimi_k2"]);
}

#[test]
fn deepseek_v32_and_glm_5_quantize_the_indexer_but_its_weights_proj() {
    let mut model = latent_attention_model();
    // In GLM-5, not every layer has one.
    for layer in ["model.layers.0", "model.layers.2"] {
        let bias = format!("{layer}.self_attn.indexer.k_norm.bias");
        model = model
            .quantized(layer, "self_attn.indexer.wq_b self_attn.indexer.wk")
            .kept(
                layer,
                "self_attn.indexer.weights_proj self_attn.indexer.k_norm",
            )
            .kept_tensors(&[&bias]);
    }
    model.assert(&["deepseek_v32", "glm_moe_dsa"]);
    model.fused().assert(&["deepseek_v32", "glm_moe_dsa"]);
}

#[test]
fn glm_4_5_quantizes_attention_experts_and_the_mtp_block_but_its_eh_proj() {
    let mut model = Model::new().quantized("model.layers.0", MLP).kept(
        "model.layers.2",
        "embed_tokens enorm hnorm eh_proj shared_head.norm shared_head.head",
    );
    for layer in ["model.layers.0", "model.layers.1", "model.layers.2"] {
        let biases = ["q", "k", "v"].map(|of| format!("{layer}.self_attn.{of}_proj.bias"));
        model = model
            .norms(layer)
            .quantized(layer, ATTENTION)
            .kept_tensors(&biases.each_ref().map(String::as_str));
    }
    for layer in ["model.layers.1", "model.layers.2"] {
        let bias = format!("{layer}.mlp.gate.e_score_correction_bias");
        model = model
            .quantized(layer, SHARED_EXPERTS)
            .quantized(layer, EXPERTS)
            .kept(layer, "mlp.gate")
            .kept_tensors(&[&bias]);
    }
    model.assert(&["glm4_moe"]);
}

/// Two dense layers whose names begin with `layers`.
fn dense(mut model: Model, layers: &str) -> Model {
    for layer in ["0", "1"].map(|i| format!("{layers}.{i}")) {
        model = model
            .norms(&layer)
            .quantized(&layer, ATTENTION)
            .quantized(&layer, MLP);
    }
    model
}

#[test]
fn qwen3_and_llama_quantize_every_linear_layer_but_the_head() {
    dense(Model::new(), "model.layers")
        .kept("model.layers.0", "self_attn.q_norm self_attn.k_norm")
        .assert(&["qwen3"]);
    dense(Model::new(), "model.layers").assert(&["llama"]);
    // A model that was saved without its head.
    dense(Model::default(), "layers").assert(&["qwen3", "llama"]);
}

#[test]
fn gemma_3_quantizes_its_language_model_wherever_it_is_and_not_its_vision_tower() {
    let norms = "pre_feedforward_layernorm post_feedforward_layernorm self_attn.q_norm";
    dense(Model::new(), "model.layers")
        .kept("model.layers.0", norms)
        .assert(&["gemma3_text"]);
    for layers in ["language_model.model.layers", "model.language_model.layers"] {
        let vision = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj";
        let tower = "vision_tower.vision_model";
        dense(Model::new(), layers)
            .kept(&format!("{tower}.encoder.layers.0"), vision)
            .kept(&format!("{tower}.encoder.layers.0"), "mlp.fc1 mlp.fc2")
            .kept(tower, "embeddings.patch_embedding")
            .kept_tensors(&["multi_modal_projector.mm_input_projection_weight"])
            .assert(&["gemma3"]);
    }
}

#[test]
fn qwen3_moe_quantizes_attention_and_experts() {
    let model = || {
        let mut model = Model::new();
        for layer in ["model.layers.0", "model.layers.1"] {
            model = model
                .norms(layer)
                .quantized(layer, ATTENTION)
                .quantized(layer, EXPERTS)
                .kept(layer, "mlp.gate self_attn.q_norm self_attn.k_norm");
        }
        model
    };
    model().assert(&["qwen3_moe"]);
    model().fused().assert(&["qwen3_moe"]);
}

/// A layer of linear attention, one of full attention, and the MTP block.
fn hybrid_model(layers: &str, linear: &str, linear_kept: &str, moe: bool) -> Model {
    let [first, second] = [0, 1].map(|i| format!("{layers}.{i}"));
    let mut model = Model::new()
        .quantized(&first, linear)
        .kept(&first, linear_kept)
        .kept(&first, "linear_attn.conv1d linear_attn.norm")
        .kept_tensors(&[
            &format!("{first}.linear_attn.A_log"),
            &format!("{first}.linear_attn.dt_bias"),
        ])
        .quantized(&second, ATTENTION)
        .quantized("mtp.layers.0", ATTENTION)
        .kept("mtp", "fc norm pre_fc_norm_embedding pre_fc_norm_hidden");
    for layer in [&*first, &second, "mtp.layers.0"] {
        model = model.norms(layer);
        model = if moe {
            model
                .quantized(layer, EXPERTS)
                .quantized(layer, SHARED_EXPERT)
                .kept(layer, "mlp.gate mlp.shared_expert_gate")
        } else {
            model.quantized(layer, MLP)
        };
    }
    model
}

#[test]
fn qwen3_next_quantizes_in_proj_qkvz_and_the_mtp_block_but_neither_in_proj_ba_nor_fc() {
    let linear = "linear_attn.in_proj_qkvz linear_attn.out_proj";
    let model = || hybrid_model("model.layers", linear, "linear_attn.in_proj_ba", true);
    model().assert(&["qwen3_next"]);
    model().fused().assert(&["qwen3_next"]);
}

#[test]
fn qwen3_5_quantizes_in_proj_qkv_and_z_but_neither_a_and_b_nor_the_vision_tower() {
    let linear = "linear_attn.in_proj_qkv linear_attn.in_proj_z linear_attn.out_proj";
    let kept = "linear_attn.in_proj_a linear_attn.in_proj_b";
    let vision = "attn.qkv attn.proj mlp.linear_fc1 mlp.linear_fc2";
    let multimodal = |moe| {
        hybrid_model("model.language_model.layers", linear, kept, moe)
            .kept("model.visual.blocks.0", vision)
            .kept("model.visual.merger", "linear_fc1 linear_fc2")
    };
    multimodal(false).assert(&["qwen3_5"]);
    multimodal(true).assert(&["qwen3_5_moe"]);
    multimodal(true).fused().assert(&["qwen3_5_moe"]);
    hybrid_model("model.layers", linear, kept, false).assert(&["qwen3_5_text"]);
    hybrid_model("model.layers", linear, kept, true).assert(&["qwen3_5_moe_text"]);
}

#[test]
fn minimax_m2_and_mixtral_quantize_attention_and_experts_called_w1_to_w3() {
    let mut model = Model::new();
    for layer in ["model.layers.0", "model.layers.1"] {
        model = model
            .norms(layer)
            .quantized(layer, ATTENTION)
            .quantized(layer, W_EXPERTS)
            .kept(layer, "block_sparse_moe.gate");
    }
    model.assert(&["mixtral"]);
    model
        .kept_tensors(&["model.layers.0.block_sparse_moe.e_score_correction_bias"])
        .kept("model.layers.0", "self_attn.q_norm self_attn.k_norm")
        .assert(&["minimax_m2"]);
}

#[test]
fn nemotron_h_quantizes_the_linear_layers_of_every_mixer_but_not_its_mtp_block() {
    for model_name in ["backbone", "model"] {
        let layer = |i: usize| format!("{model_name}.layers.{i}");
        Model::default()
            .quantized(&layer(0), "mixer.in_proj mixer.out_proj")
            .kept(&layer(0), "mixer.conv1d mixer.norm")
            .kept_tensors(&[
                &format!("{}.mixer.A_log", layer(0)),
                &format!("{}.mixer.D", layer(0)),
                &format!("{}.mixer.dt_bias", layer(0)),
                &format!("{}.mixer.conv1d.bias", layer(0)),
            ])
            .quantized(
                &layer(1),
                "mixer.q_proj mixer.k_proj mixer.v_proj mixer.o_proj",
            )
            .quantized(&layer(2), "mixer.up_proj mixer.down_proj")
            .quantized(
                &layer(3),
                "mixer.experts.0.up_proj mixer.experts.0.down_proj",
            )
            .quantized(
                &layer(3),
                "mixer.experts.1.up_proj mixer.experts.1.down_proj",
            )
            .quantized(
                &layer(3),
                "mixer.shared_experts.up_proj mixer.shared_experts.down_proj",
            )
            .kept(
                &layer(3),
                "mixer.gate mixer.fc1_latent_proj mixer.fc2_latent_proj norm",
            )
            .kept(
                "mtp.layers.0",
                "eh_proj mixer.q_proj mixer.k_proj mixer.v_proj mixer.o_proj",
            )
            .kept(model_name, "embeddings norm_f")
            .assert(&["nemotron_h"]);
    }
}

#[test]
fn tensors_of_other_families_keep_their_dtype() {
    let names = latent_attention_model();
    let workspace = Workspace::new();
    let base = Checkpoint::single(names.tensors()).aux("config.json", r#"{"model_type": "qwen3"}"#);
    let plan = plan_fp8(&workspace.write("base", &base), official()).unwrap();
    // Those of the names that the linear layers of Qwen3 have.
    let mut common = inside("model.layers.0", MLP);
    for layer in ["model.layers.0", "model.layers.1", "model.layers.2"] {
        common.extend(inside(layer, "self_attn.o_proj"));
    }
    let expected: BTreeSet<&str> = common.iter().map(String::as_str).collect();
    assert_eq!(fp8_names(&plan), expected);
}

#[test]
fn an_unknown_model_type_is_an_error_that_lists_the_known_ones_and_the_way_out() {
    let text_config = r#"{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}}"#;
    for (config, found) in [
        (r#"{"model_type": "gpt2"}"#, "\"gpt2\""),
        (r#"{"model_type": 3}"#, "model_type is 3"),
        (text_config, "kimi_k25"),
        ("{}", "no model_type"),
    ] {
        let workspace = Workspace::new();
        let base = Checkpoint::single(Model::new().tensors()).aux("config.json", config);
        let error = plan_fp8(&workspace.write("base", &base), official()).unwrap_err();
        assert_eq!(error.code(), Code::UnknownModelType, "{error}");
        let known = ["deepseek_v3", "qwen3_5_moe", "mixtral", "nemotron_h"];
        assert_names(&error.to_string(), &known);
        assert_names(
            &error.to_string(),
            &["config.json", found, "quantize.patterns"],
        );
    }
}

#[test]
fn patterns_add_to_the_official_rules() {
    let workspace = Workspace::new();
    let model = dense(Model::new(), "model.layers");
    let base = Checkpoint::single(model.tensors()).aux("config.json", r#"{"model_type": "llama"}"#);
    let request = QuantizeParams {
        patterns: vec!["lm_head.*".to_owned()],
        ..official()
    };
    let plan = plan_fp8(&workspace.write("base", &base), request).unwrap();
    let mut expected: BTreeSet<&str> = model.quantized.iter().map(String::as_str).collect();
    expected.insert("lm_head.weight");
    assert_eq!(fp8_names(&plan), expected);
}

/// DeepSeek's releases have 576 rows there.
#[test]
fn partial_rows_of_the_last_part_of_a_layer_are_noted_and_not_warned_of() {
    let noted_and_warned = |q_a: &[usize], kv_a: &[usize]| {
        let weight = |module: &str, shape: &[usize]| {
            bf16(&format!("model.layers.0.self_attn.{module}.weight"), shape)
        };
        let tensors = [weight("q_a_proj", q_a), weight("kv_a_proj_with_mqa", kv_a)];
        let config = r#"{"model_type": "deepseek_v3"}"#;
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(tensors).config(config));
        let plan = plan_fp8(&base, official()).unwrap();
        assert_eq!(fp8_names(&plan).len(), 2);
        let notes = plan.report.notes.join("\n");
        let warnings = plan.report.warnings.iter();
        let warnings = warnings.filter(|warning| warning.code() == Code::PartialBlocks);
        let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
        (notes.contains("kv_a_proj_with_mqa"), warnings.join("\n"))
    };
    assert_eq!(
        noted_and_warned(&[128, 256], &[192, 256]),
        (true, String::new())
    );
    assert_eq!(
        noted_and_warned(&[128, 256], &[256, 256]),
        (false, String::new())
    );
    // What comes before it is read with the scales of other rows.
    let (noted, warned) = noted_and_warned(&[192, 256], &[192, 256]);
    assert!(noted && warned.contains("q_a_proj"), "{warned}");
    assert!(!warned.contains("kv_a_proj_with_mqa"), "{warned}");
    let (noted, warned) = noted_and_warned(&[128, 200], &[192, 200]);
    assert!(!noted && warned.contains("kv_a_proj_with_mqa"), "{warned}");
}
