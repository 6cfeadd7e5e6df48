//! Factors of fused experts as different programs and releases store them.

use ckptfs::error::Code;
use ckptfs::ops::{ExpertOrder, LoraParams, LoraRequest, Operations};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::values::{encode, round_to};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, Product, element, numbers, plan};

const EXPERTS: usize = 3;
const RANK: usize = 2;
const MODULE: &str = "model.layers.0.mlp.experts";

/// An adapter of `parameter` alone, with `A` over `a` and `B` over `b`.
fn adapter(parameter: &str, [a, b]: [usize; 2]) -> Adapter {
    pair(Adapter::new(RANK, 3.0), "", [a, b])
        .set("target_parameters", vec![format!("experts.{parameter}")])
}

fn pair(adapter: Adapter, wrapper: &str, [a, b]: [usize; 2]) -> Adapter {
    let name = |role| format!("{MODULE}{wrapper}.lora_{role}.weight");
    let ranks = EXPERTS * RANK;
    adapter
        .tensor(numbers(&name("A"), Dtype::F32, &[ranks, a]))
        .tensor(numbers(&name("B"), Dtype::F32, &[b, ranks]))
}

fn fused(parameter: &str, [rows, columns]: [usize; 2]) -> TensorData {
    let name = format!("{MODULE}.{parameter}");
    numbers(&name, Dtype::BF16, &[EXPERTS, rows, columns])
}

/// `W + round(s·B·A)` of each expert, `A` over the rows if `a_is_first`, else over the columns.
fn expected(
    weight: &TensorData,
    [rows, columns]: [usize; 2],
    adapter: &Adapter,
    wrapper: &str,
    a_is_first: bool,
    order: ExpertOrder,
) -> Vec<f32> {
    let factor = |role| adapter.get(&format!("{MODULE}{wrapper}.lora_{role}.weight"));
    let (a, b) = (factor("A"), factor("B"));
    let inputs = a.shape[1];
    let (a, b, weight) = (element(a), element(b), element(weight));
    let mut all = Vec::new();
    for expert in 0..EXPERTS {
        let a = |k: usize, i: usize| a((expert * RANK + k) * inputs + i);
        let b = |o: usize, k: usize| {
            let column = match order {
                ExpertOrder::RankMajor => k * EXPERTS + expert,
                ExpertOrder::ExpertMajor => expert * RANK + k,
            };
            b(o * EXPERTS * RANK + column)
        };
        let product = Product {
            left: &|row, k| if a_is_first { a(k, row) } else { b(row, k) },
            right: &|k, column| {
                if a_is_first {
                    b(column, k)
                } else {
                    a(k, column)
                }
            },
            rank: RANK,
            scale: 1.5,
        };
        for row in 0..rows {
            for column in 0..columns {
                let at = (expert * rows + row) * columns + column;
                all.push(weight(at) + round_to(Dtype::BF16, product.at(row, column)));
            }
        }
    }
    all
}

/// Asserts that the fused weight takes its product so.
fn assert_merged(base: &Checkpoint, lora: &Adapter, weight: &TensorData, a_is_first: bool) {
    let workspace = Workspace::new();
    let directory = workspace.write("base", base);
    let plan = plan(&directory, &lora.write(&workspace, "lora")).unwrap();
    let shape = [weight.shape[1], weight.shape[2]];
    let wanted = expected(weight, shape, lora, "", a_is_first, ExpertOrder::RankMajor);
    let found = &tensors(&plan)[&weight.name];
    assert_eq!(*found.bytes, *encode(Dtype::BF16, &wanted), "{a_is_first}");
}

#[test]
fn factors_that_only_fit_the_other_way_round_are_taken_so() {
    // As PEFT before 0.19.1 has it: A over 2I, B over H.
    let (hidden, intermediate) = (20, 12);
    for (parameter, shape) in [
        ("gate_up_proj", [2 * intermediate, hidden]),
        ("down_proj", [hidden, intermediate]),
    ] {
        let weight = fused(parameter, shape);
        let base = Checkpoint::single([weight.clone()]);
        assert_merged(&base, &adapter(parameter, shape), &weight, true);
        // What the shape tells is more than what the version does.
        let said = adapter(parameter, shape).set("peft_version", "0.21.2");
        assert_merged(&base, &said, &weight, true);
    }
}

