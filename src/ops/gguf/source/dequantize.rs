//! Blocks of GGUF types as numbers: f32 as llama.cpp computes it, then rounded once.

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, NumberKind, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::gguf::PlacedType;
use crate::kernels::CpuPath;
use crate::kernels::cast;
use crate::kernels::ggml::{Type, decode_row};
use crate::kernels::lanes::Precision;
use crate::tensor::{Shape, byte_len, shape_text};

/// The numbers, in dtype `to`, of `rows`, which is of `placed` and called `name`: itself if these are plain
/// numbers.
///
/// # Errors
/// If the type cannot be decoded, or there would be 2^61 bytes or more.
pub(in crate::ops::gguf) fn decoded(
    name: &str,
    rows: &Tensor,
    placed: &PlacedType,
    to: Precision,
) -> Result<Tensor> {
    let PlacedType { tensor_type, shape } = placed;
    if tensor_type.block_elements() == 1 {
        return Ok(rows.clone());
    }
    let refuse = |problem| Error::of_tensor(Code::UnsupportedTensor, rows.origin(), name, problem);
    let Some(kind) = Type::from_number(tensor_type.id()) else {
        let known: Vec<&str> = Type::ALL.iter().map(|kind| kind.name()).collect();
        return Err(refuse(format!(
            "it is {tensor_type}; only {} can be read",
            known.join(", ")
        )));
    };
    if byte_len(to.dtype(), shape).is_none() {
        let shape = shape_text(shape);
        let dtype = to.dtype();
        return Err(refuse(format!(
            "its shape is {shape}: as {dtype} it would have 2^61 bytes or more"
        )));
    }
    let kernel = Dequantize {
        kind,
        to,
        blocks: rows.len() / kind.block_bytes() as u64,
        path: CpuPath::best(),
    };
    let shape: Shape = shape.clone();
    let node = crate::catalog::Node::new(name, vec![rows.clone()], Box::new(kernel));
    Ok(Tensor::computed(node.into(), 0, to.dtype(), shape, None))
}

/// Input 0 is the blocks of a tensor, one after the other, whatever its rows are; output 0 their values.
#[derive(Debug)]
struct Dequantize {
    kind: Type,
    to: Precision,
    blocks: u64,
    path: CpuPath,
}

impl Dequantize {
    /// Elements of a band.
    const BAND: u64 = 1 << 19;
    /// Elements that are decoded at once, in memory that stays in the processor's caches: whole blocks of
    /// every type.
    const CHUNK: usize = 1 << 12;

    fn block_len(&self) -> u64 {
        self.kind.block_len() as u64
    }
}

impl Kernel for Dequantize {
    fn identity(&self) -> String {
        let kind = self.kind.name();
        format!("{} blocks of {kind} as {:?}", self.blocks, self.to)
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize").with("from", self.kind.name());
        Some(step.with("to", self.to.dtype().to_string()))
    }

    fn number_kind(&self) -> Option<NumberKind> {
        Some(match self.kind {
            Type::MXFP4 => NumberKind::of_fp4_in(self.to.dtype()),
            _ => NumberKind::Any,
        })
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.blocks,
            band_rows: Self::BAND / self.block_len(),
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let bytes = self.kind.block_bytes() as u64;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = self.block_len() * self.to.bytes() as u64;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let mut values = [0.0f32; Self::CHUNK];
        let mut bytes = [0u8; Self::CHUNK * 4];
        let blocks_bytes = Self::CHUNK / self.kind.block_len() * self.kind.block_bytes();
        let targets = outputs[0].chunks_mut(Self::CHUNK * self.to.bytes());
        for (blocks, target) in inputs[0].chunks(blocks_bytes).zip(targets) {
            let count = target.len() / self.to.bytes();
            decode_row(self.kind, blocks, &mut values[..count], self.path);
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(&values[..count]) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            let source = &bytes[..count * 4];
            match self.to {
                Precision::F32 => target.copy_from_slice(source),
                Precision::Bf16 => cast::convert::<f32, bf16>(source, target, self.path),
                Precision::F16 => cast::convert::<f32, f16>(source, target, self.path),
            }
        }
        Ok(())
    }
}
