//! Rows cut and padded, against rows that are computed one by one.

use std::collections::BTreeMap;

use ckptfs::ops::Pad;
use ckptfs::recipe::Plan;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback;
use crate::common::values::{bits, decode, encode};
use crate::fixture::{HEAD, assert_tensors, by_name, config, plan};

/// The numbers of a row, exactly.
fn numbers(dtype: Dtype, row: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F64 => {
            let numbers = row.as_chunks().0.iter();
            numbers.map(|bytes| f64::from_le_bytes(*bytes)).collect()
        }
        _ => decode(dtype, row).into_iter().map(f64::from).collect(),
    }
}

/// The nearest number of a dtype of 16 bits, ties to even: that of its two neighbors to which `value` is nearer.
fn nearest(dtype: Dtype, value: f64) -> Vec<u8> {
    let exact = |bits: u16| numbers(dtype, &bits.to_le_bytes())[0];
    if value.is_nan() {
        return encode(dtype, &[f32::NAN]);
    }
    let sign = u16::from(value.is_sign_negative()) << 15;
    let value = value.abs();
    let infinity = match dtype {
        Dtype::BF16 => 0x7f80,
        _ => 0x7c00,
    };
    // Their bits are in the order of the numbers.
    let (mut below, mut end) = (0, infinity);
    while end - below > 1 {
        let middle = below + (end - below) / 2;
        if exact(middle) <= value {
            below = middle;
        } else {
            end = middle;
        }
    }
    let above = below + 1;
    // Beyond the largest number, as if there were one more of its size.
    let next = if above == infinity {
        2.0 * exact(below) - exact(below - 1)
    } else {
        exact(above)
    };
    let (down, up) = (value - exact(below), next - value);
    let chosen = if value.is_infinite() || up < down {
        above
    } else if down < up {
        below
    } else {
        below + below % 2
    };
    (sign | chosen).to_le_bytes().to_vec()
}

/// The bytes of the mean row, as the documentation defines it.
fn mean_row(tensor: &TensorData) -> Vec<u8> {
    let rows = tensor.shape[0];
    let row_bytes = tensor.bytes.len() / rows;
    let columns = row_bytes * 8 / bits(tensor.dtype);
    let run = 4 * ((1 << 20) / row_bytes).max(1);
    let mut total = vec![0.0; columns];
    for run in tensor.bytes.chunks(run * row_bytes) {
        let mut sums = vec![0.0; columns];
        for row in run.chunks(row_bytes) {
            for (sum, number) in sums.iter_mut().zip(numbers(tensor.dtype, row)) {
                *sum += number;
            }
        }
        for (total, sum) in total.iter_mut().zip(sums) {
            *total += sum;
        }
    }
    let means = total.iter().map(|total| total / rows as f64);
    let bytes = means.map(|mean| match tensor.dtype {
        Dtype::F64 => mean.to_le_bytes().to_vec(),
        Dtype::F32 => (mean as f32).to_le_bytes().to_vec(),
        dtype => nearest(dtype, mean),
    });
    bytes.flatten().collect()
}

/// `tensor` with `rows` rows.
fn resized(tensor: &TensorData, rows: usize, pad: Pad) -> TensorData {
    let old = tensor.shape[0];
    let row_bytes = tensor.bytes.len() / old;
    let new = match pad {
        Pad::Zeros => vec![0; row_bytes],
        Pad::Mean => mean_row(tensor),
    };
    let mut bytes = Vec::new();
    for row in 0..rows {
        match tensor.bytes.get(row * row_bytes..(row + 1) * row_bytes) {
            Some(row) => bytes.extend_from_slice(row),
            None => bytes.extend_from_slice(&new),
        }
    }
    let mut shape = tensor.shape.clone();
    shape[0] = rows;
    TensorData::new(&tensor.name, tensor.dtype, &shape, bytes)
}

/// What the view of `base` has with `rows` rows of the tensors called `names`.
fn expected(
    base: &Checkpoint,
    names: &[&str],
    rows: usize,
    pad: Pad,
) -> BTreeMap<String, TensorData> {
    let mut all = by_name(base);
    for name in names {
        if let Some(tensor) = all.get_mut(*name) {
            *tensor = resized(tensor, rows, pad);
        }
    }
    all
}

