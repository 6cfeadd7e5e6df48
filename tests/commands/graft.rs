//! `--graft` and sources that are a single file, as the commands show them.

use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::command::{ckptfs, stdout, text};
use crate::common::safetensors_file::serialize;
use crate::common::{Workspace, assert_names};

const FP8: &str = r#"{"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}}"#;
const GRAFT: &str = r"--base base --graft tuned:model\.layers\..*";

fn layer(i: usize) -> String {
    format!("model.layers.{i}.mlp.down_proj.weight")
}

fn codes(i: usize) -> [TensorData; 2] {
    let scales = format!("{}_scale_inv", layer(i));
    [
        tensor(&layer(i), Dtype::F8_E4M3, &[128, 128], i as u64),
        of_values(&scales, Dtype::F32, &[1, 1], &[0.5]),
    ]
}

/// `base` in block FP8, and `tuned`, which has its first layer in BF16, a norm, and a third layer.
fn sources() -> Workspace {
    let workspace = Workspace::new();
    let mtp = serialize([bf16("mtp.fc.weight", &[8, 8])].iter());
    let norm = |seed| tensor("model.norm.weight", Dtype::BF16, &[16], seed);
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", codes(0))
        .shard(
            "model-00002-of-00002.safetensors",
            codes(1).into_iter().chain([norm(1)]),
        )
        .aux("mtp.safetensors", mtp)
        .config(FP8);
    let tuned = Checkpoint::single([
        bf16(&layer(0), &[128, 128]),
        bf16(&layer(2), &[128, 128]),
        norm(2),
    ]);
    workspace.write("base", &base);
    workspace.write("tuned", &tuned.config("{}"));
    workspace
}

#[test]
fn the_plan_counts_what_a_graft_gives_and_names_it() {
    let workspace = sources();
    let plan = stdout(&workspace, &format!("plan {GRAFT}"));
    let tuned = workspace.path().join("tuned");
    let parts = [
        &format!("graft  {}: 3 tensors of ", tuned.display()),
        r"1 taken, 1 not matching model\.layers\..*, 1 not in the view, 1 scale removed",
        "view   4 tensors: 3 kept, 1 grafted\n",
        "1 unchanged",
        &format!("graft {}", tuned.display()),
        "note: unquantized weights replace quantized ones, and config.json lists their modules",
    ];
    assert_names(&plan, &parts);

    let json = stdout(&workspace, &format!("plan {GRAFT} --json --provenance"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["counts"]["grafted"]["tensors"], 1);
    let figures = &json["figures"];
    assert_eq!(figures["base_tensors"], 5);
    assert_eq!(figures["grafted"], 1);
    let source = &json["sources"][1];
    assert_eq!(source["role"], "graft");
    assert_eq!(source["added"], 1);
    let graft = serde_json::json!({
        "names": r"model\.layers\..*", "not_matching": 1, "not_in_view": 1, "removed": 1,
    });
    assert_eq!(source["graft"], graft);
    let tensors = json["shards"].as_array().unwrap().iter();
    let mut tensors = tensors.flat_map(|shard| shard["tensors"].as_array().unwrap());
    let grafted = tensors.find(|tensor| tensor["name"] == *layer(0)).unwrap();
    let from = &grafted["provenance"]["from"][0];
    assert_eq!(from["checkpoint"], tuned.to_str().unwrap());
    assert_eq!(from["dtype"], "BF16");
}

#[test]
fn what_is_written_of_a_graft_verifies_and_differs_where_it_should() {
    let workspace = sources();
    let emitted = ckptfs(&workspace, &format!("plan {GRAFT} --emit-recipe view.yml"));
    assert!(emitted.status.success());
    let recipe = std::fs::read_to_string(workspace.path().join("view.yml")).unwrap();
    assert_names(&recipe, &["graft:", r"names: 'model\.layers\..*'"]);
    for command in [
        "materialize --recipe view.yml --out out",
        &format!("verify {GRAFT} --out out"),
        "verify out",
    ] {
        let output = ckptfs(&workspace, command);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let output = ckptfs(&workspace, "diff base out --json");
    let diff = text(&output.stdout);
    assert_names(diff, &[&layer(0)]);
    assert!(!diff.contains("model.norm.weight"), "{diff}");
}

#[test]
fn a_file_beside_the_index_is_listed_with_the_flag_that_adds_it() {
    let workspace = sources();
    let file = workspace.path().join("base/mtp.safetensors");
    let plan = stdout(&workspace, "plan base --summary");
    let line = format!(
        "left out: mtp.safetensors: the index does not name it; use --extra {} to add the tensors that the view lacks\n",
        file.display()
    );
    assert_names(&plan, &[&line]);
    let plan = stdout(
        &workspace,
        "plan base --extra base/mtp.safetensors --summary",
    );
    assert!(!plan.contains("left out"), "{plan}");
    let line = format!("extra  {}: 1 tensor of ", file.display());
    assert_names(&plan, &[&line, "5 kept, 1 added"]);
}

#[test]
fn a_graft_that_cannot_be_is_said_with_its_flag() {
    let workspace = sources();
    for (flags, parts) in [
        (
            "--graft tuned:(",
            &["--graft <DIR[:REGEX]>", "regular expression"][..],
        ),
        (
            "--graft absent:x",
            &["error[not-found]", "absent", "holds base, tuned"],
        ),
        (
            "--graft base/config.json",
            &["error[wrong-file-kind]", "config.json"],
        ),
    ] {
        let output = ckptfs(&workspace, &format!("plan base {flags}"));
        assert!(!output.status.success());
        assert_names(text(&output.stderr), parts);
    }
    let output = ckptfs(&workspace, "plan base --graft tuned:down");
    let warning = [
        r"warning[no-match]: --graft ",
        "tuned:down: it matches no tensor name",
    ];
    assert_names(text(&output.stdout), &warning);
}
