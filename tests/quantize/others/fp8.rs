//! FP8 with scales of any form and name.

use ckptfs::kernels::float8::{e4m3_to_f32, e8m0_to_f32};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names};
use crate::in_dtype;
use crate::others::{Random, TARGETS, assert_read, config, refusal, shown_config};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

fn fp8(activations: &str) -> Value {
    json!({"quant_method": "fp8", "activation_scheme": activations})
}

/// Codes without NaN.
fn codes(shape: &[usize], seed: u64) -> TensorData {
    let mut random = Random(seed);
    let count = shape.iter().product::<usize>();
    let codes = (0..count).map(|_| (random.below(2) * 128 + random.below(127)) as u8);
    TensorData::new(NAME, Dtype::F8_E4M3, shape, codes.collect())
}

/// Codes times the scale that `scale_of` says.
fn values(codes: &TensorData, scale_of: impl Fn(usize) -> f32) -> Vec<f32> {
    let codes = codes.bytes.iter().enumerate();
    codes
        .map(|(at, code)| e4m3_to_f32(*code) * scale_of(at))
        .collect()
}

fn scales(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.scale()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_scale_of_a_tensor_or_of_a_row_is_read_under_every_declaration(
        rows in 1usize..40,
        columns in 1usize..300,
        is_per_row in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let weight = codes(&[rows, columns], seed);
        let scales = scales(if is_per_row { rows } else { 1 }, seed);
        let expected = values(&weight, |at| scales[if is_per_row { at / columns } else { 0 }]);
        let shapes: Vec<Vec<usize>> = if is_per_row {
            vec![vec![rows], vec![rows, 1]]
        } else {
            vec![vec![], vec![1], vec![1, 1]]
        };
        for (i, declared) in [
            fp8("dynamic"),
            fp8("static"),
            json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
            json!({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head"]}),
        ].into_iter().enumerate() {
            let shape = &shapes[(seed as usize).wrapping_add(i) % shapes.len()];
            let suffix = if i == 1 { "_scale_inv" } else { "_scale" };
            let scales = of_values(&format!("{NAME}{suffix}"), Dtype::F32, shape, &scales);
            assert_read(&[weight.clone(), scales], &declared, NAME, &[rows, columns], &expected);
        }
    }

    #[test]
    fn blocks_of_any_size_with_scales_of_any_dtype_and_name_are_read(
        rows in 1usize..100,
        columns in 1usize..100,
        high in 1usize..40,
        wide in 1usize..40,
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0]),
        name in prop::sample::select(vec![".weight_scale_inv", ".weight_scale", ".scale"]),
        seed in any::<u64>(),
    ) {
        let weight = codes(&[rows, columns], seed);
        let grid = [rows.div_ceil(high), columns.div_ceil(wide)];
        let mut random = Random(seed);
        let exponents: Vec<u8> = (0..grid[0] * grid[1]).map(|_| 115 + random.below(20) as u8).collect();
        let powers: Vec<f32> = exponents.iter().map(|code| e8m0_to_f32(*code)).collect();
        let scale_name = NAME.replace(".weight", name);
        let scales = if dtype == Dtype::F8_E8M0 {
            TensorData::new(&scale_name, dtype, &grid, exponents)
        } else {
            of_values(&scale_name, dtype, &grid, &powers)
        };
        let declared = json!({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [high, wide]});
        let expected = values(&weight, |at| powers[at / columns / high * grid[1] + at % columns / wide]);
        assert_read(&[weight, scales], &declared, NAME, &[rows, columns], &expected);
    }
}

#[test]
fn experts_of_four_bits_beside_fp8_are_read() {
    let numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let [rows, columns] = [5, 96];
    let mut random = Random(2);
    let codes: Vec<u8> = (0..rows * columns)
        .map(|_| random.below(16) as u8)
        .collect();
    let exponents: Vec<u8> = (0..rows * columns / 32)
        .map(|_| 110 + random.below(30) as u8)
        .collect();
    let packed = codes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
    let values: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(at, code)| {
            let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
            sign * numbers[usize::from(code & 7)] * 2f32.powi(i32::from(exponents[at / 32]) - 127)
        })
        .collect();
    let scale = NAME.replace(".weight", ".scale");
    let stored = [
        TensorData::new(NAME, Dtype::I8, &[rows, columns / 2], packed),
        TensorData::new(&scale, Dtype::F8_E8M0, &[rows, columns / 32], exponents),
    ];
    let declared = json!({"quant_method": "fp8", "activation_scheme": "dynamic", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]});
    assert_read(&stored, &declared, NAME, &[rows, columns], &values);

    let workspace = Workspace::new();
    let misfit = TensorData::new(&scale, Dtype::F8_E8M0, &[rows, 6], vec![127; rows * 6]);
    let checkpoint = Checkpoint::single([stored[0].clone(), misfit]).config(&config(&declared));
    let base = workspace.write("base", &checkpoint);
    assert_names(&refusal(&base), &[NAME, "[5, 48]", "[5, 6]", "each 32"]);
}

