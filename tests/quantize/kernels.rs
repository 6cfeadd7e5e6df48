//! Every CPU path of the integer kernels gives the bits of the scalar definition.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::fp8::{
    self, BLOCK, Element, ScaleFormat, first_inexact, nearest_scale, quantize_block_row,
};
use ckptfs::kernels::integer::{Int4, Int4Asymmetric, Int8, Integer, quantize_rows, unpack};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, of_values, tensor};
use crate::common::oracle::numbers::value_of;
use crate::common::values::{Random, decode, power_of_two};
use crate::definition::{Scheme, quantize};

fn assert_integers<T: Element, C: Integer>(weight: &TensorData, scheme: Scheme) {
    let expected = quantize(weight, scheme);
    let (rows, columns) = (expected.rows, expected.columns);
    let group = expected.block[1];
    for &path in CpuPath::available() {
        let mut codes = vec![0xaa; rows * columns * C::BITS / 8];
        let mut scales = vec![0.0; expected.scales.len()];
        let mut zeros = vec![99; scales.len()];
        let source = &weight.bytes;
        quantize_rows::<T, C>(
            source,
            columns,
            group,
            &mut codes,
            &mut scales,
            &mut zeros,
            path,
        )
        .unwrap();
        let case = format!("{scheme:?}, {path:?}, {weight:?}");
        assert_eq!(scales, expected.scales, "{case}");
        let zeros: Vec<i32> = zeros.into_iter().map(i32::from).collect();
        assert_eq!(zeros, expected.zero_points, "{case}");
        let mut found = codes.clone();
        if C::BITS == 4 {
            found = vec![0; codes.len() * 2];
            unpack(&codes, 0, &mut found, path);
        }
        let found: Vec<i32> = found
            .into_iter()
            .map(|code| i32::from(code as i8))
            .collect();
        assert_eq!(found, expected.codes, "{case}");
    }
}

fn assert_float8<T: Element>(weight: &TensorData) {
    let expected = quantize(weight, Scheme::Fp8Channel);
    for &path in CpuPath::available() {
        let mut codes = vec![0xaa; expected.codes.len()];
        let mut scales = vec![0.0; expected.scales.len()];
        let (source, columns) = (&weight.bytes, expected.columns);
        let scale = nearest_scale::<T>;
        fp8::quantize_rows::<T>(source, columns, &mut codes, &mut scales, scale, path).unwrap();
        assert_eq!(scales, expected.scales, "{path:?}, {weight:?}");
        let codes: Vec<i32> = codes.into_iter().map(i32::from).collect();
        assert_eq!(codes, expected.codes, "{path:?}, {weight:?}");
    }
}

fn assert_all<T: Element>(weight: &TensorData) {
    assert_float8::<T>(weight);
    assert_integers::<T, Int8>(weight, Scheme::Int8Channel);
    if weight.shape[1].is_multiple_of(128) {
        assert_integers::<T, Int4>(weight, Scheme::Int4);
        assert_integers::<T, Int4>(weight, Scheme::Int4Of32);
        assert_integers::<T, Int4Asymmetric>(weight, Scheme::Int4Asymmetric);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_path_gives_the_bits_of_the_definition(
        dtype in proptest::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32]),
        rows in 1usize..6,
        columns in prop_oneof![1usize..300, (1usize..5).prop_map(|groups| groups * 128)],
        seed in any::<u64>(),
    ) {
        let weight = tensor("x.weight", dtype, &[rows, columns], seed);
        match dtype {
            Dtype::BF16 => assert_all::<bf16>(&weight),
            Dtype::F16 => assert_all::<f16>(&weight),
            _ => assert_all::<f32>(&weight),
        }
    }
}

/// Holds the place of the first element that is not its code times its scale against one comparison after the other.
fn assert_first_inexact<T: Element>(weight: &TensorData) {
    let [rows, columns] = weight.shape[..] else {
        panic!("{weight:?} is no matrix");
    };
    for &path in CpuPath::available() {
        let mut codes = vec![0; rows * columns];
        let mut scales = vec![0.0; columns.div_ceil(BLOCK)];
        let format = ScaleFormat::Ue8m0;
        quantize_block_row::<T>(
            &weight.bytes,
            columns,
            &mut codes,
            &mut scales,
            format,
            path,
        )
        .unwrap();
        let numbers = decode(weight.dtype, &weight.bytes);
        let is_same = |at: usize| {
            let scale = scales[at % columns / BLOCK];
            let magnitude = value_of(codes[at] & 0x7f) * f64::from(scale);
            f64::from(numbers[at].abs()) == magnitude
        };
        let first = (0..numbers.len()).find(|at| !is_same(*at));
        let expected = first.map(|at| [at / columns, at % columns]);
        let found = first_inexact::<T>(&weight.bytes, columns, &codes, &scales, path);
        assert_eq!(found, expected, "{path:?}, {weight:?}");
    }
}

proptest! {
    #[test]
    fn the_first_number_that_fp8_does_not_have_is_found_on_every_path(
        rows in 1usize..5,
        columns in 1usize..300,
        lost in 0usize..3,
        exponent in prop::sample::select(vec![-130, -100, 0, 100]),
        seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let mut values: Vec<f32> = (0..rows * columns).map(|_| {
            let eighths = random.below(8) as f64;
            let number = (1.0 + eighths / 8.0) * power_of_two(exponent + random.below(5) as i32);
            (if random.one_in(2) { -number } else { number }) as f32
        }).collect();
        for _ in 0..lost {
            let at = random.below(values.len());
            values[at] = (1.0625 * power_of_two(exponent)) as f32;
        }
        let shape = [rows, columns];
        assert_first_inexact::<bf16>(&of_values("x", Dtype::BF16, &shape, &values));
        assert_first_inexact::<f32>(&of_values("x", Dtype::F32, &shape, &values));
        if exponent == 0 {
            assert_first_inexact::<f16>(&of_values("x", Dtype::F16, &shape, &values));
        }
    }
}

#[test]
fn packed_codes_are_given_back_less_their_zero_point() {
    let packed: Vec<u8> = (0..=255).collect();
    for &path in CpuPath::available() {
        for zero_point in -8..8 {
            let mut values = vec![0; 512];
            unpack(&packed, zero_point, &mut values, path);
            for (byte, pair) in values.chunks(2).enumerate() {
                let expected = [byte & 15, byte >> 4].map(|code| code as i8 - 8 - zero_point);
                assert_eq!([pair[0] as i8, pair[1] as i8], expected, "{path:?}");
            }
        }
    }
}
