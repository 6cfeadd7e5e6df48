//! AWQ and GPTQ.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::integer::{dequantize_groups, dequantize_indexed, unpack_bits, unpack_place};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::{Workspace, assert_names};
use crate::others::{Random, assert_read, config, refusal, words};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";
const MODULE: &str = "model.layers.0.mlp.up_proj";

/// A weight of codes with the group of each column.
struct Weight {
    rows: usize,
    columns: usize,
    bits: u32,
    groups: usize,
    /// `[rows][columns]`
    codes: Vec<u32>,
    /// `[rows][groups]`
    zero_points: Vec<u32>,
    scales: Vec<f32>,
    group_of: Vec<usize>,
}

impl Weight {
    /// `lowest` is the smallest zero point.
    fn new([rows, columns]: [usize; 2], bits: u32, group: usize, lowest: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let groups = columns.div_ceil(group);
        let levels = 1 << bits;
        Weight {
            rows,
            columns,
            bits,
            groups,
            codes: (0..rows * columns)
                .map(|_| random.below(levels) as u32)
                .collect(),
            zero_points: (0..rows * groups)
                .map(|_| (lowest + random.below(levels - lowest)) as u32)
                .collect(),
            scales: (0..rows * groups).map(|_| random.scale()).collect(),
            group_of: (0..columns).map(|column| column / group).collect(),
        }
    }

    fn shuffle(&mut self, seed: u64) {
        let mut random = Random(seed);
        for i in (1..self.columns).rev() {
            let j = random.below(i as u64 + 1) as usize;
            self.group_of.swap(i, j);
        }
    }

    /// What it stands for, each number the exact difference times the scale, rounded to f32.
    fn values(&self) -> Vec<f32> {
        let elements = (0..self.rows).flat_map(|row| (0..self.columns).map(move |c| (row, c)));
        let value = |(row, column): (usize, usize)| {
            let group = row * self.groups + self.group_of[column];
            let code = self.codes[row * self.columns + column] as f32;
            (code - self.zero_points[group] as f32) * self.scales[group]
        };
        elements.map(value).collect()
    }

    /// `[groups, rows]`
    fn transposed_scales(&self) -> TensorData {
        let scales = (0..self.groups).flat_map(|group| {
            (0..self.rows).map(move |row| self.scales[row * self.groups + group])
        });
        let scales: Vec<f32> = scales.collect();
        let shape = [self.groups, self.rows];
        of_values(&format!("{MODULE}.scales"), Dtype::F16, &shape, &scales)
    }

    fn gptq(&self, is_first_version: bool, has_index: bool) -> Vec<TensorData> {
        let bits = self.bits as usize;
        let down = self.columns * bits / 32;
        let mut codes = vec![0u32; down * self.rows];
        for row in 0..self.rows {
            for column in 0..self.columns {
                let code = self.codes[row * self.columns + column];
                for bit in 0..bits {
                    let at = column * bits + bit;
                    codes[at / 32 * self.rows + row] |= (code >> bit & 1) << (at % 32);
                }
            }
        }
        let wide = self.rows * bits / 32;
        let mut zeros = vec![0u32; self.groups * wide];
        for group in 0..self.groups {
            for row in 0..self.rows {
                let zero = self.zero_points[row * self.groups + group];
                let zero = zero.wrapping_sub(u32::from(is_first_version)) & ((1 << bits) - 1);
                for bit in 0..bits {
                    let at = row * bits + bit;
                    zeros[group * wide + at / 32] |= (zero >> bit & 1) << (at % 32);
                }
            }
        }
        let mut all = vec![
            words(&format!("{MODULE}.qweight"), [down, self.rows], &codes),
            words(&format!("{MODULE}.qzeros"), [self.groups, wide], &zeros),
            self.transposed_scales(),
        ];
        if has_index {
            let bytes = self
                .group_of
                .iter()
                .flat_map(|group| (*group as i32).to_le_bytes());
            let name = format!("{MODULE}.g_idx");
            all.push(TensorData::new(
                &name,
                Dtype::I32,
                &[self.columns],
                bytes.collect(),
            ));
        }
        all
    }

    /// The words of eight numbers each, the number of place `order[i]` in bits `4i` on.
    fn eights(numbers: impl Iterator<Item = u32>, order: [usize; 8]) -> Vec<u32> {
        let numbers: Vec<u32> = numbers.collect();
        let word = |eight: &[u32]| (0..8).fold(0, |word, i| word | eight[order[i]] << (4 * i));
        numbers.chunks(8).map(word).collect()
    }

    fn awq_gemm(&self) -> Vec<TensorData> {
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        let codes = (0..self.columns).flat_map(|column| {
            (0..self.rows).map(move |row| self.codes[row * self.columns + column])
        });
        let zeros = (0..self.groups).flat_map(|group| {
            (0..self.rows).map(move |row| self.zero_points[row * self.groups + group])
        });
        let wide = self.rows / 8;
        vec![
            words(
                &format!("{MODULE}.qweight"),
                [self.columns, wide],
                &Self::eights(codes, order),
            ),
            words(
                &format!("{MODULE}.qzeros"),
                [self.groups, wide],
                &Self::eights(zeros, order),
            ),
            self.transposed_scales(),
        ]
    }

