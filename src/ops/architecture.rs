//! Whether two checkpoints look like the same model, by what their config.json say.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Config};
use crate::error::{Code, Warning};

/// Warns that `other`, the config.json of a checkpoint that is called `role`, is of another architecture
/// than `base`.
pub(super) fn differs(base: &Config, other: &Config, role: &str) -> Option<Warning> {
    const KEYS: [&str; 4] = [
        "architectures",
        "model_type",
        "hidden_size",
        "num_hidden_layers",
    ];
    let differing: Vec<String> = KEYS
        .iter()
        .filter_map(|key| {
            let value = |config: &Config| -> Option<Value> { config.text_model(key) };
            let (ours, theirs) = (value(base)?, value(other)?);
            (ours != theirs)
                .then(|| format!("{key} is {ours} in the base and {theirs} in the {role}"))
        })
        .collect();
    (!differing.is_empty()).then(|| {
        Warning::new(
            Code::OtherArchitecture,
            format!(
                "base and {role} look like different architectures by their {CONFIG_FILE}: {}",
                differing.join(", ")
            ),
        )
    })
}