/// Asserts that all bytes of the view are the same whichever are asked for first, and how many at once.
fn assert_ranges(plan: &Plan) {
    let whole = readback::read_all(plan);
    let reader = readback::reader(plan);
    for (id, path, content) in plan.view.files() {
        let len = content.len();
        for start in [len.saturating_sub(3), len / 2, 0] {
            let mut bytes = vec![0xAA; 7.min((len - start) as usize)];
            reader.read_at(id, start, &mut bytes).unwrap();
            let of_whole = &whole[&path][start as usize..];
            assert_eq!(bytes, of_whole[..bytes.len()], "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(96)
    })]

    #[test]
    fn rows_that_there_are_stay_and_new_ones_are_zeros_or_the_mean(
        dtype in select(vec![Dtype::BF16, Dtype::F16, Dtype::F32]),
        head_dtype in select(vec![None, Some(Dtype::BF16), Some(Dtype::F32)]),
        (has_bias, has_layer, is_multiple) in any::<(bool, bool, bool)>(),
        names in select(vec![
            ("model.embed_tokens", "lm_head"),
            ("language_model.model.embed_tokens", "language_model.lm_head"),
            ("gpt_neox.embed_in", "embed_out"),
        ]),
        (old, rows, columns) in (1..40usize, 1..40usize, 1..12usize),
        pad in select(vec![None, Some(Pad::Zeros), Some(Pad::Mean)]),
        seed in any::<u64>(),
    ) {
        let (embedding, head) = (format!("{}.weight", names.0), format!("{}.weight", names.1));
        let bias = format!("{}.bias", names.1);
        let of_layer = ["model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight"];
        let mut first = vec![tensor(&embedding, dtype, &[old, columns], seed)];
        let mut second = vec![bf16("model.norm.weight", &[columns])];
        first.extend(head_dtype.map(|dtype| tensor(&head, dtype, &[old, columns], seed ^ 1)));
        if has_bias {
            second.push(tensor(&bias, dtype, &[old], seed ^ 2));
        }
        if has_layer {
            second.extend(of_layer.map(|name| tensor(name, dtype, &[old, columns], seed ^ 3)));
        }
        let base = Checkpoint::new()
            .shard("model-00001-of-00003.safetensors", first)
            .shard("model-00002-of-00003.safetensors", second)
            .shard("model-00003-of-00003.safetensors", [bf16("other", &[old, 2])])
            .config(&format!("{{\"vocab_size\": {old}}}"));
        let (size, multiple, rows) = if is_multiple {
            (None, Some(rows as u64), old.div_ceil(rows) * rows)
        } else {
            (Some(rows as u64), None, rows)
        };
        let plan = plan(&base, |asked| {
            asked.vocabulary.size = size;
            asked.vocabulary.multiple = multiple;
            asked.vocabulary.pad = pad;
        }).unwrap();
        let changed = [&*embedding, &*head, &*bias, of_layer[0], of_layer[1]];
        assert_tensors(&plan, &expected(&base, &changed, rows, pad.unwrap_or_default()));
        prop_assert_eq!(&config(&plan)["vocab_size"], rows);
        assert_ranges(&plan);
        // What has no row for a token is the source's file.
        prop_assert!(plan.shards[2].whole_file.is_some());
        let keeps_first = rows == old;
        prop_assert_eq!(plan.shards[0].whole_file.is_some(), keeps_first);
    }
}

#[test]
fn the_mean_of_many_rows_is_summed_in_runs_and_rounded_once() {
    // Five bands and a bit in f32: two runs of bands, the second one short.
    for (dtype, rows, columns) in [
        (Dtype::F32, 1300, 1024),
        (Dtype::BF16, 2600, 1024),
        (Dtype::F16, 9, 300_000),
        (Dtype::F64, 700, 1024),
    ] {
        let name = "model.embed_tokens.weight";
        let embedding = match dtype {
            Dtype::F64 => {
                let values = (0..rows * columns).map(|i| (i as f64 * 0.7).sin());
                let bytes = values.flat_map(f64::to_le_bytes).collect();
                TensorData::new(name, dtype, &[rows, columns], bytes)
            }
            _ => tensor(name, dtype, &[rows, columns], 5),
        };
        let base = Checkpoint::single([embedding]).config(&format!("{{\"vocab_size\": {rows}}}"));
        let plan = plan(&base, |asked| {
            asked.vocabulary.size = Some(rows as u64 + 3);
            asked.vocabulary.pad = Some(Pad::Mean);
        })
        .unwrap();
        assert_tensors(&plan, &expected(&base, &[name], rows + 3, Pad::Mean));
        let len = base.get(name).bytes.len() as u64;
        assert_eq!(plan.surveys().all, len);
    }
}

#[test]
fn nan_and_infinity_go_where_the_sum_takes_them() {
    let values = [
        f32::INFINITY,
        f32::INFINITY,
        f32::NAN,
        1.0,
        1.0,
        f32::NEG_INFINITY,
        0.0,
        3.0,
    ];
    let bytes = encode(Dtype::BF16, &values);
    let embedding = TensorData::new("model.embed_tokens.weight", Dtype::BF16, &[2, 4], bytes);
    let base = Checkpoint::single([embedding]).config("{}");
    let plan = plan(&base, |asked| {
        asked.vocabulary.size = Some(3);
        asked.vocabulary.pad = Some(Pad::Mean);
    })
    .unwrap();
    let found = &readback::tensors(&plan)["model.embed_tokens.weight"];
    let nan = f32::NAN;
    assert_eq!(
        found.bytes[16..],
        encode(Dtype::BF16, &[f32::INFINITY, nan, nan, 2.0])
    );
}

#[test]
fn rows_that_stay_are_ranges_of_the_source_and_only_new_ones_are_computed() {
    let head = tensor(HEAD, Dtype::BF16, &[12, 8], 9);
    let base = crate::fixture::with_head(head, "{\"vocab_size\": 12}");
    for (rows, computed) in [(9, 0), (16, 4)] {
        let plan = plan(&base, |asked| asked.vocabulary.size = Some(rows)).unwrap();
        let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        for tensor in tensors.filter(|tensor| tensor.shape[0] == rows) {
            let made = tensor.extents.segments().iter();
            let made = made.filter(|segment| segment.place.node().is_some());
            let made: u64 = made.map(|segment| segment.len).sum();
            assert_eq!(made, computed * 16, "{}", tensor.name);
        }
        assert_eq!(plan.report.count("resized"), 2);
    }
}
