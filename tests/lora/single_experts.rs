//! Adapters of single experts on a base that has them fused.

use ckptfs::error::Code;
use ckptfs::ops::lora::AdapterReport;
use ckptfs::provenance::Counts;
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::values::{decode, encode, round_to};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, Product, element, numbers, plan};

const EXPERTS: usize = 3;
const HIDDEN: usize = 20;
const INTERMEDIATE: usize = 12;
const MODULE: &str = "model.layers.0.mlp.experts";
const PARTS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

fn shape(part: &str) -> [usize; 2] {
    match part {
        "down_proj" => [HIDDEN, INTERMEDIATE],
        _ => [INTERMEDIATE, HIDDEN],
    }
}

/// The rank of a part's factors, and the alpha that all have.
fn rank(part: &str) -> usize {
    if part == "up_proj" { 3 } else { 2 }
}

const ALPHA: f64 = 3.0;

/// An adapter of these parts of experts.
fn adapter(adapted: &[(usize, &str)]) -> Adapter {
    let mut adapter = Adapter::new(2, ALPHA).set("rank_pattern", json!({"up_proj": 3}));
    for &(expert, part) in adapted {
        adapter = adapter.linear(
            &format!("{MODULE}.{expert}.{part}"),
            shape(part),
            rank(part),
        );
    }
    adapter
}

/// How a family stores gate, up and down of all experts.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Layout {
    /// `[E, 2I, H]` and `[E, H, I]`, the rows of gate first.
    Plain,
    /// `[E, H, 2I]` and `[E, I, H]`, the columns of gate first.
    Beside,
    /// The same, with columns of gate and up in turns.
    InTurns,
}

impl Layout {
    fn family(self) -> &'static str {
        match self {
            Layout::Plain => "qwen3_moe",
            Layout::Beside => "llama4",
            Layout::InTurns => "gpt_oss",
        }
    }

    fn gate_up(self) -> TensorData {
        let shape = match self {
            Layout::Plain => [EXPERTS, 2 * INTERMEDIATE, HIDDEN],
            _ => [EXPERTS, HIDDEN, 2 * INTERMEDIATE],
        };
        numbers(&format!("{MODULE}.gate_up_proj"), Dtype::BF16, &shape)
    }

    fn down(self) -> TensorData {
        let shape = match self {
            Layout::Plain => [EXPERTS, HIDDEN, INTERMEDIATE],
            _ => [EXPERTS, INTERMEDIATE, HIDDEN],
        };
        numbers(&format!("{MODULE}.down_proj"), Dtype::BF16, &shape)
    }

    /// Which element of the fused weight of an expert is that of `[out, in]` of a part.
    fn position(self, part: &str, out: usize, input: usize) -> usize {
        let is_up = usize::from(part == "up_proj");
        match (self, part) {
            (Layout::Plain, "down_proj") => out * INTERMEDIATE + input,
            (Layout::Plain, _) => (is_up * INTERMEDIATE + out) * HIDDEN + input,
            (_, "down_proj") => input * HIDDEN + out,
            (Layout::Beside, _) => input * 2 * INTERMEDIATE + is_up * INTERMEDIATE + out,
            (Layout::InTurns, _) => input * 2 * INTERMEDIATE + 2 * out + is_up,
        }
    }

    /// `W + round(s·B·A)` in the places of the parts that are adapted.
    fn merged(
        self,
        weight: &TensorData,
        adapter: &Adapter,
        adapted: &[(usize, &str)],
        parts: &[&str],
    ) -> Vec<u8> {
        let mut values = decode(Dtype::BF16, &weight.bytes);
        let of_expert = values.len() / EXPERTS;
        for &(expert, part) in adapted.iter().filter(|(_, part)| parts.contains(part)) {
            let factor = |role| adapter.get(&format!("experts.{expert}.{part}.lora_{role}.weight"));
            let [outs, inputs] = shape(part);
            let rank = rank(part);
            let (a, b) = (element(factor("A")), element(factor("B")));
            let product = Product {
                left: &|out, k| b(out * rank + k),
                right: &|k, input| a(k * inputs + input),
                rank,
                scale: (ALPHA / rank as f64) as f32,
            };
            for out in 0..outs {
                for input in 0..inputs {
                    let at = expert * of_expert + self.position(part, out, input);
                    values[at] += round_to(Dtype::BF16, product.at(out, input));
                }
            }
        }
        encode(Dtype::BF16, &values)
    }
}

#[test]
fn fused_experts_take_the_products_of_single_ones_where_their_layout_has_them() {
    let all: Vec<(usize, &str)> = (0..EXPERTS)
        .flat_map(|expert| PARTS.map(|part| (expert, part)))
        .collect();
    let some = [(2, "up_proj"), (0, "gate_proj"), (0, "down_proj")];
    for layout in [Layout::Plain, Layout::Beside, Layout::InTurns] {
        for adapted in [&all[..], &some] {
            let (gate_up, down) = (layout.gate_up(), layout.down());
            let config = json!({"model_type": layout.family()}).to_string();
            let base = Checkpoint::single([gate_up.clone(), down.clone()]).config(&config);
            let lora = adapter(adapted);
            let workspace = Workspace::new();
            let directory = workspace.write("base", &base);
            let plan = plan(&directory, &lora.write(&workspace, "lora")).unwrap();
            let found = tensors(&plan);
            let wanted = layout.merged(&gate_up, &lora, adapted, &PARTS[..2]);
            assert_eq!(*found[&gate_up.name].bytes, *wanted, "{layout:?}");
            let wanted = layout.merged(&down, &lora, adapted, &PARTS[2..]);
            assert_eq!(*found[&down.name].bytes, *wanted, "{layout:?}");
            let report = plan.report.reports::<AdapterReport>().next().unwrap();
            assert_eq!(report.merged, 2);
            assert_eq!(report.scalings, [1.0, 1.5]);
            assert!(plan.report.warnings.is_empty());
            let counts = Counts::of_plan(&plan);
            let mut changed = counts.changed_by.iter();
            assert!(changed.all(|by| by.operators.contains(&"lora")));
        }
    }
}

