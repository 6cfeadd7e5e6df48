//! Families whose experts are named, lie, or are made otherwise than most, in both forms: by the index of
//! each element, and back to the bytes that were there.

use ckptfs::ops::Experts;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::readback::tensors;
use crate::common::values::bits;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

/// Whatever has experts of another kind.
#[derive(Debug, Clone, Copy)]
struct Family {
    model_type: &'static str,
    layer: &'static str,
    /// Gate, if there is one, up and down.
    singles: [Option<&'static str>; 3],
    lies: Lies,
    has_biases: bool,
}

/// Which element of `gate_up_proj` an element of a single expert's weight is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lies {
    Rows,
    Columns,
    ByTurns,
}

const USUAL: [Option<&str>; 3] = [Some("gate_proj"), Some("up_proj"), Some("down_proj")];
const NUMBERED: [Option<&str>; 3] = [Some("w1"), Some("w3"), Some("w2")];

const fn family(model_type: &'static str, lies: Lies, has_biases: bool) -> Family {
    Family {
        model_type,
        layer: "model.language_model.layers.1.mlp",
        singles: USUAL,
        lies,
        has_biases,
    }
}

const fn numbered(model_type: &'static str, layer: &'static str) -> Family {
    Family {
        layer,
        singles: NUMBERED,
        ..family(model_type, Lies::Rows, false)
    }
}

const FAMILIES: [Family; 12] = [
    numbered("mixtral", "model.layers.3.block_sparse_moe"),
    numbered("minimax", "model.layers.0.block_sparse_moe"),
    numbered("minimax_m2", "model.layers.0.block_sparse_moe"),
    numbered("phimoe", "model.layers.0.block_sparse_moe"),
    numbered("lfm2_moe", "model.layers.0.feed_forward"),
    Family {
        layer: "backbone.layers.1.mixer",
        singles: [None, Some("up_proj"), Some("down_proj")],
        ..family("nemotron_h", Lies::Rows, false)
    },
    family("qwen3_moe", Lies::Rows, false),
    family("llama4", Lies::Columns, false),
    family("qwen3_vl_moe_text", Lies::Columns, false),
    family("aria_text", Lies::Columns, false),
    family("gpt_oss", Lies::ByTurns, true),
    family("openai_privacy_filter", Lies::Columns, true),
];

/// An element by its index.
type At<'a> = dyn Fn(&[usize]) -> &'a [u8] + 'a;

fn at(tensor: &TensorData) -> Box<At<'_>> {
    let width = bits(tensor.dtype) / 8;
    Box::new(move |index| {
        let place = index.iter().zip(&tensor.shape);
        let start = place.fold(0, |at, (i, len)| at * len + i) * width;
        &tensor.bytes[start..start + width]
    })
}

fn built(
    name: String,
    dtype: Dtype,
    shape: &[usize],
    at: impl Fn(&[usize]) -> Vec<u8>,
) -> TensorData {
    let mut bytes = Vec::new();
    for i in 0..shape[0] {
        match shape {
            [_] => bytes.extend(at(&[i])),
            [_, columns] => (0..*columns).for_each(|j| bytes.extend(at(&[i, j]))),
            _ => unreachable!(),
        }
    }
    TensorData::new(&name, dtype, shape, bytes)
}

impl Family {
    fn fused(&self, dtype: Dtype, sizes: Sizes, seed: u64) -> Vec<TensorData> {
        let Sizes {
            experts,
            intermediate,
            hidden,
        } = sizes;
        let halves = if self.singles[0].is_some() { 2 } else { 1 };
        let (mut first, mut down) = (
            [experts, halves * intermediate, hidden],
            [experts, hidden, intermediate],
        );
        if self.lies != Lies::Rows {
            first.swap(1, 2);
            down.swap(1, 2);
        }
        let name = |name: &str| format!("{}.experts.{name}", self.layer);
        let first_name = if halves == 2 {
            "gate_up_proj"
        } else {
            "up_proj"
        };
        let mut all = vec![
            tensor(&name(first_name), dtype, &first, seed),
            tensor(&name("down_proj"), dtype, &down, seed + 1),
        ];
        if self.has_biases {
            let shape = [experts, 2 * intermediate];
            all.push(tensor(&name("gate_up_proj_bias"), dtype, &shape, seed + 2));
            all.push(tensor(
                &name("down_proj_bias"),
                dtype,
                &[experts, hidden],
                seed + 3,
            ));
        }
        all
    }

