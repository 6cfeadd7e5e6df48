//! Every figure of a tensor is what its definition says.

use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::inspect::{self, AmaxRange, quantized_tensors};
use ckptfs::jobs::Progress;
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::read::Reader;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{of_values, tensor};
use crate::common::readback::reader;
use crate::naive::{Naive, assert_close};
use crate::{FORMATS, inspect_all, measure, plan_all, try_inspect};

const DTYPES: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

#[test]
fn random_tensors_of_every_kind_measure_as_defined() {
    let shapes: [&[usize]; 9] = [
        &[128, 128],
        &[256, 384],
        &[1, 1],
        &[1, 300],
        &[300, 1],
        &[130, 200],
        &[2, 128, 128],
        &[3, 5, 7],
        &[3, 150, 129],
    ];
    for dtype in DTYPES {
        for (seed, shape) in shapes.iter().enumerate() {
            let tensor = tensor("x", dtype, shape, seed as u64);
            for format in FORMATS {
                let what = format!("{tensor:?} {format:?}");
                let naive = Naive::of([&tensor], format);
                naive.assert_is(&measure(&tensor, format), &what);
            }
        }
    }
}

#[test]
fn a_tensor_of_several_tiles_measures_as_defined() {
    let tensor = tensor("x", Dtype::BF16, &[400, 9000], 5);
    for format in FORMATS {
        Naive::of([&tensor], format).assert_is(&measure(&tensor, format), "several tiles");
    }
}

#[test]
fn a_small_block_measures_as_computed_by_hand() {
    // The scale of a block with amax 448 is 1 in both formats. 448 is the code for 448; 17 lies
    // halfway between 16 and 18 and becomes the even 16; 2^-10 is half of the smallest code and
    // becomes 0; 3 is a code.
    let tiny = 1.0 / 1024.0;
    for dtype in DTYPES {
        let tensor = of_values("x", dtype, &[2, 3], &[448.0, -17.0, tiny, 0.0, -3.0, -0.0]);
        for format in FORMATS {
            let fidelity = measure(&tensor, format);
            assert_eq!((fidelity.elements, fidelity.blocks), (6, 1));
            assert_eq!(fidelity.saturated, 1);
            assert_eq!((fidelity.zero_codes, fidelity.flushed), (3, 1));
            assert_eq!(fidelity.largest_relative_error, 1.0 / 17.0);
            assert_eq!(fidelity.largest_block_error, 1.0 / 448.0);
            let tiny = f64::from(tiny);
            let signal = 448.0 * 448.0 + 17.0 * 17.0 + 3.0 * 3.0 + tiny * tiny;
            let noise = 1.0 + tiny * tiny;
            assert_eq!((fidelity.signal, fidelity.noise), (signal, noise));
            let db = 10.0 * (signal / noise).log10();
            assert_close(fidelity.sqnr_db().unwrap(), db, "decibels");
            assert_eq!(fidelity.saturated_share(), 1.0 / 6.0);
            assert_eq!(fidelity.zero_share(), 0.5);
            assert_eq!(fidelity.flushed_share(), 1.0 / 6.0);
        }
    }
}

#[test]
fn the_relative_error_is_largest_just_below_the_smallest_normal_code() {
    // 15 * 2^-10 lies halfway between the largest subnormal and the smallest normal code.
    let tensor = of_values("x", Dtype::BF16, &[1, 2], &[448.0, -15.0 / 1024.0]);
    for format in FORMATS {
        assert_eq!(measure(&tensor, format).largest_relative_error, 1.0 / 15.0);
    }
}

#[test]
fn the_block_error_is_largest_halfway_between_the_first_codes_of_the_last_binade() {
    let tensor = of_values("x", Dtype::BF16, &[1, 1], &[272.0]);
    let error = |format| measure(&tensor, format).largest_block_error;
    assert_eq!(error(ScaleFormat::Ue8m0), 1.0 / 17.0);
    let tensor = of_values("x", Dtype::BF16, &[1, 2], &[272.0, 448.0]);
    let error = |format| measure(&tensor, format).largest_block_error;
    assert_eq!(error(ScaleFormat::Float32), 1.0 / 28.0);
}

#[test]
fn relative_errors_of_subnormal_codes_do_not_count() {
    // 2.4 * 2^-9 becomes the subnormal 2 * 2^-9, a sixth away.
    let value = 2.4 / 512.0;
    let tensor = of_values("x", Dtype::F32, &[1, 2], &[448.0, value]);
    let fidelity = measure(&tensor, ScaleFormat::Ue8m0);
    assert_eq!(fidelity.largest_relative_error, 0.0);
    let error = f64::from(value) - 2.0 / 512.0;
    assert_eq!(fidelity.largest_block_error, error / 448.0);
    assert_eq!(fidelity.flushed, 0);
}

#[test]
fn blocks_of_zeros_are_counted_and_have_no_amax() {
    let mut values = vec![0.0; 128 * 384];
    for row in 0..128 {
        values[row * 384 + 200] = if row == 5 { -0.25 } else { 0.125 };
    }
    let tensor = of_values("x", Dtype::BF16, &[128, 384], &values);
    for format in FORMATS {
        let fidelity = measure(&tensor, format);
        assert_eq!((fidelity.blocks, fidelity.zero_blocks), (3, 2));
        let amax = AmaxRange {
            smallest: 0.25,
            largest: 0.25,
        };
        assert_eq!(fidelity.amax, Some(amax));
        assert_eq!(fidelity.zero_codes, 128 * 384 - 128);
        assert_eq!(fidelity.flushed, 0);
    }
}

