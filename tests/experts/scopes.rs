//! Forms of the experts of some modules: MTP experts may differ from the main ones.

use ckptfs::error::{Code, Warning};
use ckptfs::ops::{Experts, ExpertsParams, Operations};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::readback;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const MAIN: [&str; 2] = ["model.layers.0.mlp", "model.layers.1.mlp"];
const MTP: &str = "mtp.layers.0.mlp";
const SIZES: Sizes = Sizes {
    experts: 3,
    intermediate: 4,
    hidden: 8,
};

/// The experts of a layer in the form that `form` leads to.
fn layer(name: &str, form: Experts) -> Vec<TensorData> {
    let fused = fused_layer(name, Dtype::BF16, SIZES);
    match form {
        Experts::Fuse => fused,
        Experts::Unfuse => unfused(name, &fused),
    }
}

/// The experts of all layers: the main ones in the first form, those of the MTP block in the second.
fn model(main: Experts, mtp: Experts) -> Vec<TensorData> {
    let main = MAIN.iter().flat_map(|name| layer(name, main));
    main.chain(layer(MTP, mtp)).collect()
}

fn plan_of(tensors: &[TensorData], experts: ExpertsParams) -> ckptfs::Result<Plan> {
    let workspace = Workspace::new();
    let base = workspace.write("base", &single(tensors, SIZES.hidden));
    let request = ViewRequest {
        operations: Operations {
            experts,
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    let plan = request.plan()?;
    assert_eq!(plan.report.sources.len(), 1);
    // Read while the source is there.
    readback::tensors(&plan);
    Ok(plan)
}

fn names(plan: &Plan) -> Vec<&str> {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    let mut names: Vec<&str> = tensors.map(|tensor| &*tensor.name).collect();
    names.sort_unstable();
    names
}

fn names_in(tensors: &[TensorData]) -> Vec<&str> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn owned(scopes: &[&str]) -> Vec<String> {
    scopes.iter().map(|scope| (*scope).to_owned()).collect()
}

#[test]
fn a_scope_changes_the_modules_that_it_matches_as_a_whole_and_no_others() {
    use Experts::{Fuse, Unfuse};
    for (from, scope, to) in [
        ([Fuse, Fuse], r"mtp\..*", [Fuse, Unfuse]),
        ([Fuse, Fuse], r"model\.layers\..*", [Unfuse, Fuse]),
        (
            [Fuse, Fuse],
            r"mtp\.layers\.\d+\.mlp\.experts",
            [Fuse, Unfuse],
        ),
        ([Fuse, Fuse], ".*", [Unfuse, Unfuse]),
        ([Fuse, Unfuse], r"model\..*", [Unfuse, Unfuse]),
    ] {
        let experts = ExpertsParams {
            unfuse: owned(&[scope]),
            ..ExpertsParams::default()
        };
        let plan = plan_of(&model(from[0], from[1]), experts).unwrap();
        assert_eq!(names(&plan), names_in(&model(to[0], to[1])), "{scope}");
        assert_eq!(plan.report.warnings, [] as [Warning; 0]);
    }
    let fuse = ExpertsParams {
        fuse: owned(&[r"model\.layers\.0\..*", r"model\.layers\.1\..*"]),
        ..ExpertsParams::default()
    };
    let plan = plan_of(&model(Unfuse, Unfuse), fuse).unwrap();
    assert_eq!(names(&plan), names_in(&model(Fuse, Unfuse)));
}

#[test]
fn bytes_are_those_of_the_other_form() {
    let workspace = Workspace::new();
    let tensors = model(Experts::Fuse, Experts::Fuse);
    let base = workspace.write("base", &single(&tensors, SIZES.hidden));
    let request = ViewRequest::new(base).with(|asked| asked.experts.unfuse = owned(&["mtp.*"]));
    let expected = model(Experts::Fuse, Experts::Unfuse);
    let expected = workspace.write("expected", &single(&expected, SIZES.hidden));
    let expected = ViewRequest::new(expected).plan().unwrap();
    let found = readback::tensors(&request.plan().unwrap());
    assert!(found == readback::tensors(&expected));
}

#[test]
fn both_forms_can_be_asked_for_and_a_scope_comes_before_the_form_of_all_others() {
    use Experts::{Fuse, Unfuse};
    let scoped = ExpertsParams {
        unfuse: owned(&["mtp.*"]),
        fuse: owned(&["model.*"]),
        ..ExpertsParams::default()
    };
    let rest = ExpertsParams {
        unfuse: owned(&["mtp.*"]),
        ..ExpertsParams::all(Fuse)
    };
    for experts in [scoped, rest] {
        let plan = plan_of(&model(Unfuse, Fuse), experts).unwrap();
        assert_eq!(names(&plan), names_in(&model(Fuse, Unfuse)));
        assert_eq!(plan.report.warnings, [] as [Warning; 0]);
    }
}

#[test]
fn experts_that_are_to_have_both_forms_are_an_error_that_names_them_and_the_scopes() {
    let both = ExpertsParams {
        unfuse: owned(&["mtp.*"]),
        fuse: owned(&[".*layers.*"]),
        ..ExpertsParams::default()
    };
    let error = plan_of(&model(Experts::Fuse, Experts::Fuse), both).unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    let parts = [
        "mtp.layers.0.mlp.experts",
        "{unfuse: mtp.*}",
        "{fuse: .*layers.*}",
    ];
    assert_names(&error.to_string(), &parts);
}

#[test]
fn a_scope_or_form_that_changes_nothing_is_warned_of() {
    // The first matches a part of names only; what the second matches is unfused already.
    for (experts, value) in [
        (["mtp"], "{unfuse: mtp}"),
        (["model.*"], "{unfuse: model.*}"),
    ]
    .map(|(scopes, value)| {
        let unfuse = owned(&scopes);
        (
            ExpertsParams {
                unfuse,
                ..ExpertsParams::default()
            },
            value,
        )
    }) {
        let tensors = model(Experts::Unfuse, Experts::Fuse);
        let plan = plan_of(&tensors, experts).unwrap();
        assert_eq!(names(&plan), names_in(&tensors));
        let [warning] = &plan.report.warnings[..] else {
            panic!("one warning: {:?}", plan.report.warnings);
        };
        assert_eq!(warning.code(), Code::NoEffect);
        assert_names(warning, &[value]);
    }
    let all_are_in_scopes = ExpertsParams {
        unfuse: owned(&[".*"]),
        ..ExpertsParams::all(Experts::Fuse)
    };
    let plan = plan_of(&model(Experts::Fuse, Experts::Fuse), all_are_in_scopes).unwrap();
    assert_names(
        &plan.report.warnings.join("\n"),
        &["experts: fuse: it has no effect"],
    );
}

#[test]
fn experts_outside_of_a_scope_may_be_of_any_kind() {
    let mut tensors = model(Experts::Fuse, Experts::Fuse);
    // No experts of other modules can be taken apart so.
    tensors.retain(|tensor| tensor.name != format!("{}.experts.down_proj", MAIN[1]));
    let experts = ExpertsParams {
        unfuse: owned(&["mtp.*"]),
        ..ExpertsParams::default()
    };
    assert!(plan_of(&tensors, experts).is_ok());
    assert!(plan_of(&tensors, ExpertsParams::all(Experts::Unfuse)).is_err());
}