    /// The row of the weight of gate (0) or up (1) in the fused tensor, as if that were not transposed.
    fn place(&self, part: usize, row: usize, sizes: Sizes) -> usize {
        match self.lies {
            _ if self.singles[0].is_none() => row,
            Lies::ByTurns => 2 * row + part,
            Lies::Rows | Lies::Columns => part * sizes.intermediate + row,
        }
    }

    fn unfused(&self, fused: &[TensorData], sizes: Sizes) -> Vec<TensorData> {
        let is_turned = self.lies != Lies::Rows;
        let mut all = Vec::new();
        for expert in 0..sizes.experts {
            for (part, projection) in self.singles.iter().enumerate() {
                let Some(projection) = projection else {
                    continue;
                };
                let is_down = part == 2;
                let fused_weight = &fused[usize::from(is_down)];
                let element = at(fused_weight);
                let row_at = |row| {
                    if is_down {
                        row
                    } else {
                        self.place(part, row, sizes)
                    }
                };
                let rows = if is_down {
                    sizes.hidden
                } else {
                    sizes.intermediate
                };
                let columns = sizes.hidden + sizes.intermediate - rows;
                let module = format!("{}.experts.{expert}.{projection}", self.layer);
                let name = format!("{module}.weight");
                all.push(built(name, fused_weight.dtype, &[rows, columns], |index| {
                    let (row, column) = (row_at(index[0]), index[1]);
                    let place = if is_turned {
                        [expert, column, row]
                    } else {
                        [expert, row, column]
                    };
                    element(&place).to_vec()
                }));
                if self.has_biases {
                    let bias = &fused[2 + usize::from(is_down)];
                    let element = at(bias);
                    let name = format!("{module}.bias");
                    all.push(built(name, bias.dtype, &[rows], |index| {
                        element(&[expert, row_at(index[0])]).to_vec()
                    }));
                }
            }
        }
        all
    }

