//! What cannot be put in another order.

use std::slice;

use ckptfs::ops::gather;
use safetensors::Dtype;

use crate::common::{assert_names, message};
use crate::fixture::{bytes, made, random};

#[test]
fn elements_of_less_than_a_byte_move_in_runs_of_whole_bytes_only() {
    let content: Vec<u8> = (0..12).collect();
    let tensor = made(Dtype::F4, &[4, 6], content.clone());
    let rows = gather::deinterleave("t", &tensor, 0, 2).unwrap();
    assert_eq!(bytes(&rows[1], 100), [3, 4, 5, 9, 10, 11]);
    let left = gather::narrow("t", &tensor, 1, 0..2).unwrap();
    assert_eq!(bytes(&left, 100), [0, 3, 6, 9]);

    let part = gather::narrow("name", &tensor, 1, 0..3);
    assert_names(&message(part), &["name", "F4", "whole bytes"]);
    let transposed = gather::transpose("name", &tensor);
    assert_names(&message(transposed), &["name", "F4", "whole bytes"]);
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_what_they_are() {
    let (a, _) = random(Dtype::U8, &[4, 6], 1);
    let (b, _) = random(Dtype::U8, &[4, 5], 1);
    let (c, _) = random(Dtype::I8, &[4, 6], 1);
    for (refused, words) in [
        (
            gather::concatenate("n", &[a.clone(), b.clone()], 0),
            "[4, 5]",
        ),
        (gather::concatenate("n", &[a.clone(), c.clone()], 0), "I8"),
        (gather::concatenate("n", &[], 0), "no tensor"),
        (
            gather::concatenate("n", slice::from_ref(&a), 2),
            "no dimension 2",
        ),
        (gather::stack("n", &[a.clone(), b.clone()], 0), "[4, 5]"),
        (gather::stack("n", slice::from_ref(&a), 3), "dimension 3"),
        (gather::interleave("n", &[a.clone(), b], 0), "[4, 5]"),
        (gather::narrow("n", &a, 1, 3..7), "3..7"),
        (gather::permute_for_rope("n", &a, 3, false), "divided by 3"),
    ] {
        assert_names(&message(refused), &["n", words]);
    }
    for refused in [
        gather::chunk("n", &a, 1, 4),
        gather::deinterleave("n", &a, 1, 4),
        gather::chunk("n", &a, 1, 0),
    ] {
        assert_names(&message(refused), &["n", "[4, 6]", "cannot be divided"]);
    }
    assert_names(&message(gather::unstack("n", &a, 2)), &["no dimension 2"]);
    let (row, _) = random(Dtype::U8, &[4], 1);
    assert_names(
        &message(gather::transpose("n", &row)),
        &["[4]", "two dimensions"],
    );
}
