//! The cache of computed tiles: bounded in bytes, shared by threads, and never wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ckptfs::error::Code;
use ckptfs::ops::QuantizeParams;
use ckptfs::read::{Reader, Tile, TileCache, TileKey};
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, of_values};
use crate::common::readback::{read_file, read_tensor};
use crate::common::{Workspace, plan_by_rules, plan_fp8};

/// Codes and scale of a tensor of 128 × 128.
const TILE_BYTES: usize = 128 * 128 + 4;

fn layer(i: usize) -> String {
    format!("model.layers.{i}.self_attn.o_proj.weight")
}

/// An FP8 view of eight tensors of 128 × 128.
fn plan(workspace: &Workspace) -> Plan {
    let layers = (0..8).map(|i| bf16(&layer(i), &[128, 128]));
    plan_by_rules(&workspace.write("base", &Checkpoint::single(layers))).unwrap()
}

/// Reads the first `len` codes of layer `i`.
fn read_codes(plan: &Plan, reader: &Reader, i: usize, len: usize) {
    let shard = &plan.shards[0];
    let tensor = shard.tensors.iter().find(|t| *t.name == *layer(i)).unwrap();
    let mut codes = vec![0; len];
    let count = reader
        .read_at(shard.entry, tensor.offset, &mut codes)
        .unwrap();
    assert_eq!(count, len);
}

#[test]
fn the_cache_holds_at_most_the_bytes_it_is_given() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let whole_tiles = |n: usize| [n * TILE_BYTES, n * TILE_BYTES + 1, (n + 1) * TILE_BYTES - 1];
    let sizes = [0, 1, 3, 4, 100, 1 << 30]
        .into_iter()
        .chain((0..=9).flat_map(whole_tiles));
    for cache_bytes in sizes {
        // A tile read in part may be wanted again sooner than one read to its end.
        for len in [1, 100, 128 * 128 - 1, 128 * 128] {
            let reader = Reader::new(plan.view.clone(), cache_bytes);
            for i in [0, 1, 2, 1, 3, 4, 5, 0, 6, 7, 7, 2] {
                read_codes(&plan, &reader, i, len);
                let held = reader.cached_bytes();
                assert!(
                    held <= cache_bytes,
                    "{held} bytes are held, {cache_bytes} are allowed"
                );
            }
        }
    }
}

#[test]
fn what_is_read_again_is_in_the_cache() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let reader = Reader::new(plan.view.clone(), 100 * TILE_BYTES);
    read_tensor(&plan, &reader, &layer(0)).unwrap();
    let held = reader.cached_bytes();
    assert!(held >= TILE_BYTES);
    read_tensor(&plan, &reader, &layer(0)).unwrap();
    read_tensor(&plan, &reader, &format!("{}_scale_inv", layer(0))).unwrap();
    assert_eq!(reader.cached_bytes(), held);
    read_tensor(&plan, &reader, &layer(1)).unwrap();
    assert!(reader.cached_bytes() > held);
}

/// Makes every later read of the source an error: what can still be read was kept.
fn spoil_source(workspace: &Workspace) {
    let source = workspace.path().join("base/model.safetensors");
    std::fs::write(source, "something else").unwrap();
}

#[test]
fn a_tile_that_was_read_in_part_is_not_computed_again() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let reader = Reader::new(plan.view.clone(), 4 * TILE_BYTES);
    // What was read to its end before takes no room from what is read now.
    for i in (0..8).chain(0..8) {
        read_codes(&plan, &reader, i, 128 * 128);
    }
    read_codes(&plan, &reader, 0, 100);
    read_codes(&plan, &reader, 1, 100);
    spoil_source(&workspace);
    read_codes(&plan, &reader, 0, 1000);
    read_codes(&plan, &reader, 1, 1000);
    let error = read_tensor(&plan, &reader, &layer(5)).unwrap_err();
    assert!(error.code() == Code::SourceChanged, "{error}");
}

