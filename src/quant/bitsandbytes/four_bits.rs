//! Codes of 4 bits into a table, with a largest magnitude for each block of elements.

use std::ops::Range;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Result};
use crate::kernels::CpuPath;
use crate::kernels::lanes::Precision;
use crate::kernels::table::{Codes, First, dequantize_blocks};
use crate::quant::bitsandbytes::format::{ABSMAX, OF_FOUR_BITS, refuse};
use crate::quant::only_read::companion;
use crate::quant::plan_bytes;
use crate::tensor::{Dtype, Name, byte_len, shape_text};

/// The fewest elements of a block: each has a product for every code.
const MIN_BLOCK: u64 = 16;
/// Elements of a band, and the most of a block.
const BAND_ELEMENTS: u64 = 1 << 19;

/// The elements of a tensor of shape `shape`.
fn element_count(shape: &[u64]) -> Option<u64> {
    byte_len(Dtype::U8, shape)
}

/// What the JSON of a weight says.
#[derive(Debug, Deserialize)]
struct State {
    blocksize: u64,
    shape: Vec<u64>,
    #[serde(default)]
    nested_blocksize: Option<u64>,
    #[serde(default)]
    nested_offset: Option<f64>,
}

/// How largest magnitudes are quantized themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Nested {
    block: u64,
    offset: f32,
}

pub(super) fn decoded(
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    codes: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let bad = |problem: String| refuse(Code::BadScales, name, codes, problem);
    let named = |suffix: &str| [name, suffix].concat();
    let [_, map, nested_absmax, nested_map, states @ ..] = OF_FOUR_BITS;
    let state_name = states
        .map(named)
        .into_iter()
        .find(|name| tensors.contains_key(&**name));
    let state_name = state_name.unwrap_or_else(|| named(states[0]));
    let state = companion(tensors, name, &state_name, codes)?;
    let state = plan_bytes::read(state)?.unwrap_or_default();
    let state: State = serde_json::from_slice(&state)
        .map_err(|e| bad(format!("{state_name} is not what bitsandbytes writes: {e}")))?;
    let State {
        blocksize, shape, ..
    } = &state;
    if !blocksize.is_power_of_two() || !(MIN_BLOCK..=BAND_ELEMENTS).contains(blocksize) {
        return Err(bad(format!(
            "{state_name} says blocks of {blocksize}; expected a power of two from {MIN_BLOCK} to {BAND_ELEMENTS}"
        )));
    }
    let elements = element_count(shape).filter(|n| n.div_ceil(2) == codes.len());
    let Some(elements) = elements else {
        return Err(bad(format!(
            "{state_name} says its shape is {}, but there are {} bytes of two codes each",
            shape_text(shape),
            codes.len()
        )));
    };
    let blocks = elements.div_ceil(*blocksize);
    let absmax = companion(tensors, name, &named(ABSMAX), codes)?;
    let mut inputs = vec![
        (ABSMAX, absmax, absmax.dtype, blocks),
        (
            map,
            companion(tensors, name, &named(map), codes)?,
            Dtype::F32,
            16,
        ),
    ];
    let nested = match absmax.dtype {
        Dtype::F32 => None,
        Dtype::U8 => {
            let block = state.nested_blocksize.unwrap_or(256).max(1);
            let [of_block, of_map] = [nested_absmax, nested_map].map(|suffix| {
                companion(tensors, name, &named(suffix), codes).map(|tensor| (suffix, tensor))
            });
            let ((absmax_suffix, of_block), (map_suffix, of_map)) = (of_block?, of_map?);
            inputs.push((absmax_suffix, of_block, Dtype::F32, blocks.div_ceil(block)));
            inputs.push((map_suffix, of_map, Dtype::F32, 256));
            Some(Nested {
                block,
                offset: state.nested_offset.unwrap_or(0.0) as f32,
            })
        }
        other => {
            let problem = format!("{name}{ABSMAX} is {other}; expected F32 or U8");
            return Err(refuse(Code::UnsupportedTensor, name, codes, problem));
        }
    };
    for (suffix, tensor, dtype, count) in &inputs {
        if tensor.dtype != *dtype || element_count(&tensor.shape) != Some(*count) {
            return Err(bad(format!(
                "{name}{suffix} is {} {}; expected {count} of {dtype}",
                tensor.dtype,
                shape_text(&tensor.shape)
            )));
        }
    }
    let kernel = TableKernel {
        elements,
        block: *blocksize,
        nested,
        to,
        path: CpuPath::best(),
    };
    let mut original = codes.clone();
    original.shape = shape.clone().into();
    let tensors = inputs.into_iter().map(|(_, tensor, ..)| tensor.clone());
    let inputs = std::iter::once(codes.clone()).chain(tensors).collect();
    Tensor::in_dtype(name, &original, to.dtype(), inputs, Box::new(kernel))
}

/// The kernel half: inputs are codes, the largest magnitudes of blocks, the table, and if those magnitudes are
/// codes themselves, their largest magnitudes and their table; output 0 the numbers, seen as one long column.
#[derive(Debug)]
struct TableKernel {
    elements: u64,
    block: u64,
    nested: Option<Nested>,
    to: Precision,
    path: CpuPath,
}

impl TableKernel {
    /// The blocks that `band` is of.
    fn blocks(&self, band: &Band) -> Range<u64> {
        band.rows.start / self.block..band.rows.end.div_ceil(self.block)
    }

    /// The largest magnitudes of the blocks of `band`.
    fn absmax(&self, band: &Band, inputs: &[&[u8]]) -> Vec<f32> {
        let (Some(nested), [_, codes, _, of_blocks, map]) = (self.nested, inputs) else {
            return numbers(inputs[1]);
        };
        let (of_blocks, map) = (numbers(of_blocks), numbers(map));
        let blocks = self.blocks(band);
        let first = blocks.start / nested.block;
        let codes = blocks.zip(*codes);
        let absmax = codes.map(|(block, code)| {
            let scale = of_blocks[(block / nested.block - first) as usize];
            map[usize::from(*code)] * scale + nested.offset
        });
        absmax.collect()
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let numbers = bytes.as_chunks().0.iter();
    numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

impl Kernel for TableKernel {
    fn identity(&self) -> String {
        let TableKernel {
            elements,
            block,
            nested,
            to,
            ..
        } = self;
        format!("codes into a table as {to:?}, {elements} in blocks of {block}, {nested:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("bits", 4)
            .with("group", self.block);
        Some(step)
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: BAND_ELEMENTS,
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let blocks = self.blocks(band);
        match (input, self.nested) {
            (0, _) => band.rows.start / 2..band.rows.end.div_ceil(2),
            (1, None) => blocks.start * 4..blocks.end * 4,
            (1, Some(_)) => blocks,
            (2, _) => 0..16 * 4,
            (3, Some(nested)) => {
                blocks.start / nested.block * 4..blocks.end.div_ceil(nested.block) * 4
            }
            _ => 0..256 * 4,
        }
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = self.to.bytes() as u64;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let absmax = self.absmax(band, inputs);
        let map = numbers(inputs[2]);
        let map = map.as_array().expect("a table of 16 numbers");
        let codes = Codes {
            packed: inputs[0],
            first: First::Upper,
            table: map,
        };
        let target = &mut *outputs[0];
        dequantize_blocks(
            codes,
            &absmax,
            self.block as usize,
            self.to,
            target,
            self.path,
        );
        Ok(())
    }
}