    /// With rows of `width` words of zero points.
    fn awq_gemv(&self, width: usize) -> Vec<TensorData> {
        let order = [0, 1, 2, 3, 4, 5, 6, 7];
        let padded =
            |row: usize, group: usize| (group < self.groups).then(|| row * self.groups + group);
        let places =
            || (0..self.rows).flat_map(|row| (0..width * 8).map(move |group| (row, group)));
        let zeros =
            places().map(|(row, group)| padded(row, group).map_or(0, |at| self.zero_points[at]));
        let scales: Vec<f32> = places()
            .map(|(row, group)| padded(row, group).map_or(0.0, |at| self.scales[at]))
            .collect();
        let codes = Self::eights(self.codes.iter().copied(), order);
        vec![
            words(
                &format!("{MODULE}.qweight"),
                [self.rows, self.columns / 8],
                &codes,
            ),
            words(
                &format!("{MODULE}.qzeros"),
                [self.rows, width],
                &Self::eights(zeros, order),
            ),
            of_values(
                &format!("{MODULE}.scales"),
                Dtype::F16,
                &[self.rows, width * 8],
                &scales,
            ),
        ]
    }
}

fn gptq(bits: u32, group: i64, format: Option<&str>) -> Value {
    let mut declared = json!({"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": false, "sym": true});
    if let Some(format) = format {
        declared["checkpoint_format"] = json!(format);
    }
    declared
}

fn awq(version: &str, group: i64) -> Value {
    json!({"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": true, "version": version})
}

