//! Experts whose factors are stored together: fused weights, and weights of single experts.

use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::values::{encode, round_to};
use crate::fixture::{Adapter, Product, element, merged, numbers, plan};
use ckptfs::ops::lora::AdapterReport;

const EXPERTS: usize = 3;
const RANK: usize = 2;
const MODULE: &str = "model.layers.0.mlp.experts";

/// An adapter of both parameters: `gate_up_proj` inside, `down_proj` around it.
fn adapter(hidden: usize, intermediate: usize) -> Adapter {
    let name = |wrapper, role| format!("base_model.model.{MODULE}{wrapper}.lora_{role}.weight");
    let ranks = EXPERTS * RANK;
    let number = |wrapper, role, shape: &[usize]| numbers(&name(wrapper, role), Dtype::F32, shape);
    Adapter::new(RANK, 3.0)
        .set(
            "target_parameters",
            vec!["experts.down_proj", "experts.gate_up_proj"],
        )
        .tensor(number(".base_layer", "A", &[ranks, hidden]))
        .tensor(number(".base_layer", "B", &[2 * intermediate, ranks]))
        .tensor(number("", "A", &[ranks, intermediate]))
        .tensor(number("", "B", &[hidden, ranks]))
}

/// What expert `expert` becomes: `W + round(s·B·A)`, or the transpose of the product.
fn expected(
    weight: &[f32],
    [rows, columns]: [usize; 2],
    (a, b): (&TensorData, &TensorData),
    expert: usize,
    transposed: bool,
) -> Vec<f32> {
    let inputs = a.shape[1];
    let (a, b) = (element(a), element(b));
    let a = |k: usize, i: usize| a((expert * RANK + k) * inputs + i);
    let b = |o: usize, k: usize| b(o * RANK * EXPERTS + k * EXPERTS + expert);
    let product = Product {
        left: &|row, k| if transposed { a(k, row) } else { b(row, k) },
        right: &|k, column| {
            if transposed {
                b(column, k)
            } else {
                a(k, column)
            }
        },
        rank: RANK,
        scale: 1.5,
    };
    (0..rows * columns)
        .map(|at| {
            let product = product.at(at / columns, at % columns);
            weight[at] + round_to(Dtype::BF16, product)
        })
        .collect()
}

fn factors<'a>(adapter: &'a Adapter, wrapper: &str) -> (&'a TensorData, &'a TensorData) {
    let get = |role| adapter.get(&format!("experts{wrapper}.lora_{role}.weight"));
    (get("A"), get("B"))
}

#[test]
fn fused_experts_take_the_products_of_theirs() {
    let (hidden, intermediate) = (20, 12);
    let cases = [
        ("gate_up_proj", ".base_layer", [2 * intermediate, hidden]),
        ("down_proj", "", [hidden, intermediate]),
    ];
    let adapter = adapter(hidden, intermediate);
    let weights = cases.map(|(name, _, [rows, columns])| {
        numbers(
            &format!("{MODULE}.{name}"),
            Dtype::BF16,
            &[EXPERTS, rows, columns],
        )
    });
    let base = Checkpoint::single(weights.clone());
    for ((_, wrapper, [rows, columns]), weight) in cases.into_iter().zip(&weights) {
        let values = crate::common::values::decode(Dtype::BF16, &weight.bytes);
        let experts = values.chunks(rows * columns).enumerate();
        let all: Vec<f32> = experts
            .flat_map(|(expert, weight)| {
                expected(
                    weight,
                    [rows, columns],
                    factors(&adapter, wrapper),
                    expert,
                    false,
                )
            })
            .collect();
        assert_eq!(
            merged(&base, &adapter, &weight.name),
            encode(Dtype::BF16, &all)
        );
    }
}

