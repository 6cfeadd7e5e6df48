//! Weights of experts that a checkpoint stores in MXFP4, as blocks of GGUF: the same codes and scales in
//! another order.
//!
//! | | of 32 elements of a row |
//! |---|---|
//! | `…_blocks` [E, R, B, 16], `…_scales` [E, R, B], U8 | byte `i` has the codes of elements `2i` (low) and `2i + 1`; one scale (E8M0) |
//! | GGUF | the scale, then byte `j` has the codes of elements `j` (low) and `j + 16` |

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Catalog, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{PlacedType, TensorType};
use crate::ops::Operator;
use crate::ops::dtype::InDtype;
use crate::ops::gguf::architecture::{Architecture, Change};
use crate::tensor::{Dtype, Name, shape_text};

/// Bytes of the codes of a block.
const CODES: u64 = 16;
/// Elements of a block.
const ELEMENTS: u64 = 32;

/// Dequantizes what is quantized, but for weights in MXFP4 that are [repacked]: a checkpoint that has them
/// has no others that are quantized.
#[derive(Debug)]
pub(super) struct Dequantize {
    pub to_f32: InDtype,
}

impl Operator for Dequantize {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        match has_mxfp4(catalog) {
            true => Ok(()),
            false => self.to_f32.apply(catalog),
        }
    }

    fn finish(&self, catalog: &mut Catalog) -> Result<()> {
        match has_mxfp4(catalog) {
            true => Ok(()),
            false => self.to_f32.finish(catalog),
        }
    }
}

/// Whether `catalog` has weights that are repacked.
fn has_mxfp4(catalog: &Catalog) -> bool {
    let gpt_oss = Architecture::named("gpt-oss");
    let is_mxfp4 = |name: &Name| {
        let found = gpt_oss.and_then(|architecture| architecture.of_hf(name));
        let change = found.map(|found| found.rule.change);
        matches!(change, Some(Change::Mxfp4 | Change::Mxfp4EvenOdd))
    };
    catalog.tensors.keys().any(is_mxfp4)
}

/// `codes` and `scales` as rows of blocks, with what those are. They are called `name` in messages.
///
/// # Errors
/// If their shapes or dtypes do not fit together.
pub(super) fn repacked(
    name: &str,
    codes: &Tensor,
    scales: &Tensor,
) -> Result<(Tensor, PlacedType)> {
    let shapes = (&codes.shape[..], &scales.shape[..]);
    let &[experts, rows, blocks, CODES] = shapes.0 else {
        return Err(misshapen(name, codes, "[experts, rows, blocks, 16]"));
    };
    if shapes.1 != [experts, rows, blocks] {
        let expected = shape_text(&[experts, rows, blocks]);
        return Err(misshapen(name, scales, &expected));
    }
    for tensor in [codes, scales] {
        if tensor.dtype != Dtype::U8 {
            let problem = format!("MXFP4 is in U8, and this is {}", tensor.dtype);
            let code = Code::UnsupportedTensor;
            return Err(Error::of_tensor(code, tensor.origin(), name, problem));
        }
    }
    let placed = PlacedType {
        tensor_type: TensorType::MXFP4,
        shape: [experts, rows, blocks * ELEMENTS].into(),
    };
    let kernel = Repack {
        blocks: experts * rows * blocks,
    };
    let inputs = vec![codes.clone(), scales.clone()];
    let node = Arc::new(Node::new(name, inputs, Box::new(kernel)));
    let shape = [experts, rows, blocks * (CODES + 1)];
    let tensor = Tensor::computed(node, 0, Dtype::U8, shape, codes.home);
    Ok((tensor, placed))
}

fn misshapen(name: &str, tensor: &Tensor, expected: &str) -> Error {
    let shape = shape_text(&tensor.shape);
    let problem = format!("its shape is {shape}; {expected} was expected");
    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem)
}

/// Input 0 has the codes of blocks, input 1 their scales; output 0 is the blocks.
#[derive(Debug)]
struct Repack {
    blocks: u64,
}

impl Repack {
    /// Blocks of a band.
    const BAND: u64 = 1 << 15;
}

impl Kernel for Repack {
    fn identity(&self) -> String {
        format!("{} MXFP4 blocks of GGUF", self.blocks)
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("gguf").with("to", TensorType::MXFP4.name()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.blocks,
            band_rows: Self::BAND,
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let bytes = if input == 0 { CODES } else { 1 };
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.rows.start * (CODES + 1)..band.rows.end * (CODES + 1)
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let codes = inputs[0].as_chunks::<{ CODES as usize }>().0;
        let blocks = outputs[0].as_chunks_mut::<{ CODES as usize + 1 }>().0;
        for ((codes, scale), block) in codes.iter().zip(inputs[1]).zip(blocks) {
            block[0] = *scale;
            let (first, second) = codes.split_at(codes.len() / 2);
            let pairs = block[1..].as_chunks_mut::<2>().0;
            for ((first, second), pair) in first.iter().zip(second).zip(pairs) {
                *pair = [first & 15 | second << 4, first >> 4 | second & 0xf0];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the table: element by element.
    #[test]
    fn every_element_keeps_its_code() {
        let codes: Vec<u8> = (0..64u32).map(|i| (i * 37 + 11) as u8).collect();
        let scales = [1, 2, 3, 255];
        let mut blocks = vec![0; 4 * 17];
        let kernel = Repack { blocks: 4 };
        let band = kernel.bands().band(0);
        let result = kernel.compute(&[], &band, &[&codes, &scales], &mut [&mut blocks]);
        assert_eq!(result, Ok(()));
        for (block, scale) in scales.into_iter().enumerate() {
            let (codes, blocks) = (&codes[block * 16..], &blocks[block * 17..]);
            assert_eq!(blocks[0], scale);
            for element in 0..32 {
                let from = codes[element / 2] >> (element % 2 * 4) & 15;
                let to = blocks[1 + element % 16] >> (element / 16 * 4) & 15;
                assert_eq!(to, from, "block {block}, element {element}");
            }
        }
    }
}