#[test]
fn the_scales_of_codes_that_were_read_need_no_computation() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let reader = Reader::new(plan.view.clone(), 4 * TILE_BYTES);
    for i in 0..8 {
        read_codes(&plan, &reader, i, 128 * 128);
    }
    spoil_source(&workspace);
    for i in 0..8 {
        let scale = read_tensor(&plan, &reader, &format!("{}_scale_inv", layer(i))).unwrap();
        assert_ne!(scale, [0; 4]);
    }
}

#[test]
fn the_same_goes_for_every_scheme_however_large_its_scales_are() {
    let schemes = [
        "fp8-channel",
        "int8-channel",
        "int4",
        "int4:group=32",
        "int4:asymmetric",
        "mxfp4",
        "mxfp8",
    ];
    for scheme in schemes {
        let workspace = Workspace::new();
        let layers = (0..8).map(|i| bf16(&layer(i), &[128, 128]));
        let base = workspace.write("base", &Checkpoint::single(layers));
        let quantize = QuantizeParams {
            scheme: Some(scheme.parse().unwrap()),
            ..QuantizeParams::by_rules()
        };
        let plan = plan_fp8(&base, quantize).unwrap();
        // Tiles that were read to their end have no room.
        let reader = Reader::new(plan.view.clone(), 4 * TILE_BYTES);
        let tensors = plan.shards[0].tensors.iter();
        let (scales, codes): (Vec<_>, Vec<_>) = tensors.partition(|tensor| {
            tensor.name.contains("_scale") || tensor.name.contains("_zero_point")
        });
        assert!(scales.len() >= 8 && codes.len() >= 8, "{scheme}");
        for tensor in codes {
            read_tensor(&plan, &reader, &tensor.name).unwrap();
        }
        spoil_source(&workspace);
        for tensor in scales {
            let read = read_tensor(&plan, &reader, &tensor.name);
            assert!(
                read.is_ok(),
                "{scheme}: {}: {}",
                tensor.name,
                read.unwrap_err()
            );
        }
    }
}

#[test]
fn threads_that_push_each_others_tiles_out_read_the_right_bytes() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let whole = read_file(&Reader::new(plan.view.clone(), 1 << 30), entry).unwrap();
    for cache_bytes in [0, 1, TILE_BYTES, 3 * TILE_BYTES] {
        let reader = &Reader::new(plan.view.clone(), cache_bytes);
        std::thread::scope(|scope| {
            let threads: [_; 8] = std::array::from_fn(|_| {
                scope.spawn(|| (0..20).all(|_| read_file(reader, entry).unwrap() == whole))
            });
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert!(reader.cached_bytes() <= cache_bytes);
    }
}

#[test]
fn every_thread_that_waits_for_a_failing_tile_is_told_why() {
    let mut values = vec![1.0; 128 * 128];
    values[3 * 128 + 5] = f32::NAN;
    let bad = of_values(&layer(0), Dtype::BF16, &[128, 128], &values);
    let workspace = Workspace::new();
    let plan = plan_by_rules(&workspace.write("base", &Checkpoint::single([bad]))).unwrap();
    let reader = &Reader::new(plan.view.clone(), 1 << 20);
    std::thread::scope(|scope| {
        let threads: [_; 8] =
            std::array::from_fn(|_| scope.spawn(|| read_tensor(&plan, reader, &layer(0))));
        for thread in threads {
            let error = thread.join().unwrap().unwrap_err();
            assert!(
                error
                    .found_non_finite()
                    .is_some_and(|found| (found.row, found.column) == (3, 5)),
                "{error}"
            );
        }
    });
    assert_eq!(reader.cached_bytes(), 0, "a failure is not kept");
}

#[test]
fn a_computation_that_panics_leaves_nothing_behind() {
    let cache = TileCache::new(1 << 20);
    let key = TileKey { node: 1, band: 7 };
    let computed = || cache.output(key, 0, || panic!("a bug, on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(computed)).is_err());
    assert_eq!(cache.bytes(), 0);
    let tile = || Arc::new(Tile::new(vec![vec![7; 9].into()]));
    assert_eq!(*cache.output(key, 0, || Ok(tile())).unwrap(), [7; 9]);
    let known = cache.output(key, 0, || panic!("it is known"));
    assert_eq!(*known.unwrap(), [7; 9]);
}
