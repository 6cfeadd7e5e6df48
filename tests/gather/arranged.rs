//! Every arrangement, for elements of every width, by the index of each element.

use ckptfs::catalog::Tensor;
use ckptfs::ops::gather;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::fixture::{Elements, assert_is, bytes, made, random};

/// One dtype of each width.
const DTYPES: [Dtype; 4] = [Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::I64];

/// A shape of one to four dimensions, one of these, and in how many parts something is done along it.
fn cases() -> impl Strategy<Value = (Dtype, Vec<usize>, usize, usize, u64)> {
    let len = prop_oneof![0usize..5, 30usize..50];
    let shape = proptest::collection::vec(len, 1..5);
    let shape = shape.prop_filter("small", |shape| shape.iter().product::<usize>() < 20_000);
    (
        select(&DTYPES[..]),
        shape,
        0usize..4,
        1usize..5,
        any::<u64>(),
    )
        .prop_map(|(dtype, shape, dimension, parts, seed)| {
            let dimension = dimension % shape.len();
            (dtype, shape, dimension, parts, seed)
        })
}

fn several(dtype: Dtype, shapes: &[Vec<usize>], seed: u64) -> (Vec<Tensor>, Vec<Elements>) {
    let shapes = shapes.iter().enumerate();
    shapes
        .map(|(i, shape)| random(dtype, shape, seed ^ i as u64))
        .unzip()
}

fn with(shape: &[usize], dimension: usize, len: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[dimension] = len;
    shape
}

proptest! {
    #[test]
    fn what_is_concatenated_has_the_entries_of_each_after_those_before(
        (dtype, shape, dimension, parts, seed) in cases()
    ) {
        let shapes: Vec<_> = (0..parts).map(|i| with(&shape, dimension, shape[dimension] + i)).collect();
        let (tensors, elements) = several(dtype, &shapes, seed);
        let len = shapes.iter().map(|shape| shape[dimension]).sum();
        let expected = Elements::new(&with(&shape, dimension, len), |index| {
            let mut entry = index[dimension];
            let mut all = elements.iter();
            loop {
                let next = all.next().unwrap();
                if entry < next.shape[dimension] {
                    break next.at_with(index, dimension, entry);
                }
                entry -= next.shape[dimension];
            }
        });
        assert_is(&gather::concatenate("t", &tensors, dimension).unwrap(), &expected);
    }

    #[test]
    fn chunks_are_the_entries_in_order_and_concatenated_again_they_are_the_tensor(
        (dtype, shape, dimension, parts, seed) in cases()
    ) {
        let each = shape[dimension];
        let shape = with(&shape, dimension, each * parts);
        let (tensor, elements) = random(dtype, &shape, seed);
        let chunks = gather::chunk("t", &tensor, dimension, parts as u64).unwrap();
        prop_assert_eq!(chunks.len(), parts);
        for (i, chunk) in chunks.iter().enumerate() {
            let expected = Elements::new(&with(&shape, dimension, each), |index| {
                elements.at_with(index, dimension, i * each + index[dimension])
            });
            assert_is(chunk, &expected);
        }
        assert_is(&gather::concatenate("t", &chunks, dimension).unwrap(), &elements);
    }

    #[test]
    fn a_stack_has_each_tensor_as_an_entry_and_unstacked_it_is_these_tensors(
        (dtype, shape, dimension, parts, seed) in cases(), last in any::<bool>()
    ) {
        let dimension = if last { shape.len() } else { dimension };
        let (tensors, elements) = several(dtype, &vec![shape.clone(); parts], seed);
        let mut stacked_shape = shape.clone();
        stacked_shape.insert(dimension, parts);
        let expected = Elements::new(&stacked_shape, |index| {
            let mut rest = index.to_vec();
            let entry = rest.remove(dimension);
            elements[entry].at(&rest)
        });
        let stacked = gather::stack("t", &tensors, dimension).unwrap();
        assert_is(&stacked, &expected);
        let unstacked = gather::unstack("t", &stacked, dimension).unwrap();
        prop_assert_eq!(unstacked.len(), parts);
        for (tensor, elements) in unstacked.iter().zip(&elements) {
            assert_is(tensor, elements);
        }
    }

    #[test]
    fn a_transposed_tensor_has_rows_as_columns_and_twice_transposed_it_is_itself(
        (dtype, shape, _, _, seed) in cases()
    ) {
        let shape = if shape.len() == 1 { vec![shape[0], 3] } else { shape };
        let (tensor, elements) = random(dtype, &shape, seed);
        let mut turned = shape.clone();
        let last = turned.len() - 1;
        turned.swap(last - 1, last);
        let expected = Elements::new(&turned, |index| {
            let mut index = index.to_vec();
            index.swap(last - 1, last);
            elements.at(&index)
        });
        let transposed = gather::transpose("t", &tensor).unwrap();
        assert_is(&transposed, &expected);
        assert_is(&gather::transpose("t", &transposed).unwrap(), &elements);
    }

    #[test]
    fn interleaved_tensors_take_turns_and_deinterleaved_they_are_themselves(
        (dtype, shape, dimension, parts, seed) in cases()
    ) {
        let (tensors, elements) = several(dtype, &vec![shape.clone(); parts], seed);
        let long = with(&shape, dimension, shape[dimension] * parts);
        let expected = Elements::new(&long, |index| {
            let entry = index[dimension];
            elements[entry % parts].at_with(index, dimension, entry / parts)
        });
        let interleaved = gather::interleave("t", &tensors, dimension).unwrap();
        assert_is(&interleaved, &expected);
        let apart = gather::deinterleave("t", &interleaved, dimension, parts as u64).unwrap();
        prop_assert_eq!(apart.len(), parts);
        for (tensor, elements) in apart.iter().zip(&elements) {
            assert_is(tensor, elements);
        }
    }

    #[test]
    fn rotated_pairs_that_are_next_to_each_other_become_halves_of_each_head_and_back(
        dtype in select(&DTYPES[..]), heads in 1usize..5, half in 1usize..9,
        columns in proptest::option::of(1usize..70), seed in any::<u64>()
    ) {
        let rows = heads * 2 * half;
        let shape: Vec<usize> = [rows].into_iter().chain(columns).collect();
        let (tensor, elements) = random(dtype, &shape, seed);
        let expected = Elements::new(&shape, |index| {
            let (head, in_head) = (index[0] / (2 * half), index[0] % (2 * half));
            let (part, pair) = (in_head / half, in_head % half);
            elements.at_with(index, 0, head * 2 * half + 2 * pair + part)
        });
        let permuted = gather::permute_for_rope("t", &tensor, heads as u64, false).unwrap();
        assert_is(&permuted, &expected);
        let back = gather::permute_for_rope("t", &permuted, heads as u64, true).unwrap();
        assert_is(&back, &elements);
    }
}

