//! What blocks cannot hold is refused, by name.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Unencodable, WEIGHT_LIMIT, decode_row, encode_row};

use crate::rows_of_tests::QUANTIZED;

#[test]
fn the_first_nan_or_infinity_is_named() {
    for kind in QUANTIZED {
        for &path in CpuPath::available() {
            for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = [0.5; 512];
                row[300] = value;
                row[400] = f32::NAN;
                let mut blocks = vec![0; kind.row_bytes(512).unwrap()];
                match encode_row(kind, &row, None, &mut blocks, path) {
                    Err(Unencodable::NotFinite {
                        column: 300,
                        value: found,
                    }) => {
                        assert_eq!(found.to_bits(), value.to_bits());
                    }
                    other => panic!("{kind:?}, {path:?}, {value}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_weight_that_cannot_be_one_is_named() {
    for value in [f32::INFINITY, -1.0, 2.0 * WEIGHT_LIMIT] {
        let mut weights = [1.0; 256];
        weights[7] = value;
        for kind in QUANTIZED {
            let mut blocks = vec![0; kind.row_bytes(256).unwrap()];
            let path = CpuPath::best();
            let result = encode_row(kind, &[1.0; 256], Some(&weights), &mut blocks, path);
            let expected = Unencodable::Weight { column: 7, value };
            assert_eq!(result, Err(expected), "{kind:?}");
        }
    }
}

#[test]
fn a_block_whose_scale_is_beyond_f16_is_named() {
    for kind in QUANTIZED {
        for &path in CpuPath::available() {
            for huge in [1e10f32, 1e30, f32::MAX] {
                let len = kind.block_len();
                let mut row = vec![0.5; 3 * len];
                row[2 * len + 3] = huge;
                row[2 * len + 4] = -huge;
                let mut blocks = vec![0; kind.row_bytes(row.len()).unwrap()];
                let result = encode_row(kind, &row, None, &mut blocks, path);
                let expected = Unencodable::ScaleOverflow { block: 2 };
                assert_eq!(result, Err(expected), "{kind:?}, {path:?}, {huge:e}");
            }
        }
    }
}

/// With the largest weights and values, sums do not overflow: what is not refused is near the values.
#[test]
fn the_largest_weights_and_values_are_encoded() {
    let row: Vec<f32> = (0..256).map(|i| (i as f32 * 0.7).sin() * 6e4).collect();
    let weights = [WEIGHT_LIMIT.next_down(); 256];
    for kind in QUANTIZED {
        let mut blocks = vec![0; kind.row_bytes(256).unwrap()];
        let mut values = vec![0.0; 256];
        for weights in [None, Some(&weights[..])] {
            let path = CpuPath::best();
            encode_row(kind, &row, weights, &mut blocks, path).expect("within the limits");
            decode_row(kind, &blocks, &mut values, path);
            for (x, found) in row.iter().zip(&values) {
                assert!((x - found).abs() < 2.5e4, "{kind:?}: {x} became {found}");
            }
        }
    }
}
