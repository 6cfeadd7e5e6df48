//! Adapters whose names begin otherwise than those of the base.

use ckptfs::error::Code;
use safetensors::Dtype;

use crate::common::checkpoint::Checkpoint;
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names, message};
use crate::fixture::{Adapter, merged, numbers, plan, weight};

/// What the base's tensors become if the adapter calls its modules as the base does.
fn merged_by_name(stored: &[&str]) -> Vec<Vec<u8>> {
    let base = base(stored);
    let adapter = adapter(stored);
    let names = stored.iter().map(|module| format!("{module}.weight"));
    names.map(|name| merged(&base, &adapter, &name)).collect()
}

/// Every module has the same numbers, whatever it is called.
fn base(modules: &[&str]) -> Checkpoint {
    let weights = modules.iter().enumerate().map(|(i, module)| {
        let mut weight = weight(&format!("m{i}"), &[4, 6]);
        weight.name = format!("{module}.weight");
        weight
    });
    Checkpoint::single(weights.collect::<Vec<_>>())
}

fn adapter(modules: &[&str]) -> Adapter {
    let mut adapter = Adapter::new(2, 2.0);
    for (i, module) in modules.iter().enumerate() {
        for (role, shape) in [("A", [2, 6]), ("B", [4, 2])] {
            let mut factor = numbers(&format!("m{i}.{role}"), Dtype::F32, &shape);
            factor.name = format!("base_model.model.{module}.lora_{role}.weight");
            adapter = adapter.tensor(factor);
        }
    }
    adapter
}

#[test]
fn names_that_begin_otherwise_are_taken_for_the_bases_and_the_plan_says_so() {
    for (adapted, stored, said) in [
        ("transformer.h.0.fc", "h.0.fc", "transformer.* as *"),
        ("model.layers.0.fc", "layers.0.fc", "model.* as *"),
        ("layers.0.fc", "model.layers.0.fc", "* as model.*"),
        ("h.0.fc", "transformer.h.0.fc", "* as transformer.*"),
        (
            "model.language_model.layers.0.fc",
            "model.layers.0.fc",
            "model.language_model.* as model.*",
        ),
        (
            "model.layers.0.fc",
            "model.language_model.layers.0.fc",
            "model.* as model.language_model.*",
        ),
        (
            "language_model.model.layers.0.fc",
            "model.language_model.layers.0.fc",
            "language_model.model.* as model.language_model.*",
        ),
        (
            "base_model.model.model.layers.0.fc",
            "model.layers.0.fc",
            "base_model.model.model.* as model.*",
        ),
        (
            "model.model.layers.0.fc",
            "model.layers.0.fc",
            "model.model.* as model.*",
        ),
    ] {
        let workspace = Workspace::new();
        let directory = workspace.write("base", &base(&[stored]));
        let lora = adapter(&[adapted]).write(&workspace, "lora");
        let plan = plan(&directory, &lora).unwrap();
        assert_names(&plan.report.notes.join("\n"), &["lora", said]);
        let found = tensors(&plan);
        let expected = &merged_by_name(&[stored])[0];
        assert_eq!(*found[&format!("{stored}.weight")].bytes, **expected);
    }
}

#[test]
fn names_without_what_is_changed_stay() {
    let adapted = ["model.layers.0.fc", "model.layers.1.fc", "lm_head"];
    let stored = [
        "model.language_model.layers.0.fc",
        "model.language_model.layers.1.fc",
        "lm_head",
    ];
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base(&stored));
    let lora = adapter(&adapted).write(&workspace, "lora");
    let found = tensors(&plan(&directory, &lora).unwrap());
    for (module, expected) in stored.iter().zip(merged_by_name(&stored)) {
        assert_eq!(*found[&format!("{module}.weight")].bytes, *expected);
    }
}

#[test]
fn names_that_fit_as_they_are_stay_and_no_note_is_made() {
    let both = ["model.layers.0.fc", "model.language_model.layers.0.fc"];
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base(&both));
    let lora = adapter(&both[..1]).write(&workspace, "lora");
    let plan = plan(&directory, &lora).unwrap();
    assert!(plan.report.notes.is_empty());
    let found = tensors(&plan);
    let untouched = &base(&both).shards[0].tensors[1];
    assert_eq!(*found[&untouched.name].bytes, *untouched.bytes);
}

#[test]
fn names_of_which_one_finds_no_place_are_refused() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base(&["model.layers.0.fc", "model.layers.1.fc"]));
    let lora = adapter(&[
        "model.language_model.layers.0.fc",
        "model.language_model.layers.2.fc",
    ]);
    let error = plan(&directory, &lora.write(&workspace, "lora")).unwrap_err();
    assert_eq!(error.code(), Code::AdapterMismatch);
    assert_names(&error.to_string(), &["layers.0.fc", "closest"]);
    // An encoder's layers are never taken for a decoder's.
    let directory = workspace.write("decoder", &base(&["model.decoder.layers.0.fc"]));
    let encoder = adapter(&["model.encoder.layers.0.fc"]).write(&workspace, "encoder");
    assert_names(&message(plan(&directory, &encoder)), &["closest"]);
}

#[test]
fn names_that_find_two_places_are_refused_with_both() {
    let workspace = Workspace::new();
    let directory = workspace.write(
        "base",
        &base(&["model.layers.0.fc", "text_model.layers.0.fc"]),
    );
    let lora = adapter(&["layers.0.fc"]).write(&workspace, "lora");
    let error = plan(&directory, &lora).unwrap_err();
    assert_eq!(error.code(), Code::AdapterMismatch);
    assert_names(
        &error.to_string(),
        &["two ways", "* as model.*", "* as text_model.*"],
    );
}

#[test]
fn experts_find_their_place_too() {
    let workspace = Workspace::new();
    let adapted = "model.language_model.layers.0.mlp.experts";
    let lora = Adapter::new(2, 2.0)
        .set("target_parameters", vec!["experts.down_proj"])
        .tensor(numbers(
            &format!("{adapted}.lora_A.weight"),
            Dtype::F32,
            &[6, 8],
        ))
        .tensor(numbers(
            &format!("{adapted}.lora_B.weight"),
            Dtype::F32,
            &[12, 6],
        ));
    let lora = lora.write(&workspace, "lora");
    let fused = numbers(
        "model.layers.0.mlp.experts.down_proj",
        Dtype::BF16,
        &[3, 12, 8],
    );
    let single = |e: usize| {
        weight(
            &format!("model.layers.0.mlp.experts.{e}.down_proj"),
            &[12, 8],
        )
    };
    for (i, tensors) in [vec![fused], (0..3).map(single).collect()]
        .into_iter()
        .enumerate()
    {
        let base = workspace.write(&format!("base{i}"), &Checkpoint::single(tensors));
        let plan = plan(&base, &lora).unwrap();
        assert_names(
            &plan.report.notes.join("\n"),
            &["model.language_model.* as model.*"],
        );
    }
}
