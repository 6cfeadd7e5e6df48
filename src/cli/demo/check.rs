//! Reads a directory as a loader does, and compares every tensor with the checkpoints it was made
//! from.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ckptfs::kernels::float8::e4m3_to_f32;
use ckptfs::kernels::fp8::BLOCK;
use ckptfs::quant;
use ckptfs::tensor::Dtype;
use half::bf16;
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// What was read and found right.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Tensors whose bytes are those of a source.
    pub(crate) equal: usize,
    /// Tensors whose codes and scales give the source's values back.
    pub(crate) quantized: usize,
    /// The largest |code × scale − x| / max |x| over all quantized tensors.
    pub(crate) largest_error: f32,
}

/// Compares all tensors of `directory` with `base` and, for those it lacks, `extra`.
pub(crate) fn compare(directory: &Path, base: &Path, extra: &Path) -> anyhow::Result<Checked> {
    let sources = [map_shards(base)?, map_shards(extra)?];
    let sources = [parse(&sources[0])?, parse(&sources[1])?];
    let shards = map_shards(directory)?;
    let tensors = parse(&shards)?;

    let mut checked = Checked::default();
    for (name, tensor) in &tensors {
        if quant::weight_of(name).is_some() {
            continue;
        }
        let Some(source) = sources.iter().find_map(|source| source.get(name)) else {
            bail!("{name} is in no source");
        };
        ensure!(
            tensor.shape() == source.shape(),
            "{name} has another shape than its source"
        );
        if quant::is_coded(tensor.dtype()) {
            let scales = quant::companions(name)
                .find_map(|scales| tensors.get(&scales))
                .with_context(|| format!("{name} has no scales"))?;
            let error = largest_error(tensor, scales, source);
            checked.largest_error = checked.largest_error.max(error);
            checked.quantized += 1;
        } else {
            ensure!(
                tensor.dtype() == Dtype::BF16 && tensor.data() == source.data(),
                "{name} differs from its source"
            );
            checked.equal += 1;
        }
    }
    // Half a unit in the last of 3 mantissa bits.
    const BOUND: f32 = 1.0 / 16.0;
    ensure!(
        checked.largest_error <= BOUND,
        "the quantization error {} is larger than {BOUND}",
        checked.largest_error
    );
    Ok(checked)
}

/// The largest |code × scale − x|, as a share of the largest |x|.
fn largest_error(codes: &TensorView, scales: &TensorView, source: &TensorView) -> f32 {
    let columns = source.shape()[1];
    let scale_columns = columns.div_ceil(BLOCK);
    let scale = |row: usize, column: usize| {
        let at = 4 * (row / BLOCK * scale_columns + column / BLOCK);
        let bytes = &scales.data()[at..at + 4];
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    let (mut error, mut amax) = (0f32, 0f32);
    for (i, (code, x)) in codes
        .data()
        .iter()
        .zip(source.data().chunks_exact(2))
        .enumerate()
    {
        let x = bf16::from_le_bytes([x[0], x[1]]).to_f32();
        let back = e4m3_to_f32(*code) * scale(i / columns, i % columns);
        error = error.max((back - x).abs());
        amax = amax.max(x.abs());
    }
    error / amax
}

fn map_shards(directory: &Path) -> anyhow::Result<Vec<Mmap>> {
    let mut shards = Vec::new();
    let list = directory
        .read_dir()
        .with_context(|| directory.display().to_string())?;
    for entry in list {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            // SAFETY: the demo's own files, which nobody else writes to.
            let map = unsafe { Mmap::map(&file) }.with_context(|| path.display().to_string())?;
            shards.push(map);
        }
    }
    Ok(shards)
}

fn parse(shards: &[Mmap]) -> anyhow::Result<HashMap<String, TensorView<'_>>> {
    let mut tensors = HashMap::new();
    for shard in shards {
        tensors.extend(SafeTensors::deserialize(shard)?.tensors());
    }
    Ok(tensors)
}
