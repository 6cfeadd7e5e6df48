//! What linear layers, Conv1D, convolutions and biases become.

use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::readback::tensors;
use crate::common::values::{encode, round_to};
use crate::fixture::{Adapter, Product, element, merged, moved, numbers, plan, plan_all, weight};
use ckptfs::ops::lora::AdapterReport;

/// `W + s·B·A`, in f32.
fn linear(weight: &TensorData, adapter: &Adapter, module: &str, scale: f32) -> Vec<f32> {
    let a = adapter.get(&format!("{module}.lora_A.weight"));
    let b = adapter.get(&format!("{module}.lora_B.weight"));
    let (rank, columns) = (a.shape[0], a.bytes.len() / 4 / a.shape[0]);
    let (a, b) = (element(a), element(b));
    let product = Product {
        left: &|row, k| b(row * rank + k),
        right: &|k, column| a(k * columns + column),
        rank,
        scale,
    };
    moved(weight, columns, &product)
}

/// The same where the weight is stored transposed.
fn transposed(weight: &TensorData, adapter: &Adapter, module: &str, scale: f32) -> Vec<f32> {
    let a = adapter.get(&format!("{module}.lora_A.weight"));
    let b = adapter.get(&format!("{module}.lora_B.weight"));
    let (rank, rows, columns) = (a.shape[0], weight.shape[0], weight.shape[1]);
    let (a, b) = (element(a), element(b));
    let product = Product {
        left: &|row, k| a(k * rows + row),
        right: &|k, column| b(column * rank + k),
        rank,
        scale,
    };
    moved(weight, columns, &product)
}

#[test]
fn linear_layers_of_every_dtype_take_their_product_and_others_stay() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let weight = numbers("model.q_proj.weight", dtype, &[37, 70]);
        let other = bf16("model.norm.weight", &[70]);
        let base = Checkpoint::single([weight.clone(), other.clone()]);
        let adapter = Adapter::new(5, 8.0).linear("model.q_proj", [37, 70], 5);
        let workspace = Workspace::new();
        let directory = adapter.write(&workspace, "lora");
        let view = tensors(&plan(&workspace.write("base", &base), &directory).unwrap());
        let expected = encode(dtype, &linear(&weight, &adapter, "model.q_proj", 1.6));
        assert_eq!(*view["model.q_proj.weight"].bytes, *expected);
        assert_eq!(view["model.norm.weight"], other);
    }
}

#[test]
fn factors_of_every_dtype_count_with_their_exact_values() {
    let weight = weight("x", &[6, 40]);
    let base = Checkpoint::single([weight.clone()]);
    for dtype in [Dtype::BF16, Dtype::F16] {
        let adapter = Adapter::new(3, 3.0)
            .tensor(numbers("x.lora_A.weight", dtype, &[3, 40]))
            .tensor(numbers("x.lora_B.weight", dtype, &[6, 3]));
        let exact = |tensor: &TensorData| {
            let values = crate::common::values::decode(dtype, &tensor.bytes);
            TensorData::new(
                &tensor.name,
                Dtype::F32,
                &tensor.shape,
                encode(Dtype::F32, &values),
            )
        };
        let as_f32 = Adapter {
            tensors: adapter.tensors.iter().map(exact).collect(),
            ..adapter.clone()
        };
        let expected = encode(Dtype::BF16, &linear(&weight, &as_f32, "x", 1.0));
        assert_eq!(merged(&base, &adapter, "x.weight"), expected);
    }
}

#[test]
fn conv1d_weights_take_the_transpose() {
    let weight = weight("h.0.attn.c_attn", &[24, 72]);
    let base = Checkpoint::single([weight.clone()]);
    let adapter =
        Adapter::new(4, 2.0)
            .set("fan_in_fan_out", true)
            .linear("h.0.attn.c_attn", [72, 24], 4);
    let expected = transposed(&weight, &adapter, "h.0.attn.c_attn", 0.5);
    let found = merged(&base, &adapter, "h.0.attn.c_attn.weight");
    assert_eq!(found, encode(Dtype::BF16, &expected));
}

