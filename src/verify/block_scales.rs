//! Block FP8 tensors and their scales: `X` and `X_scale_inv`.

use std::collections::HashMap;

use half::{bf16, f16};

use crate::error::Result;
use crate::format::StoredTensor;
use crate::jobs::{Progress, check_going_on};
use crate::source::{Blob, LocalFile};
use crate::tensor::{Dtype, SCALE_SUFFIX, is_float8, scaled_name};
use crate::verify::findings::Faults;
use crate::verify::structure::ShardFile;

/// A quantized tensor and its scales.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) name: &'a str,
    pub(super) weight: &'a StoredTensor,
    pub(super) scales: &'a StoredTensor,
    scales_file: &'a LocalFile,
    shards: [&'a str; 2],
}

/// Every tensor that has scales; scales of nothing are told.
pub(super) fn pairs<'a>(shards: &'a [ShardFile], faults: &mut Faults) -> Vec<Pair<'a>> {
    let tensors = shards.iter().flat_map(|shard| {
        shard
            .header
            .iter()
            .map(move |(name, t)| (&**name, (shard, t)))
    });
    let tensors: HashMap<&str, (&ShardFile, &StoredTensor)> = tensors.collect();
    let mut pairs = Vec::new();
    for shard in shards {
        for (scale_name, scales) in &shard.header {
            let Some(name) = scaled_name(scale_name) else {
                continue;
            };
            match tensors.get(name) {
                Some((weight_shard, weight)) => pairs.push(Pair {
                    name,
                    weight,
                    scales,
                    scales_file: &shard.file,
                    shards: [&weight_shard.name, &shard.name],
                }),
                None => {
                    let fault = "scales of tensors that do not exist";
                    faults.problems.add_item(fault, &**scale_name);
                }
            }
        }
    }
    pairs
}

impl Pair<'_> {
    /// Checks dtypes, shapes and place, for blocks of `block` rows and columns.
    pub(super) fn check(&self, block: [u64; 2], faults: &mut Faults) {
        let Pair {
            name,
            weight,
            scales,
            ..
        } = self;
        if !is_float8(weight.dtype) {
            faults.problems.add_item(
                format!("tensors with scales ({SCALE_SUFFIX}) that are not FP8"),
                format!("{name} ({})", weight.dtype),
            );
        }
        if !is_scale_dtype(scales.dtype) {
            faults.problems.add_item(
                "scales of a dtype that loaders do not take for scales",
                format!("{name}{SCALE_SUFFIX} ({})", scales.dtype),
            );
        }
        let expected = scale_shape(&weight.shape, block);
        if expected.as_deref() != Some(&scales.shape) {
            let expected = expected.map_or("none".to_owned(), |shape| format!("{shape:?}"));
            faults.problems.add_item(
                format!(
                    "scales whose shape does not fit blocks of {}x{}",
                    block[0], block[1]
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
                "weights whose scales are in another shard",
                format!("{name} ({weight_shard}, {scales_shard})"),
            );
        }
    }

    /// The device of the file that holds the scales.
    pub(super) fn scales_device(&self) -> u64 {
        self.scales_file.device_and_inode().0
    }

    /// Bytes to read to see whether all scales are powers of two.
    pub(super) fn bytes_to_read(&self) -> u64 {
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
    pub(super) fn first_other_than_power_of_two(
        &self,
        progress: &dyn Progress,
    ) -> Result<Option<(u64, f32)>> {
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

/// The shape of a weight's scales: the last two dimensions in blocks, the leading ones as they are.
fn scale_shape(weight: &[u64], block: [u64; 2]) -> Option<Vec<u64>> {
    let [leading @ .., rows, columns] = weight else {
        return None;
    };
    let mut shape = leading.to_vec();
    shape.extend([rows.div_ceil(block[0]), columns.div_ceil(block[1])]);
    Some(shape)
}

/// Whether a loader can store `scale` as an 8-bit exponent without changing it.
fn is_power_of_two(scale: f32) -> bool {
    const MANTISSA: u32 = (1 << 23) - 1;
    scale.is_sign_positive() && scale.is_normal() && scale.to_bits() & MANTISSA == 0
}