#[test]
fn names_of_mixtral_are_those_of_its_fused_weights() {
    let (gate_up, down) = (Layout::Plain.gate_up(), Layout::Plain.down());
    let base = Checkpoint::single([gate_up.clone(), down.clone()]);
    let adapted = [(1, "gate_proj"), (1, "up_proj"), (2, "down_proj")];
    let usual = adapter(&adapted);
    let mut mixtral = usual.clone().set("rank_pattern", json!({"w3": 3}));
    for tensor in &mut mixtral.tensors {
        let name = tensor
            .name
            .replace("mlp.experts", "block_sparse_moe.experts");
        let name = name.replace("gate_proj", "w1").replace("up_proj", "w3");
        tensor.name = name.replace("down_proj", "w2");
    }
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base);
    let found = tensors(&plan(&directory, &mixtral.write(&workspace, "lora")).unwrap());
    let wanted = Layout::Plain.merged(&gate_up, &usual, &adapted, &PARTS[..2]);
    assert_eq!(*found[&gate_up.name].bytes, *wanted);
    let wanted = Layout::Plain.merged(&down, &usual, &adapted, &PARTS[2..]);
    assert_eq!(*found[&down.name].bytes, *wanted);
}

#[test]
fn dora_of_single_experts_is_that_of_the_base_taken_apart() {
    let fused = Layout::Plain.gate_up();
    let rows = INTERMEDIATE * HIDDEN * 2;
    let apart = (0..EXPERTS).flat_map(|expert| {
        let halves = fused.bytes[2 * expert * rows..].chunks(rows);
        let named = PARTS[..2].iter().zip(halves);
        named.map(move |(part, bytes)| {
            let name = format!("{MODULE}.{expert}.{part}.weight");
            TensorData::new(&name, Dtype::BF16, &shape(part), bytes.to_vec())
        })
    });
    let apart: Vec<TensorData> = apart.collect();
    let module = format!("{MODULE}.1.up_proj");
    let lora = adapter(&[(1, "up_proj")])
        .set("use_dora", true)
        .tensor(numbers(
            &format!("{module}.lora_magnitude_vector"),
            Dtype::F32,
            &[INTERMEDIATE],
        ));
    let workspace = Workspace::new();
    let lora = lora.write(&workspace, "lora");
    let apart = workspace.write("apart", &Checkpoint::single(apart));
    let whole = workspace.write("fused", &Checkpoint::single([fused.clone()]));
    let apart = tensors(&plan(&apart, &lora).unwrap());
    let expected: Vec<u8> = (0..EXPERTS)
        .flat_map(|e| PARTS[..2].iter().map(move |part| (e, part)))
        .flat_map(|(e, part)| apart[&format!("{MODULE}.{e}.{part}.weight")].bytes.to_vec())
        .collect();
    let found = tensors(&plan(&whole, &lora).unwrap());
    assert_eq!(*found[&fused.name].bytes, *expected);
    assert_ne!(*fused.bytes, *expected);
}

#[test]
fn single_experts_that_do_not_fit_the_fused_weight_are_refused() {
    let workspace = Workspace::new();
    let weights = |layout: Layout| Checkpoint::single([layout.gate_up(), layout.down()]);
    let plain = workspace.write("plain", &weights(Layout::Plain));
    let transposed = workspace.write("transposed", &weights(Layout::Beside));
    let refusal = |base, lora: Adapter| {
        let error = plan(base, &lora.write(&workspace, "lora")).unwrap_err();
        (error.code(), error.to_string())
    };

    let (code, text) = refusal(&plain, adapter(&[(3, "up_proj")]));
    assert_eq!(code, Code::AdapterMismatch);
    assert_names(&text, &["experts.3.up_proj", "gate_up_proj", "3 experts"]);

    let other = Adapter::new(2, 2.0).linear(&format!("{MODULE}.0.up_proj"), [10, HIDDEN], 2);
    let (code, text) = refusal(&plain, other);
    assert_eq!(code, Code::AdapterMismatch);
    assert_names(&text, &["experts.0.up_proj", "[3, 24, 20]"]);

    let bias = numbers(
        &format!("{MODULE}.0.up_proj.lora_B.bias"),
        Dtype::F32,
        &[INTERMEDIATE],
    );
    let (code, text) = refusal(&plain, adapter(&[(0, "up_proj")]).tensor(bias));
    assert_eq!(code, Code::UnsupportedAdapter);
    assert_names(&text, &["up_proj.lora_B.bias", "fused"]);

    // Without a family, nobody says whether columns are beside each other or in turns.
    let (code, text) = refusal(&transposed, adapter(&[(0, "up_proj")]));
    assert_eq!(code, Code::UnsupportedAdapter);
    assert_names(&text, &["gate_up_proj", "transposed", "gate and up"]);
    plan(
        &transposed,
        &adapter(&[(0, "down_proj")]).write(&workspace, "down"),
    )
    .unwrap();
}
