//! What config.json says of block FP8: read from a source; declared of a view, once, at the top
//! level, and true of every tensor.

use std::path::Path;

use half::{bf16, f16};
use indexmap::IndexSet;
use serde_json::{Value, json};

use crate::catalog::{CONFIG_FILE, Catalog, Extent};
use crate::error::{Code, Error, Result};
use crate::kernels::fp8::ScaleFormat;
use crate::quant::declared::{
    KEY, METHOD_KEY, SKIP_KEY, SKIP_KEYS, TEXT_CONFIG, declarations, hide_modelopt, skips,
};
use crate::quant::fp8_block::format::{
    BLOCK, BLOCK_SIZE_KEY, Fp8Block, METHOD, POWERS_OF_TWO, SCALE_FORMAT_KEY,
};
use crate::quant::fp8_block::naming;
use crate::quant::skip_list;
use crate::tensor::{Dtype, Name};

/// Whether `declaration` is of block FP8 with dynamic activations.
pub(super) fn is_declared(declaration: &Value) -> bool {
    let activations = declaration.get("activation_scheme");
    declaration
        .get(METHOD_KEY)
        .is_some_and(|method| method == METHOD)
        && activations.is_none_or(|scheme| scheme.is_null() || scheme == "dynamic")
}

/// Block FP8 as the config.json `path` has it in `declarations` of it, or the usual one if there are
/// none.
///
/// # Errors
/// If they have another block size than two numbers, or several.
pub(super) fn declared(declarations: &[Value], path: &Path) -> Result<Fp8Block> {
    let mut block = None;
    for declared in declarations {
        let found = match declared.get(BLOCK_SIZE_KEY) {
            None | Some(Value::Null) => continue,
            Some(size) => match serde_json::from_value::<[u64; 2]>(size.clone()) {
                Ok([rows, columns]) if rows > 0 && columns > 0 => [rows, columns],
                _ => {
                    return Err(Error::of_file(
                        Code::BadConfig,
                        path,
                        format!(
                            "{BLOCK_SIZE_KEY} is {size}; expected two numbers such as [{BLOCK}, {BLOCK}]"
                        ),
                    ));
                }
            },
        };
        if block.is_some_and(|block| block != found) {
            return Err(Error::of_file(
                Code::BadConfig,
                path,
                format!("{KEY} declares {BLOCK_SIZE_KEY} {block:?} and {found:?}"),
            )
            .with_hint("remove one"));
        }
        block = Some(found);
    }
    Ok(block.map_or(Fp8Block::USUAL, |block| Fp8Block { block }))
}

/// Checks that the base can be described as block FP8.
///
/// # Errors
/// If config.json is missing or declares another method or block size.
pub(super) fn check_base(catalog: &mut Catalog) -> Result<()> {
    let directory = catalog.report.sources[0].path.clone();
    let Some(config) = catalog.config_mut()? else {
        return Err(missing_config(&directory));
    };
    for declared in declarations(config) {
        let expect = |key: &str, expected: Value| match declared.get(key) {
            Some(found) if *found != expected => Err(Error::of_file(
                Code::OtherQuantization,
                config.path(),
                format!("{KEY} declares {key} {found}, but a block FP8 view needs {expected}"),
            )
            .with_hint("start from the unquantized checkpoint")),
            _ => Ok(()),
        };
        if declared.get(METHOD_KEY).is_none() {
            return Err(Error::of_file(
                Code::OtherQuantization,
                config.path(),
                format!("{KEY} has no quant_method; only \"fp8\" can be extended"),
            ));
        }
        expect(METHOD_KEY, json!(METHOD))?;
        expect(BLOCK_SIZE_KEY, json!([BLOCK, BLOCK]))?;
        expect("activation_scheme", json!("dynamic"))?;
        expect("fmt", json!("e4m3"))?;
    }
    Ok(())
}

/// Declares the quantization of the finished catalog, whose tensors `quantized` are FP8.
pub(super) fn declare(
    catalog: &mut Catalog,
    quantized: &IndexSet<Name>,
    scale_format: ScaleFormat,
) -> Result<()> {
    if quantized.is_empty() {
        return Ok(());
    }
    let mut declaration = json!({
        METHOD_KEY: METHOD,
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        BLOCK_SIZE_KEY: [BLOCK, BLOCK],
    });
    if scale_format == ScaleFormat::Ue8m0 && stored_scales_are_powers_of_two(catalog, &|_| true)? {
        declaration[SCALE_FORMAT_KEY] = json!(POWERS_OF_TWO);
    }
    let declared = match catalog.config_mut()? {
        Some(config) => declarations(config).iter().flat_map(skips).collect(),
        None => Vec::new(),
    };
    let skipped = skip_list::build(&Fp8Block::USUAL, catalog, quantized, declared);
    catalog.report.warnings.extend(skipped.warnings);

    let config = catalog
        .config_mut()?
        .expect("check_base found a config.json");
    declaration[SKIP_KEY] = skipped.entries.into_iter().collect();
    config.set(KEY, &declaration);
    config.remove_in(TEXT_CONFIG, KEY)?;

    hide_modelopt(catalog, &format!("{KEY} in {CONFIG_FILE} takes its place"));
    Ok(())
}

