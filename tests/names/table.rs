//! What must be true of every row of the table.

use std::collections::{BTreeMap, BTreeSet};

use ckptfs::ops::NameLayout;
use ckptfs::ops::names::{Family, Rule, Step, families};

use crate::common::Workspace;
use crate::common::checkpoint::{TensorData, bf16};
use crate::common::materialized;
use crate::common::readback::tensors;
use crate::fixture::*;

fn rules(family: &Family) -> impl Iterator<Item = &'static Rule> {
    family.rules.iter().copied().flatten()
}

#[test]
fn each_model_type_is_there_once() {
    let mut seen = BTreeSet::new();
    for model_type in families().flat_map(|family| family.model_types) {
        assert!(seen.insert(model_type), "{model_type}");
    }
}

#[test]
fn both_sides_of_a_rule_have_as_many_numbers_and_begin_alike() {
    let numbers = |pattern: &str| pattern.split('.').filter(|part| *part == "#").count();
    for rule in families().flat_map(rules) {
        match rule {
            Rule::Renamed(released, transformers) => {
                assert_eq!(numbers(released), numbers(transformers), "{released}");
                assert_eq!(released.starts_with('^'), transformers.starts_with('^'));
            }
            Rule::Converted(conversion) => {
                let stacks = conversion.steps.contains(&Step::Stack);
                for released in conversion.released {
                    assert_eq!(numbers(released), usize::from(stacks), "{released}");
                }
                for transformers in conversion.transformers {
                    assert_eq!(numbers(transformers), 0, "{transformers}");
                }
            }
        }
    }
}

/// Tensors of the released layout of a family, a few of each rule, in a layer where the rule does not say.
fn released(family: &Family) -> Vec<TensorData> {
    let mut tensors: BTreeMap<String, TensorData> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        tensors.insert(name.clone(), bf16(&name, shape));
    };
    for rule in rules(family) {
        match rule {
            Rule::Renamed(pattern, _) => {
                let name = match pattern.strip_prefix('^') {
                    Some(pattern) => pattern.to_owned(),
                    None if pattern.starts_with("layers.") => (*pattern).to_owned(),
                    None => format!("layers.1.{pattern}"),
                };
                let name = name.replace('#', "1");
                let is_tensor = name.ends_with(".weight") || name.ends_with(".bias");
                add(
                    if is_tensor {
                        name
                    } else {
                        format!("{name}.weight")
                    },
                    &[2, 3],
                );
            }
            Rule::Converted(conversion) if conversion.steps == [Step::TransposeExperts] => {
                for (name, shape) in conversion.released.iter().zip([[2, 5, 6], [2, 3, 5]]) {
                    add(format!("layers.1.{name}"), &shape);
                }
            }
            Rule::Converted(conversion) => {
                for pattern in conversion.released {
                    for number in ["0", "1"] {
                        let name = pattern.replace('#', number);
                        let shape: &[usize] = if name.ends_with("bias") {
                            &[12]
                        } else {
                            &[12, 4]
                        };
                        add(format!("layers.1.{name}"), shape);
                    }
                }
            }
        }
    }
    tensors.into_values().collect()
}

#[test]
fn every_rule_is_applied_and_undone() {
    for family in families() {
        let model_type = family.model_types[0];
        let workspace = Workspace::new();
        let more = r#", "vision_config": {"num_attention_heads": 2}"#;
        let had = released(family);
        if had.is_empty() {
            let base = checkpoint(model_type, more, &[bf16("model.norm.weight", &[4])]);
            let base = workspace.write("base", &base);
            assert_is_as_it_is(&base, NameLayout::Released);
            assert_is_as_it_is(&base, NameLayout::Transformers);
            continue;
        }
        let base = workspace.write("base", &checkpoint(model_type, more, &had));
        assert_is_as_it_is(&base, NameLayout::Released);
        let there = request(&base, NameLayout::Transformers);
        let there = materialized(&workspace, "there", &there);
        assert_is_as_it_is(&there, NameLayout::Transformers);
        let back = plan(&there, NameLayout::Released).unwrap();
        assert_eq!(tensors(&back), by_name(&had), "{model_type}");
    }
}
