//! Seeded numbers, and tensor content made of them.

use half::{bf16, f16};
use safetensors::Dtype;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times on average.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number in `-1.0..1.0`.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Bits of one element.
pub(crate) fn bits(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F4 => 4,
        Dtype::F6_E2M3 | Dtype::F6_E3M2 => 6,
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => 8,
        Dtype::F8_E5M2 | Dtype::F8_E4M3 | Dtype::F8_E8M0 => 8,
        Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => 8,
        Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::BF16 => 16,
        Dtype::I32 | Dtype::U32 | Dtype::F32 => 32,
        Dtype::I64 | Dtype::U64 | Dtype::F64 | Dtype::C64 => 64,
        other => panic!("{other:?} has no known size"),
    }
}

/// The name that headers give a dtype.
pub(crate) fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}")
}

/// Bytes of a tensor of `shape`.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> usize {
    let bits = shape.iter().product::<usize>() * bits(dtype);
    assert_eq!(bits % 8, 0, "{dtype:?} {shape:?} does not fill whole bytes");
    bits / 8
}

/// Content for a tensor: finite numbers of mixed magnitude for the dtypes that can be quantized,
/// any bytes for the others.
pub(crate) fn random_content(dtype: Dtype, shape: &[usize], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let len = byte_len(dtype, shape);
    match dtype {
        Dtype::BF16 | Dtype::F16 | Dtype::F32 => {
            let count = len * 8 / bits(dtype);
            encode(dtype, &random_weights(dtype, count, &mut random))
        }
        Dtype::BOOL => (0..len).map(|_| random.below(2) as u8).collect(),
        _ => (0..len).map(|_| random.next() as u8).collect(),
    }
}

/// Finite numbers: zeros of both signs, subnormals, outliers, and mostly plain weights around one
/// magnitude; sometimes the first half is all zeros.
fn random_weights(dtype: Dtype, count: usize, random: &mut Random) -> Vec<f32> {
    let center = match dtype {
        Dtype::F16 => random.below(20) as i32 - 14,
        _ if random.one_in(4) => random.below(240) as i32 - 140,
        _ => random.below(12) as i32 - 8,
    };
    let zeros = if random.one_in(4) { count / 2 } else { 0 };
    (0..count)
        .map(|i| {
            let value = match random.below(64) {
                _ if i < zeros => 0.0,
                0 => 0.0,
                1 => -0.0,
                2 => f32::from_bits(1 + random.below(1 << 20) as u32),
                3 => random.unit() * power_of_two(center + 4) as f32,
                _ => random.unit() * power_of_two(center - random.below(10) as i32) as f32,
            };
            let value = round_to(dtype, value);
            if value.is_finite() { value } else { 1.0 }
        })
        .collect()
}

/// 2^`exponent`, exactly.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    assert!((-1022..=1023).contains(&exponent));
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The nearest number of `dtype`.
pub(crate) fn round_to(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::BF16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Little-endian elements of `dtype`, each the nearest to a value.
pub(crate) fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let bytes = |value: &f32| match dtype {
        Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
        Dtype::F32 => value.to_le_bytes().to_vec(),
        other => panic!("{other:?} is not a dtype that can be quantized"),
    };
    values.iter().flat_map(bytes).collect()
}

/// The exact values of little-endian elements of `dtype`.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        // A bf16 is the upper half of an f32.
        Dtype::BF16 => pairs()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        other => panic!("{other:?} is not a dtype that can be quantized"),
    }
}
