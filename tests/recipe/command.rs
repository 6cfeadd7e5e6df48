//! `--recipe` on the command line.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::assert_names;
use crate::common::command::{ckptfs, stdout, text};
use crate::fixture::{error, workspace, write};
use crate::view_section::with_adapters;

const SLICES: &str = "
merge_method: passthrough
slices:
  - sources: [{model: org/x, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [2, 4]}]
view: {shard_size: 100}
";

#[test]
fn the_plan_tells_the_method_the_models_and_what_is_made_of_what() {
    let workspace = workspace();
    write(&workspace, SLICES);
    let plan = stdout(&workspace, "plan --recipe recipe.yml --model org/x=a");
    assert_names(
        &plan,
        &[
            "merge  passthrough of 2 models; config and tokenizer of org/x",
            "before the layers: 1 tensor, as stored in org/x",
            "layers 0-2: 9 tensors, as stored in org/x layers 0-2",
            "layers 3-4: 6 tensors, as stored in b layers 2-3",
            "behind the layers: 2 tensors, as stored in b",
            "model  org/x in ",
        ],
    );
    let json = stdout(
        &workspace,
        "plan --json --recipe recipe.yml --model org/x=a",
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["merge"]["method"], "passthrough");
    assert_eq!(json["merge"]["models"], serde_json::json!(["org/x", "b"]));
    assert_eq!(json["sources"][1]["role"], "model");
    assert_eq!(json["merge"]["stretches"][2]["tensors"], 6);
}

#[test]
fn flags_win_over_the_recipe_and_add_to_its_lists() {
    let workspace = workspace();
    write(
        &workspace,
        "base: a\nview: {patch: [b], shard_size: 100, repack: true}\n",
    );
    let shards = |flags: &str| {
        let plan = stdout(
            &workspace,
            &format!("plan --json --recipe recipe.yml {flags}"),
        );
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let sources = plan["sources"].as_array().unwrap().len();
        (plan["shards"].as_array().unwrap().len(), sources)
    };
    let (many, sources) = shards("");
    assert!(many > 1, "{many}");
    assert_eq!(sources, 2);
    assert_eq!(shards("--shard-size-gb 1 --extra ones"), (1, 3));
    let refused = ckptfs(&workspace, "plan --recipe recipe.yml --scale-fmt float32");
    assert_names(
        text(&refused.stderr),
        &[
            "says how to quantize, but not which tensors",
            "use --fp8, --reference or --quantize-pattern",
        ],
    );
}

