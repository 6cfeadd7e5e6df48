//! The kernel that gives packed codes back as numbers.

use std::ops::Range;

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step};
use crate::error::Error;
use crate::kernels::CpuPath;
use crate::kernels::integer::unpack;
use crate::kernels::lanes::Precision;
use crate::quant::compressed_tensors::format::NIBBLES;
use crate::quant::compressed_tensors::order::Order;
use crate::quant::dequantize::{ReadScales, Row};
use crate::tensor::Dtype;

/// A weight of packed codes: rows, columns, columns of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub rows: u64,
    pub columns: u64,
    pub group: u64,
}

/// The kernel half: input 0 are the packed codes, input 1 the scales, then the packed zero points and the group of each
/// column, if there are some; output 0 the numbers.
#[derive(Debug)]
pub(super) struct UnpackKernel {
    pub groups: Groups,
    pub to: Precision,
    pub scales: Dtype,
    pub is_asymmetric: bool,
    pub is_reordered: bool,
    pub row: Row,
    pub read_scales: ReadScales,
    pub path: CpuPath,
}

impl UnpackKernel {
    fn group_count(&self) -> u64 {
        self.groups.columns / self.groups.group.max(1)
    }

    fn order(&self) -> Order {
        Order {
            groups: self.group_count(),
            group: self.groups.group,
        }
    }

    /// Writes rows whose column `c` is of the group `group_of[c]`.
    fn compute_reordered(
        &self,
        group_of: &[usize],
        [codes, zero_points]: [&[u8]; 2],
        scales: &[f32],
        target: &mut [u8],
    ) {
        let columns = self.groups.columns as usize;
        let count = self.group_count() as usize;
        let mut values = vec![0; columns];
        let mut of_columns = vec![0.0; columns];
        let rows = codes
            .chunks_exact(columns / 2)
            .zip(scales.chunks_exact(count));
        let targets = target.chunks_exact_mut(columns * self.to.bytes());
        for (row, ((codes, scales), target)) in rows.zip(targets).enumerate() {
            unpack(codes, 0, &mut values, self.path);
            for ((value, scale), group) in values.iter_mut().zip(&mut of_columns).zip(group_of) {
                *scale = scales[*group];
                if self.is_asymmetric {
                    let zero_point = nibble(zero_points, row, *group, count);
                    *value = value.wrapping_sub(zero_point as u8);
                }
            }
            (self.row)(&values, &of_columns, 1, target, self.path);
        }
    }
}

impl Kernel for UnpackKernel {
    fn identity(&self) -> String {
        let UnpackKernel {
            groups,
            to,
            scales,
            is_asymmetric,
            is_reordered,
            ..
        } = self;
        format!(
            "4 bits times {scales:?} as {to:?}, {groups:?}, zero points {is_asymmetric}, index {is_reordered}"
        )
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("bits", 4)
            .with("group", self.groups.group);
        Some(step)
    }

    fn bands(&self) -> RowBands {
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = (self.groups.columns * self.to.bytes() as u64).max(1);
        let rows = (TILE_BYTES / row_bytes).max(1).next_multiple_of(NIBBLES);
        let is_empty = self.groups.columns == 0;
        RowBands {
            groups: 1,
            rows_per_group: if is_empty { 0 } else { self.groups.rows },
            band_rows: rows,
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let Range { start, end } = band.rows;
        if self.is_reordered && input == 2 + usize::from(self.is_asymmetric) {
            return 0..self.groups.columns * 4;
        }
        let (row_bytes, rows) = match input {
            0 => (self.groups.columns / 2, start..end),
            1 => {
                let bytes = self.scales.bitsize() as u64 / 8;
                (self.group_count() * bytes, start..end)
            }
            _ => (
                self.group_count() * 4,
                start / NIBBLES..end.div_ceil(NIBBLES),
            ),
        };
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.groups.columns * self.to.bytes() as u64;
        band.rows.start * row_bytes..band.rows.end * row_bytes
    }

    fn describe_fault(&self, _band: &Band, fault: &NonFinite) -> Option<Error> {
        Some(self.order().fault(fault))
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([codes, scales, others @ ..], [target]) = (inputs, outputs) else {
            unreachable!("two to four inputs and one output, as declared");
        };
        let (zero_points, index) = others.split_at(usize::from(self.is_asymmetric));
        let (columns, group) = (self.groups.columns as usize, self.groups.group as usize);
        let group_count = self.group_count() as usize;
        let scales = (self.read_scales)(scales);
        if let [index] = index
            && let Some(group_of) = self.order().groups(index)?
        {
            let zero_points = zero_points.first().copied().unwrap_or_default();
            self.compute_reordered(&group_of, [codes, zero_points], &scales, target);
            return Ok(());
        }
        let mut values = vec![0; columns];
        let rows = codes
            .chunks_exact(columns / 2)
            .zip(scales.chunks_exact(group_count));
        let targets = target.chunks_exact_mut(columns * self.to.bytes());
        for (row, ((codes, scales), target)) in rows.zip(targets).enumerate() {
            match zero_points.first() {
                None => unpack(codes, 0, &mut values, self.path),
                Some(zero_points) => {
                    let parts = codes
                        .chunks_exact(group / 2)
                        .zip(values.chunks_exact_mut(group));
                    for (at, (codes, values)) in parts.enumerate() {
                        let zero_point = nibble(zero_points, row, at, group_count);
                        unpack(codes, zero_point, values, self.path);
                    }
                }
            }
            (self.row)(&values, scales, group, target, self.path);
        }
        Ok(())
    }
}

/// The zero point of the group `at` of a row, of `count` groups, packed down rows.
fn nibble(packed: &[u8], row: usize, at: usize, count: usize) -> i8 {
    let (word, bit) = (
        row / NIBBLES as usize * count + at,
        row % NIBBLES as usize * 4,
    );
    let byte = packed[word * 4 + bit / 8];
    (byte >> (bit % 8) & 0xf) as i8 - 8
}
