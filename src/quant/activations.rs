//! Scales of activations and of the KV cache. They are no weights: in another dtype they would be other
//! scales.

use crate::catalog::Catalog;
use crate::text::counted;

/// Their names after the module's, as vLLM, compressed-tensors and ModelOpt have them.
const NAMES: [&str; 10] = [
    "k_scale",
    "v_scale",
    "kv_scale",
    "q_scale",
    "prob_scale",
    "input_scale",
    "input_global_scale",
    "input_scale_ub",
    "output_scale",
    "activation_scale",
];

/// Whether a tensor called `name` is a scale of activations or of the KV cache.
pub(crate) fn is_activation_scale(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    NAMES.contains(&last)
}

/// Takes such scales out of `catalog`, which no longer declares what they are for.
pub(super) fn remove(catalog: &mut Catalog) {
    let before = catalog.tensors.len();
    catalog.tensors.retain(|name, _| !is_activation_scale(name));
    let removed = before - catalog.tensors.len();
    if removed > 0 {
        let note = format!(
            "{} of activations and the KV cache left out: no quantization is declared any more",
            counted(removed, "scale")
        );
        catalog.report.notes.push(note);
    }
}