#[test]
fn experts_that_are_stored_transposed_take_the_transpose() {
    for (shape, family) in [([20, 24], "test"), ([20, 20], "gpt_oss")] {
        let [inputs, outputs] = shape;
        let weight = numbers(
            &format!("{MODULE}.gate_up_proj"),
            Dtype::BF16,
            &[EXPERTS, inputs, outputs],
        );
        let config = format!(r#"{{"model_type": "{family}"}}"#);
        let base = Checkpoint::single([weight.clone()]).config(&config);
        let name = |role| format!("{MODULE}.lora_{role}.weight");
        let adapter = Adapter::new(RANK, 3.0)
            .set("target_parameters", vec!["experts.gate_up_proj"])
            .tensor(numbers(&name("A"), Dtype::F32, &[EXPERTS * RANK, inputs]))
            .tensor(numbers(&name("B"), Dtype::F32, &[outputs, EXPERTS * RANK]));
        let values = crate::common::values::decode(Dtype::BF16, &weight.bytes);
        let experts = values.chunks(inputs * outputs).enumerate();
        let all: Vec<f32> = experts
            .flat_map(|(expert, weight)| {
                expected(weight, shape, factors(&adapter, ""), expert, true)
            })
            .collect();
        assert_eq!(
            merged(&base, &adapter, &weight.name),
            encode(Dtype::BF16, &all)
        );
    }
}

#[test]
fn single_experts_take_their_part_of_the_product() {
    let (hidden, intermediate) = (20, 12);
    let adapter = adapter(hidden, intermediate);
    // As most models call them, and as Mixtral does.
    let namings = [
        (MODULE, ["gate_proj", "up_proj", "down_proj"]),
        (
            "model.layers.0.block_sparse_moe.experts",
            ["w1", "w3", "w2"],
        ),
    ];
    for (module, parts) in namings {
        let mut base = Vec::new();
        for expert in 0..EXPERTS {
            for (part, shape) in parts.iter().zip([
                [intermediate, hidden],
                [intermediate, hidden],
                [hidden, intermediate],
            ]) {
                let name = format!("{module}.{expert}.{part}.weight");
                base.push(numbers(&name, Dtype::BF16, &shape));
            }
        }
        let workspace = Workspace::new();
        let lora = adapter.write(&workspace, "lora");
        let directory = workspace.write("base", &Checkpoint::single(base.clone()));
        let plan = plan(&directory, &lora).unwrap();
        assert_eq!(
            plan.report
                .reports::<AdapterReport>()
                .next()
                .unwrap()
                .merged,
            3 * EXPERTS
        );
        let found = tensors(&plan);
        for (expert, weights) in base.chunks(3).enumerate() {
            let gate_up: Vec<f32> = weights[..2]
                .iter()
                .flat_map(|weight| (0..intermediate * hidden).map(element(weight)))
                .collect();
            let gate_up = expected(
                &gate_up,
                [2 * intermediate, hidden],
                factors(&adapter, ".base_layer"),
                expert,
                false,
            );
            let down: Vec<f32> = (0..intermediate * hidden)
                .map(element(&weights[2]))
                .collect();
            let down = expected(
                &down,
                [hidden, intermediate],
                factors(&adapter, ""),
                expert,
                false,
            );
            let (gate, up) = gate_up.split_at(intermediate * hidden);
            for (weight, expected) in weights.iter().zip([gate, up, &down]) {
                let expected = encode(Dtype::BF16, expected);
                assert_eq!(*found[&weight.name].bytes, *expected, "{}", weight.name);
            }
        }
    }
}

#[test]
fn a_router_that_is_targeted_as_a_parameter_rounds_its_product_first() {
    let weight = numbers("mlp.gate.weight", Dtype::BF16, &[8, 24]);
    let adapter = Adapter::new(2, 3.0)
        .set("target_parameters", vec!["gate.weight"])
        .linear("mlp.gate", [8, 24], 2);
    let (a, b) = (
        element(adapter.get("A.weight")),
        element(adapter.get("B.weight")),
    );
    let product = Product {
        left: &|row, k| b(row * 2 + k),
        right: &|k, column| a(k * 24 + column),
        rank: 2,
        scale: 1.5,
    };
    let element = element(&weight);
    let sums: Vec<f32> = (0..8 * 24)
        .map(|at| element(at) + round_to(Dtype::BF16, product.at(at / 24, at % 24)))
        .collect();
    let base = Checkpoint::single([weight]);
    let found = merged(&base, &adapter, "mlp.gate.weight");
    assert_eq!(found, encode(Dtype::BF16, &sums));
}