#[test]
fn a_view_has_a_base_or_a_recipe() {
    let workspace = workspace();
    write(&workspace, SLICES);
    for wrong in [
        "plan",
        "plan --base a --recipe recipe.yml",
        "plan --base a --model x=a",
        "plan --recipe recipe.yml --model x",
    ] {
        assert_eq!(ckptfs(&workspace, wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn flags_go_on_where_the_recipe_ends() {
    let workspace = with_adapters();
    let recipe = "base: a\nview: {lora: l, rename: '^model=m', only: 'n[.].*', drop: '.*norm.*', dtype: f32}\n";
    write(&workspace, recipe);
    let plan = |flags: &str| -> Value {
        let plan = stdout(
            &workspace,
            &format!("plan --json --recipe recipe.yml {flags}"),
        );
        serde_json::from_str(&plan).unwrap()
    };
    // Without the second rule no name is kept by `only`.
    let plan =
        plan("--lora k:0.5 --rename ^m[.]=n. --only lm_head.* --drop .*layers.0.* --dtype f16");
    let adapters = plan["adapters"].as_array().unwrap();
    let ends = |adapter: &Value| {
        let path = adapter["path"].as_str().unwrap();
        (path[path.len() - 2..].to_owned(), adapter["weight"].clone())
    };
    let expected = [("/l".to_owned(), json!(1.0)), ("/k".to_owned(), json!(0.5))];
    assert_eq!(adapters.iter().map(ends).collect::<Vec<_>>(), expected);
    let tensors = plan["shards"][0]["tensors"].as_array().unwrap();
    let names: BTreeSet<&str> = tensors
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    let layers = (1..4).flat_map(|i| {
        ["mlp.down_proj", "self_attn.q_proj"].map(|part| format!("n.layers.{i}.{part}.weight"))
    });
    let mut expected: BTreeSet<String> = layers.collect();
    expected.extend(["lm_head.weight", "n.embed_tokens.weight"].map(str::to_owned));
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    assert!(tensors.iter().all(|tensor| tensor["dtype"] == "F16"));
}

#[test]
fn a_single_file_excludes_what_is_about_several_and_flags_win_over_it() {
    let workspace = with_adapters();
    let files = |recipe: &str, flags: &str| {
        write(&workspace, recipe);
        let flags = format!("plan --recipe recipe.yml --json {flags}");
        let json: Value = serde_json::from_str(&stdout(&workspace, &flags)).unwrap();
        let shards = json["shards"].as_array().unwrap().iter();
        let name = |shard: &Value| shard["name"].as_str().unwrap().to_owned();
        shards.map(name).collect::<Vec<String>>()
    };
    let single = "base: a\nview: {single_file: true}\n";
    assert_eq!(files(single, ""), ["model.safetensors"]);
    let numbered = "model-00001-of-00001.safetensors";
    assert_eq!(files(single, "--shard-size-gb 1"), [numbered]);
    assert_eq!(files(single, "--repack"), [numbered]);
    let sized = "base: a\nview: {repack: true, shard_size: 1GiB}\n";
    assert_eq!(files(sized, ""), [numbered]);
    assert_eq!(files(sized, "--single-file"), ["model.safetensors"]);
    let off = "base: a\nview: {repack: true, single_file: false}\n";
    assert_eq!(files(off, ""), [numbered]);
    for other in ["repack: false", "shard_size: 1GiB"] {
        let recipe = format!("base: a\nview:\n  single_file: true\n  {other}\n");
        let parts = ["recipe.yml:3", "single_file excludes"];
        assert_names(&error(&workspace, &recipe), &parts);
    }
}

#[test]
fn shards_are_one_setting_however_they_are_spelled_and_flags_win() {
    let workspace = with_adapters();
    let first = |recipe: &str, flags: &str| {
        write(&workspace, recipe);
        let flags = format!("plan --recipe recipe.yml --json {flags}");
        let json: Value = serde_json::from_str(&stdout(&workspace, &flags)).unwrap();
        json["shards"][0]["name"].as_str().unwrap().to_owned()
    };
    let numbered = "model-00001-of-00001.safetensors";
    let single = "model.safetensors";
    for (view, shown) in [
        ("shards: keep", single),
        ("shards: single", single),
        ("shards: renumber", numbered),
        ("{shards: repack, shard_size: 1GiB}", numbered),
        ("{shards: renumber, single_file: false}", numbered),
    ] {
        let recipe = format!("base: a\nview:\n  {view}\n");
        assert_eq!(first(&recipe, ""), shown, "{view}");
    }
    let renumber = "base: a\nview: {shards: renumber}\n";
    for (flags, shown) in [
        ("--no-repack", single),
        ("--shards keep", single),
        ("--single-file", single),
        ("--repack", numbered),
        ("--shard-size 1", numbered),
    ] {
        assert_eq!(first(renumber, flags), shown, "{flags}");
    }
    assert_eq!(
        first("base: a\nview: {repack: false}\n", "--shards renumber"),
        numbered
    );
    // A size wins over the single file of a recipe, and a single file over its size.
    assert_eq!(
        first("base: a\nview: {shards: single}\n", "--shard-size 1"),
        numbered
    );
    let sized = "base: a\nview: {shards: repack, shard_size: 1GiB}\n";
    assert_eq!(first(sized, "--shards single"), single);

    for (line, problem) in [
        ("repack: true", "repack and shards are the same setting"),
        ("repack: false", "repack and shards are the same setting"),
        (
            "single_file: true",
            "single_file and shards are the same setting",
        ),
    ] {
        let recipe = format!("base: a\nview:\n  shards: renumber\n  {line}\n");
        let parts = ["recipe.yml:4", problem, "leave one of them out"];
        assert_names(&error(&workspace, &recipe), &parts);
    }
    let sized = "base: a\nview:\n  shards: single\n  shard_size: 1GiB\n";
    assert_names(
        &error(&workspace, sized),
        &["recipe.yml:4", "shards: single excludes"],
    );
    let unknown = "base: a\nview:\n  shards: rename\n";
    let parts = [
        "recipe.yml:3:11",
        "\"rename\"",
        "keep, renumber, repack or single",
    ];
    assert_names(&error(&workspace, unknown), &parts);
}

#[test]
fn what_flags_say_of_shards_is_written_as_one_word() {
    let workspace = with_adapters();
    for (flags, word) in [
        ("--shards renumber", "renumber"),
        ("--repack", "repack"),
        ("--no-repack", "keep"),
        ("--single-file", "single"),
    ] {
        let recipe = stdout(&workspace, &format!("plan --base a {flags} --emit-recipe"));
        let end = format!("view:\n  shards: {word}\n");
        assert!(recipe.ends_with(&end), "{flags}: {recipe}");
    }
}
