//! A view with edits is the view of a base that was edited: other operators see what edits left.

use std::fs;

use ckptfs::ops::{Operations, Precision, RuleSet};
use ckptfs::recipe::{Places, ViewRequest};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names};
use crate::fixture::{Edit, ask, request};

const CONFIG: &str = r#"{
  "model_type": "x",
  "text_config": {
    "hidden_size": 128,
    "torch_dtype": "bfloat16"
  },
  "torch_dtype": "bfloat16"
}
"#;

fn base() -> Checkpoint {
    let layer = "model.layers.0.mlp.down_proj.weight";
    Checkpoint::single([bf16(layer, &[128, 128]), bf16("model.norm.weight", &[128])])
        .config(CONFIG)
        .aux("README.md", "x")
}

/// Asserts that `edits` and `operations` together are `operations` of a base that has `config`.
fn assert_is_view_of_edited(edits: &[Edit], config: &str, operations: fn(&mut Operations)) {
    let workspace = Workspace::new();
    let one = request(workspace.write("base", &base()), edits).with(operations);
    let edited = workspace.write("edited", &base().config(config));
    let other = ViewRequest::new(edited).with(operations);
    let (one, other) = (one.plan().unwrap(), other.plan().unwrap());
    assert!(read_all(&one) == read_all(&other), "{edits:?}");
    assert_eq!(one.report.warnings, other.report.warnings);
}

#[test]
fn operators_see_what_edits_left() {
    let set = [("set", "model_type=\"y\""), ("set", "new=[1, 2]")];
    let set_config = CONFIG.replace("\"x\"", "\"y\"").replace(
        "  \"torch_dtype\": \"bfloat16\"\n}\n",
        "  \"torch_dtype\": \"bfloat16\",\n  \"new\": [1, 2]\n}\n",
    );
    let promoted = "{\n  \"hidden_size\": 128,\n  \"torch_dtype\": \"bfloat16\"\n}\n";
    let all: [fn(&mut Operations); 5] = [
        |_| {},
        |asked| asked.quantize.rules = Some(RuleSet::Exact),
        |asked| asked.dtype.to = Some(Precision::F16),
        |asked| asked.rename.rules.push("^model=language_model".to_owned()),
        |asked| {
            asked.dtype.to = Some(Precision::F32);
            asked.filter.drop.push(".*norm.*".to_owned());
            asked.quantize.rules = Some(RuleSet::Exact);
        },
    ];
    for operations in all {
        assert_is_view_of_edited(&set, &set_config, operations);
        assert_is_view_of_edited(&[("promote", "text_config")], promoted, operations);
    }
}

#[test]
fn a_merge_is_edited_after_it_wrote_its_own_and_what_it_wrote_stays() {
    let workspace = Workspace::new();
    workspace.write("a", &base());
    workspace.write("b", &base());
    let view = |edits: &str| {
        let recipe = format!(
            "merge_method: linear\nmodels: [{{model: a}}, {{model: b}}]\nparameters: {{weight: 0.5}}\ndtype: float32\nout_dtype: float32\nview:\n  edits: {edits}\n"
        );
        let path = workspace.path().join("recipe.yml");
        fs::write(&path, recipe).unwrap();
        ViewRequest::from_recipe(&path, &Places::default()).unwrap()
    };
    let config = |edits: &str| {
        let plan = view(edits).plan().unwrap();
        let text = crate::fixture::text(&plan, "config.json");
        (text, plan.report)
    };
    let (before, _) = config("[]");
    assert_names(&before, &["\"torch_dtype\": \"float32\""]);
    let (after, report) = config("[{set: 'model_type=\"y\"'}, {unset: text_config}]");
    let expected = before.replace("\"x\"", "\"y\"");
    let nested = expected.find(",\n  \"text_config\"").unwrap();
    let end = nested + expected[nested..].find('}').unwrap() + 1;
    assert_eq!(after, expected[..nested].to_owned() + &expected[end..]);
    let edited = report.edited_config.unwrap().edits;
    assert!(edited.contains_key("torch_dtype"), "{edited:?}");
    assert_eq!(report.edits.len(), 2);

    let error = view("[{set: 'torch_dtype=\"bfloat16\"'}]")
        .plan()
        .unwrap_err();
    assert_eq!(error.code(), ckptfs::error::Code::EditConflict);
    assert_names(
        &error.to_string(),
        &["torch_dtype", "\"float32\"", "\"bfloat16\""],
    );
    assert!(view("[{set: 'torch_dtype=\"float32\"'}]").plan().is_ok());
}

#[test]
fn edits_of_a_recipe_come_before_those_of_flags() {
    let workspace = Workspace::new();
    workspace.write("a", &base());
    fs::write(workspace.path().join("b.txt"), "b").unwrap();
    let recipe = workspace.path().join("recipe.yml");
    let text = "base: a\nview:\n  edits:\n    - set: model_type=\"y\"\n    - add_file: n/b.txt=b.txt\n    - promote: text_config\n      keep: [model_type, torch_dtype]\n    - drop_file: README.md\n";
    fs::write(&recipe, text).unwrap();
    let mut request = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap();
    ask(&mut request, &[("set", "model_type=\"z\"")]).unwrap();
    let plan = request.plan().unwrap();
    let expected = "{\n  \"hidden_size\": 128,\n  \"torch_dtype\": \"bfloat16\",\n  \"model_type\": \"z\"\n}\n";
    assert_eq!(crate::fixture::text(&plan, "config.json"), expected);
    assert_eq!(crate::fixture::text(&plan, "n/b.txt"), "b");
    assert!(!read_all(&plan).contains_key(std::path::Path::new("README.md")));
}

#[test]
fn an_entry_of_edits_is_one_edit_and_a_mistake_has_its_line() {
    let workspace = Workspace::new();
    workspace.write("a", &base());
    let path = workspace.path().join("recipe.yml");
    for (edits, words) in [
        ("{set: a=1}", "edits is a map of keys, expected a list"),
        (
            "[{set: a=1, unset: b}]",
            "an entry of edits has one of set, unset",
        ),
        ("[{}]", "an entry of edits has one of"),
        ("[{st: a=1}]", "did you mean set?"),
        ("[{set: a=x}]", "recipe.yml:3:"),
        ("[{add_file: a}]", "is not NAME=PATH"),
        ("[{keep: a}]", "edits.promote"),
    ] {
        fs::write(&path, format!("base: a\nview:\n  edits: {edits}\n")).unwrap();
        let error = ViewRequest::from_recipe(&path, &Places::default()).unwrap_err();
        assert_names(&error.to_string(), &["recipe.yml:3:", words]);
    }
}
