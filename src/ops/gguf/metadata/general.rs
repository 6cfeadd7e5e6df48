//! `general.…`: what a model is called, how large it is, how it is sampled, and what its card says.

use serde_json::{Map, Value as Json};

use crate::error::Result;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::metadata::KeyWriter;
use crate::ops::gguf::metadata::model_card::ModelCard;
use crate::ops::gguf::metadata::model_name::ModelName;

/// How many weights a model has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parameters {
    /// Of all tensors.
    pub total: u64,
    /// Of those that are not stacks of experts.
    pub shared: u64,
    /// Of one expert of each stack.
    pub expert: u64,
    /// Experts of a stack; 0 without.
    pub experts: u64,
}

pub(super) fn keys(
    keys: &mut KeyWriter,
    config: &Map<String, Json>,
    files: Files,
    parameters: Parameters,
) -> Result<()> {
    keys.string("general.type", "model");
    // An unreadable generation_config.json is none to the converter.
    let generation = files.object("generation_config.json").unwrap_or_default();
    sampling(keys, &generation.unwrap_or_default());
    let card = match files.text("README.md") {
        Ok(Some(text)) => ModelCard::parse(&text),
        _ => ModelCard::default(),
    };
    let directory = files.directory().file_name().unwrap_or_default();
    let directory = directory.to_string_lossy();
    let given = config.get("_name_or_path").and_then(Json::as_str);
    let given = given.filter(|path| path.matches('/').count() <= 1);
    let mut name = card.name(parameters.total);
    if let Some(id) = given {
        name.complete(ModelName::parse(id, parameters.total));
    }
    name.complete(ModelName::parse(&directory, parameters.total));
    let full = name.full.unwrap_or_else(|| directory.into_owned());
    keys.string("general.name", &full);
    for (key, value) in [
        ("general.author", &card.author),
        ("general.version", &name.version),
        ("general.organization", &name.organization),
        ("general.finetune", &name.finetune),
        ("general.basename", &name.basename),
        ("general.description", &card.description),
    ] {
        keys.string(key, value.as_deref().unwrap_or_default());
    }
    let label = name.size_label.unwrap_or_else(|| parameters.label());
    keys.string("general.size_label", &label);
    card.keys(keys, parameters.total);
    Ok(())
}

fn sampling(keys: &mut KeyWriter, generation: &Map<String, Json>) {
    let get = |key: &str| generation.get(key).filter(|value| !value.is_null());
    keys.string_of("general.sampling.sequence", get("sequence"));
    i32_of(keys, "general.sampling.top_k", get("top_k"));
    keys.f32_of("general.sampling.top_p", get("top_p"));
    keys.f32_of("general.sampling.min_p", get("min_p"));
    keys.f32_of("general.sampling.xtc_probability", get("xtc_probability"));
    keys.f32_of("general.sampling.xtc_threshold", get("xtc_threshold"));
    keys.f32_of("general.sampling.temp", get("temperature"));
    i32_of(
        keys,
        "general.sampling.penalty_last_n",
        get("penalty_last_n"),
    );
    let repeat = match generation.contains_key("penalty_repeat") {
        true => get("penalty_repeat"),
        false => get("repetition_penalty"),
    };
    keys.f32_of("general.sampling.penalty_repeat", repeat);
    i32_of(keys, "general.sampling.mirostat", get("mirostat"));
    keys.f32_of("general.sampling.mirostat_tau", get("mirostat_tau"));
    keys.f32_of("general.sampling.mirostat_eta", get("mirostat_eta"));
}

fn i32_of(keys: &mut KeyWriter, key: &str, json: Option<&Json>) {
    let value = json.and_then(Json::as_i64);
    if let Some(value) = value.and_then(|value| i32::try_from(value).ok()) {
        keys.set(key, crate::format::gguf::Value::I32(value));
    }
}

impl Parameters {
    /// The sum over tensors, by names and shapes in GGUF.
    pub(crate) fn of<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u64])>) -> Self {
        let mut parameters = Parameters::default();
        let (mut experts, mut stacks) = (0u64, 0u64);
        for (name, shape) in tensors {
            let size = shape.iter().fold(1u64, |n, len| n.saturating_mul(*len));
            parameters.total = parameters.total.saturating_add(size);
            let from_end = if name.contains(".bias") { 2 } else { 3 };
            let count = shape.len().checked_sub(from_end).map(|at| shape[at]);
            match count.filter(|count| name.contains("_exps.") && shape.len() >= 3 && *count > 0) {
                Some(count) => {
                    parameters.expert = parameters.expert.saturating_add(size / count);
                    experts = experts.saturating_add(count);
                    stacks += 1;
                }
                None => parameters.shared = parameters.shared.saturating_add(size),
            }
        }
        parameters.experts = experts.checked_div(stacks).unwrap_or(0);
        parameters
    }

    /// `8x7B`, `135M`.
    fn label(self) -> String {
        match self.experts {
            0 => rounded(self.total),
            experts => format!(
                "{experts}x{}",
                rounded(self.shared.saturating_add(self.expert))
            ),
        }
    }
}

/// A number of weights with two digits, or all of those before the point.
fn rounded(count: u64) -> String {
    let (scale, suffix) = match count as f64 {
        n if n > 1e12 => (1e-12, "T"),
        n if n > 1e9 => (1e-9, "B"),
        n if n > 1e6 => (1e-6, "M"),
        _ => (1e-3, "K"),
    };
    let scaled = count as f64 * scale;
    let digits = scaled.round_ties_even().to_string();
    let decimals = 2usize.saturating_sub(digits.trim_start_matches('0').len());
    format!("{scaled:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        for (count, label) in [
            (0, "0.00K"),
            (999, "1.0K"),
            (134_515_008, "135M"),
            (1_235_814_400, "1.2B"),
            (9_960_000_000, "10B"),
            (46_700_000_000, "47B"),
        ] {
            assert_eq!(rounded(count), label);
        }
    }

    #[test]
    fn a_stack_of_experts_counts_one() {
        let tensors: [(&str, &[u64]); 3] = [
            ("token_embd.weight", &[1000, 1000]),
            ("blk.0.ffn_up_exps.weight", &[8, 1000, 1000]),
            ("blk.0.ffn_down_exps.weight", &[8, 1000, 1000]),
        ];
        let parameters = Parameters::of(tensors.into_iter());
        assert_eq!(parameters.total, 17_000_000);
        assert_eq!(parameters.label(), "8x3.0M");
    }
}
