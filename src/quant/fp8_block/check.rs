//! Whether the block FP8 weights of a directory, their scales and config.json agree.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use half::{bf16, f16};
use serde_json::Value;

use crate::catalog::CONFIG_FILE;
use crate::error::{Code, Result};
use crate::findings::Faults;
use crate::format::StoredTensor;
use crate::jobs::{self, Progress, check_going_on};
use crate::quant::declared::{KEY, METHOD_KEY};
use crate::quant::fp8_block::format::{
    BLOCK, BLOCK_SIZE_KEY, Fp8Block, METHOD, POWERS_OF_TWO, SCALE_FORMAT_KEY, SCALE_SUFFIX,
    is_code, scale_name, weight_of,
};
use crate::quant::fp8_block::naming;
use crate::quant::scheme::{Reading, StoredFile, Verified};
use crate::source::Blob;
use crate::tensor::Dtype;
use crate::text::counted;

/// As [`Scheme::verify`](crate::quant::Scheme::verify).
pub(super) fn verify<'a>(
    declaration: Option<&Value>,
    stored: &'a [StoredFile<'a>],
    reading: &Reading,
    faults: &mut Faults,
) -> Result<Verified<'a>> {
    let pairs = pairs(stored, faults);
    let scheme = declared_block(declaration, faults);
    for pair in &pairs {
        pair.check(&scheme, faults);
    }
    let mut known = 0;
    match declaration {
        Some(declaration) => {
            check_method(declaration, stored, &pairs, faults);
            let format = declaration.get(SCALE_FORMAT_KEY);
            if format.is_some_and(|format| format == POWERS_OF_TWO) {
                known = check_powers_of_two(&pairs, reading, faults)?;
            }
        }
        None if pairs.is_empty() => {}
        None => faults.problems.add(
            Code::ConfigMismatch,
            format!(
                "{CONFIG_FILE} has no {KEY}, but there are block scales ({SCALE_SUFFIX}) for {}",
                counted(pairs.len(), "tensor")
            ),
        ),
    }
    Ok(Verified {
        quantized: pairs.iter().map(|pair| pair.name).collect(),
        known,
        lists_by_name: false,
    })
}

fn declared_block(declaration: Option<&Value>, faults: &mut Faults) -> Fp8Block {
    let Some(size) = declaration.and_then(|declared| declared.get(BLOCK_SIZE_KEY)) else {
        return Fp8Block::USUAL;
    };
    match serde_json::from_value::<Option<[u64; 2]>>(size.clone()) {
        Ok(Some([rows, columns])) if rows > 0 && columns > 0 => Fp8Block {
            block: [rows, columns],
        },
        Ok(None) => Fp8Block::USUAL,
        _ => {
            faults.problems.add(Code::BadConfig, format!(
                "{CONFIG_FILE}: {BLOCK_SIZE_KEY} is {size}; expected two numbers such as [{BLOCK}, {BLOCK}]"
            ));
            Fp8Block::USUAL
        }
    }
}

fn check_method(declaration: &Value, stored: &[StoredFile], pairs: &[Pair], faults: &mut Faults) {
    let method = &declaration[METHOD_KEY];
    if method != METHOD {
        if !pairs.is_empty() {
            faults.problems.add(Code::ConfigMismatch, format!(
                "{CONFIG_FILE} declares {METHOD_KEY} {method}, but there are block scales, which are of \"{METHOD}\", for {}",
                counted(pairs.len(), "tensor")
            ));
        }
        return;
    }
    let has_blocks = declaration
        .get(BLOCK_SIZE_KEY)
        .is_some_and(|size| !size.is_null());
    let names: HashSet<&str> = stored
        .iter()
        .flat_map(|file| file.tensors.keys())
        .map(|name| &**name)
        .collect();
    let has_scales = |name: &str| naming::scale_names(name).any(|scales| names.contains(&*scales));
    let mut all = stored.iter().flat_map(|file| file.tensors);
    if has_blocks
        && pairs.is_empty()
        && !all.any(|(name, tensor)| is_code(tensor.dtype) && has_scales(name))
    {
        faults.problems.add(
            Code::ConfigMismatch,
            format!(
                "{CONFIG_FILE} declares block FP8, but no tensor has block scales ({SCALE_SUFFIX})"
            ),
        );
    }
    for (name, tensor) in stored.iter().flat_map(|file| file.tensors) {
        if tensor.dtype == Dtype::F8_E4M3 && tensor.shape.len() >= 2 && !has_scales(name) {
            faults
                .problems
                .add_item(Code::MissingScales, "FP8 weights without scales", &**name);
        }
    }
}

/// Returns how many of `pairs` were not read, because their scales are known.
fn check_powers_of_two(pairs: &[Pair], reading: &Reading, faults: &mut Faults) -> Result<usize> {
    let is_known = |pair: &&Pair| {
        let device = pair.scales_device();
        device.is_some_and(|device| (reading.is_known)(&scale_name(pair.name), device))
    };
    let (known, others): (Vec<&Pair>, Vec<&Pair>) = (pairs.iter()).partition(is_known);
    let bytes = others.iter().map(|pair| pair.bytes_to_read()).sum();
    if bytes > 0 {
        let what = format!(
            "the scales of {}, to see whether all are powers of two as {CONFIG_FILE} declares",
            counted(others.len(), "tensor")
        );
        reading.progress.start_reading(&what, bytes);
    }
    let found = jobs::map(&others, reading.jobs, |pair| {
        reading.progress.file(Path::new(&scale_name(pair.name)));
        pair.first_other_than_power_of_two(reading.progress)
    })?;
    for (pair, found) in others.iter().zip(found) {
        if let Some((position, scale)) = found {
            faults.problems.add_item(Code::ConfigMismatch, format!(
                        "{CONFIG_FILE} declares {SCALE_FORMAT_KEY} \"{POWERS_OF_TWO}\", but scales are not all powers of two (some loaders round them)"
                    ),
                    format!("{} ({scale:e} at {position})", scale_name(pair.name)),
                );
        }
    }
    Ok(known.len())
}

