//! How far block FP8 is from the numbers that it stands for.

use std::sync::LazyLock;

use half::{bf16, f16};

use crate::catalog::{ErrorMeasure, Fidelity, MeasuredRows};
use crate::kernels::float8::{E4M3_MAX, e4m3_to_f32};
use crate::kernels::fp8::{BLOCK, Element};
use crate::quant::figures::{BlockFigures, RUN};
use crate::tensor::Dtype;

/// The smallest normal E4M3 number, 2⁻⁶.
const MIN_NORMAL: f32 = 1.0 / 64.0;

/// Of codes and the scales of their blocks.
#[derive(Debug)]
pub(super) struct Measure;

impl ErrorMeasure for Measure {
    fn measure(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        static DECODER: LazyLock<Decoder> = LazyLock::new(Decoder::new);
        match rows.source_dtype {
            Dtype::BF16 => DECODER.add_rows::<bf16>(rows, fidelity),
            Dtype::F16 => DECODER.add_rows::<f16>(rows, fidelity),
            _ => DECODER.add_rows::<f32>(rows, fidelity),
        }
    }
}

/// The values of the codes 0 to 255.
struct Decoder {
    values: [f32; 256],
}

impl Decoder {
    fn new() -> Self {
        Decoder {
            values: std::array::from_fn(|code| e4m3_to_f32(code as u8)),
        }
    }

    /// Adds whole rows that begin at a row of blocks.
    fn add_rows<T: Element>(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        let [codes, scales] = rows.outputs else {
            unreachable!("codes and scales, as encoded");
        };
        let block_row = BLOCK * rows.columns;
        let block_rows = rows
            .source
            .chunks(block_row * T::BYTES)
            .zip(codes.chunks(block_row));
        let scales = scales.as_chunks::<4>().0;
        let scale_rows = scales.chunks(rows.columns.div_ceil(BLOCK));
        for ((source, codes), scales) in block_rows.zip(scale_rows) {
            for (column, scale) in (0..rows.columns).step_by(BLOCK).zip(scales) {
                let scale = f32::from_le_bytes(*scale);
                let width = BLOCK.min(rows.columns - column);
                let mut block = BlockFigures::default();
                let sources = source.chunks_exact(rows.columns * T::BYTES);
                for (source, codes) in sources.zip(codes.chunks_exact(rows.columns)) {
                    let source = &source[column * T::BYTES..(column + width) * T::BYTES];
                    let codes = &codes[column..column + width];
                    self.add_row::<T>(source, codes, scale, &mut block);
                }
                block.finish(fidelity);
            }
        }
    }

    /// Adds one row of a block. Decoding and arithmetic are separate loops over full-size arrays,
    /// so that the second is vectorized; the zeros in the rest of a short row change nothing.
    fn add_row<T: Element>(
        &self,
        source: &[u8],
        codes: &[u8],
        scale: f32,
        block: &mut BlockFigures,
    ) {
        let mut values = [0.0; RUN];
        let mut decoded = [0.0; RUN];
        for (value, bytes) in values.iter_mut().zip(source.chunks_exact(T::BYTES)) {
            *value = T::read_finite(bytes);
        }
        for (decoded, code) in decoded.iter_mut().zip(codes) {
            *decoded = self.values[usize::from(*code)];
        }
        block.elements += codes.len() as u64;
        let flushed = |(code, value): (&u8, &f32)| code & 0x7f == 0 && *value != 0.0;
        block.saturated += count(codes, |code| code & 0x7f == SATURATED);
        block.zero_codes += count(codes, |code| code & 0x7f == 0);
        block.flushed += codes.iter().zip(&values).filter(|&at| flushed(at)).count() as u64;
        block.add(&values, &decoded, f64::from(scale), MIN_NORMAL);
    }
}

/// The code of 448.
const SATURATED: u8 = 0x7e;
const _: () = assert!(E4M3_MAX == 448.0);

fn count(codes: &[u8], is_counted: impl Fn(u8) -> bool) -> u64 {
    codes.iter().filter(|&&code| is_counted(code)).count() as u64
}
