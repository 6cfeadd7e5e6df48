//! `plan --emit-recipe`: what it writes means what the flags meant.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use ckptfs::ops::{
    CastParams, CastRule, DtypeParams, Experts, ExpertsParams, FilterParams, LoraParams,
    LoraRequest, Operations, PartialBlocks, PatchParams, Precision, QuantizeParams, RenameParams,
};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Places, Repack, ViewRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, text};
use crate::common::strategies::any_view;
use crate::common::{Workspace, assert_names, message, readback};
use crate::fixture::{workspace, write};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// What is read from the recipe of `request`. It says where it is from, which `request` does not.
fn again(workspace: &Workspace, request: &ViewRequest) -> ViewRequest {
    let recipe = request.to_recipe().unwrap();
    let path = write(workspace, &recipe);
    let again = ViewRequest::from_recipe(&path, &Places::default());
    let again = again.unwrap_or_else(|e| panic!("{e}\n{recipe}"));
    assert_eq!(again.recipe.as_ref(), Some(&path));
    ViewRequest {
        recipe: request.recipe.clone(),
        ..again
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn the_recipe_of_a_view_plans_the_same_files_of_the_same_bytes(wanted in any_view()) {
        let workspace = Workspace::new();
        let request = wanted.write(&workspace);
        let again = again(&workspace, &request);
        prop_assert_eq!(format!("{again:?}"), format!("{request:?}"));
        let (plan, again) = (request.plan().unwrap(), again.plan().unwrap());
        let json = |plan: &ckptfs::recipe::Plan| serde_json::to_string(&plan.shards).unwrap();
        prop_assert_eq!(json(&again), json(&plan));
        prop_assert!(readback::read_all(&again) == readback::read_all(&plan));
    }

    #[test]
    fn every_field_of_a_request_survives_with_any_text_in_it(
        texts in vec(vec(any::<String>(), 0..3), 6),
        weights in vec(any::<f64>().prop_filter("finite", |weight| weight.is_finite()), 2),
        dtype in select(vec![None, Some(Precision::Bf16), Some(Precision::F16), Some(Precision::F32)]),
        experts in select(vec![None, Some(Experts::Fuse), Some(Experts::Unfuse)]),
        (rules, float32, keep) in any::<(bool, bool, bool)>(),
        repack in select(vec![Repack::Auto, Repack::Always, Repack::Never, Repack::SingleFile]),
        shard_bytes in 1..u64::MAX,
    ) {
        let shard_bytes = match repack {
            Repack::SingleFile => DEFAULT_SHARD_BYTES,
            _ => shard_bytes,
        };
        let workspace = Workspace::new();
        // A directory has to exist to be found, and its name has no slash and no NUL.
        let made = |name: &String| {
            let name: String = name.chars().filter(|c| !"/\0".contains(*c)).take(60).collect();
            let directory = workspace.path().join(format!("d{name}"));
            fs::create_dir_all(&directory).unwrap();
            directory
        };
        let [loras, extras, references, only, drop, renames] = &texts[..] else { unreachable!() };
        let pattern = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| regex::escape(text)).collect()
        };
        let loras: Vec<LoraRequest> = loras.iter().zip(&weights).map(|(name, weight)| LoraRequest {
            adapter: made(name),
            weight: *weight,
        }).collect();
        let references: Vec<_> = references.iter().map(made).collect();
        let patterns = pattern(only);
        let is_fp8 = rules || !references.is_empty() || !patterns.is_empty();
        let quantize = QuantizeParams {
            rules,
            references,
            patterns,
            scale_format: Some(if float32 { ScaleFormat::Float32 } else { ScaleFormat::Ue8m0 }),
            partial_blocks: Some(if keep { PartialBlocks::Keep } else { PartialBlocks::Quantize }),
        };
        let rules = pattern(renames).into_iter();
        let rules = rules.map(|from| format!("x{}=$0", from.replace('=', "."))).collect();
        let cast = pattern(drop).into_iter();
        let cast = cast.map(|names| CastRule { names, to: Precision::F32 }).collect();
        let request = ViewRequest {
            operations: Operations {
                lora: LoraParams { adapters: loras },
                patch: PatchParams { extras: extras.iter().map(made).collect() },
                rename: RenameParams { rules },
                filter: FilterParams { only: pattern(only), drop: pattern(drop) },
                cast: CastParams { rules: cast },
                dtype: DtypeParams { to: dtype },
                experts: ExpertsParams { form: experts },
                quantize: if is_fp8 { quantize } else { QuantizeParams::default() },
            },
            repack,
            shard_bytes,
            ..ViewRequest::new(made(&drop.concat()))
        };
        let again = again(&workspace, &request);
        prop_assert_eq!(format!("{again:?}"), format!("{request:?}"));
    }
}

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

const FLAGS: [&str; 18] = [
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
    "--repack --shard-size-gb 0.000001",
    "--no-repack",
    "--single-file",
];

const EXCLUSIVE: [(&str, &str); 4] = [
    ("--repack --shard", "--no-repack"),
    ("--repack --shard", "--single-file"),
    ("--no-repack", "--single-file"),
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
  fp8:  # what any of these selects is quantized
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

#[test]
fn what_a_recipe_cannot_say_is_an_error() {
    let workspace = workspace();
    let odd = workspace
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    let not_utf8 = ViewRequest::new(odd);
    assert_names(&message(not_utf8.to_recipe()), &["odd", "not UTF-8"]);
    let nothing = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::default(),
            ..Operations::default()
        },
        ..ViewRequest::new("/a")
    };
    assert_names(&message(nothing.to_recipe()), &["fp8 selects nothing"]);
    let long = ViewRequest {
        operations: Operations {
            filter: FilterParams {
                drop: vec!["x".repeat(1 << 10); 1 << 10],
                ..FilterParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new("/a")
    };
    assert_names(&message(long.to_recipe()), &["1048576 bytes"]);
}

#[test]
fn a_path_in_a_map_stands_for_itself_and_a_model_has_a_directory_in_the_recipe() {
    let workspace = workspace();
    let odd = workspace.path().join("odd+name@1");
    fs::rename(workspace.path().join("a"), &odd).unwrap();
    let base = |recipe: &str| {
        let path = write(&workspace, recipe);
        ViewRequest::from_recipe(&path, &Places::default()).map(|request| request.base)
    };
    assert_eq!(base("base: {path: odd+name@1}\n").unwrap(), odd);
    assert!(base("base: odd+name@1\n").is_err());
    let named = "base: org/x@1\nview: {models: {org/x@1: odd+name@1}}\n";
    assert_eq!(base(named).unwrap(), odd);
    let in_parts = "merge_method: passthrough\nmodels: [{model: {model: {path: odd+name@1}}}]\n";
    assert_eq!(base(in_parts).unwrap(), odd);
}
