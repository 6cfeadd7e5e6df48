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
    OPERATORS.with(|operators| {
        for operator in operators {
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