#[test]
fn experts_of_three_dimensions_have_scales_for_rows_columns_and_all() {
    let [experts, rows, columns] = [3, 4, 10];
    let weight = codes(&[experts, rows, columns], 4);
    for (shape, count) in [
        (vec![experts, rows], experts * rows),
        (vec![experts, rows, 1], experts * rows),
        (vec![experts, 1, columns], experts * columns),
        (vec![experts, 1, 1], experts),
        (vec![1], 1),
    ] {
        let scales = scales(count, 8);
        let expected = values(&weight, |at| {
            let (expert, row, column) = (at / rows / columns, at / columns % rows, at % columns);
            scales[match shape[..] {
                [1] => 0,
                [_, 1, 1] => expert,
                [_, 1, _] => expert * columns + column,
                _ => expert * rows + row,
            }]
        });
        let scales = of_values(&format!("{NAME}_scale"), Dtype::F32, &shape, &scales);
        let stored = [weight.clone(), scales];
        let declared = json!({"quant_method": "fbgemm_fp8"});
        assert_read(
            &stored,
            &declared,
            NAME,
            &[experts, rows, columns],
            &expected,
        );
    }
}

#[test]
fn scales_of_activations_and_the_cache_go_with_the_declaration_and_are_never_cast() {
    let weight = codes(&[4, 8], 1);
    let module = NAME.strip_suffix(".weight").unwrap();
    let one = |name: &str| of_values(name, Dtype::F32, &[], &[0.123_456_78]);
    let stored = vec![
        weight,
        one(&format!("{NAME}_scale")),
        one(&format!("{module}.input_scale")),
        one("model.layers.0.self_attn.k_proj.k_scale"),
        one("model.layers.0.self_attn.v_proj.v_scale"),
        bf16("model.norm.weight", &[8]),
    ];
    let workspace = Workspace::new();
    for (i, declared) in [
        fp8("static"),
        json!({"quant_method": "modelopt", "quant_algo": "FP8"}),
    ]
    .into_iter()
    .enumerate()
    {
        let checkpoint = Checkpoint::single(stored.clone()).config(&config(&declared));
        let base = workspace.write(&format!("base{i}"), &checkpoint);
        for (to, _) in TARGETS {
            let plan = in_dtype(&base, to).unwrap();
            let names: Vec<String> = tensors(&plan).into_keys().collect();
            assert_eq!(names, [NAME, "model.norm.weight"]);
            assert!(shown_config(&plan).get("quantization_config").is_none());
        }
    }
}

#[test]
fn a_declaration_in_the_file_of_modelopt_alone_is_one() {
    let weight = codes(&[4, 8], 1);
    let scale = of_values(&format!("{NAME}_scale"), Dtype::F32, &[], &[0.5]);
    let expected = values(&weight, |_| 0.5);
    let by_tool = r#"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}"#;
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single([weight, scale]).aux("hf_quant_config.json", by_tool);
    let base = workspace.write("base", &checkpoint);
    for (to, dtype) in TARGETS {
        let plan = in_dtype(&base, to).unwrap();
        let found = tensors(&plan);
        let expected = of_values(NAME, dtype, &[4, 8], &expected);
        assert!(found[NAME] == expected);
        assert_eq!(found.len(), 1);
        assert!(
            plan.view
                .lookup(ckptfs::view::View::ROOT, "hf_quant_config.json".as_ref())
                .is_none()
        );
    }
}

#[test]
fn scales_that_fit_nothing_are_refused_by_name() {
    let workspace = Workspace::new();
    let scale = of_values(&format!("{NAME}_scale"), Dtype::F32, &[3], &[1.0; 3]);
    let checkpoint = Checkpoint::single([codes(&[4, 8], 1), scale]).config(&config(&fp8("static")));
    let base = workspace.write("base", &checkpoint);
    assert_names(&refusal(&base), &[NAME, "[4, 8]", "weight_scale is [3]"]);
    let checkpoint = Checkpoint::single([codes(&[4, 8], 1)]).config(&config(&fp8("static")));
    let base = workspace.write("without", &checkpoint);
    assert_names(&refusal(&base), &[NAME, "weight_scale_inv", "weight_scale"]);
}
