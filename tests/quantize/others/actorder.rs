//! Columns of compressed-tensors that share a scale wherever they are (`actorder`, `weight_g_idx`).

use ckptfs::error::Code;
use ckptfs::ops::Precision;
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::readback::{read_tensor, reader};
use crate::common::{Workspace, assert_names};
use crate::in_dtype;
use crate::others::{Random, assert_read, config, refusal, words};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

fn declared(order: &Value, group: usize, symmetric: bool) -> Value {
    json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group, "symmetric": symmetric, "actorder": order},
    }}})
}

/// A weight of 4 bits whose column `c` is of the group `group_of[c]`.
struct Packed {
    rows: usize,
    columns: usize,
    group: usize,
    codes: Vec<i32>,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    group_of: Vec<i32>,
}

impl Packed {
    fn random(rows: usize, groups: usize, group: usize, symmetric: bool, seed: u64) -> Self {
        let mut random = Random(seed);
        let columns = groups * group;
        let mut group_of: Vec<i32> = (0..columns).map(|c| (c / group) as i32).collect();
        for last in (1..columns).rev() {
            group_of.swap(last, random.below(last as u64 + 1) as usize);
        }
        let mut code = || random.below(16) as i32 - 8;
        let codes = (0..rows * columns).map(|_| code()).collect();
        let zero_point = |_| if symmetric { 0 } else { code() };
        let zero_points = (0..rows * groups).map(zero_point).collect();
        Packed {
            rows,
            columns,
            group,
            codes,
            scales: (0..rows * groups).map(|_| random.scale()).collect(),
            zero_points,
            group_of,
        }
    }

    fn groups(&self) -> usize {
        self.columns / self.group
    }

    /// The numbers where columns are of groups as `group_of` says.
    fn values(&self, group_of: impl Fn(usize) -> usize) -> Vec<f32> {
        let elements = (0..self.rows * self.columns).map(|at| {
            let group = at / self.columns * self.groups() + group_of(at % self.columns);
            let difference = self.codes[at] - self.zero_points[group];
            difference as f32 * self.scales[group]
        });
        elements.collect()
    }

    fn index(&self) -> TensorData {
        let index: Vec<u8> = self
            .group_of
            .iter()
            .flat_map(|group| group.to_le_bytes())
            .collect();
        TensorData::new(&format!("{NAME}_g_idx"), Dtype::I32, &[self.columns], index)
    }