/// As [`Scheme::declare_stored`](crate::quant::Scheme::declare_stored), once, at the top level.
pub(super) fn declare_stored(
    scheme: &Fp8Block,
    catalog: &mut Catalog,
    quantized: &IndexSet<Name>,
    brought: &dyn Fn(&str) -> bool,
    theirs: Option<&Value>,
    relists: bool,
) -> Result<()> {
    let directory = catalog.report.sources[0].path.clone();
    let ours = match catalog.config_mut()? {
        Some(config) => declarations(config),
        None => return Err(missing_config(&directory)),
    };
    let mut declaration = match ours.first().or(theirs) {
        Some(declared) => declared.clone(),
        None => json!({METHOD_KEY: METHOD, "activation_scheme": "dynamic", "fmt": "e4m3"}),
    };
    let is_block_size = |size: &Value| !size.is_null();
    if !declaration.get(BLOCK_SIZE_KEY).is_some_and(is_block_size) {
        declaration[BLOCK_SIZE_KEY] = json!(scheme.block);
    }
    let declares_powers = declaration
        .get(SCALE_FORMAT_KEY)
        .is_some_and(|format| format == POWERS_OF_TWO);
    if declares_powers
        && !stored_scales_are_powers_of_two(catalog, brought)?
        && let Some(declaration) = declaration.as_object_mut()
    {
        declaration.remove(SCALE_FORMAT_KEY);
    }
    if relists {
        let declared = ours.iter().flat_map(skips).collect();
        let skipped = skip_list::build(scheme, catalog, quantized, declared);
        catalog.report.warnings.extend(skipped.warnings);
        if let Some(declaration) = declaration.as_object_mut() {
            declaration.retain(|key, _| !SKIP_KEYS.contains(&key.as_str()));
        }
        declaration[SKIP_KEY] = skipped.entries.into_iter().collect();
    }
    if ours == [declaration.clone()] {
        return Ok(());
    }
    let config = catalog.config_mut()?.expect("it was found above");
    config.set(KEY, &declaration);
    config.remove_in(TEXT_CONFIG, KEY)?;
    hide_modelopt(catalog, &format!("{KEY} in {CONFIG_FILE} takes its place"));
    Ok(())
}

fn missing_config(directory: &Path) -> Error {
    let problem = "this file is missing, and a quantized view must declare its quantization there";
    Error::of_file(Code::BadConfig, directory.join(CONFIG_FILE), problem)
}

/// Whether every scale that is passed through to a weight that `is_meant` is a power of two. Their values are read: what a
/// source declares may not be true, and consumers round such scales silently.
fn stored_scales_are_powers_of_two(
    catalog: &Catalog,
    is_meant: &dyn Fn(&str) -> bool,
) -> Result<bool> {
    const BUFFER_BYTES: u64 = 1 << 20;
    let mut buffer = vec![0; BUFFER_BYTES as usize];
    for (name, tensor) in &catalog.tensors {
        let segments = tensor.extents.segments().iter();
        let stored = segments.filter_map(|segment| match &segment.place {
            Extent::Stored { blob, offset } => Some((segment.len, blob, *offset)),
            Extent::Made { .. } | Extent::Computed { .. } => None,
        });
        let mut stored = stored.peekable();
        let is_scale = || {
            let weight = naming::weight_of(&catalog.tensors, name);
            weight.is_some_and(|w| catalog.tensors.contains_key(&*w) && is_meant(&w))
        };
        if stored.peek().is_none() || !is_scale() {
            continue;
        }
        for (len, blob, offset) in stored {
            let mut at = 0;
            while at < len {
                let part = &mut buffer[..(len - at).min(BUFFER_BYTES) as usize];
                blob.read_at(part, offset + at)?;
                if !are_powers_of_two(tensor.dtype, part) {
                    return Ok(false);
                }
                at += part.len() as u64;
            }
        }
    }
    Ok(true)
}

fn are_powers_of_two(dtype: Dtype, bytes: &[u8]) -> bool {
    let power = |x: f32| x.is_normal() && x > 0.0 && x.to_bits().trailing_zeros() >= 23;
    let pairs = || {
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    match dtype {
        Dtype::F8_E8M0 => true,
        Dtype::BF16 => pairs().all(|bits| power(bf16::from_bits(bits).to_f32())),
        Dtype::F16 => pairs().all(|bits| power(f16::from_bits(bits).to_f32())),
        Dtype::F32 => bytes
            .chunks_exact(4)
            .all(|b| power(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        _ => false,
    }
}
