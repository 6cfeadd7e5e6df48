//! Any text as config.json, under every operator that reads or edits it.
#![no_main]

use std::sync::{Arc, LazyLock};

use ckptfs::catalog::{Catalog, Config, Opened};
use ckptfs::format::Shard;
use ckptfs::ops::dtype::InDtype;
use ckptfs::ops::{Experts, Operations, Operator, Precision, QuantizeParams};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs_fuzz::any_file;
use ckptfs_fuzz::checkpoint::{in_memory, shard};
use ckptfs_fuzz::memory::bounded;
use indexmap::IndexMap;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

const HEADER: &str = r#"{
"lm_head.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[0,32]},
"model.layers.0.mlp.down_proj.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[32,64]},
"model.layers.0.mlp.gate.weight":{"dtype":"BF16","shape":[2,4],"data_offsets":[64,80]},
"model.layers.1.mlp.experts.0.gate_proj.weight":{"dtype":"BF16","shape":[2,4],"data_offsets":[80,96]},
"model.layers.1.mlp.experts.0.up_proj.weight":{"dtype":"BF16","shape":[2,4],"data_offsets":[96,112]},
"model.layers.1.mlp.experts.0.down_proj.weight":{"dtype":"BF16","shape":[4,2],"data_offsets":[112,128]},
"model.layers.2.mlp.experts.gate_up_proj":{"dtype":"BF16","shape":[1,4,4],"data_offsets":[128,160]},
"model.layers.2.mlp.experts.down_proj":{"dtype":"BF16","shape":[1,4,2],"data_offsets":[160,176]}}"#;

/// Weights in every packing that can be declared, each under a name of its own, and of shapes that fit each other.
const PACKED: &str = r#"{
"lm_head.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[0,32]},
"model.layers.0.mlp.up_proj.weight_packed":{"dtype":"I32","shape":[8,8],"data_offsets":[32,288]},
"model.layers.0.mlp.up_proj.weight_scale":{"dtype":"BF16","shape":[8,2],"data_offsets":[288,320]},
"model.layers.0.mlp.up_proj.weight_shape":{"dtype":"I64","shape":[2],"data_offsets":[320,336]},
"model.layers.0.mlp.up_proj.weight_zero_point":{"dtype":"I32","shape":[1,2],"data_offsets":[336,344]},
"model.layers.0.mlp.up_proj.weight_g_idx":{"dtype":"I32","shape":[64],"data_offsets":[344,600]},
"model.layers.1.mlp.up_proj.weight":{"dtype":"F8_E4M3","shape":[2,32],"data_offsets":[600,664]},
"model.layers.1.mlp.up_proj.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[664,672]},
"model.layers.2.mlp.up_proj.weight_packed":{"dtype":"U8","shape":[2,16],"data_offsets":[672,704]},
"model.layers.2.mlp.up_proj.weight_scale":{"dtype":"U8","shape":[2,1],"data_offsets":[704,706]},
"model.layers.3.mlp.up_proj.weight":{"dtype":"U8","shape":[2,16],"data_offsets":[706,738]},
"model.layers.3.mlp.up_proj.weight_scale":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[738,742]},
"model.layers.3.mlp.up_proj.weight_scale_2":{"dtype":"F32","shape":[],"data_offsets":[742,746]},
"model.layers.4.mlp.up_proj.qweight":{"dtype":"I32","shape":[4,32],"data_offsets":[746,1258]},
"model.layers.4.mlp.up_proj.qzeros":{"dtype":"I32","shape":[1,4],"data_offsets":[1258,1274]},
"model.layers.4.mlp.up_proj.scales":{"dtype":"F16","shape":[1,32],"data_offsets":[1274,1338]},
"model.layers.4.mlp.up_proj.g_idx":{"dtype":"I32","shape":[32],"data_offsets":[1338,1466]},
"model.layers.5.mlp.up_proj.weight":{"dtype":"U8","shape":[32,1],"data_offsets":[1466,1498]},
"model.layers.5.mlp.up_proj.weight.absmax":{"dtype":"F32","shape":[1],"data_offsets":[1498,1502]},
"model.layers.5.mlp.up_proj.weight.quant_map":{"dtype":"F32","shape":[16],"data_offsets":[1502,1566]},
"model.layers.5.mlp.up_proj.weight.quant_state.bitsandbytes__nf4":{"dtype":"U8","shape":[2],"data_offsets":[1566,1568]},
"model.layers.6.mlp.up_proj.weight":{"dtype":"I8","shape":[4,16],"data_offsets":[1568,1632]},
"model.layers.6.mlp.up_proj.scale":{"dtype":"F8_E8M0","shape":[4,1],"data_offsets":[1632,1636]},
"model.layers.7.mlp.experts.down_proj_blocks":{"dtype":"U8","shape":[1,2,1,16],"data_offsets":[1636,1668]},
"model.layers.7.mlp.experts.down_proj_scales":{"dtype":"U8","shape":[1,2,1],"data_offsets":[1668,1670]}}"#;

