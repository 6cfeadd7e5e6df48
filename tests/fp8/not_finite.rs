//! NaN and infinity in a tensor that is to be quantized: an error that says where, never codes.

use ckptfs::error::{Code, NonFinite};
use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values};
use crate::common::readback::{read_tensor, reader};
use crate::common::{Workspace, assert_names, plan_fp8};

/// A tensor of ones but for one element.
fn with_one(dtype: Dtype, shape: &[usize], element: usize, value: f32) -> TensorData {
    let mut values = vec![1.0; shape.iter().product()];
    values[element] = value;
    of_values("bad", dtype, shape, &values)
}

/// The plan of a view that quantizes `bad` and its neighbours.
fn plan(workspace: &Workspace, bad: TensorData) -> Plan {
    let neighbours = [bf16("a", &[130, 130]), bad, bf16("z", &[130, 130])];
    let base = workspace.write("base", &Checkpoint::single(neighbours));
    let patterns = vec!["a|bad|z".to_owned()];
    plan_fp8(
        &base,
        QuantizeParams {
            patterns,
            ..QuantizeParams::default()
        },
    )
    .expect("a plan reads no tensor")
}

#[test]
fn the_error_names_the_tensor_the_value_and_the_position() {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        for (value, element) in values.into_iter().zip([0, 199 * 300 + 299, 130 * 300 + 7]) {
            let workspace = Workspace::new();
            let plan = plan(&workspace, with_one(dtype, &[200, 300], element, value));
            let reader = reader(&plan);
            for name in ["bad", "bad_scale_inv"] {
                let error = read_tensor(&plan, &reader, name).unwrap_err();
                assert_eq!(error.code(), Code::NonFinite);
                assert_eq!(error.tensor(), Some("bad"));
                let NonFinite {
                    row,
                    column,
                    value: found,
                } = error.found_non_finite().unwrap();
                assert_eq!((row * 300 + column) as usize, element);
                assert!(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan());
                assert_names(
                    &error.to_string(),
                    &["bad", &row.to_string(), &column.to_string()],
                );
            }
        }
    }
}

#[test]
fn every_nan_of_every_sign_and_payload_is_found() {
    for bits in [
        0x7F81_0000u32,
        0x7FFF_0000,
        0xFF81_0000,
        0xFFC0_0000,
        0x7FC0_0000,
    ] {
        let workspace = Workspace::new();
        let mut bytes = vec![0; 2 * 16];
        bytes[10..12].copy_from_slice(&((bits >> 16) as u16).to_le_bytes());
        let bad = TensorData::new("bad", Dtype::BF16, &[4, 4], bytes);
        let plan = plan(&workspace, bad);
        let error = read_tensor(&plan, &reader(&plan), "bad").unwrap_err();
        assert!(
            error
                .found_non_finite()
                .is_some_and(|found| (found.row, found.column) == (1, 1)),
            "{error}"
        );
    }
}

#[test]
fn a_row_counts_over_all_leading_dimensions() {
    let element = (2 * 150 + 140) * 20 + 3;
    let workspace = Workspace::new();
    let plan = plan(
        &workspace,
        with_one(Dtype::BF16, &[4, 150, 20], element, f32::NAN),
    );
    let error = read_tensor(&plan, &reader(&plan), "bad").unwrap_err();
    assert!(
        error
            .found_non_finite()
            .is_some_and(|found| (found.row, found.column) == (440, 3)),
        "{error}"
    );
}

#[test]
fn neighbouring_tensors_are_still_read() {
    let workspace = Workspace::new();
    let plan = plan(&workspace, with_one(Dtype::BF16, &[200, 300], 5, f32::NAN));
    let reader = reader(&plan);
    for _ in 0..2 {
        read_tensor(&plan, &reader, "bad").unwrap_err();
        for name in ["a", "a_scale_inv", "z", "z_scale_inv"] {
            read_tensor(&plan, &reader, name).unwrap();
        }
    }
}

#[test]
fn ranges_of_the_same_tensor_that_lie_in_other_tiles_are_still_read() {
    let columns = 16 * 1024;
    let workspace = Workspace::new();
    let bad = with_one(
        Dtype::BF16,
        &[384, columns],
        200 * columns + 9,
        f32::INFINITY,
    );
    let plan = plan(&workspace, bad);
    let reader = reader(&plan);
    let shard = &plan.shards[0];
    let bad = shard.tensors.iter().find(|t| &*t.name == "bad").unwrap();
    let block_row = |i: usize| {
        let mut codes = vec![0; 128 * columns];
        let offset = bad.offset + (i * codes.len()) as u64;
        reader
            .read_at(shard.entry, offset, &mut codes)
            .map(|_| codes)
    };
    // Ones have the scale 2^-8, and so the code of 256.
    let code_of_256 = 15 << 3;
    assert!(
        block_row(0)
            .unwrap()
            .iter()
            .all(|code| *code == code_of_256)
    );
    let found = block_row(1).unwrap_err().found_non_finite().unwrap();
    assert_eq!((found.row, found.column), (200, 9));
    assert!(
        block_row(2)
            .unwrap()
            .iter()
            .all(|code| *code == code_of_256)
    );
}

#[test]
fn a_tensor_that_is_kept_may_hold_anything() {
    let workspace = Workspace::new();
    let bad = with_one(Dtype::F32, &[4, 4], 3, f32::NAN);
    let base = workspace.write(
        "base",
        &Checkpoint::single([bf16("a", &[4, 4]), bad.clone()]),
    );
    let patterns = vec!["a".to_owned()];
    let request = QuantizeParams {
        patterns,
        ..QuantizeParams::default()
    };
    let plan = plan_fp8(&base, request).unwrap();
    assert_eq!(
        read_tensor(&plan, &reader(&plan), "bad").unwrap(),
        *bad.bytes
    );
}
