//! The numeric loops: every CPU path gives the bits of the definition, whatever rows are computed
//! together; conversions are those of the `half` crate.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::low_rank::{self, Finish, Float, Strided};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::values::{encode, round_to};
use crate::fixture::{Product, element, moved, nearest_f16, numbers};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Add,
    AddRounded,
    RowLengths,
    ColumnFactors,
}

/// Sizes around those of tiles, panels, and what stays in a processor's caches.
fn sizes() -> impl Strategy<Value = (usize, usize, usize)> {
    (
        1usize..23,
        prop_oneof![1usize..70, 120usize..140],
        1usize..40,
    )
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Add),
        Just(Kind::AddRounded),
        Just(Kind::RowLengths),
        Just(Kind::ColumnFactors),
    ]
}

struct Case {
    weight: TensorData,
    left: TensorData,
    right: TensorData,
    lengths: TensorData,
    factors: TensorData,
    rank: usize,
    columns: usize,
    scale: f32,
}

impl Case {
    fn new(dtype: Dtype, (rows, columns, rank): (usize, usize, usize), scale: f32) -> Self {
        Case {
            weight: numbers("w", dtype, &[rows, columns]),
            left: numbers("l", Dtype::F32, &[rows, rank]),
            right: numbers("r", Dtype::F32, &[rank, columns]),
            lengths: numbers("m", Dtype::F32, &[rows]),
            factors: numbers("f", Dtype::F32, &[columns]),
            rank,
            columns,
            scale,
        }
    }

    /// What rows `rows` become.
    fn compute<T: Float>(
        &self,
        kind: Kind,
        rows: std::ops::Range<usize>,
        path: CpuPath,
    ) -> Vec<u8> {
        let shape = Strided {
            groups: 1,
            rows: self.rank,
            columns: self.columns,
            strides: [0, self.columns, 1],
        };
        let mut right = vec![0xAA; 4 * shape.packed_elements()];
        low_rank::pack_right::<f32>(&self.right.bytes, shape, &mut right);
        let product = low_rank::Product {
            left: &self.left.bytes[4 * self.rank * rows.start..4 * self.rank * rows.end],
            right: &right,
            rank: self.rank,
            scale: self.scale,
        };
        let finish = match kind {
            Kind::Add => Finish::Add,
            Kind::AddRounded => Finish::AddRounded,
            Kind::RowLengths => {
                Finish::RowLengths(&self.lengths.bytes[4 * rows.start..4 * rows.end])
            }
            Kind::ColumnFactors => Finish::ColumnFactors(&self.factors.bytes),
        };
        let row_bytes = self.columns * T::BYTES;
        let weight = &self.weight.bytes[row_bytes * rows.start..row_bytes * rows.end];
        let mut sums = vec![0xAA; weight.len()];
        low_rank::add::<T>(weight, self.columns, &product, finish, &mut sums, path);
        sums
    }

    fn expected(&self, kind: Kind) -> Vec<u8> {
        let (left, right) = (element(&self.left), element(&self.right));
        let product = Product {
            left: &|row, k| left(row * self.rank + k),
            right: &|k, column| right(k * self.columns + column),
            rank: self.rank,
            scale: self.scale,
        };
        let dtype = self.weight.dtype;
        let mut values = moved(&self.weight, self.columns, &product);
        match kind {
            Kind::Add => {}
            Kind::AddRounded => {
                let weight = element(&self.weight);
                for (at, value) in values.iter_mut().enumerate() {
                    let product = product.at(at / self.columns, at % self.columns);
                    *value = weight(at) + round_to(dtype, product);
                }
            }
            Kind::RowLengths => {
                let lengths = element(&self.lengths);
                for (row, values) in values.chunks_mut(self.columns).enumerate() {
                    let factor = lengths(row) / length(values);
                    values.iter_mut().for_each(|value| *value *= factor);
                }
            }
            Kind::ColumnFactors => {
                let factors = element(&self.factors);
                for (at, value) in values.iter_mut().enumerate() {
                    *value *= factors(at % self.columns);
                }
            }
        }
        encode(dtype, &values)
    }

    fn assert_as_defined<T: Float>(&self, kind: Kind, cut: usize) {
        let expected = self.expected(kind);
        let rows = self.weight.shape[0];
        for &path in CpuPath::available() {
            let whole = self.compute::<T>(kind, 0..rows, path);
            assert_eq!(whole, expected, "{path:?} {kind:?} {:?}", self.weight);
            let cut = cut % (rows + 1);
            let mut parts = self.compute::<T>(kind, 0..cut, path);
            parts.extend(self.compute::<T>(kind, cut..rows, path));
            assert_eq!(parts, expected, "in parts: {path:?} {kind:?}");
        }
    }
}