#[test]
fn of_square_experts_the_release_tells_which_dimension_a_is_over() {
    let shape = [20, 20];
    let weight = fused("gate_up_proj", shape);
    for (family, version, a_is_first) in [
        ("qwen3_moe", "0.18.1", true),
        ("qwen3_moe", "0.19.0", true),
        ("qwen3_moe", "0.19.1", false),
        ("qwen3_moe", "0.21.2", false),
        ("gpt_oss", "0.18.1", true),
        ("gpt_oss", "0.19.0", false),
        ("gpt_oss", "0.19.1", true),
        ("gpt_oss", "0.21.2", true),
    ] {
        let config = json!({"model_type": family}).to_string();
        let base = Checkpoint::single([weight.clone()]).config(&config);
        let lora = adapter("gate_up_proj", shape).set("peft_version", version);
        assert_merged(&base, &lora, &weight, a_is_first);
    }
}

#[test]
fn square_experts_that_no_release_tells_of_are_refused() {
    let workspace = Workspace::new();
    let base = |family: &str| {
        let config = json!({"model_type": family}).to_string();
        let weight = fused("gate_up_proj", [20, 20]);
        workspace.write(family, &Checkpoint::single([weight]).config(&config))
    };
    let silent = adapter("gate_up_proj", [20, 20]);
    let between = silent.clone().set("peft_version", "0.19.1.dev0@UNKNOWN");
    // transformers 4 and 5 hold these weights in different ways, and either was there then.
    let either = silent.clone().set("peft_version", "0.18.1");
    for (family, lora) in [
        ("qwen3_moe", silent),
        ("qwen3_moe", between),
        ("qwen3_vl_moe", either),
    ] {
        let error = plan(&base(family), &lora.write(&workspace, "lora")).unwrap_err();
        assert_eq!(error.code(), Code::UnsupportedAdapter);
        assert_names(
            &error.to_string(),
            &["gate_up_proj", "20 x 20", "0.19.1", "\"peft_version\""],
        );
    }
}

/// An adapter of both parameters: `gate_up_proj` inside, `down_proj` around it.
fn both(gate_up: [usize; 2], down: [usize; 2]) -> Adapter {
    let adapter = Adapter::new(RANK, 3.0).set(
        "target_parameters",
        vec!["experts.gate_up_proj", "experts.down_proj"],
    );
    pair(pair(adapter, ".base_layer", gate_up), "", down)
}

#[test]
fn both_parameters_of_an_adapter_for_olmoe_whose_gate_up_is_square_are_taken_alike() {
    // As OLMoE has it, twice the intermediate size is the hidden size.
    let (hidden, intermediate) = (24, 12);
    let gate_up = fused("gate_up_proj", [2 * intermediate, hidden]);
    let down = fused("down_proj", [hidden, intermediate]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([gate_up.clone(), down]));
    for (down, a_is_first) in [
        ([hidden, intermediate], true),
        ([intermediate, hidden], false),
    ] {
        // The release says the opposite: it was written down by hand, or by a fork.
        let version = if a_is_first { "0.21.2" } else { "0.18.1" };
        let lora = both([24, 24], down).set("peft_version", version);
        let plan = plan(&base, &lora.write(&workspace, "lora")).unwrap();
        let wanted = expected(
            &gate_up,
            [24, 24],
            &lora,
            ".base_layer",
            a_is_first,
            ExpertOrder::RankMajor,
        );
        let found = &tensors(&plan)[&gate_up.name];
        assert_eq!(*found.bytes, *encode(Dtype::BF16, &wanted));
    }
}

#[test]
fn parameters_that_are_not_alike_are_refused() {
    let gate_up = fused("gate_up_proj", [24, 20]);
    let down = fused("down_proj", [20, 12]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([gate_up, down]));
    let lora = both([20, 24], [20, 12]).write(&workspace, "lora");
    let error = plan(&base, &lora).unwrap_err();
    assert_eq!(error.code(), Code::BadAdapter);
    assert_names(
        &error.to_string(),
        &["experts.lora_", "base_layer", "the other way round"],
    );
}

#[test]
fn single_experts_take_factors_of_the_other_way_round_too() {
    let (hidden, intermediate) = (20, 12);
    let single = |e: usize, part: &str, shape: &[usize]| {
        numbers(&format!("{MODULE}.{e}.{part}.weight"), Dtype::BF16, shape)
    };
    let base: Vec<TensorData> = (0..EXPERTS)
        .flat_map(|e| {
            let half = [intermediate, hidden];
            [single(e, "gate_proj", &half), single(e, "up_proj", &half)]
        })
        .collect();
    let bytes: Vec<u8> = base.iter().flat_map(|t| t.bytes.to_vec()).collect();
    let shape = [2 * intermediate, hidden];
    let whole = TensorData::new("fused", Dtype::BF16, &[EXPERTS, shape[0], shape[1]], bytes);
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single(base.clone()));
    let lora = adapter("gate_up_proj", shape);
    let found = tensors(&plan(&directory, &lora.write(&workspace, "lora")).unwrap());
    let wanted = expected(&whole, shape, &lora, "", true, ExpertOrder::RankMajor);
    for (weight, wanted) in base.iter().zip(wanted.chunks(intermediate * hidden)) {
        let wanted = encode(Dtype::BF16, wanted);
        assert_eq!(*found[&weight.name].bytes, *wanted, "{}", weight.name);
    }
}

