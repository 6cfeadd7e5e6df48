//! `plan --emit-recipe` on the command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, text};
use crate::common::{Workspace, assert_names};
use crate::emitted::config;
use crate::fixture::workspace;

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn the_command_plans_from_its_own_recipe_what_it_planned_from_flags(
        flags in subsequence(FLAGS.to_vec(), 0..FLAGS.len()),
        start in select(vec!["--base base", "--recipe merge.yml --model org/x=base"]),
    ) {
        let workspace = sources();
        let mut flags = flags.join(" ");
        for (one, other) in EXCLUSIVE {
            if flags.contains(one) {
                flags = flags.replace(other, "");
            }
        }
        if !flags.contains("--fp8") && !flags.contains("--reference") {
            flags = flags.replace("--scale-fmt float32", "").replace("--partial-blocks keep", "");
            flags = flags.replace("--allow-rounding", "");
        }
        let flags = format!("plan {start} {flags}");
        let planned = ckptfs(&workspace, &format!("{flags} --json --emit-recipe emitted.yml"));
        prop_assume!(planned.status.success(), "{}", text(&planned.stderr));
        let emitted = fs::read_to_string(workspace.path().join("emitted.yml")).unwrap();
        let elsewhere = workspace.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let moved = elsewhere.join("moved.yml");
        fs::write(&moved, &emitted).unwrap();
        let again = run(&elsewhere, &["plan", "--json", "--recipe", "moved.yml"]);
        prop_assert_eq!(text(&again.stderr), "", "{}\n{}", flags, emitted);
        prop_assert_eq!(text(&again.stdout), text(&planned.stdout), "{}\n{}", flags, emitted);
    }
}

const FLAGS: [&str; 20] = [
    "--extra extra",
    "--extra other+extra",
    "--lora l:0.5",
    "--lora k",
    r"--rename ^model\.=m.",
    r"--rename q_(proj)=Q_$1",
    r"--only .*(layers|embed).*",
    r"--drop .*layers\.1\..*",
    r"--cast .*norm.*=f16",
    "--dtype f32",
    "--fp8",
    "--fp8-pattern .*down_proj.*",
    "--reference reference",
    "--scale-fmt float32",
    "--partial-blocks keep",
    "--allow-rounding",
    "--repack --shard-size-gb 0.000001",
    "--no-repack",
    "--single-file",
    "--shards renumber",
];

const EXCLUSIVE: [(&str, &str); 7] = [
    ("--repack --shard", "--no-repack"),
    ("--repack --shard", "--single-file"),
    ("--no-repack", "--single-file"),
    ("--shards renumber", "--repack --shard-size-gb 0.000001"),
    ("--shards renumber", "--no-repack"),
    ("--shards renumber", "--single-file"),
    // Names of the reference are those before renaming.
    ("--reference", r"--rename q_(proj)=Q_$1"),
];

fn sources() -> Workspace {
    let workspace = workspace();
    let layer =
        |i: usize, part: &str| bf16(&format!("model.layers.{i}.{part}.weight"), &[130, 140]);
    let parts = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "mlp.down_proj",
    ];
    let layers = |i: usize| parts.map(|part| layer(i, part));
    let base = Checkpoint::new()
        .shard("rank0.safetensors", layers(0))
        .shard("rank1.safetensors", layers(1));
    workspace.write("base", &base);
    workspace.write("extra", &Checkpoint::single(layers(2)));
    workspace.write("other+extra", &Checkpoint::single(layers(3)));
    let scale = |tensor: crate::common::checkpoint::TensorData| {
        bf16(&format!("{}_scale_inv", tensor.name), &[2, 2])
    };
    workspace.write("reference", &Checkpoint::single(layers(0).map(scale)));
    let adapter = |module: &str| Adapter::new(2, 4.0).linear(module, [130, 140], 2);
    adapter("model.layers.1.self_attn.q_proj").write(&workspace, "l");
    adapter("model.layers.0.mlp.down_proj").write(&workspace, "k");
    let merge = "merge_method: linear\nmodels:\n  - {model: org/x+k, parameters: {weight: [0.5, 1]}}\n  - model: base\n    parameters:\n      weight:\n        - {filter: down, value: 0.25}\n        - value: 1.e-1\nview: {seed: 3, shard_size: 70000}\n";
    fs::write(workspace.path().join("merge.yml"), merge).unwrap();
    workspace
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn the_recipe_is_readable_and_alone_on_standard_output() {
    let workspace = sources();
    let flags = "plan --base base --extra extra --lora l:0.5 --fp8 --rename ^model\\.=m. --shard-size-gb 1 --emit-recipe";
    let output = ckptfs(&workspace, flags);
    assert_eq!(text(&output.stderr), "");
    let at = |name: &str| workspace.path().join(name).display().to_string();
    let expected = format!(
        "# A view of ckptfs {}: ckptfs mount --recipe FILE DIR
base: {}
view:
  lora:  # merged in this order
    - path: {}
      weight: 0.5
  patch:  # give the tensors that are not there yet, the first that has one
    - {}
  rename:  # REGEX=REPLACEMENT, in this order
    - '^model\\.=m.'
  quantize:  # what any of these selects is quantized
    scheme: fp8-block
    rules: true
    scale_fmt: ue8m0
    partial_blocks: quantize
  shard_size: 1GiB
",
        env!("CARGO_PKG_VERSION"),
        at("base"),
        at("l"),
        at("extra")
    );
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_file_that_is_there_is_replaced_only_if_that_is_said() {
    let workspace = workspace();
    let file = workspace.path().join("view.yml");
    fs::write(&file, "mine").unwrap();
    let refused = ckptfs(&workspace, "plan --base a --emit-recipe view.yml");
    assert_eq!(refused.status.code(), Some(1));
    assert_names(text(&refused.stderr), &["view.yml", "--overwrite"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let replaced = ckptfs(
        &workspace,
        "plan --base a --emit-recipe view.yml --overwrite",
    );
    assert_names(text(&replaced.stderr), &["wrote the recipe view.yml"]);
    assert_names(text(&replaced.stdout), &["view   "]);
    assert_names(&fs::read_to_string(&file).unwrap(), &["base: /"]);
    let both = ckptfs(&workspace, "plan --base a --json --emit-recipe");
    assert_names(text(&both.stderr), &["--emit-recipe needs a FILE"]);
}