/// A quantized tensor and its scales.
#[derive(Debug)]
struct Pair<'a> {
    name: &'a str,
    weight: &'a StoredTensor,
    scales: &'a StoredTensor,
    scales_file: &'a dyn Blob,
    shards: [&'a str; 2],
}

/// Every tensor that has scales; scales of nothing are told.
fn pairs<'a>(stored: &'a [StoredFile<'a>], faults: &mut Faults) -> Vec<Pair<'a>> {
    let tensors = stored.iter().flat_map(|file| {
        let tensors = file.tensors.iter();
        tensors.map(move |(name, tensor)| (&**name, (file, tensor)))
    });
    let tensors: HashMap<&str, (&StoredFile, &StoredTensor)> = tensors.collect();
    let mut pairs = Vec::new();
    for shard in stored {
        for (scale_name, scales) in shard.tensors {
            let Some(name) = weight_of(scale_name) else {
                continue;
            };
            match tensors.get(name) {
                Some((weight_shard, weight)) => pairs.push(Pair {
                    name,
                    weight,
                    scales,
                    scales_file: &**shard.file,
                    shards: [weight_shard.name, shard.name],
                }),
                None => {
                    let fault = "scales of tensors that do not exist";
                    faults
                        .problems
                        .add_item(Code::MissingWeight, fault, &**scale_name);
                }
            }
        }
    }
    pairs
}

impl Pair<'_> {
    /// Checks dtypes, shapes and place, for blocks of `scheme`.
    fn check(&self, scheme: &Fp8Block, faults: &mut Faults) {
        let Pair {
            name,
            weight,
            scales,
            ..
        } = self;
        if !is_code(weight.dtype) {
            faults.problems.add_item(
                Code::BadScales,
                format!("tensors with scales ({SCALE_SUFFIX}) that are not FP8"),
                format!("{name} ({})", weight.dtype),
            );
        }
        if !is_scale_dtype(scales.dtype) {
            faults.problems.add_item(
                Code::BadScales,
                "scales of a dtype that loaders do not take for scales",
                format!("{name}{SCALE_SUFFIX} ({})", scales.dtype),
            );
        }
        let expected = scheme.scale_shape(&weight.shape);
        if expected.as_deref() != Some(&scales.shape) {
            let expected = expected.map_or("none".to_owned(), |shape| format!("{shape:?}"));
            faults.problems.add_item(
                Code::BadScales,
                format!(
                    "scales whose shape does not fit blocks of {}x{}",
                    scheme.block[0], scheme.block[1]
                ),
                format!(
                    "{name}{SCALE_SUFFIX} (weight {:?}, scales {:?}, expected {expected})",
                    weight.shape, scales.shape
                ),
            );
        }
        let [weight_shard, scales_shard] = self.shards;
        if weight_shard != scales_shard {
            faults.warnings.add_item(
                Code::ScalesApart,
                "weights whose scales are in another shard",
                format!("{name} ({weight_shard}, {scales_shard})"),
            );
        }
    }

    /// The device of the local file that holds the scales.
    fn scales_device(&self) -> Option<u64> {
        let local = self.scales_file.as_local()?;
        Some(local.device_and_inode().0)
    }

    /// Bytes to read to see whether all scales are powers of two.
    fn bytes_to_read(&self) -> u64 {
        self.decoder().map_or(0, |_| self.scales.len)
    }

    /// How a scale is read; `None` where its dtype decides whether it is a power of two.
    fn decoder(&self) -> Option<fn(&[u8]) -> f32> {
        match self.scales.dtype {
            Dtype::F32 => Some(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::BF16 => Some(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            Dtype::F16 => Some(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
            // F8_E8M0 has nothing but powers of two; the other dtypes hold no scales.
            _ => None,
        }
    }

    /// The first scale that is not a power of two, and its position among the scales.
    fn first_other_than_power_of_two(&self, progress: &dyn Progress) -> Result<Option<(u64, f32)>> {
        const CHUNK_BYTES: u64 = 1 << 20;
        let Some(decode) = self.decoder() else {
            return Ok(None);
        };
        let element = self.scales.dtype.bitsize() / 8;
        let mut buffer = vec![0; self.scales.len.min(CHUNK_BYTES) as usize];
        let mut done = 0;
        while done < self.scales.len {
            check_going_on(progress)?;
            let count = (self.scales.len - done).min(CHUNK_BYTES) as usize;
            let chunk = &mut buffer[..count];
            self.scales_file.read_at(chunk, self.scales.offset + done)?;
            let mut values = chunk.chunks_exact(element).map(decode);
            if let Some(position) = values.position(|scale| !is_power_of_two(scale)) {
                let at = position * element;
                let index = done / element as u64 + position as u64;
                progress.advance(self.scales.len - done);
                return Ok(Some((index, decode(&chunk[at..at + element]))));
            }
            done += count as u64;
            progress.advance(count as u64);
        }
        Ok(None)
    }
}

fn is_scale_dtype(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F8_E8M0
    )
}

/// Whether a loader can store `scale` as an 8-bit exponent without changing it.
fn is_power_of_two(scale: f32) -> bool {
    const MANTISSA: u32 = (1 << 23) - 1;
    scale.is_sign_positive() && scale.is_normal() && scale.to_bits() & MANTISSA == 0
}