    fn checkpoint(&self, tensors: Vec<TensorData>, hidden: usize) -> Checkpoint {
        let config = format!(
            r#"{{"model_type": "{}", "hidden_size": {hidden}}}"#,
            self.model_type
        );
        Checkpoint::single(tensors).config(&config)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn each_form_has_the_elements_of_the_other_and_back_again_its_own_bytes(
        family in select(&FAMILIES[..]),
        dtype in select(&[Dtype::U8, Dtype::F8_E4M3, Dtype::BF16, Dtype::F32, Dtype::I64][..]),
        experts in 1usize..12, intermediate in 1usize..40, hidden in 1usize..40,
        seed in any::<u32>(),
    ) {
        let sizes = Sizes { experts, intermediate, hidden };
        let fused = family.fused(dtype, sizes, seed.into());
        let unfused = family.unfused(&fused, sizes);
        let workspace = Workspace::new();
        for (from, to, form, back) in [
            (&fused, &unfused, Experts::Unfuse, Experts::Fuse),
            (&unfused, &fused, Experts::Fuse, Experts::Unfuse),
        ] {
            let checkpoint = family.checkpoint(from.clone(), hidden);
            let base = workspace.write(&format!("{form:?}"), &checkpoint);
            let there = plan(&base, form).unwrap();
            prop_assert!(there.report.warnings.is_empty(), "{:?}", there.report.warnings);
            prop_assert_eq!(tensors(&there), by_name(to));
            let between = workspace.path().join(format!("after-{form:?}"));
            write_view(&there, &between);
            let again = plan(&between, back).unwrap();
            prop_assert_eq!(tensors(&again), by_name(from));
        }
    }
}

#[test]
fn numbered_and_ungated_experts_are_ranges_of_the_fused_ones() {
    let sizes = Sizes {
        experts: 3,
        intermediate: 4,
        hidden: 5,
    };
    for family in FAMILIES.iter().filter(|family| family.lies == Lies::Rows) {
        let workspace = Workspace::new();
        let fused = family.fused(Dtype::BF16, sizes, 1);
        for (tensors, form) in [
            (family.unfused(&fused, sizes), Experts::Fuse),
            (fused, Experts::Unfuse),
        ] {
            let base = workspace.write(&format!("{form:?}"), &family.checkpoint(tensors, 5));
            let plan = plan(&base, form).unwrap();
            let mut tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
            assert!(tensors.all(|tensor| !tensor.computed), "{family:?}");
        }
    }
}

#[test]
fn quantized_numbered_experts_take_their_scales_along() {
    let family = FAMILIES[0];
    let sizes = Sizes {
        experts: 3,
        intermediate: 128,
        hidden: 130,
    };
    let usual = fused_fp8_layer(family.layer, Dtype::F32, sizes);
    let singles = unfused(family.layer, &usual);
    let numbered = singles.iter().map(|tensor| {
        let name = tensor.name.replace("gate_proj", "w1");
        let name = name.replace("up_proj", "w3").replace("down_proj", "w2");
        TensorData {
            name,
            ..tensor.clone()
        }
    });
    let numbered: Vec<TensorData> = numbered.collect();
    let workspace = Workspace::new();
    for (from, to, form) in [
        (&usual, &numbered, Experts::Unfuse),
        (&numbered, &usual, Experts::Fuse),
    ] {
        let checkpoint = family.checkpoint(from.clone(), sizes.hidden);
        let base = workspace.write(&format!("{form:?}"), &checkpoint);
        assert_eq!(tensors(&plan(&base, form).unwrap()), by_name(to));
    }
}

#[test]
fn a_family_that_is_read_in_both_ways_is_told_by_its_shapes() {
    // Saved by transformers: not transposed.
    let sizes = Sizes {
        experts: 2,
        intermediate: 3,
        hidden: 6,
    };
    let layer = "model.language_model.layers.0.mlp";
    let fused = fused_layer(layer, Dtype::BF16, sizes);
    let checkpoint = Checkpoint::single(fused.clone()).config(r#"{"model_type": "qwen3_vl_moe"}"#);
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint);
    let plan = plan(&base, Experts::Unfuse).unwrap();
    assert_eq!(tensors(&plan), by_name(&unfused(layer, &fused)));
}

#[test]
fn latent_experts_are_as_wide_as_config_says_of_them() {
    let family = FAMILIES[5];
    let sizes = Sizes {
        experts: 2,
        intermediate: 3,
        hidden: 4,
    };
    let fused = family.fused(Dtype::BF16, sizes, 1);
    let with = |latent: &str| {
        let config = format!(r#"{{"model_type": "nemotron_h", "hidden_size": 32{latent}}}"#);
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(fused.clone()).config(&config));
        plan(&base, Experts::Unfuse).map(|plan| tensors(&plan))
    };
    assert_eq!(
        with(r#", "moe_latent_size": 4"#).unwrap(),
        by_name(&family.unfused(&fused, sizes))
    );
    let error = with(r#", "moe_latent_size": null"#)
        .unwrap_err()
        .to_string();
    assert_names(&error, &["hidden size would be 4", "is 32"]);
}

#[test]
fn skip_lists_follow_numbered_and_biased_experts() {
    let sizes = Sizes {
        experts: 2,
        intermediate: 3,
        hidden: 4,
    };
    for family in [FAMILIES[0], FAMILIES[10]] {
        let singles = family.unfused(&family.fused(Dtype::BF16, sizes, 1), sizes);
        let modules = singles
            .iter()
            .filter_map(|tensor| tensor.name.strip_suffix(".weight"));
        let modules: Vec<String> = modules.map(|module| format!("{module:?}")).collect();
        let config = format!(
            r#"{{"model_type": "{}", "quantization_config": {{"quant_method": "fp8", "modules_to_not_convert": [{}]}}}}"#,
            family.model_type,
            modules.join(", ")
        );
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(singles).config(&config));
        let plan = plan(&base, Experts::Fuse).unwrap();
        let config = crate::common::readback::read_path(&plan, "config.json").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let list = &config["quantization_config"]["modules_to_not_convert"];
        let list = list.to_string();
        assert_names(&list, &[&format!("{}.experts", family.layer)]);
        assert!(!list.contains("experts.0"), "{list}");
    }
}
