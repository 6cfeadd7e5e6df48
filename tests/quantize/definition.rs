//! The schemes as plain scalar definitions, an element at a time.

use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, of_values};
use crate::common::oracle::numbers::{nearest_code, value_of};
use crate::common::values::{decode, round_to};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Fp8Block,
    Fp8Channel,
    Int8Channel,
    Int4,
    Int4Of32,
    Int4Asymmetric,
}

pub(crate) const SCHEMES: [Scheme; 6] = [
    Scheme::Fp8Block,
    Scheme::Fp8Channel,
    Scheme::Int8Channel,
    Scheme::Int4,
    Scheme::Int4Of32,
    Scheme::Int4Asymmetric,
];

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::Fp8Block => "fp8-block",
            Scheme::Fp8Channel => "fp8-channel",
            Scheme::Int8Channel => "int8-channel",
            Scheme::Int4 => "int4",
            Scheme::Int4Of32 => "int4:group=32",
            Scheme::Int4Asymmetric => "int4:asymmetric",
        }
    }

    /// Rows and columns that share a scale.
    pub(crate) fn block(self, columns: usize) -> [usize; 2] {
        match self {
            Scheme::Fp8Block => [128, 128],
            Scheme::Fp8Channel | Scheme::Int8Channel => [1, columns],
            Scheme::Int4 | Scheme::Int4Asymmetric => [1, 128],
            Scheme::Int4Of32 => [1, 32],
        }
    }
}

/// A weight in codes, by block and element.
pub(crate) struct Quantized {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) block: [usize; 2],
    /// A code for each element; of E4M3 its bits, else an integer.
    pub(crate) codes: Vec<i32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<i32>,
}

impl Quantized {
    /// The block of an element.
    pub(crate) fn block_of(&self, element: usize) -> usize {
        let (row, column) = (element / self.columns, element % self.columns);
        row / self.block[0] * self.columns.div_ceil(self.block[1]) + column / self.block[1]
    }

    /// What the code of an element stands for, without its scale.
    pub(crate) fn level(&self, scheme: Scheme, element: usize) -> f32 {
        let code = self.codes[element];
        match scheme {
            Scheme::Fp8Block | Scheme::Fp8Channel => {
                let value = value_of(code as u8 & 0x7f) as f32;
                if code & 0x80 == 0 { value } else { -value }
            }
            _ => (code - self.zero_points[self.block_of(element)]) as f32,
        }
    }
}

fn integer(x: f32, [min, max]: [f32; 2]) -> i32 {
    x.clamp(min, max).round_ties_even() as i32
}

/// Quantizes a matrix.
pub(crate) fn quantize(tensor: &TensorData, scheme: Scheme) -> Quantized {
    let values = decode(tensor.dtype, &tensor.bytes);
    let [rows, columns] = tensor.shape[..] else {
        panic!("{tensor:?}");
    };
    let block = scheme.block(columns);
    let count = rows.div_ceil(block[0]) * columns.div_ceil(block[1]);
    let mut made = Quantized {
        rows,
        columns,
        block,
        codes: Vec::new(),
        scales: Vec::new(),
        zero_points: vec![0; count],
    };
    let epsilon = match tensor.dtype {
        Dtype::BF16 => 2f32.powi(-7),
        Dtype::F16 => 2f32.powi(-10),
        _ => 2f32.powi(-23),
    };
    for block in 0..count {
        let of_block: Vec<f32> = values
            .iter()
            .enumerate()
            .filter(|(element, _)| made.block_of(*element) == block)
            .map(|(_, value)| *value)
            .collect();
        let min = of_block.iter().copied().fold(0.0, f32::min);
        let max = of_block.iter().copied().fold(0.0, f32::max);
        let amax = max.max(-min);
        let scale = match scheme {
            Scheme::Fp8Block | Scheme::Fp8Channel => amax / 448.0,
            Scheme::Int8Channel => amax / 127.5,
            Scheme::Int4 | Scheme::Int4Of32 => amax / 7.5,
            Scheme::Int4Asymmetric => (max - min) / 15.0,
        };
        let scale = round_to(tensor.dtype, scale);
        if scheme == Scheme::Int4Asymmetric && scale != 0.0 {
            made.zero_points[block] = integer(-8.0 - min / scale, [-8.0, 7.0]);
        }
        made.scales.push(if scale == 0.0 { epsilon } else { scale });
    }
    made.codes = values
        .iter()
        .enumerate()
        .map(|(element, value)| {
            let block = made.block_of(element);
            let x = value / made.scales[block];
            match scheme {
                Scheme::Fp8Block | Scheme::Fp8Channel => i32::from(nearest_code(x)),
                Scheme::Int8Channel => integer(x, [-128.0, 127.0]),
                _ => integer(x + made.zero_points[block] as f32, [-8.0, 7.0]),
            }
        })
        .collect();
    made
}

/// The tensors that the weight `X.weight` becomes.
pub(crate) fn tensors(weight: &TensorData, scheme: Scheme) -> Vec<TensorData> {
    let made = quantize(weight, scheme);
    let (rows, columns) = (made.rows, made.columns);
    let named = |suffix: &str| format!("{}{suffix}", weight.name);
    let groups = columns.div_ceil(made.block[1]);
    let shape = [rows.div_ceil(made.block[0]), groups];
    let scales = of_values(&named("_scale"), weight.dtype, &shape, &made.scales);
    let bytes: Vec<u8> = made.codes.iter().map(|code| *code as u8).collect();
    let dtype = match scheme {
        Scheme::Fp8Block | Scheme::Fp8Channel => Dtype::F8_E4M3,
        _ => Dtype::I8,
    };
    if matches!(
        scheme,
        Scheme::Fp8Block | Scheme::Fp8Channel | Scheme::Int8Channel
    ) {
        let codes = TensorData::new(&weight.name, dtype, &weight.shape, bytes);
        return vec![codes, scales];
    }
    let word = |codes: &mut dyn Iterator<Item = i32>| {
        let word = codes.enumerate().fold(0u32, |word, (j, code)| {
            word | ((code + 8) as u32) << (4 * j)
        });
        word.to_le_bytes()
    };
    let words = made.codes.chunks(8);
    let words = words.flat_map(|codes| word(&mut codes.iter().copied()));
    let packed = TensorData::new(
        &named("_packed"),
        Dtype::I32,
        &[rows, columns / 8],
        words.collect(),
    );
    let dims = [rows as i64, columns as i64];
    let dims = dims.iter().flat_map(|n| n.to_le_bytes()).collect();
    let dims = TensorData::new(&named("_shape"), Dtype::I64, &[2], dims);
    let mut all = vec![packed, scales, dims];
    if scheme == Scheme::Int4Asymmetric {
        let mut words = Vec::new();
        for (eight, group) in (0..rows / 8).flat_map(|e| (0..groups).map(move |g| (e, g))) {
            let zeros = (0..8).map(|j| made.zero_points[(eight * 8 + j) * groups + group]);
            words.extend(word(&mut zeros.into_iter()));
        }
        let name = named("_zero_point");
        let shape = [rows / 8, groups];
        all.push(TensorData::new(&name, Dtype::I32, &shape, words));
    }
    all
}

/// The numbers that the codes of `weight` stand for, in `dtype`.
pub(crate) fn numbers(weight: &TensorData, scheme: Scheme, dtype: Dtype) -> TensorData {
    let made = quantize(weight, scheme);
    let value = |element| made.level(scheme, element) * made.scales[made.block_of(element)];
    let values: Vec<f32> = (0..made.codes.len()).map(value).collect();
    of_values(&weight.name, dtype, &weight.shape, &values)
}