    fn tensors(&self, symmetric: bool) -> Vec<TensorData> {
        let (rows, groups) = (self.rows, self.groups());
        let word = |nibbles: &mut dyn Iterator<Item = i32>| {
            nibbles.enumerate().fold(0u32, |word, (i, code)| {
                word | ((code + 8) as u32) << (4 * i)
            })
        };
        let codes = self
            .codes
            .chunks(8)
            .map(|codes| word(&mut codes.iter().copied()));
        let codes: Vec<u32> = codes.collect();
        let shape = [rows as i64, self.columns as i64];
        let shape = shape
            .iter()
            .flat_map(|length| length.to_le_bytes())
            .collect();
        let mut all = vec![
            words(&format!("{NAME}_packed"), [rows, self.columns / 8], &codes),
            of_values(
                &format!("{NAME}_scale"),
                Dtype::F16,
                &[rows, groups],
                &self.scales,
            ),
            TensorData::new(&format!("{NAME}_shape"), Dtype::I64, &[2], shape),
        ];
        if !symmetric {
            let high = rows.div_ceil(8);
            let places = (0..high).flat_map(|high| (0..groups).map(move |group| (high, group)));
            let packed = places.map(|(high, group)| {
                let rows = (high * 8..high * 8 + 8).filter(|row| *row < rows);
                word(&mut rows.map(|row| self.zero_points[row * groups + group]))
            });
            let packed: Vec<u32> = packed.collect();
            all.push(words(
                &format!("{NAME}_zero_point"),
                [high, groups],
                &packed,
            ));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_column_has_the_scale_of_its_group(
        rows in 1usize..40,
        groups in 1usize..6,
        group in prop::sample::select(vec![8usize, 32, 128]),
        symmetric in any::<bool>(),
        order in prop::sample::select(vec![json!("group"), json!("dynamic"), json!("GROUP"), json!(true)]),
        seed in any::<u64>(),
    ) {
        let packed = Packed::random(rows, groups, group, symmetric, seed);
        let mut stored = packed.tensors(symmetric);
        stored.push(packed.index());
        let values = packed.values(|column| packed.group_of[column] as usize);
        let shape = [rows, packed.columns];
        assert_read(&stored, &declared(&order, group, symmetric), NAME, &shape, &values);
    }

    #[test]
    fn groups_are_runs_of_columns_where_only_quantizing_had_another_order(
        rows in 1usize..40,
        symmetric in any::<bool>(),
        order in prop::sample::select(vec![json!("weight"), json!("static"), json!("Static"), json!(false), json!(null)]),
        seed in any::<u64>(),
    ) {
        let packed = Packed::random(rows, 3, 32, symmetric, seed);
        let values = packed.values(|column| column / 32);
        let declared = declared(&order, 32, symmetric);
        assert_read(&packed.tensors(symmetric), &declared, NAME, &[rows, 96], &values);
    }
}

#[test]
fn an_index_that_was_never_filled_in_means_the_usual_groups() {
    let mut packed = Packed::random(9, 3, 32, false, 7);
    packed.group_of.fill(-1);
    let mut stored = packed.tensors(false);
    stored.push(packed.index());
    let values = packed.values(|column| column / 32);
    assert_read(
        &stored,
        &declared(&json!("group"), 32, false),
        NAME,
        &[9, 96],
        &values,
    );
}

#[test]
fn an_index_that_is_wrong_is_an_error_where_it_is_read() {
    for (column, group, problem) in [
        (5, 3, "group 3 for column 5"),
        (5, -1, "group -1 for column 5"),
        (5, i32::MIN, "for column 5"),
        // One group has a column more than its size, the other one less.
        (40, 0, "group 0 for column"),
    ] {
        let mut packed = Packed::random(9, 3, 32, true, 7);
        packed.group_of = (0..96).map(|column| column / 32).collect();
        packed.group_of[column] = group;
        let mut stored = packed.tensors(true);
        stored.push(packed.index());
        let workspace = Workspace::new();
        let declared = declared(&json!("group"), 32, true);
        let checkpoint = Checkpoint::single(stored).config(&config(&declared));
        let base = workspace.write("base", &checkpoint);
        let plan = in_dtype(&base, Precision::Bf16).unwrap();
        let error = read_tensor(&plan, &reader(&plan), NAME).unwrap_err();
        assert_eq!(error.code(), Code::BadScales);
        assert_names(&error.to_string(), &[NAME, problem, "0 to 2", "32 columns"]);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let packed = Packed::random(8, 3, 32, true, 7);
    let group = declared(&json!("group"), 32, true);
    let with = |index: TensorData| [packed.tensors(true), vec![index]].concat();
    let short = TensorData::new(&packed.index().name, Dtype::I32, &[95], vec![0; 95 * 4]);
    let wide = TensorData::new(&packed.index().name, Dtype::I64, &[96], vec![0; 96 * 8]);
    let mut eight = group.clone();
    let weights = &mut eight["config_groups"]["group_0"]["weights"];
    weights["num_bits"] = json!(8);
    let mut channel = group.clone();
    channel["config_groups"]["group_0"]["weights"]["strategy"] = json!("channel");
    for (stored, declared, parts) in [
        (
            packed.tensors(true),
            group.clone(),
            vec![NAME, "weight_g_idx"],
        ),
        (
            with(packed.index()),
            declared(&json!("weight"), 32, true),
            vec![NAME, "weight_g_idx", "actorder"],
        ),
        (with(short), group.clone(), vec![NAME, "[95]", "I32 [96]"]),
        (with(wide), group.clone(), vec![NAME, "I64", "I32 [96]"]),
        (with(packed.index()), eight, vec!["actorder \"group\""]),
        (with(packed.index()), channel, vec!["actorder \"group\""]),
        (
            with(packed.index()),
            declared(&json!("sorted"), 32, true),
            vec!["actorder \"sorted\""],
        ),
    ] {
        let workspace = Workspace::new();
        let checkpoint = Checkpoint::single(stored).config(&config(&declared));
        let base = workspace.write("base", &checkpoint);
        assert_names(&refusal(&base), &parts);
    }
}
