//! Settings against a naive account: scopes, filters, gradients.

use std::path::Path;
use std::sync::Arc;

use ckptfs::ops::merge::{
    Amount, Condition, Kind, Parameter, Place, Preset, Range, Scalar, Scope, Setting, Settings,
};
use proptest::prelude::*;

use crate::common::values::decode;
use crate::fixture::{LAYERS, names, shown, workspace};

/// What a parameter is in one scope: entries of a filter and values.
type Entries = Vec<(Option<&'static str>, Vec<f64>)>;

fn settings(entries: &Entries) -> Settings {
    let conditions = entries.iter().map(|(filter, values)| Condition {
        filter: filter.map(str::to_owned),
        amount: match values.as_slice() {
            [one] => Amount::One(Scalar::Float(*one)),
            values => Amount::Gradient(values.iter().map(|v| Scalar::Float(*v)).collect()),
        },
    });
    let setting = Setting {
        place: Place {
            file: Arc::from(Path::new("recipe.yml")),
            line: 1,
            column: 1,
        },
        conditions: conditions.collect(),
    };
    Settings::from([("weight".to_owned(), setting)])
}

/// The value at `t` of a polyline through `values` at equal distances.
fn polyline(values: &[f64], t: f64) -> f64 {
    let segments = values.len() - 1;
    for i in 0..segments {
        let (start, end) = (i as f64 / segments as f64, (i + 1) as f64 / segments as f64);
        if t <= end {
            return values[i] + (values[i + 1] - values[i]) * (t - start) / (end - start);
        }
    }
    values[segments]
}

fn naive(scopes: &[Option<Entries>], name: &str, t: f64) -> Option<f64> {
    for entries in scopes.iter().flatten() {
        for (filter, values) in entries {
            if filter.is_none_or(|filter| filter == "*" || name.contains(filter)) {
                if !values.is_empty() {
                    return Some(polyline(values, t));
                }
                break;
            }
        }
    }
    None
}

fn entries() -> impl Strategy<Value = Entries> {
    let filter = prop::sample::select(vec![
        None,
        Some("*"),
        Some("mlp"),
        Some("attn"),
        Some(".1."),
        Some(""),
    ]);
    prop::collection::vec((filter, prop::collection::vec(-2.0f64..2.0, 0..5)), 0..4)
}

proptest! {
    #[test]
    fn the_first_scope_whose_first_filter_that_holds_has_values_decides(
        scopes in prop::collection::vec(prop::option::of(entries()), 0..4),
        name in prop::sample::select(vec!["model.layers.1.mlp.up.weight", "model.layers.0.attn.q.weight", "norm"]),
        t in prop_oneof![Just(0.0), Just(1.0), 0.0f64..1.0],
    ) {
        let parameter = Parameter {
            name: "weight",
            kind: Kind::Float,
            range: Range::FINITE,
            scope: Scope::Input,
            preset: Preset::Absent,
        };
        let settings: Vec<Settings> = scopes.iter().flatten().map(settings).collect();
        let found = parameter.resolve(&settings, name, t).unwrap();
        match (found, naive(&scopes, name, t)) {
            (None, None) => {}
            (Some(Scalar::Float(found)), Some(expected)) => {
                prop_assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
            }
            (found, expected) => prop_assert!(false, "{found:?} is not {expected:?}"),
        }
    }
}

/// The weight that each tensor of `ones` is multiplied with by a merge of that model alone.
fn weights(parameters: &str) -> Vec<(String, f32)> {
    let workspace = workspace();
    let recipe = format!(
        "merge_method: linear\nmodels: [{{model: ones, parameters: {{weight: {parameters}}}}}]\nparameters: {{normalize: false, weight: 7}}\n"
    );
    let tensors = shown(&workspace, &recipe);
    let weights = names(LAYERS).into_iter().map(|name| {
        let tensor = &tensors[&name];
        let values = decode(tensor.dtype, &tensor.bytes);
        assert_eq!(values[0], values[1]);
        (name, values[0])
    });
    weights.collect()
}

#[test]
fn gradients_run_over_the_layers_and_stand_at_their_start_elsewhere() {
    for (name, weight) in weights("[1, 4]") {
        let expected = match name.split('.').nth(2) {
            Some(layer) if name.contains(".layers.") => 1.0 + layer.parse::<f32>().unwrap(),
            _ => 1.0,
        };
        assert_eq!(weight, expected, "{name}");
    }
}

#[test]
fn filters_are_parts_of_names_and_what_none_holds_for_comes_from_the_recipe() {
    for (name, weight) in weights("[{filter: mlp, value: [0.5, 1]}, {filter: layernorm, value: 3}]")
    {
        let expected = match name.split('.').nth(2) {
            Some(layer) if name.contains("mlp") => {
                (0.5 + 0.5 * layer.parse::<f64>().unwrap() / 3.0) as f32
            }
            _ if name.contains("layernorm") => 3.0,
            _ => 7.0,
        };
        assert_eq!(weight, expected, "{name}");
    }
}

#[test]
fn a_number_in_scientific_notation_without_a_point_is_a_number() {
    assert!(weights("1e-2").iter().all(|(_, weight)| *weight == 0.01));
    assert!(
        weights("[1e1, 1e1]")
            .iter()
            .all(|(_, weight)| *weight == 10.0)
    );
}

#[test]
fn a_slice_of_one_layer_is_at_the_end_of_its_gradients() {
    let workspace = workspace();
    let recipe = "
merge_method: passthrough
slices:
  - sources: [{model: ones, layer_range: [2, 3], parameters: {scale: [5, 9]}}]
  - sources: [{model: ones, layer_range: [0, 3]}]
    parameters: {scale: [1, 2]}
";
    let tensors = shown(&workspace, recipe);
    let value = |name: &str| {
        let tensor = &tensors[name];
        decode(tensor.dtype, &tensor.bytes)[0]
    };
    for (layer, expected) in [9.0, 1.0, 1.5, 2.0].into_iter().enumerate() {
        let name = format!("model.layers.{layer}.mlp.down_proj.weight");
        assert_eq!(value(&name), expected, "{name}");
    }
    assert_eq!(
        value("model.embed_tokens.weight"),
        5.0,
        "the first slice, at its start"
    );
    assert_eq!(
        value("model.norm.weight"),
        1.0,
        "the last slice, at its start"
    );
}

#[test]
fn booleans_and_names_are_chosen_and_not_interpolated() {
    let parameter = |kind| Parameter {
        name: "weight",
        kind,
        range: Range::FINITE,
        scope: Scope::Shared,
        preset: Preset::Required,
    };
    let gradient = |values: &[Scalar]| {
        let mut settings = settings(&vec![(None, vec![])]);
        settings["weight"].conditions[0].amount = Amount::Gradient(values.to_vec());
        settings
    };
    let flags = gradient(&[Scalar::Bool(true), Scalar::Bool(false), Scalar::Bool(true)]);
    let names = gradient(&["sum", "count"].map(|name| Scalar::Text(name.to_owned())));
    for (t, flag, name) in [
        (0.0, true, "sum"),
        (0.49, true, "sum"),
        (0.5, false, "sum"),
        (1.0, true, "count"),
    ] {
        let flag_found = parameter(Kind::Bool).resolve([&flags], "x", t).unwrap();
        assert_eq!(flag_found, Some(Scalar::Bool(flag)), "{t}");
        let name_found = parameter(Kind::Text).resolve([&names], "x", t).unwrap();
        assert_eq!(name_found, Some(Scalar::Text(name.to_owned())), "{t}");
    }
}
