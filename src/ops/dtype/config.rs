//! config.json of a view that has one dtype.

use serde_json::json;

use crate::catalog::{Catalog, Config};
use crate::error::Result;
use crate::ops::Precision;
use crate::quant::{TEXT_CONFIG, undeclare};

/// What transformers 5 and transformers 4 call the dtype of the weights.
const DTYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// Declares that every weight is of dtype `to`, and no quantization any more.
pub(super) fn declare(catalog: &mut Catalog, to: Precision) -> Result<()> {
    undeclare(catalog)?;
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    let dtype = json!(to.torch_name());
    let mut is_declared = false;
    for key in DTYPE_KEYS {
        if let Some(found) = config.get(key) {
            is_declared = true;
            if found != dtype {
                config.set(key, &dtype);
            }
        }
    }
    for outer in nested(config) {
        for key in DTYPE_KEYS {
            if let Some(found) = config.get_in(&outer, key) {
                is_declared |= outer == TEXT_CONFIG;
                if found != dtype {
                    config.set_in(&outer, key, &dtype)?;
                }
            }
        }
    }
    if !is_declared {
        // Both versions of transformers read this one.
        config.set(DTYPE_KEYS[1], &dtype);
    }
    Ok(())
}

/// The keys of configurations of parts of a model, such as `text_config`.
fn nested(config: &Config) -> Vec<String> {
    let keys = config.keys().filter(|key| key.ends_with("_config"));
    keys.map(str::to_owned).collect()
}