#[test]
fn a_square_conv1d_is_told_by_its_neighbors_whatever_the_settings_say() {
    let square = weight("h.0.attn.c_proj", &[24, 24]);
    let adapter = Adapter::new(4, 4.0).linear("h.0.attn.c_proj", [24, 24], 4);
    let conv1d = [
        weight("h.0.mlp.c_fc", &[24, 96]),
        bf16("h.0.mlp.c_fc.bias", &[96]),
    ];
    let linear_layers = [
        weight("h.0.mlp.c_fc", &[96, 24]),
        bf16("h.0.mlp.c_fc.bias", &[96]),
    ];
    for declared in [false, true] {
        let adapter = adapter.clone().set("fan_in_fan_out", declared);
        let found = |neighbors: &[TensorData; 2]| {
            let tensors = neighbors.iter().chain([&square]).cloned();
            merged(
                &Checkpoint::single(tensors),
                &adapter,
                "h.0.attn.c_proj.weight",
            )
        };
        let expected = transposed(&square, &adapter, "h.0.attn.c_proj", 1.0);
        assert_eq!(found(&conv1d), encode(Dtype::BF16, &expected));
        let expected = linear(&square, &adapter, "h.0.attn.c_proj", 1.0);
        assert_eq!(found(&linear_layers), encode(Dtype::BF16, &expected));
    }
}

#[test]
fn convolutions_take_a_product_of_their_flattened_shape() {
    let weight = numbers("conv.weight", Dtype::BF16, &[10, 6, 3, 5]);
    let base = Checkpoint::single([weight.clone()]);
    let adapter = Adapter::new(4, 4.0)
        .tensor(numbers("conv.lora_A.weight", Dtype::F32, &[4, 6, 3, 5]))
        .tensor(numbers("conv.lora_B.weight", Dtype::F32, &[10, 4, 1, 1]));
    let expected = encode(Dtype::BF16, &linear(&weight, &adapter, "conv", 1.0));
    assert_eq!(merged(&base, &adapter, "conv.weight"), expected);
}

#[test]
fn dora_scales_rows_to_their_magnitudes() {
    let weight = weight("x", &[9, 50]);
    let base = Checkpoint::single([weight.clone()]);
    let adapter = Adapter::new(4, 8.0)
        .set("use_dora", true)
        .linear("x", [9, 50], 4)
        .tensor(numbers("x.lora_magnitude_vector", Dtype::F32, &[9]));
    let magnitudes = element(adapter.get("vector"));
    let rows = linear(&weight, &adapter, "x", 2.0);
    let found = merged(&base, &adapter, "x.weight");
    let found = crate::common::values::decode(Dtype::BF16, &found);
    for (row, (moved, found)) in rows.chunks(50).zip(found.chunks(50)).enumerate() {
        let norm = moved
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt();
        for (moved, found) in moved.iter().zip(found) {
            let exact = f64::from(magnitudes(row)) * f64::from(*moved) / norm;
            assert!((f64::from(*found) - exact).abs() <= exact.abs() * 2f64.powi(-8) * 1.001);
        }
    }
}

#[test]
fn dora_scales_columns_of_a_conv1d() {
    // More rows than one band of sums has.
    let (rows, columns) = (6000, 400);
    let weight = weight("c_fc", &[rows, columns]);
    let base = Checkpoint::single([weight.clone()]);
    let adapter = Adapter::new(2, 2.0)
        .set("use_dora", true)
        .linear("c_fc", [columns, rows], 2)
        .tensor(numbers(
            "c_fc.lora_magnitude_vector",
            Dtype::F32,
            &[columns],
        ));
    let magnitudes = element(adapter.get("vector"));
    let moved = transposed(&weight, &adapter, "c_fc", 1.0);
    let found = merged(&base, &adapter, "c_fc.weight");
    let found = crate::common::values::decode(Dtype::BF16, &found);
    for column in 0..columns {
        let rows = || moved.iter().skip(column).step_by(columns);
        let norm = rows().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for (moved, found) in rows().zip(found.iter().skip(column).step_by(columns)) {
            let exact = f64::from(magnitudes(column)) * f64::from(*moved) / norm;
            assert!((f64::from(*found) - exact).abs() <= exact.abs() * 2f64.powi(-8) * 1.001);
        }
    }
}

