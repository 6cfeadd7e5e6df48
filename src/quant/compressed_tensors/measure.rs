//! How far codes and scales of compressed-tensors are from the numbers that they stand for.

use half::{bf16, f16};

use crate::catalog::{ErrorMeasure, Fidelity, MeasuredRows};
use crate::kernels::float8::e4m3_to_f32;
use crate::kernels::fp8::Element;
use crate::quant::compressed_tensors::encode::Matrix;
use crate::quant::compressed_tensors::format::{Kind, NIBBLES};
use crate::quant::dequantize::scale_reader;
use crate::quant::figures::{BlockFigures, RUN};
use crate::tensor::Dtype;

impl ErrorMeasure for Matrix {
    fn measure(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        match rows.source_dtype {
            Dtype::BF16 => self.add_rows::<bf16>(rows, fidelity),
            Dtype::F16 => self.add_rows::<f16>(rows, fidelity),
            _ => self.add_rows::<f32>(rows, fidelity),
        }
    }
}

impl Matrix {
    /// Adds whole rows that begin at a row of blocks.
    fn add_rows<T: Element>(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        let [codes, scales, zero_points @ ..] = rows.outputs else {
            unreachable!("codes and scales, as encoded");
        };
        let columns = rows.columns;
        let [block_rows, block_columns] = self.block.map(|size| size as usize);
        let count = columns.div_ceil(block_columns);
        let scales = scale_reader(self.dtype).expect("elements can be scales")(scales);
        let values = Values::new(self.weights.kind);
        let row_codes = codes.len() / (rows.source.len() / T::BYTES / columns);
        let sources = rows.source.chunks(block_rows * columns * T::BYTES);
        let codes = codes.chunks(block_rows * row_codes);
        for (i, (source, codes)) in sources.zip(codes).enumerate() {
            for at in 0..count {
                let from = at * block_columns;
                let to = (from + block_columns).min(columns);
                let scale = f64::from(scales[i * count + at]);
                let zero_point = zero_points.first().map_or(0.0, |packed| {
                    let (word, bit) = (i / NIBBLES as usize * count + at, i % NIBBLES as usize * 4);
                    f32::from(packed[word * 4 + bit / 8] >> (bit % 8) & 0xf) - 8.0
                });
                let mut block = BlockFigures::default();
                let block_rows = source.chunks_exact(columns * T::BYTES);
                for (source, codes) in block_rows.zip(codes.chunks_exact(row_codes)) {
                    for start in (from..to).step_by(RUN) {
                        let run = start..(start + RUN).min(to);
                        let bytes = run.start * T::BYTES..run.end * T::BYTES;
                        values.add::<T>(&source[bytes], codes, run, zero_point, scale, &mut block);
                    }
                }
                block.finish(fidelity);
            }
        }
    }
}

/// What codes stand for.
struct Values {
    kind: Kind,
    of_bytes: [f32; 256],
    min_normal: f32,
    /// Between which codes are.
    range: [f32; 2],
}

impl Values {
    fn new(kind: Kind) -> Self {
        let value = |code: u8| match kind {
            Kind::Float8 => e4m3_to_f32(code),
            Kind::Int8 => f32::from(code as i8),
            Kind::Int4 => f32::from(code & 0xf) - 8.0,
        };
        Values {
            kind,
            of_bytes: std::array::from_fn(|code| value(code as u8)),
            // Of integers, all but zero have the precision of their format.
            min_normal: match kind {
                Kind::Float8 => 1.0 / 64.0,
                Kind::Int8 | Kind::Int4 => 1.0,
            },
            range: match kind {
                Kind::Float8 => [-448.0, 448.0],
                Kind::Int8 => [-128.0, 127.0],
                Kind::Int4 => [-8.0, 7.0],
            },
        }
    }

    /// Adds the elements `run` of a row, which are `source`, by the `codes` of the row.
    fn add<T: Element>(
        &self,
        source: &[u8],
        codes: &[u8],
        run: std::ops::Range<usize>,
        zero_point: f32,
        scale: f64,
        block: &mut BlockFigures,
    ) {
        let mut values = [0.0; RUN];
        let mut decoded = [0.0; RUN];
        for (value, bytes) in values.iter_mut().zip(source.chunks_exact(T::BYTES)) {
            *value = T::read_finite(bytes);
        }
        for (decoded, column) in decoded.iter_mut().zip(run.clone()) {
            let code = match self.kind {
                Kind::Float8 | Kind::Int8 => codes[column],
                Kind::Int4 => codes[column / 2] >> (column % 2 * 4) & 0xf,
            };
            let code = self.of_bytes[usize::from(code)];
            block.saturated += u64::from(self.range.contains(&code));
            *decoded = code - zero_point;
        }
        block.elements += run.len() as u64;
        for (value, decoded) in values.iter().zip(&decoded).take(run.len()) {
            block.zero_codes += u64::from(*decoded == 0.0);
            block.flushed += u64::from(*decoded == 0.0 && *value != 0.0);
        }
        block.add(&values, &decoded, scale, self.min_normal);
    }
}
