//! The factors of rotary embeddings that Llama 3 stretches: a tensor of its own in GGUF.

use serde_json::{Map, Value as Json};

/// `rope_freqs.weight`, one for each pair of `head` dimensions: 1 for short wavelengths, the factor for long
/// ones, in between a mean of both; nothing for other embeddings. In f32, as the converter computes them.
pub(super) fn factors(rope: &Map<String, Json>, head: u64) -> Option<Vec<f32>> {
    let kind = rope.get("rope_type")?.as_str()?;
    if !kind.eq_ignore_ascii_case("llama3") {
        return None;
    }
    let number = |key: &str, default: f64| rope.get(key).and_then(Json::as_f64).unwrap_or(default);
    let base = number("rope_theta", 10000.0);
    let factor = number("factor", 8.0);
    let low = number("low_freq_factor", 1.0);
    let high = number("high_freq_factor", 4.0);
    let context = number("original_max_position_embeddings", 8192.0);
    let (longest, shortest) = ((context / low) as f32, (context / high) as f32);
    let factors = (0..head.div_ceil(2)).map(|i| {
        let exponent = (2 * i) as f32 / head as f32;
        let frequency = 1.0 / (base.powf(exponent.into()) as f32);
        // A number divided by a tensor is the tensor's reciprocal times the number in torch.
        let wavelength = (1.0 / frequency) * std::f32::consts::TAU;
        if wavelength < shortest {
            1.0
        } else if wavelength > longest {
            factor as f32
        } else {
            let waves = (1.0 / wavelength) * context as f32;
            let smooth = (waves - low as f32) / (high - low) as f32;
            1.0 / ((1.0 - smooth) / factor as f32 + smooth)
        }
    });
    Some(factors.collect())
}