/// Everything that reads or edits config.json, and what is asked to have it done.
fn operators() -> Vec<Box<dyn Operator>> {
    let quantize = |format| QuantizeParams {
        scale_format: Some(format),
        ..QuantizeParams::by_rules()
    };
    let asked: [fn(&mut Operations); 5] = [
        |asked| asked.experts.form = Some(Experts::Unfuse),
        |asked| asked.experts.form = Some(Experts::Fuse),
        |asked| asked.dtype.to = Some(Precision::F16),
        |asked| asked.rename.rules.push("model|lm=m".to_owned()),
        |asked| asked.filter.drop.push("lm_head.*".to_owned()),
    ];
    let asked = asked.map(|ask| {
        let mut operations = Operations::default();
        ask(&mut operations);
        operations
    });
    let quantized = [ScaleFormat::Float32, ScaleFormat::Ue8m0].map(|format| Operations {
        quantize: quantize(format),
        ..Operations::default()
    });
    let schemes = ["fp8-channel", "int4:asymmetric"].map(|scheme| Operations {
        quantize: QuantizeParams {
            scheme: Some(scheme.parse().expect("a scheme")),
            ..QuantizeParams::by_rules()
        },
        ..Operations::default()
    });
    let all = asked.iter().chain(&quantized).chain(&schemes);
    let operators = all.flat_map(|asked| asked.operators().expect("what is asked is valid"));
    let dequantize = InDtype::only_quantized(Precision::F16);
    operators
        .chain([Box::new(dequantize) as Box<dyn Operator>])
        .collect()
}

thread_local! {
    static OPERATORS: Vec<Box<dyn Operator>> = operators();
}

fuzz_target!(|text: &[u8]| {
    OPERATORS.with(|_| ());
    static SHARD: LazyLock<Arc<Shard>> = LazyLock::new(|| shard(HEADER));
    let catalog = || Catalog::from_base(Opened::stored(in_memory(&SHARD)));
    drop(catalog());
    let parsed = bounded(text.len(), 16 << 10, 200, || {
        Config::parse(text, any_file())
    });
    let Ok(config) = parsed else { return };
    assert!(config.edited_text().is_none(), "nothing is edited yet");
    let before: IndexMap<String, Box<RawValue>> =
        serde_json::from_slice(text).expect("what is accepted is a JSON object");
    static SHARD_PACKED: LazyLock<Arc<Shard>> = LazyLock::new(|| shard(PACKED));
    let packed = || Catalog::from_base(Opened::stored(in_memory(&SHARD_PACKED)));
    drop(packed());
    OPERATORS.with(|operators| {
        for operator in operators {
            let mut packed = packed();
            packed.config = Some(config.clone());
            // What is asked of them may well be refused.
            let _ = bounded(text.len(), 4 << 20, 500, || operator.apply(&mut packed));
            let mut catalog = catalog();
            catalog.config = Some(config.clone());
            // A value of few bytes takes many, and one text is parsed for several questions.
            let applied = bounded(text.len(), 4 << 20, 500, || operator.apply(&mut catalog));
            let (Ok(()), Some(edited)) = (applied, catalog.config) else {
                continue;
            };
            let Some(edited) = edited.edited_text() else {
                continue;
            };
            let after: IndexMap<String, Box<RawValue>> =
                serde_json::from_str(&edited).expect("an edited config is a JSON object");
            if let Some(declared) = after.get("quantization_config") {
                let declared: Value =
                    serde_json::from_str(declared.get()).expect("what is declared is JSON");
                // What only renames modules leaves the method, even one that is missing.
                let source: Option<Value> = before
                    .get("quantization_config")
                    .and_then(|source| serde_json::from_str(source.get()).ok());
                let kept = source.is_some_and(|s| s["quant_method"] == declared["quant_method"]);
                let methods = ["fp8", "compressed-tensors"];
                let is_ours = methods.iter().any(|method| declared["quant_method"] == *method);
                assert!(kept || is_ours, "{declared}");
            }
            for (key, value) in &before {
                let is_edited = ["dtype", "torch_dtype", "expert_dtype"].contains(&key.as_str());
                if !key.ends_with("_config") && !is_edited {
                    assert_eq!(value.get(), after[key].get(), "{key} keeps its text");
                }
            }
        }
    });
});