fn assert_weight(weight: &Weight, stored: &[TensorData], declared: &Value) {
    let shape = [weight.rows, weight.columns];
    assert_read(stored, declared, NAME, &shape, &weight.values());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn gptq_of_every_width_is_given_back(
        bits in prop::sample::select(vec![2u32, 3, 4, 8]),
        rows in 1usize..4,
        groups in 1usize..5,
        has_index in any::<bool>(),
        version in 0usize..3,
        seed in any::<u64>(),
    ) {
        let (format, is_first) = [(None, true), (Some("gptq"), true), (Some("gptq_v2"), false)][version];
        let lowest = u64::from(is_first);
        let mut weight = Weight::new([rows * 32, groups * 64], bits, 64, lowest, seed);
        if has_index {
            weight.shuffle(seed);
        }
        assert_weight(&weight, &weight.gptq(is_first, has_index), &gptq(bits, 64, format));
    }

    #[test]
    fn awq_of_both_layouts_is_given_back(
        rows in 1usize..9,
        groups in 1usize..20,
        group in prop::sample::select(vec![32usize, 64, 128]),
        seed in any::<u64>(),
    ) {
        let weight = Weight::new([rows * 8, groups * group], 4, group, 0, seed);
        assert_weight(&weight, &weight.awq_gemm(), &awq("gemm", group as i64));
        let multiple = [(128, 1), (64, 2), (32, 4)].into_iter().find(|(size, _)| *size == group);
        let width = groups.div_ceil(8).next_multiple_of(multiple.unwrap().1);
        assert_weight(&weight, &weight.awq_gemv(width), &awq("GEMV", group as i64));
    }

    #[test]
    fn every_path_unpacks_and_multiplies_alike(
        bits in prop::sample::select(vec![2u32, 3, 4, 8]),
        groups in 1usize..4,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let columns = groups * 40 - 8;
        let packed: Vec<u8> = (0..columns * bits as usize / 8).map(|_| random.below(256) as u8).collect();
        let bit = |at: usize| u32::from(packed[at / 8] >> (at % 8) & 1);
        let code = |column: usize| (0..bits as usize).fold(0, |code, i| code | bit(column * bits as usize + i) << i);
        let expected: Vec<u8> = (0..columns).map(|column| code(column) as u8).collect();
        let scales: Vec<f32> = (0..groups).map(|_| random.scale()).collect();
        let zeros: Vec<f32> = (0..groups).map(|_| random.below(256) as f32).collect();
        let index: Vec<u32> = (0..columns).map(|column| (column / 40) as u32).collect();
        let product = |column: usize| (f32::from(expected[column]) - zeros[column / 40]) * scales[column / 40];
        let values: Vec<u8> = (0..columns).flat_map(|column| product(column).to_le_bytes()).collect();
        for &path in CpuPath::available() {
            let mut codes = vec![0xaa; columns];
            unpack_bits(&packed, bits, &mut codes, path);
            prop_assert_eq!(&codes, &expected);
            let mut found = vec![0xaa; columns * 4];
            dequantize_groups::<f32>(&codes, &zeros, &scales, 40, &mut found, path);
            prop_assert_eq!(&found, &values);
            found.fill(0);
            dequantize_indexed::<f32>(&codes, &index, &zeros, &scales, &mut found, path);
            prop_assert_eq!(&found, &values);
            let words = packed.len() / 4;
            for place in 0..8 {
                let mut codes = vec![0xaa; words];
                unpack_place(&packed[..words * 4], place, &mut codes, path);
                let nibble = |word: usize| packed[word * 4 + place as usize / 2] >> (place % 2 * 4) & 15;
                prop_assert_eq!(codes, (0..words).map(nibble).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_weight_of_several_bands_is_read_in_strips() {
    // More than 8 MiB in f32, and rows that are far from each other.
    let weight = Weight::new([4128, 640], 4, 128, 1, 5);
    assert_weight(&weight, &weight.gptq(true, true), &gptq(4, 128, None));
    assert_weight(&weight, &weight.awq_gemm(), &awq("gemm", 128));
}

#[test]
fn one_group_may_be_a_whole_row() {
    let weight = Weight::new([32, 96], 4, 96, 1, 9);
    assert_weight(&weight, &weight.gptq(true, false), &gptq(4, -1, None));
    assert_weight(&weight, &weight.awq_gemm(), &awq("gemm", -1));
}

#[test]
fn a_zero_point_of_zero_in_the_first_version_is_what_its_writer_subtracted_one_from() {
    // The writer subtracts one from each code of a word at once, so that zero borrows from the code after it.
    let mut weight = Weight::new([32, 64], 4, 64, 1, 3);
    weight.zero_points[4] = 0;
    let mut stored = weight.gptq(false, false);
    let zeros = &stored[1].bytes.as_chunks::<4>().0;
    let less = zeros
        .iter()
        .map(|word| u32::from_le_bytes(*word).wrapping_sub(0x1111_1111));
    stored[1] = words(
        &format!("{MODULE}.qzeros"),
        [1, 4],
        &less.collect::<Vec<_>>(),
    );
    assert_weight(&weight, &stored, &gptq(4, 64, Some("gptq")));
}

#[test]
fn bits_of_modules_with_settings_of_their_own_show_by_their_tensors() {
    for bits in [2, 3, 4, 8] {
        let weight = Weight::new([32, 128], bits, 64, 1, 11);
        let mut declared = gptq(4, 64, Some("gptq"));
        declared["dynamic"] = json!({r"+:.*\.up_proj.*": {"bits": bits}});
        assert_weight(&weight, &weight.gptq(true, true), &declared);
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let weight = Weight::new([32, 64], 4, 64, 1, 1);
    let workspace = Workspace::new();
    let mut count = 0;
    let mut refused = |stored: Vec<TensorData>, declared: Value| {
        count += 1;
        let checkpoint = Checkpoint::single(stored).config(&config(&declared));
        refusal(&workspace.write(&format!("base{count}"), &checkpoint))
    };
    let of_gptq = weight.gptq(true, true);
    let with = |key: &str, value: Value| {
        let mut declared = gptq(4, 64, None);
        declared[key] = value;
        declared
    };
    for (key, value) in [
        ("checkpoint_format", json!("marlin")),
        ("bits", json!(5)),
        ("pack_dtype", json!("int16")),
        ("is_marlin_format", json!(true)),
    ] {
        let text = refused(of_gptq.clone(), with(key, value.clone()));
        assert_names(&text, &["gptq", key, &value.to_string()]);
    }
    let text = refused(weight.awq_gemm(), awq("gemv_fast", 64));
    assert_names(&text, &["awq", "version", "gemv_fast"]);
    let text = refused(of_gptq.clone(), gptq(8, 64, None));
    assert_names(&text, &[NAME, "[8, 32]", "GPTQ of 8 bits"]);
    let text = refused(weight.awq_gemm(), awq("gemv", 64));
    assert_names(&text, &[NAME, "AWQ gemv"]);
    let text = refused(of_gptq[..2].to_vec(), gptq(4, 64, None));
    assert_names(&text, &[NAME, &format!("no {MODULE}.scales")]);
}

#[test]
fn a_group_that_does_not_exist_is_an_error_that_names_the_column() {
    let mut weight = Weight::new([32, 64], 4, 32, 1, 1);
    let mut stored = weight.gptq(true, true);
    weight.group_of[17] = 2;
    stored[3] = weight.gptq(true, true).remove(3);
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored).config(&config(&gptq(4, 32, None)));
    let base = workspace.write("base", &checkpoint);
    let plan = crate::in_dtype(&base, ckptfs::ops::Precision::Bf16).unwrap();
    let reader = crate::common::readback::reader(&plan);
    let error = crate::common::readback::read_file(&reader, plan.shards[0].entry).unwrap_err();
    assert_names(&error.to_string(), &["up_proj", "column 17", "group 2"]);
}