/// The length of a row: eight sums in f64, each of every eighth square.
fn length(row: &[f32]) -> f32 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let lane = |lane: usize| row.iter().skip(lane).step_by(8).map(square).sum::<f64>();
    (0..8).map(lane).sum::<f64>().sqrt() as f32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_path_computes_as_defined(
        sizes in sizes(),
        kind in kinds(),
        scale in -4.0f32..4.0,
        cut: usize,
    ) {
        Case::new(Dtype::BF16, sizes, scale).assert_as_defined::<bf16>(kind, cut);
        Case::new(Dtype::F16, sizes, scale).assert_as_defined::<f16>(kind, cut);
        Case::new(Dtype::F32, sizes, scale).assert_as_defined::<f32>(kind, cut);
    }

    #[test]
    fn squares_of_columns_are_those_of_rows_one_after_another(sizes in sizes()) {
        let case = Case::new(Dtype::BF16, sizes, 0.75);
        let (rows, columns, _) = sizes;
        let factors = vec![1.0f32; columns];
        let as_f32 = Case {
            weight: TensorData::new(
                "w",
                Dtype::F32,
                &[rows, columns],
                encode(Dtype::F32, &crate::common::values::decode(Dtype::BF16, &case.weight.bytes)),
            ),
            factors: TensorData::new("f", Dtype::F32, &[columns], encode(Dtype::F32, &factors)),
            ..Case::new(Dtype::F32, sizes, 0.75)
        };
        let moved = as_f32.expected(Kind::Add);
        let moved = crate::common::values::decode(Dtype::F32, &moved);
        let expected: Vec<f64> = (0..columns)
            .map(|c| (0..rows).map(|r| f64::from(moved[r * columns + c]).powi(2)).sum())
            .collect();
        let shape = Strided { groups: 1, rows: case.rank, columns, strides: [0, columns, 1] };
        let mut right = vec![0; 4 * shape.packed_elements()];
        low_rank::pack_right::<f32>(&case.right.bytes, shape, &mut right);
        for &path in CpuPath::available() {
            let mut squares = vec![0.0; columns];
            let product = low_rank::Product {
                left: &case.left.bytes,
                right: &right,
                rank: case.rank,
                scale: case.scale,
            };
            low_rank::add_column_squares::<bf16>(
                &case.weight.bytes, columns, &product, &mut squares, path);
            prop_assert_eq!(&squares, &expected);
        }
    }

    #[test]
    fn writing_rounds_as_half_does(bits: u32) {
        let value = f32::from_bits(bits);
        let mut bytes = [0; 2];
        <f16 as Float>::write(value, &mut bytes);
        let (found, expected) = (f16::from_le_bytes(bytes), nearest_f16(value));
        prop_assert!(found == expected && found.is_sign_negative() == expected.is_sign_negative()
            || found.is_nan() && expected.is_nan());
        <bf16 as Float>::write(value, &mut bytes);
        let (found, expected) = (bf16::from_le_bytes(bytes), bf16::from_f32(value));
        prop_assert!(found == expected && found.is_sign_negative() == expected.is_sign_negative()
            || found.is_nan() && expected.is_nan());
    }
}

#[test]
fn every_16_bit_number_is_read_and_written_back() {
    for bits in 0..=u16::MAX {
        let bytes = bits.to_le_bytes();
        let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
        let read = <f16 as Float>::read(&bytes);
        assert!(
            read == half.to_f32() || read.is_nan() && half.is_nan(),
            "{bits:#x}"
        );
        assert_eq!(
            <bf16 as Float>::read(&bytes).to_bits(),
            u32::from(bits) << 16
        );
        let mut back = [0; 2];
        <f16 as Float>::write(read, &mut back);
        assert!(back == bytes || half.is_nan(), "{bits:#x}");
        <bf16 as Float>::write(brain.to_f32(), &mut back);
        assert!(back == bytes || brain.is_nan(), "{bits:#x}");
    }
}

#[test]
fn f16_rounds_at_every_edge() {
    // Halfway between neighbors, and right beside: at normal, subnormal and the largest numbers.
    for bits in 0..0x7c00u16 {
        let (low, high) = (
            f16::from_bits(bits).to_f32(),
            f16::from_bits(bits + 1).to_f32(),
        );
        let high = if high.is_infinite() { 65536.0 } else { high };
        let middle = (low + high) / 2.0;
        for value in [middle, middle.next_up(), middle.next_down()] {
            let mut bytes = [0; 2];
            <f16 as Float>::write(value, &mut bytes);
            assert_eq!(f16::from_le_bytes(bytes), nearest_f16(value), "{value:e}");
        }
    }
}
