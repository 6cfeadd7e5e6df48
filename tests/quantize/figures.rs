//! `inspect` of each scheme against the definitions of docs/FIDELITY.md, element by element.

use ckptfs::inspect::{Fidelity, inspect, quantized_tensors};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, of_values, tensor};
use crate::common::readback::reader;
use crate::common::values::decode;
use crate::definition::{SCHEMES, Scheme, quantize};
use crate::plan;

fn measured(weight: &TensorData, scheme: Scheme) -> Fidelity {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    let plan = plan(&base, scheme);
    let tensors = quantized_tensors(&plan);
    assert_eq!(tensors[0].name, weight.name);
    let inspection = inspect(&reader(&plan), &tensors, 2, &()).unwrap();
    assert_eq!(inspection.tensors.len(), 1);
    inspection.total
}

fn assert_close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(
        error <= 1e-9 * expected.abs(),
        "{what}: {found}, not {expected}"
    );
}

#[test]
fn every_scheme_is_measured_as_defined() {
    for scheme in SCHEMES {
        for (seed, dtype) in [Dtype::BF16, Dtype::F16, Dtype::F32]
            .into_iter()
            .enumerate()
        {
            let weight = tensor("model.a.weight", dtype, &[24, 384], seed as u64);
            let found = measured(&weight, scheme);
            let made = quantize(&weight, scheme);
            let values = decode(dtype, &weight.bytes);
            let mut amax = vec![0f32; made.scales.len()];
            for (element, value) in values.iter().enumerate() {
                let block = made.block_of(element);
                amax[block] = amax[block].max(value.abs());
            }
            let (mut signal, mut noise, mut relative, mut of_block) = (0.0, 0.0, 0f64, 0f64);
            let (mut saturated, mut zeros, mut flushed) = (0, 0, 0);
            let is_float = matches!(scheme, Scheme::Fp8Block | Scheme::Fp8Channel);
            for (element, value) in values.iter().enumerate() {
                let (value, level) = (f64::from(*value), made.level(scheme, element));
                let block = made.block_of(element);
                let error = (value - f64::from(level) * f64::from(made.scales[block])).abs();
                signal += value * value;
                noise += error * error;
                if level.abs() >= if is_float { 1.0 / 64.0 } else { 1.0 } && value != 0.0 {
                    relative = relative.max(error / value.abs());
                }
                if amax[block] > 0.0 {
                    of_block = of_block.max(error / f64::from(amax[block]));
                }
                let ends = match scheme {
                    Scheme::Fp8Block | Scheme::Fp8Channel => [0x7e, 0xfe],
                    Scheme::Int8Channel => [-128, 127],
                    _ => [-8, 7],
                };
                saturated += u64::from(ends.contains(&made.codes[element]));
                zeros += u64::from(level == 0.0);
                flushed += u64::from(level == 0.0 && value != 0.0);
            }
            let case = format!("{scheme:?}, {dtype:?}");
            assert_eq!(found.elements, values.len() as u64, "{case}");
            assert_eq!(found.blocks, made.scales.len() as u64, "{case}");
            assert_eq!(found.saturated, saturated, "{case}");
            assert_eq!(found.zero_codes, zeros, "{case}");
            assert_eq!(found.flushed, flushed, "{case}");
            assert_close(found.signal, signal, &case);
            assert_close(found.noise, noise, &case);
            assert_close(found.largest_relative_error, relative, &case);
            assert_close(found.largest_block_error, of_block, &case);
        }
    }
}

#[test]
fn bits_per_weight_are_those_of_codes_scales_and_zero_points() {
    let weight = of_values("a.weight", Dtype::BF16, &[8, 128], &[1.0; 8 * 128]);
    for (scheme, bits) in [
        (Scheme::Fp8Channel, 8.0 + 16.0 / 128.0),
        (Scheme::Int8Channel, 8.0 + 16.0 / 128.0),
        (Scheme::Int4, 4.0 + 16.0 / 128.0),
        (Scheme::Int4Of32, 4.0 + 16.0 / 32.0),
        (Scheme::Int4Asymmetric, 4.0 + 20.0 / 128.0),
    ] {
        assert_eq!(
            measured(&weight, scheme).bits_per_weight(),
            Some(bits),
            "{scheme:?}"
        );
    }
}
