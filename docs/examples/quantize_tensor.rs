//! Quantizes one tensor of a checkpoint to block FP8, in memory.
//!
//!     cargo run --example quantize_tensor -- BASE TENSOR
//!
//! The view quantizes that tensor alone. Its codes and scales are tensors of the view, and are computed
//! when they are read.

use std::error::Error;
use std::path::Path;

use ckptfs::layout::PlannedTensor;
use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, tensor] = &arguments[..] else {
        return Err("usage: quantize_tensor BASE TENSOR".into());
    };
    let Quantized { codes, scales } = quantize_tensor(base.as_ref(), tensor)?;
    println!("{} codes, scales {scales:?}", codes.len());
    Ok(())
}

pub(crate) struct Quantized {
    /// E4M3, in row-major order.
    pub(crate) codes: Vec<u8>,
    /// One for each block of 128 × 128, in row-major order: a weight is its code times its scale.
    pub(crate) scales: Vec<f32>,
}

pub(crate) fn quantize_tensor(base: &Path, name: &str) -> Result<Quantized, Box<dyn Error>> {
    let fp8 = QuantizeParams {
        // A pattern must match the whole name.
        patterns: vec![regex::escape(name)],
        ..QuantizeParams::default()
    };
    let request = ViewRequest {
        operations: Operations {
            quantize: fp8,
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    let plan = request.plan()?;
    let reader = Reader::new(plan.view.clone(), 64 << 20);
    let read = |name: &str| -> Result<Vec<u8>, Box<dyn Error>> {
        let mut tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        let tensor = tensors.find(|tensor| &*tensor.name == name);
        let tensor: &PlannedTensor = tensor.ok_or_else(|| format!("there is no tensor {name}"))?;
        let mut bytes = vec![0; tensor.len as usize];
        reader.read_tensor(&tensor.tensor(), 0, &mut bytes)?;
        Ok(bytes)
    };

    let codes = read(name)?;
    let scales = read(&format!("{name}_scale_inv"))?;
    let scales = scales.as_chunks::<4>().0.iter();
    Ok(Quantized {
        codes,
        scales: scales.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    })
}
