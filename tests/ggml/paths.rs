//! Every CPU path encodes and decodes as the plain definition does.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Type, decode_row, encode_row};
use proptest::prelude::*;

use crate::oracle;
use crate::rows_of_tests::{QUANTIZED, row, weights};

fn assert_as_defined(kind: Type, row: &[f32], weights: Option<&[f32]>) {
    let expected = oracle::encode(kind, row, weights);
    let len = kind.block_len();
    for &path in CpuPath::available() {
        let mut blocks = vec![0xaa; expected.len()];
        encode_row(kind, row, weights, &mut blocks, path).expect("it can be encoded");
        let wrong = (0..blocks.len()).find(|&at| blocks[at] != expected[at]);
        if let Some(at) = wrong {
            let (block, byte) = (at / kind.block_bytes(), at % kind.block_bytes());
            let values = &row[block * len..][..len];
            let (found, expected) = (blocks[at], expected[at]);
            panic!("{kind:?}, {path:?}, byte {byte}: {found:#x}, not {expected:#x}, of {values:?}");
        }
        let mut values = vec![f32::NAN; row.len()];
        decode_row(kind, &blocks, &mut values, path);
        let stored = expected
            .chunks(kind.block_bytes())
            .flat_map(|block| oracle::stored(kind, block));
        for (value, stored) in values.iter().zip(stored) {
            assert_eq!(*value, stored.value_of(stored.code), "{kind:?}, {path:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn any_row_is_as_defined(row in row(3)) {
        for kind in QUANTIZED {
            assert_as_defined(kind, &row, None);
        }
    }

    #[test]
    fn any_row_and_weights_are_as_defined(row in row(3), weights in weights(768)) {
        for kind in QUANTIZED {
            assert_as_defined(kind, &row, Some(&weights[..row.len()]));
        }
    }

    /// Any bytes are blocks, whose scales may be NaN or infinite.
    #[test]
    fn any_blocks_are_decoded_alike(bytes in prop::collection::vec(any::<u8>(), 3 * 256 * 4)) {
        for kind in Type::ALL {
            let blocks = &bytes[..kind.row_bytes(768).unwrap()];
            let decoded = CpuPath::available().iter().map(|&path| {
                let mut values = vec![0.0; 768];
                decode_row(kind, blocks, &mut values, path);
                let numbers = values.iter().map(|x| (!x.is_nan()).then(|| x.to_bits()));
                numbers.collect::<Vec<_>>()
            });
            let decoded: Vec<_> = decoded.collect();
            prop_assert!(decoded.windows(2).all(|pair| pair[0] == pair[1]), "{kind:?}");
        }
    }

    #[test]
    fn floats_are_rounded_to_nearest(bits in prop::collection::vec(any::<u32>(), 1..100)) {
        let row: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
        let row: Vec<f32> = row.into_iter().filter(|x| !x.is_nan()).collect();
        for &path in CpuPath::available() {
            let encoded = |kind: Type| {
                let mut blocks = vec![0; kind.row_bytes(row.len()).unwrap()];
                encode_row(kind, &row, None, &mut blocks, path).expect("floats take any value");
                blocks
            };
            let f32s: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
            let f16s = row.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
            let bf16s = row.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes());
            prop_assert_eq!(encoded(Type::F32), f32s);
            prop_assert_eq!(encoded(Type::F16), f16s.collect::<Vec<_>>());
            prop_assert_eq!(encoded(Type::BF16), bf16s.collect::<Vec<_>>());
        }
    }
}

/// More super-blocks than there are lanes, and a number that is not a multiple of them.
#[test]
fn long_rows_are_as_defined() {
    let row: Vec<f32> = (0..37 * 256)
        .map(|i| ((i * i) as f32 * 0.37).sin() * 0.02)
        .collect();
    let weights: Vec<f32> = (0..row.len()).map(|i| (i % 97) as f32).collect();
    for kind in QUANTIZED {
        assert_as_defined(kind, &row, None);
        assert_as_defined(kind, &row, Some(&weights));
    }
}

/// In the middle between two codes: half away from zero, half to even, or a half added and cut off.
#[test]
fn ties_are_as_defined() {
    let halves: Vec<f32> = (0..256).map(|i| (i % 64) as f32 * 0.5 - 16.0).collect();
    let quarters: Vec<f32> = halves.iter().map(|x| x * 0.25).collect();
    for kind in QUANTIZED {
        for row in [&halves, &quarters] {
            assert_as_defined(kind, row, None);
            assert_as_defined(kind, row, Some(&[1.0; 256]));
        }
    }
}

#[test]
fn zeros_are_as_defined() {
    for kind in QUANTIZED {
        assert_as_defined(kind, &[0.0; 256], None);
        assert_as_defined(kind, &[-0.0; 256], Some(&[0.0; 256]));
    }
}
