//! What is decoded is as near to what was encoded as the format says.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Type, decode_row, encode_row};
use proptest::prelude::*;

use crate::oracle;
use crate::rows_of_tests::{QUANTIZED, row};

/// Half the last bit of an f16, relative: what the stored scale is off by.
const F16: f32 = 1.0 / 2048.0;

fn encoded(kind: Type, row: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut blocks = vec![0; kind.row_bytes(row.len()).unwrap()];
    let mut values = vec![0.0; row.len()];
    let path = CpuPath::best();
    encode_row(kind, row, None, &mut blocks, path).expect("it can be encoded");
    decode_row(kind, &blocks, &mut values, path);
    (blocks, values)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Within half a step, and what the rounding of scale and minimum to f16 adds; at the other end
    /// of Q4_0 and Q5_0 within a whole step, as there is no code for the largest magnitude there.
    #[test]
    fn blocks_of_32_are_within_half_a_step(row in row(2)) {
        for kind in [Type::Q8_0, Type::Q4_0, Type::Q4_1, Type::Q5_0, Type::Q5_1] {
            let (_, values) = encoded(kind, &row);
            for (x, found) in row.chunks(32).zip(values.chunks(32)) {
                let amax = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                let low = x.iter().copied().fold(f32::MAX, f32::min);
                let high = x.iter().copied().fold(f32::MIN, f32::max);
                let (step, allowed) = match kind {
                    Type::Q8_0 => (amax / 127.0, 0.5),
                    Type::Q4_0 => (amax / 8.0, 1.0),
                    Type::Q5_0 => (amax / 16.0, 1.0),
                    Type::Q4_1 => ((high - low) / 15.0, 0.5),
                    _ => ((high - low) / 31.0, 0.5),
                };
                // Scales that are subnormal f16 are off by up to 3e-8, times 127 codes.
                let bound = 1.001 * step * allowed + 2.5 * amax * F16 + 128.0 * 3e-8;
                for (x, found) in x.iter().zip(found) {
                    prop_assert!((x - found).abs() <= bound, "{kind:?}: {x:e} became {found:e}");
                }
            }
        }
    }

    /// The code of every element of a super-block is the nearest on the grid of its sub-block.
    #[test]
    fn codes_of_super_blocks_are_the_nearest(row in row(2)) {
        for kind in QUANTIZED.into_iter().filter(|kind| kind.block_len() == 256) {
            let (blocks, _) = encoded(kind, &row);
            let stored = blocks.chunks(kind.block_bytes()).flat_map(|b| oracle::stored(kind, b));
            for (x, stored) in row.iter().zip(stored).filter(|(_, stored)| stored.step != 0.0) {
                let distance = |code| (f64::from(stored.value_of(code)) - f64::from(*x)).abs();
                let (low, high) = stored.range;
                let nearest = (low..=high).map(distance).fold(f64::MAX, f64::min);
                // What is divided and multiplied is rounded.
                let slack = 1e-6 * f64::from(x.abs() + stored.min.abs() + stored.step.abs());
                prop_assert!(distance(stored.code) <= nearest + slack, "{kind:?}: {x:e}");
            }
        }
    }
}

/// Of normally distributed numbers: the root of the mean square error over that of the numbers,
/// which is about 2⁻ᵇ for `b` bits.
#[test]
fn more_bits_are_nearer() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let row: Vec<f32> = (0..8192)
        .map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 0.03)
        .collect();
    let error = |kind: Type| {
        let (_, values) = encoded(kind, &row);
        let squares: f32 = row.iter().zip(&values).map(|(x, y)| (x - y).powi(2)).sum();
        (squares / row.iter().map(|x| x * x).sum::<f32>()).sqrt()
    };
    let by_bits = [
        Type::Q2_K,
        Type::Q3_K,
        Type::Q4_K,
        Type::Q5_K,
        Type::Q6_K,
        Type::Q8_0,
    ];
    let errors = by_bits.map(error);
    assert!(
        errors.windows(2).all(|pair| pair[1] < 0.7 * pair[0]),
        "{errors:?}"
    );
    assert!(errors[0] < 0.4 && errors[5] < 0.01, "{errors:?}");
}