#[test]
fn what_takes_several_bands_and_strips_of_rows_is_what_it_is_in_one() {
    let (rows, columns) = (550, 9000);
    let content: Vec<u8> = (0..rows * columns * 2).map(|i| (i % 251) as u8).collect();
    for (dtype, width) in [(Dtype::U8, 1), (Dtype::BF16, 2), (Dtype::I64, 8)] {
        // As many bytes of each.
        let rows = rows * 2 / width;
        let tensor = made(
            dtype,
            &[rows, columns],
            content[..rows * columns * width].to_vec(),
        );
        let element = |row: usize, column: usize| {
            let start = (row * columns + column) * width;
            &content[start..start + width]
        };
        let mut transposed: Vec<u8> = Vec::with_capacity(tensor.len() as usize);
        for column in 0..columns {
            for row in 0..rows {
                transposed.extend(element(row, column));
            }
        }
        let found = gather::transpose("t", &tensor).unwrap();
        assert!(bytes(&found, 1 << 20) == transposed, "{dtype:?} transposed");
        // Short runs of long rows.
        let mut narrowed: Vec<u8> = Vec::new();
        for row in 0..rows {
            (5..12).for_each(|column| narrowed.extend(element(row, column)));
        }
        let found = gather::narrow("t", &tensor, 1, 5..12).unwrap();
        assert!(bytes(&found, 1000) == narrowed, "{dtype:?} narrowed");
    }
}

#[test]
fn whole_rows_are_ranges_of_the_tensors_that_they_come_from() {
    let shape = [6, 8, 64];
    let (tensor, _) = random(Dtype::BF16, &shape, 1);
    let all = [
        gather::chunk("t", &tensor, 0, 2).unwrap(),
        gather::chunk("t", &tensor, 1, 4).unwrap(),
        gather::chunk("t", &tensor, 2, 2).unwrap(),
        gather::unstack("t", &tensor, 0).unwrap(),
        gather::unstack("t", &tensor, 1).unwrap(),
        gather::deinterleave("t", &tensor, 1, 2).unwrap(),
        vec![gather::stack("t", &[tensor.clone(), tensor.clone()], 1).unwrap()],
        vec![gather::permute_for_rope("t", &tensor, 3, false).unwrap()],
    ];
    for tensor in all.iter().flatten() {
        assert_eq!(tensor.nodes().count(), 0, "{tensor:?}");
    }
    // In one piece where they follow each other.
    let halves = gather::chunk("t", &tensor, 2, 2).unwrap();
    let whole = gather::concatenate("t", &halves, 2).unwrap();
    assert_eq!(whole.places().count(), 1);
}