#[test]
fn a_tensor_of_zeros_has_no_noise_and_no_amax() {
    let tensor = of_values("x", Dtype::F16, &[130, 3], &[0.0; 390]);
    let fidelity = measure(&tensor, ScaleFormat::Ue8m0);
    assert_eq!((fidelity.signal, fidelity.noise), (0.0, 0.0));
    assert_eq!(fidelity.sqnr_db(), None);
    assert_eq!(fidelity.amax, None);
    assert_eq!((fidelity.blocks, fidelity.zero_blocks), (2, 2));
    assert_eq!(fidelity.zero_share(), 1.0);
    assert_eq!(fidelity.largest_block_error, 0.0);
}

#[test]
fn the_amax_range_spans_the_blocks() {
    let mut values = vec![0.5; 3 * 256];
    values[7] = -3.0;
    let tensor = of_values("x", Dtype::BF16, &[3, 256], &values);
    let amax = measure(&tensor, ScaleFormat::Ue8m0).amax.unwrap();
    assert_eq!((amax.smallest, amax.largest), (0.5, 3.0));
}

#[test]
fn an_amax_that_saturates_because_its_scale_was_rounded_down_has_an_error() {
    let rounded_down = |amax: f32| {
        let scale = (f64::from(amax) / 448.0) as f32;
        amax / scale > 448.0
    };
    let amax = (0..1 << 20)
        .map(|i| f32::from_bits(1.0f32.to_bits() + i))
        .find(|amax| rounded_down(*amax))
        .expect("there are such numbers");
    let tensor = of_values("x", Dtype::F32, &[1, 2], &[amax, -amax]);
    let fidelity = measure(&tensor, ScaleFormat::Float32);
    assert_eq!(fidelity.saturated, 2);
    let scale = (f64::from(amax) / 448.0) as f32;
    let error = f64::from(amax) - 448.0 * f64::from(scale);
    assert!(error > 0.0);
    assert_eq!(fidelity.largest_block_error, error / f64::from(amax));
    assert_close(fidelity.noise, 2.0 * error * error, "noise");
}

#[test]
fn exact_scales_saturate_in_every_block_that_is_not_zero() {
    let tensor = tensor("x", Dtype::BF16, &[512, 512], 3);
    let fidelity = measure(&tensor, ScaleFormat::Float32);
    assert!(fidelity.saturated >= fidelity.blocks - fidelity.zero_blocks);
}

#[test]
fn largest_errors_stay_below_their_bounds() {
    for (seed, dtype) in DTYPES.into_iter().enumerate() {
        let tensor = tensor("x", dtype, &[256, 256], 40 + seed as u64);
        for (format, bound) in FORMATS.into_iter().zip([1.0 / 17.0, 1.0 / 28.0]) {
            let fidelity = measure(&tensor, format);
            let rounding = 1.0 + 1e-6;
            assert!(fidelity.largest_relative_error <= rounding / 15.0);
            assert!(fidelity.largest_block_error <= bound * rounding);
        }
    }
}

#[test]
fn figures_do_not_depend_on_threads_or_cache() {
    let tensors: Vec<_> = (0..9)
        .map(|i| tensor(&format!("x.{i}.y"), Dtype::BF16, &[300, 700], i))
        .collect();
    let workspace = Workspace::new();
    let plan = plan_all(&workspace, &tensors, ScaleFormat::Float32);
    let quantized = quantized_tensors(&plan);
    let totals = [(1, 0), (1, 1 << 24), (8, 0), (8, 1 << 24)].map(|(jobs, cache)| {
        let reader = Reader::new(plan.view.clone(), cache);
        inspect::inspect(&reader, &quantized, jobs, &())
            .unwrap()
            .total
    });
    assert!(totals.iter().all(|total| *total == totals[0]));
}

#[derive(Default)]
struct Counter {
    started: AtomicU64,
    advanced: AtomicU64,
}

impl Progress for Counter {
    fn start(&self, bytes: u64) {
        self.started.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn progress_counts_source_bytes() {
    let workspace = Workspace::new();
    let tensors = [
        tensor("x", Dtype::BF16, &[300, 500], 1),
        tensor("y", Dtype::F32, &[3, 5, 7], 2),
    ];
    let plan = plan_all(&workspace, &tensors, ScaleFormat::Ue8m0);
    let quantized = quantized_tensors(&plan);
    let counter = Counter::default();
    inspect::inspect(&reader(&plan), &quantized, 2, &counter).unwrap();
    inspect::check_values(&reader(&plan), &quantized, 2, &counter).unwrap();
    let bytes = 2 * (300 * 500 * 2 + 3 * 5 * 7 * 4);
    assert_eq!(counter.started.into_inner(), bytes);
    assert_eq!(counter.advanced.into_inner(), bytes);
}

#[test]
fn nan_fails_and_names_the_place() {
    let workspace = Workspace::new();
    let mut values = vec![1.0; 200 * 30];
    values[150 * 30 + 7] = f32::NAN;
    let tensors = [
        tensor("a", Dtype::BF16, &[64, 64], 1),
        of_values("bad", Dtype::BF16, &[200, 30], &values),
    ];
    let plan = plan_all(&workspace, &tensors, ScaleFormat::Ue8m0);
    let error = try_inspect(&plan).unwrap_err();
    let found = error.found_non_finite().unwrap();
    assert_eq!(error.tensor(), Some("bad"));
    assert_eq!((found.row, found.column), (150, 7));
}

#[test]
fn nothing_quantized_gives_empty_figures() {
    let inspection = inspect_all(&[], ScaleFormat::Ue8m0);
    assert!(inspection.tensors.is_empty() && inspection.groups.is_empty());
    assert_eq!(inspection.total.elements, 0);
    assert_eq!(inspection.total.zero_share(), 0.0);
}
