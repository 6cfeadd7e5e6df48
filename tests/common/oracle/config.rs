//! What config.json must say about an FP8 view.

use std::collections::BTreeSet;

use ckptfs::quant::fp8_block::ScaleFormat;
use serde_json::Value;

use super::numbers::scale_name;
use super::{ViewTensor, Wanted};
use crate::common::checkpoint::TensorData;

/// The promises of `quantization_config` that depend on the tensors.
#[derive(Debug)]
pub(crate) struct ExpectedConfig {
    /// `modules_to_not_convert`, in any order.
    pub(crate) skipped: BTreeSet<String>,
    pub(crate) scale_fmt: ScaleFmt,
}

/// What `scale_fmt` may say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScaleFmt {
    /// Every scale is a power of two by construction.
    Ue8m0,
    /// Some scale is not, or the format asked for does not promise it.
    Absent,
    /// Every scale happens to be one, but some were only passed through.
    Either,
}

impl Wanted {
    pub(crate) fn config(&self, tensors: &[ViewTensor]) -> ExpectedConfig {
        let quantized = Wanted::quantized_names(tensors);
        let mut skipped: BTreeSet<String> = tensors
            .iter()
            .map(|t| &t.data)
            .filter(|data| data.shape.len() >= 2 && !quantized.contains(&data.name))
            .filter_map(module_of)
            .collect();
        if !quantized.contains("lm_head.weight") {
            skipped.insert("lm_head".to_owned());
        }
        let scales = |computed| {
            tensors
                .iter()
                .filter(move |t| t.computed == computed)
                .filter(|t| {
                    quantized
                        .iter()
                        .any(|weight| t.data.name == scale_name(weight))
                })
        };
        let format = self
            .fp8
            .as_ref()
            .expect("an FP8 view")
            .request
            .scale_format
            .unwrap_or_default();
        let passed_through = scales(false).count() > 0;
        let scale_fmt = match format {
            ScaleFormat::Float32 => ScaleFmt::Absent,
            ScaleFormat::Ue8m0 if !passed_through => ScaleFmt::Ue8m0,
            ScaleFormat::Ue8m0 if scales(false).all(|t| all_powers_of_two(&t.data)) => {
                ScaleFmt::Either
            }
            ScaleFormat::Ue8m0 => ScaleFmt::Absent,
        };
        ExpectedConfig { skipped, scale_fmt }
    }
}

/// The module that a matrix is the weight of. Fused experts are one module without a `.weight`.
fn module_of(data: &TensorData) -> Option<String> {
    let fused = || data.shape.len() == 3 && data.name.contains(".mlp.experts.");
    let experts = [".gate_up_proj", ".down_proj"].into_iter();
    let module = match data.name.strip_suffix(".weight") {
        Some(module) => Some(module),
        None if fused() => experts
            .filter_map(|name| data.name.strip_suffix(name))
            .next(),
        None => None,
    };
    module.map(str::to_owned)
}

fn all_powers_of_two(scale: &TensorData) -> bool {
    let (scales, _) = scale.bytes.as_chunks::<4>();
    scales.iter().all(|bytes| {
        let bits = u32::from_le_bytes(*bytes);
        bits >> 31 == 0 && bits & 0x7F_FFFF == 0 && bits != 0 && bits >> 23 != 0xFF
    })
}

/// Asserts that `text`, an FP8 view's config.json, says what is expected and keeps the rest of
/// `source`: order and text of all other keys.
pub(crate) fn assert_config(source: &[u8], text: &[u8], expected: &ExpectedConfig) {
    let keep = |text| {
        let mut entries = entries(text);
        entries.retain(|(key, _)| key != "quantization_config");
        entries
    };
    assert_eq!(keep(text), keep(source), "the other keys of config.json");
    let config: Value = serde_json::from_slice(text).unwrap();
    let mut quantization = config["quantization_config"].as_object().unwrap().clone();
    let skipped = quantization.remove("modules_to_not_convert").unwrap();
    let skipped: Vec<String> = serde_json::from_value(skipped).unwrap();
    let unique: BTreeSet<String> = skipped.iter().cloned().collect();
    assert_eq!(skipped.len(), unique.len(), "no module is listed twice");
    assert_eq!(unique, expected.skipped, "modules_to_not_convert");
    let scale_fmt = quantization.remove("scale_fmt");
    match expected.scale_fmt {
        ScaleFmt::Ue8m0 => assert_eq!(scale_fmt, Some("ue8m0".into())),
        ScaleFmt::Absent => assert_eq!(scale_fmt, None),
        ScaleFmt::Either => assert!(scale_fmt.is_none_or(|fmt| fmt == "ue8m0")),
    }
    let rest = serde_json::json!({
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    });
    assert_eq!(Value::Object(quantization), rest);
}

/// The keys of a JSON object in order, each with its value as it is written.
pub(crate) fn entries(text: &[u8]) -> Vec<(String, String)> {
    let object: indexmap::IndexMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(text).unwrap();
    let entries = object.into_iter();
    entries
        .map(|(key, value)| (key, value.get().to_owned()))
        .collect()
}
