//! Integers of 8 bits with a scale for each row.

use std::ops::Range;

use indexmap::IndexMap;

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Result};
use crate::kernels::CpuPath;
use crate::kernels::lanes::Precision;
use crate::kernels::table::int8_row;
use crate::quant::bitsandbytes::format::{FORMAT, SCALES, WEIGHT, refuse};
use crate::quant::only_read::companion;
use crate::quant::plan_bytes;
use crate::tensor::{Dtype, Name, shape_text};

/// The most columns of a weight; at least one row is computed at once.
const MAX_COLUMNS: u64 = 1 << 20;

pub(super) fn decoded(
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    codes: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let module = name.strip_suffix(WEIGHT).unwrap_or(name);
    let scales = companion(tensors, name, &[module, SCALES].concat(), codes)?;
    let &[rows, columns] = &*codes.shape else {
        let problem = format!(
            "its shape is {}, not rows and columns",
            shape_text(&codes.shape)
        );
        return Err(refuse(Code::BadScales, name, codes, problem));
    };
    if scales.dtype != Dtype::F32 || *scales.shape != [rows] {
        let problem = format!(
            "its scales are {} {}; expected F32 [{rows}]",
            scales.dtype,
            shape_text(&scales.shape)
        );
        return Err(refuse(Code::BadScales, name, codes, problem));
    }
    if columns > MAX_COLUMNS {
        let problem = format!(
            "it has {columns} columns; at most {MAX_COLUMNS} can be dequantized, since a row is computed at once"
        );
        return Err(refuse(Code::OverLimit, name, codes, problem));
    }
    if let Some(format) = tensors.get(&*[module, FORMAT].concat())
        && let Some(bytes) = plan_bytes::read(format)?
        && bytes.iter().any(|byte| *byte != 0)
    {
        let problem = format!(
            "{module}{FORMAT} is {bytes:?}: its codes are in an order of a GPU; only rows (0) can be dequantized"
        );
        return Err(refuse(Code::UnsupportedTensor, name, codes, problem));
    }
    let kernel = Int8Kernel {
        rows,
        columns,
        to,
        path: CpuPath::best(),
    };
    let inputs = vec![codes.clone(), scales.clone()];
    Tensor::in_dtype(name, codes, to.dtype(), inputs, Box::new(kernel))
}

/// The kernel half: input 0 are the codes, input 1 the scales; output 0 the numbers.
#[derive(Debug)]
struct Int8Kernel {
    rows: u64,
    columns: u64,
    to: Precision,
    path: CpuPath,
}

impl Kernel for Int8Kernel {
    fn identity(&self) -> String {
        let Int8Kernel {
            rows, columns, to, ..
        } = self;
        format!("integers of bitsandbytes as {to:?}, {rows} x {columns}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("bits", 8);
        Some(step)
    }

    fn bands(&self) -> RowBands {
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = (self.columns * self.to.bytes() as u64).max(1);
        RowBands {
            groups: 1,
            rows_per_group: if self.columns == 0 { 0 } else { self.rows },
            band_rows: (TILE_BYTES / row_bytes).max(1),
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let row_bytes = if input == 0 { self.columns } else { 4 };
        band.rows.start * row_bytes..band.rows.end * row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.columns * self.to.bytes() as u64;
        band.rows.start * row_bytes..band.rows.end * row_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let columns = self.columns as usize;
        let scales = inputs[1].as_chunks().0.iter();
        let rows = inputs[0].chunks_exact(columns).zip(scales);
        let targets = outputs[0].chunks_exact_mut(columns * self.to.bytes());
        for ((codes, scale), target) in rows.zip(targets) {
            let scale = f32::from_le_bytes(*scale);
            int8_row(codes, scale, self.to, target, self.path);
        }
        Ok(())
    }
}
