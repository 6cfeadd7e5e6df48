//! `rope_scaling` of config.json: from keys, or of Llama 3 from the factors that its converter computed.

use serde_json::{Value, json};

use crate::catalog::Opened;
use crate::error::Result;
use crate::format::gguf::TensorType;
use crate::ops::gguf::source::metadata::{Metadata, shortest};
use crate::ops::gguf::source::tensors::ROPE_FACTORS;

/// What every release of Llama 3.1, 3.2 and 3.3 has, besides the factor.
const LOW_FREQUENCY_FACTOR: f64 = 1.0;
const HIGH_FREQUENCY_FACTOR: f64 = 4.0;
const ORIGINAL_CONTEXT: u32 = 8192;

/// How positions are scaled, or null.
///
/// # Errors
/// If that is unclear, or the factors cannot be read.
pub(super) fn rope_scaling(
    metadata: Metadata,
    opened: &Opened,
    head_dim: u64,
    theta: f64,
) -> Result<Value> {
    let factor = metadata.find_float(".rope.scaling.factor")?;
    let original = metadata.find_number(".rope.scaling.original_context_length")?;
    let kind = metadata.find_text(".rope.scaling.type")?;
    let refuse = |problem: &str| Err(metadata.unmade("config.json", problem));
    if let Some(factors) = factors(metadata, opened, head_dim)? {
        let largest = factors.iter().copied().fold(1.0f32, f32::max);
        let expected = llama3_factors(f64::from(largest), head_dim, theta);
        let is_near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-4 * b;
        if factors.len() != expected.len() || !factors.iter().zip(&expected).all(is_near) {
            return refuse("rope_freqs.weight has other factors than those of Llama 3");
        }
        return Ok(json!({
            "rope_type": "llama3",
            "factor": shortest(largest.into()),
            "low_freq_factor": LOW_FREQUENCY_FACTOR,
            "high_freq_factor": HIGH_FREQUENCY_FACTOR,
            "original_max_position_embeddings": ORIGINAL_CONTEXT,
        }));
    }
    match (kind, factor) {
        (None | Some("none"), _) => Ok(Value::Null),
        (Some("linear"), Some(factor)) => {
            let factor = shortest(factor);
            Ok(json!({"rope_type": "linear", "type": "linear", "factor": factor}))
        }
        (Some("yarn"), Some(factor)) => {
            let mut scaling =
                json!({"rope_type": "yarn", "type": "yarn", "factor": shortest(factor)});
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = original.into();
            }
            for (key, gguf) in [
                ("beta_fast", ".rope.scaling.yarn_beta_fast"),
                ("beta_slow", ".rope.scaling.yarn_beta_slow"),
            ] {
                if let Some(beta) = metadata.find_float(gguf)? {
                    scaling[key] = shortest(beta);
                }
            }
            Ok(scaling)
        }
        (Some(kind), _) => refuse(&format!(
            "rope.scaling.type is {kind:?}, without a factor or unknown"
        )),
    }
}

/// The factors that rotations are divided by, one for each pair of dimensions, if there are some.
fn factors(metadata: Metadata, opened: &Opened, head_dim: u64) -> Result<Option<Vec<f32>>> {
    let Some(placed) = metadata.model.types.get(ROPE_FACTORS) else {
        return Ok(None);
    };
    if placed.tensor_type != TensorType::F32 || *placed.shape != [head_dim / 2] {
        let problem = "rope_freqs.weight is not F32 of half as many elements as a head has";
        return Err(metadata.unmade("config.json", problem));
    }
    let mut shards = opened.shards.iter();
    let found = shards.find_map(|shard| Some((shard, shard.tensors.get(ROPE_FACTORS)?)));
    let (shard, tensor) = found.expect("a tensor of the model is in a shard");
    let mut bytes = crate::memory::zeros(tensor.len)?;
    shard.blob.read_at(&mut bytes, tensor.offset)?;
    let factors = bytes.chunks_exact(4);
    let factors = factors.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes")));
    Ok(Some(factors.collect()))
}

/// The factors of Llama 3: high frequencies stay, low ones are divided by `factor`, and those between
/// go smoothly from one to the other.
fn llama3_factors(factor: f64, head_dim: u64, theta: f64) -> Vec<f64> {
    let context = f64::from(ORIGINAL_CONTEXT);
    let pairs = (0..head_dim / 2).map(|i| {
        let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < context / HIGH_FREQUENCY_FACTOR {
            1.0
        } else if wavelength > context / LOW_FREQUENCY_FACTOR {
            factor
        } else {
            let smooth = (context / wavelength - LOW_FREQUENCY_FACTOR)
                / (HIGH_FREQUENCY_FACTOR - LOW_FREQUENCY_FACTOR);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    pairs.collect()
}