/// What comes of an adapter on a base with a fused weight.
struct Outcome {
    weight: TensorData,
    found: Vec<u8>,
    warnings: Vec<(Code, String)>,
}

impl Outcome {
    fn codes(&self) -> Vec<Code> {
        self.warnings.iter().map(|&(code, _)| code).collect()
    }
}

/// If the request says `order`.
fn outcome(lora: &Adapter, order: Option<ExpertOrder>) -> ckptfs::Result<Outcome> {
    let weight = fused("down_proj", [20, 12]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    let request = ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![LoraRequest {
                    adapter: lora.write(&workspace, "lora").into(),
                    weight: 1.0,
                }],
                experts: order,
            },
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let plan = request.plan()?;
    let warnings = plan.report.warnings.iter();
    let warnings = warnings.map(|warning| (warning.code(), warning.text().to_owned()));
    Ok(Outcome {
        found: tensors(&plan)[&weight.name].bytes.to_vec(),
        warnings: warnings.collect(),
        weight,
    })
}

#[test]
fn the_order_of_experts_is_what_the_adapter_says_or_the_request() {
    use ExpertOrder::{ExpertMajor, RankMajor};
    let silent = || adapter("down_proj", [12, 20]);
    let saying = |layout: &str| silent().set("lora_B_layout", layout);
    for (lora, asked, order) in [
        (silent(), Some(RankMajor), RankMajor),
        (silent(), Some(ExpertMajor), ExpertMajor),
        (saying("rank_major"), None, RankMajor),
        (saying("grouped_by_expert"), None, ExpertMajor),
    ] {
        let outcome = outcome(&lora, asked).unwrap();
        assert_eq!(outcome.codes(), []);
        let wanted = expected(&outcome.weight, [20, 12], &lora, "", false, order);
        assert_eq!(outcome.found, encode(Dtype::BF16, &wanted), "{order:?}");
    }
}

#[test]
fn an_order_that_nothing_says_is_that_of_peft_with_a_warning() {
    let silent = adapter("down_proj", [12, 20]);
    let found = outcome(&silent, None).unwrap();
    assert_eq!(found.codes(), [Code::ExpertOrder]);
    let text = &found.warnings[0].1;
    let orders = ["lora_experts: rank-major", "lora_experts: expert-major"];
    assert_names(text, &["lora_B", orders[0], orders[1]]);
    assert!(!text.contains("traces"));
    let order = ExpertOrder::RankMajor;
    let wanted = expected(&found.weight, [20, 12], &silent, "", false, order);
    assert_eq!(found.found, encode(Dtype::BF16, &wanted));
    let fixed = json!({"unsloth_fixed": true});
    for trace in [
        silent.clone().set("auto_mapping", fixed),
        silent.set("base_model_name_or_path", "unsloth/Qwen3-30B-A3B"),
    ] {
        let found = outcome(&trace, None).unwrap();
        assert_names(&found.warnings[0].1, &["traces of Unsloth"]);
    }
}

#[test]
fn an_order_that_changes_nothing_is_warned_of_and_one_that_is_unknown_refused() {
    let marked = adapter("down_proj", [12, 20]).set("lora_B_layout", "rank_major");
    let number = |role, shape: &[usize]| {
        let name = format!("{MODULE}.lora_{role}.weight");
        numbers(&name, Dtype::F32, shape)
    };
    let rank_one = Adapter::new(1, 3.0)
        .set("target_parameters", vec!["experts.down_proj"])
        .tensor(number("A", &[3, 12]))
        .tensor(number("B", &[20, 3]));
    for lora in [&marked, &rank_one] {
        let found = outcome(lora, Some(ExpertOrder::ExpertMajor)).unwrap();
        assert_eq!(found.codes(), [Code::NoEffect]);
        let text = &found.warnings[0].1;
        assert_names(text, &["lora_experts: expert-major", "no effect"]);
    }
    assert_eq!(outcome(&rank_one, None).unwrap().codes(), []);
    let unknown = adapter("down_proj", [12, 20]).set("lora_B_layout", "diagonal");
    let error = outcome(&unknown, None).err().unwrap();
    assert_eq!(error.code(), Code::UnsupportedAdapter);
    assert_names(&error.to_string(), &["lora_B_layout", "\"diagonal\""]);
}
