//! How far codes and scales are from the numbers that they stand for.

use half::{bf16, f16};

use crate::catalog::{ErrorMeasure, Fidelity, MeasuredRows};
use crate::kernels::float4::e2m1_to_f32;
use crate::kernels::float8::{e4m3_to_f32, e8m0_to_f32};
use crate::kernels::fp8::Element;
use crate::quant::figures::{BlockFigures, RUN};
use crate::quant::microscaling::encode::Matrices;
use crate::quant::microscaling::format::Scales;
use crate::tensor::Dtype;

impl ErrorMeasure for Matrices {
    fn measure(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        match rows.source_dtype {
            Dtype::BF16 => self.add_rows::<bf16>(rows, fidelity),
            Dtype::F16 => self.add_rows::<f16>(rows, fidelity),
            _ => self.add_rows::<f32>(rows, fidelity),
        }
    }
}

impl Matrices {
    fn add_rows<T: Element>(&self, rows: MeasuredRows, fidelity: &mut Fidelity) {
        let [codes, scales, global @ ..] = rows.outputs else {
            unreachable!("codes and scales, as encoded");
        };
        let global = global.first().map_or(1.0, |bytes| {
            f32::from_le_bytes((*bytes).try_into().expect("four bytes"))
        });
        let group = self.form.group() as usize;
        let is_byte = self.form.bits() == 8;
        // Of E2M1, 0.5 is the only magnitude that is not normal.
        let (min_normal, largest) = if is_byte {
            (1.0 / 64.0, 448.0)
        } else {
            (1.0, 6.0)
        };
        let groups = rows.source.chunks_exact(group * T::BYTES);
        let codes = codes.chunks_exact(group * self.form.bits() as usize / 8);
        for ((source, codes), scale) in groups.zip(codes).zip(scales.iter()) {
            let scale = match self.form.scales() {
                Scales::PowersOfTwo => e8m0_to_f32(*scale),
                Scales::Divided => e4m3_to_f32(*scale) / global,
                Scales::Multiplied => e4m3_to_f32(*scale) * global,
            };
            let (mut values, mut decoded) = ([0.0; RUN], [0.0; RUN]);
            let mut block = BlockFigures::default();
            block.elements = group as u64;
            for (i, element) in source.chunks_exact(T::BYTES).enumerate() {
                values[i] = T::read_finite(element);
                decoded[i] = if is_byte {
                    e4m3_to_f32(codes[i])
                } else {
                    e2m1_to_f32(codes[i / 2] >> (i % 2 * 4))
                };
                block.saturated += u64::from(decoded[i].abs() == largest);
                block.zero_codes += u64::from(decoded[i] == 0.0);
                block.flushed += u64::from(decoded[i] == 0.0 && values[i] != 0.0);
            }
            block.add(&values, &decoded, f64::from(scale), min_normal);
            block.finish(fidelity);
        }
    }
}
