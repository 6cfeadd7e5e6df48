//! config.json of a view that has one dtype: what it says about FP8 beforehand, and the dtype it
//! declares afterwards.

use serde_json::{Value, json};

use crate::catalog::{Catalog, Config};
use crate::error::{Error, Result};
use crate::ops::Precision;
use crate::ops::declared::{self, KEY, METHOD_KEY, TEXT_CONFIG, declarations};
use crate::ops::fp8::BLOCK;
use crate::tensor::is_float8;

/// Where older compressed-tensors checkpoints have their declaration.
const COMPRESSION_KEY: &str = "compression_config";
/// What transformers 5 and transformers 4 call the dtype of the weights.
const DTYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// Rows and columns of the blocks that FP8 scales are for: what config.json says, or else 128 each.
///
/// # Errors
/// If it declares a quantization other than block FP8 with dynamic activations.
pub(super) fn block(catalog: &mut Catalog) -> Result<[u64; 2]> {
    let Some(config) = catalog.config_mut()? else {
        return Ok([BLOCK; 2]);
    };
    let path = config.path().to_owned();
    let compression = config.get(COMPRESSION_KEY).filter(|value| !value.is_null());
    let mut block = None;
    for declared in declarations(config).into_iter().chain(compression) {
        let method = declared.get(METHOD_KEY).unwrap_or(&Value::Null);
        let scheme = declared.get("activation_scheme").unwrap_or(&Value::Null);
        if *method != "fp8" || !(scheme.is_null() || *scheme == "dynamic") {
            return Err(Error::checkpoint(
                path,
                format!(
                    "it declares {METHOD_KEY} {method} with activation_scheme {scheme}{}; only weights of \"fp8\" with block scales and \"dynamic\" activations can be dequantized; leave --dtype out, or start from the unquantized checkpoint",
                    example(catalog)
                ),
            ));
        }
        let found = match declared.get("weight_block_size") {
            None | Some(Value::Null) => continue,
            Some(size) => match serde_json::from_value::<[u64; 2]>(size.clone()) {
                Ok([rows, columns]) if rows > 0 && columns > 0 => [rows, columns],
                _ => {
                    return Err(Error::checkpoint(
                        path,
                        format!(
                            "weight_block_size is {size}; expected two numbers such as [128, 128]"
                        ),
                    ));
                }
            },
        };
        if block.is_some_and(|block| block != found) {
            return Err(Error::checkpoint(
                path,
                format!("{KEY} declares weight_block_size {block:?} and {found:?}; remove one"),
            ));
        }
        block = Some(found);
    }
    Ok(block.unwrap_or([BLOCK; 2]))
}

/// A tensor that shows the quantization of another method, for a message.
fn example(catalog: &Catalog) -> String {
    const SUFFIXES: [&str; 10] = [
        ".qweight",
        ".weight_packed",
        ".weight_scale",
        ".weight_scale_inv",
        ".weight_scale_2",
        ".absmax",
        ".SCB",
        ".scales",
        "_blocks",
        "_scales",
    ];
    let is_quantized = |name: &str| SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let mut tensors = catalog.tensors.iter();
    tensors
        .find(|(name, tensor)| is_float8(tensor.dtype) || is_quantized(name))
        .map_or_else(String::new, |(name, _)| {
            format!(" (a tensor of it is {name})")
        })
}

/// Removes what declares a quantization.
pub(super) fn undeclare_quantization(catalog: &mut Catalog) -> Result<()> {
    declared::hide_modelopt(catalog, "no tensor of the view is quantized by it");
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    config.remove(KEY);
    config.remove(COMPRESSION_KEY);
    if config.get_in(TEXT_CONFIG, KEY).is_some() {
        config.remove_in(TEXT_CONFIG, KEY)?;
    }
    Ok(())
}

/// Declares that every weight is of dtype `to`, and no quantization any more.
pub(super) fn declare(catalog: &mut Catalog, to: Precision) -> Result<()> {
    undeclare_quantization(catalog)?;
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