#[test]
fn trained_biases_replace_and_biases_of_b_are_added() {
    let biases = [bf16("x.bias", &[40]), bf16("y.bias", &[4])];
    let base = Checkpoint::single(
        [weight("x", &[40, 8]), weight("y", &[4, 8])]
            .into_iter()
            .chain(biases.clone()),
    );
    let adapter = Adapter::new(2, 3.0)
        .set("lora_bias", true)
        .linear("x", [40, 8], 2)
        .tensor(numbers("base_model.model.x.lora_B.bias", Dtype::F32, &[40]))
        .tensor(numbers(
            "base_model.model.y.base_layer.bias",
            Dtype::F32,
            &[4],
        ));
    let given = crate::common::values::decode(Dtype::F32, &adapter.get("lora_B.bias").bytes);
    let bias = element(&biases[0]);
    let sums: Vec<f32> = (0..40).map(|i| bias(i) + given[i] * 1.5).collect();
    assert_eq!(
        merged(&base, &adapter, "x.bias"),
        encode(Dtype::BF16, &sums)
    );
    let trained =
        crate::common::values::decode(Dtype::F32, &adapter.get("y.base_layer.bias").bytes);
    assert_eq!(
        merged(&base, &adapter, "y.bias"),
        encode(Dtype::BF16, &trained)
    );
}

#[test]
fn modules_to_save_replace_and_then_take_their_product() {
    let base = Checkpoint::single([weight("head", &[4, 16])]);
    let trained = numbers("base_model.model.head.weight", Dtype::BF16, &[4, 16]);
    let adapter = Adapter::new(2, 2.0).tensor(trained.clone());
    assert_eq!(merged(&base, &adapter, "head.weight"), *trained.bytes);
    // As PEFT saves embeddings of another size: the copies inside of the wrapper too.
    let saved_along = adapter
        .clone()
        .tensor(numbers(
            "base_model.model.head.original_module.weight",
            Dtype::BF16,
            &[3, 16],
        ))
        .tensor(numbers(
            "base_model.model.head.modules_to_save.weight",
            Dtype::BF16,
            &[4, 16],
        ));
    assert_eq!(merged(&base, &saved_along, "head.weight"), *trained.bytes);
    let adapter = adapter.linear("head", [4, 16], 2);
    let expected = encode(Dtype::BF16, &linear(&trained, &adapter, "head", 1.0));
    assert_eq!(merged(&base, &adapter, "head.weight"), expected);
}

#[test]
fn adapters_are_merged_one_after_another_each_with_its_weight() {
    let before = weight("x", &[12, 33]);
    let first = Adapter::new(4, 8.0).linear("x", [12, 33], 4);
    let second = Adapter::new(3, 3.0).linear("x", [12, 33], 3);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([before.clone()]));
    let directories = [first.write(&workspace, "1"), second.write(&workspace, "2")];
    let plan = plan_all(&base, &[(&directories[0], 0.5), (&directories[1], -2.0)]).unwrap();

    let between = encode(Dtype::BF16, &linear(&before, &first, "x", 1.0));
    let between = TensorData::new("x.weight", Dtype::BF16, &[12, 33], between);
    let expected = encode(Dtype::BF16, &linear(&between, &second, "x", -2.0));
    assert_eq!(*tensors(&plan)["x.weight"].bytes, *expected);
    let report: Vec<&AdapterReport> = plan.report.reports().collect();
    assert_eq!([report[0].merged, report[1].merged], [1, 1]);
    assert_eq!(report[1].scalings, [-2.0]);
}

#[test]
fn mica_rounds_its_product_first() {
    let weight = weight("x", &[8, 40]);
    let base = Checkpoint::single([weight.clone()]);
    let adapter = Adapter::new(2, 2.0)
        .set("init_lora_weights", "mica")
        .linear("x", [8, 40], 2);
    let zeros = TensorData::new("x.weight", Dtype::F32, &[8, 40], vec![0; 4 * 320]);
    let products = linear(&zeros, &adapter, "x", 1.0);
    let element = element(&weight);
    let products = products.iter().enumerate();
    let expected: Vec<f32> = products
        .map(|(at, product)| element(at) + round_to(Dtype::BF16, *product))
        .collect();
    assert_eq!(
        merged(&base, &adapter, "x.weight"),
        encode(Dtype::BF16, &expected)
    );
}
