//! What `verify` finds in the structure of a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::jobs::Progress;
use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{QuantizeParams, RuleSet};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::verify::{KnownScales, StructureReport};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{CONFIG, Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::{Workspace, assert_names, message, plan_fp8};

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const WEIGHT: &str = "model.layers.0.self_attn.o_proj.weight";
const SCALE: &str = "model.layers.0.self_attn.o_proj.weight_scale_inv";
const MODULE: &str = "model.layers.0.self_attn.o_proj";

fn plain() -> Checkpoint {
    Checkpoint::new()
        .shard(
            FIRST,
            [bf16("a.weight", &[4, 4]), bf16("b.weight", &[4, 4])],
        )
        .shard(SECOND, [bf16("c.weight", &[4, 4])])
}

/// Codes of 130 × 256 in blocks of 128 × 128.
fn codes() -> TensorData {
    tensor(WEIGHT, Dtype::F8_E4M3, &[130, 256], 1)
}

fn scales(values: &[f32]) -> TensorData {
    of_values(SCALE, Dtype::F32, &[2, 2], values)
}

fn powers_of_two() -> TensorData {
    scales(&[0.5, 1.0, 2.0, f32::MIN_POSITIVE])
}

fn head() -> TensorData {
    bf16("lm_head.weight", &[4, 4])
}

fn declaration() -> Value {
    json!({
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
        "scale_fmt": "ue8m0",
        "modules_to_not_convert": ["lm_head"],
    })
}

fn with_declaration(checkpoint: Checkpoint, declaration: Value) -> Checkpoint {
    checkpoint.config(&json!({"quantization_config": declaration}).to_string())
}

/// A sound block FP8 checkpoint of these tensors but for what the test changes.
fn fp8(tensors: impl IntoIterator<Item = TensorData>) -> Checkpoint {
    let checkpoint = Checkpoint::new().shard(FIRST, tensors);
    with_declaration(checkpoint, declaration())
}

/// A sound block FP8 checkpoint with another declaration.
fn fp8_declared(change: impl FnOnce(&mut Value)) -> Checkpoint {
    let mut declaration = declaration();
    change(&mut declaration);
    with_declaration(fp8([codes(), powers_of_two(), head()]), declaration)
}

/// What is found after `damage` was done to the directory.
fn found(checkpoint: &Checkpoint, damage: impl FnOnce(PathBuf)) -> StructureReport {
    let workspace = Workspace::new();
    let directory = workspace.write("model", checkpoint);
    damage(directory.clone());
    structure(&directory).unwrap()
}

/// What is found in `directory` where nothing is known of its scales.
fn structure(directory: &Path) -> ckptfs::Result<StructureReport> {
    ckptfs::verify::structure(directory, &KnownScales::default(), 2, &())
}

fn nothing(_: PathBuf) {}

fn assert_sound(report: &StructureReport) {
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.warnings, [""; 0]);
}

/// Asserts that there is one problem, and that it names `parts`.
fn assert_problem(report: &StructureReport, parts: &[&str]) {
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_names(&report.problems[0], parts);
}

/// Asserts that there is no problem and one warning, and that it names `parts`.
fn assert_warning(report: &StructureReport, parts: &[&str]) {
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert_names(&report.warnings[0], parts);
}

fn edit_index(directory: PathBuf, edit: impl FnOnce(&mut Value)) {
    let path = directory.join(INDEX);
    let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut index);
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn a_plain_checkpoint_is_sound() {
    let report = found(&plain(), nothing);
    assert_sound(&report);
    assert_eq!((report.shards, report.tensors, report.bytes), (2, 3, 96));
    assert_sound(&found(&Checkpoint::single([bf16("a", &[4])]), nothing));
}

#[test]
fn a_block_fp8_checkpoint_is_sound() {
    assert_sound(&found(&fp8([codes(), powers_of_two(), head()]), nothing));
}

#[test]
fn what_materialize_writes_is_sound() {
    for scale_format in [ScaleFormat::Ue8m0, ScaleFormat::Float32] {
        let workspace = Workspace::new();
        let base = Checkpoint::new().shard(
            FIRST,
            [
                bf16("model.embed_tokens.weight", &[32, 256]),
                bf16(WEIGHT, &[130, 256]),
                bf16("model.layers.0.mlp.experts.gate_up_proj", &[2, 128, 256]),
                bf16("model.layers.0.mlp.experts.down_proj", &[2, 256, 128]),
                bf16("model.layers.0.mlp.gate.weight", &[2, 256]),
                head(),
            ],
        );
        let base = workspace.write("base", &base);
        let request = QuantizeParams {
            rules: Some(RuleSet::Exact),
            scale_format: Some(scale_format),
            ..QuantizeParams::default()
        };
        let plan = plan_fp8(&base, request).unwrap();
        let out = workspace.path().join("out");
        materialize(&plan, &[base], &out, &Options::default(), &()).unwrap();
        assert_sound(&structure(&out).unwrap());
    }
}

#[test]
fn a_directory_without_weights_is_an_error() {
    let workspace = Workspace::new();
    assert_names(
        &message(structure(workspace.path())),
        &["no checkpoint here"],
    );
}

#[test]
fn a_truncated_shard_is_found() {
    let report = found(&plain(), |directory| {
        let shard = fs::File::options()
            .write(true)
            .open(directory.join(FIRST))
            .unwrap();
        shard.set_len(shard.metadata().unwrap().len() - 1).unwrap();
    });
    assert_problem(&report, &[FIRST, "b.weight"]);
}

#[test]
fn bytes_behind_the_last_tensor_are_found() {
    let report = found(&plain(), |directory| {
        let mut bytes = fs::read(directory.join(FIRST)).unwrap();
        bytes.push(0);
        fs::write(directory.join(FIRST), bytes).unwrap();
    });
    assert_problem(&report, &[FIRST, "b.weight"]);
}

#[test]
fn a_hole_between_tensors_is_found() {
    let header = concat!(
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"#,
        r#""b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#
    );
    let mut file = crate::common::safetensors_file::with_length(header);
    file.extend([0; 3]);
    let report = found(&Checkpoint::single([]), |directory| {
        fs::write(directory.join("model.safetensors"), file).unwrap();
    });
    assert_problem(&report, &["model.safetensors", "tensor b"]);
}

#[test]
fn every_missing_shard_is_found() {
    let report = found(&plain(), |directory| {
        fs::remove_file(directory.join(FIRST)).unwrap();
        fs::remove_file(directory.join(SECOND)).unwrap();
    });
    assert_eq!(report.problems.len(), 2);
    assert_names(&report.problems[0], &[FIRST, "2 tensors", "missing"]);
    assert_names(&report.problems[1], &[SECOND, "1 tensor", "missing"]);
}

#[test]
fn a_directory_in_place_of_a_shard_is_found() {
    let report = found(&plain(), |directory| {
        fs::remove_file(directory.join(FIRST)).unwrap();
        fs::create_dir(directory.join(FIRST)).unwrap();
    });
    assert_problem(&report, &[FIRST, "not a regular file"]);
}

#[test]
fn a_safetensors_file_that_the_index_does_not_name_is_found() {
    let report = found(&plain(), |directory| {
        fs::copy(directory.join(FIRST), directory.join("other.safetensors")).unwrap();
    });
    assert_problem(&report, &["not in the index", "other.safetensors"]);
}

#[test]
fn a_single_file_beside_an_index_that_does_not_name_it_is_found() {
    let report = found(&plain(), |directory| {
        fs::copy(directory.join(FIRST), directory.join("model.safetensors")).unwrap();
    });
    assert_problem(&report, &["model.safetensors", "instead of the index"]);
}

#[test]
fn a_safetensors_file_beside_a_single_file_is_found() {
    let report = found(&Checkpoint::single([bf16("a", &[4])]), |directory| {
        fs::copy(
            directory.join("model.safetensors"),
            directory.join("b.safetensors"),
        )
        .unwrap();
    });
    assert_problem(&report, &["b.safetensors", "without an index"]);
}

#[test]
fn shards_without_an_index_are_warned_of() {
    let report = found(&plain().without_index(), nothing);
    assert_warning(&report, &["2 shards", INDEX]);
}

#[test]
fn an_index_that_is_not_valid_is_found() {
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| {
            index["weight_map"]["a.weight"] = "../a".into()
        });
    });
    assert_names(&report.problems[0], &[INDEX, "a.weight", "../a"]);
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_found() {
    let report = found(&plain().unnamed([bf16("d.weight", &[4])]), |directory| {
        edit_index(directory, |index| {
            index["metadata"]["total_size"] = 104.into()
        });
    });
    assert_problem(&report, &[SECOND, "d.weight", "the index does not name"]);
}

#[test]
fn a_tensor_that_no_shard_has_is_found() {
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| {
            index["weight_map"]["d.weight"] = FIRST.into()
        });
    });
    assert_problem(&report, &[FIRST, "d.weight"]);
}

#[test]
fn a_tensor_that_is_in_another_shard_than_the_index_says_is_found() {
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| {
            index["weight_map"]["a.weight"] = SECOND.into()
        });
    });
    assert_problem(&report, &[SECOND, "a.weight", FIRST]);
}

#[test]
fn a_tensor_in_two_shards_is_found() {
    let report = found(&plain().unnamed([bf16("a.weight", &[4, 4])]), |directory| {
        edit_index(directory, |index| {
            index["metadata"]["total_size"] = 128.into()
        });
    });
    assert_problem(&report, &["a.weight", FIRST, SECOND]);
}

#[test]
fn a_total_size_that_is_not_the_sum_of_tensor_bytes_is_found() {
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| {
            index["metadata"]["total_size"] = 97.into()
        });
    });
    assert_problem(&report, &[INDEX, "total_size", "97", "96"]);
}

#[test]
fn an_index_without_total_size_is_sound_and_one_without_metadata_is_warned_of() {
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| index["metadata"] = json!({}));
    });
    assert_sound(&report);
    let report = found(&plain(), |directory| {
        edit_index(directory, |index| {
            index.as_object_mut().unwrap().remove("metadata");
        });
    });
    assert_warning(&report, &[INDEX, "metadata"]);
}

#[test]
fn scales_of_a_tensor_that_does_not_exist_are_found() {
    let report = found(&fp8([powers_of_two(), head()]), nothing);
    assert_names(&report.problems[0], &["do not exist", SCALE]);
}

#[test]
fn scales_of_a_tensor_that_is_not_fp8_are_found() {
    let report = found(
        &fp8([bf16(WEIGHT, &[130, 256]), powers_of_two(), head()]),
        nothing,
    );
    assert_problem(&report, &["not FP8", WEIGHT, "BF16"]);
}

#[test]
fn scales_of_another_shape_than_the_blocks_are_found() {
    let transposed = of_values(SCALE, Dtype::F32, &[1, 4], &[1.0; 4]);
    let report = found(&fp8([codes(), transposed, head()]), nothing);
    assert_problem(&report, &[SCALE, "[1, 4]", "[2, 2]", "128x128"]);
}

#[test]
fn shapes_of_scales_go_by_the_declared_block_size() {
    let wide = fp8_declared(|declared| declared["weight_block_size"] = json!([65, 256]));
    assert_problem(&found(&wide, nothing), &[SCALE, "[2, 1]", "65x256"]);
    let fitting = fp8_declared(|declared| declared["weight_block_size"] = json!([65, 200]));
    assert_sound(&found(&fitting, nothing));
    let odd = fp8_declared(|declared| declared["weight_block_size"] = json!(128));
    assert_problem(&found(&odd, nothing), &["weight_block_size", "128"]);
}

#[test]
fn scales_of_a_dtype_that_holds_no_scales_are_found() {
    let integers = tensor(SCALE, Dtype::I32, &[2, 2], 3);
    let report = found(&fp8([codes(), integers, head()]), nothing);
    assert_problem(&report, &[SCALE, "I32"]);
}

#[test]
fn a_weight_whose_scales_are_in_another_shard_is_warned_of() {
    let parted = Checkpoint::new()
        .shard(FIRST, [codes(), head()])
        .shard(SECOND, [powers_of_two()]);
    let report = found(&with_declaration(parted, declaration()), nothing);
    assert_warning(&report, &[WEIGHT, FIRST, SECOND]);
}

#[test]
fn an_fp8_weight_without_scales_is_found() {
    let lone = tensor("lone.weight", Dtype::F8_E4M3, &[4, 4], 5);
    let mut declaration = declaration();
    declaration["modules_to_not_convert"] = json!(["lm_head", "lone"]);
    let checkpoint = fp8([codes(), powers_of_two(), head(), lone]);
    let report = found(&with_declaration(checkpoint, declaration), nothing);
    assert_problem(&report, &["without scales", "lone.weight"]);
}

#[test]
fn block_scales_that_config_does_not_declare_are_found() {
    let report = found(&fp8([codes(), powers_of_two()]).config(CONFIG), nothing);
    assert_problem(&report, &["config.json", "quantization_config", "1 tensor"]);
}

#[test]
fn block_scales_without_a_config_are_found() {
    let report = found(&fp8([codes(), powers_of_two()]).without_config(), nothing);
    assert_problem(&report, &["quantization_config"]);
}

#[test]
fn block_fp8_that_is_declared_but_not_there_is_found() {
    let report = found(&with_declaration(plain(), declaration()), nothing);
    assert_problem(&report, &["declares block FP8", "no tensor"]);
}

#[test]
fn block_scales_under_another_method_are_found() {
    let checkpoint = fp8_declared(|declared| declared["quant_method"] = "gptq".into());
    assert_problem(&found(&checkpoint, nothing), &["quant_method", "gptq"]);
}

#[test]
fn a_declaration_inside_text_config_counts_and_a_second_one_is_warned_of() {
    let checkpoint = fp8([codes(), powers_of_two(), head()]);
    let nested = json!({"text_config": {"quantization_config": declaration()}});
    assert_sound(&found(
        &checkpoint.clone().config(&nested.to_string()),
        nothing,
    ));
    let mut twice = nested;
    twice["quantization_config"] = declaration();
    let report = found(&checkpoint.config(&twice.to_string()), nothing);
    assert_warning(&report, &["text_config", "twice"]);
}

#[test]
fn a_declaration_of_another_tool_beside_ours_is_warned_of() {
    let checkpoint = fp8([codes(), powers_of_two(), head()]).aux("hf_quant_config.json", "{}");
    assert_warning(&found(&checkpoint, nothing), &["hf_quant_config.json"]);
}

#[test]
fn a_scale_that_is_no_power_of_two_under_ue8m0_is_found() {
    for odd in [
        0.75,
        -2.0,
        0.0,
        f32::MIN_POSITIVE / 2.0,
        f32::INFINITY,
        f32::NAN,
    ] {
        let report = found(
            &fp8([codes(), scales(&[1.0, 2.0, odd, 4.0]), head()]),
            nothing,
        );
        assert_problem(&report, &["ue8m0", SCALE, "at 2"]);
    }
    let bf16_scales = of_values(SCALE, Dtype::BF16, &[2, 2], &[1.0, 2.0, 0.5, 1.5]);
    let report = found(&fp8([codes(), bf16_scales, head()]), nothing);
    assert_problem(&report, &["ue8m0", SCALE, "1.5e0 at 3"]);
}

/// What a job says of itself.
#[derive(Default)]
struct Said {
    readings: Mutex<Vec<(String, u64)>>,
    done: AtomicU64,
    gives_up: bool,
}

impl Progress for Said {
    fn start_reading(&self, what: &str, bytes: u64) {
        assert_eq!(
            self.done.load(Ordering::Relaxed),
            0,
            "nothing is read before"
        );
        self.readings.lock().unwrap().push((what.to_owned(), bytes));
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.gives_up
    }
}

#[test]
fn scales_that_are_read_are_said_before_and_counted_while_they_are_read() {
    let workspace = Workspace::new();
    for (values, problems) in [([1.0, 2.0, 4.0, 8.0], 0), ([3.0, 2.0, 4.0, 8.0], 1)] {
        let directory = workspace.write("model", &fp8([codes(), scales(&values), head()]));
        let said = Said::default();
        let known = KnownScales::default();
        let report = ckptfs::verify::structure(&directory, &known, 2, &said).unwrap();
        assert_eq!(report.problems.len(), problems);
        let readings = said.readings.into_inner().unwrap();
        assert_eq!(readings.len(), 1);
        assert_names(&readings[0].0, &["the scales of 1 tensor", "config.json"]);
        assert_eq!((readings[0].1, said.done.into_inner()), (16, 16));
    }
    let stopped = Said {
        gives_up: true,
        ..Said::default()
    };
    let directory = workspace.path().join("model");
    let result = ckptfs::verify::structure(&directory, &KnownScales::default(), 1, &stopped);
    assert_eq!(message(result.map(drop)), "interrupted");
}

#[test]
fn scales_that_a_mount_computes_as_powers_of_two_are_not_read_and_others_are() {
    let workspace = Workspace::new();
    // A problem is found where they are read.
    let directory = workspace.write("model", &fp8([codes(), scales(&[3.0; 4]), head()]));
    let device = directory.metadata().unwrap().dev();
    let plan = |tensor: Value| json!({"shards": [{"tensors": [tensor]}]}).to_string();
    let computed = plan(json!({"name": SCALE, "scale_fmt": "ue8m0"}));
    let found = |device, plan: &str| {
        let known = KnownScales::of_mount(device, plan.as_bytes());
        let report = ckptfs::verify::structure(&directory, &known, 1, &()).unwrap();
        (report.known_scales, report.problems.len())
    };
    assert_eq!(found(device, &computed), (1, 0));
    for (device, plan) in [
        (device + 1, computed.clone()),
        (device, plan(json!({"name": SCALE, "scale_fmt": "float32"}))),
        (device, plan(json!({"name": SCALE, "computed": false}))),
        (
            device,
            plan(json!({"name": "a.weight_scale_inv", "scale_fmt": "ue8m0"})),
        ),
        (device, plan(json!({"name": WEIGHT, "scale_fmt": "ue8m0"}))),
        (device, plan(json!({"nam": SCALE}))),
        (device, "no JSON".to_owned()),
    ] {
        assert_eq!(found(device, &plan), (0, 1), "{plan}");
    }
}

#[test]
fn any_scale_is_sound_where_ue8m0_is_not_declared() {
    let mut declaration = declaration();
    declaration.as_object_mut().unwrap().remove("scale_fmt");
    let checkpoint = fp8([codes(), scales(&[1.0, 2.0, 0.75, 4.0]), head()]);
    assert_sound(&found(&with_declaration(checkpoint, declaration), nothing));
}

#[test]
fn a_listed_module_whose_weight_is_quantized_is_found() {
    let listed = fp8_declared(|declared| {
        declared["modules_to_not_convert"] = json!(["lm_head", MODULE]);
    });
    assert_problem(
        &found(&listed, nothing),
        &["modules_to_not_convert", MODULE],
    );
    let ancestor = fp8_declared(|declared| {
        declared["modules_to_not_convert"] = json!(["lm_head", "model.layers.0"]);
    });
    assert_problem(&found(&ancestor, nothing), &[MODULE, "by model.layers.0"]);
}

#[test]
fn an_entry_that_is_a_part_of_a_quantized_modules_name_is_warned_of() {
    for entry in ["self_attn.o_proj", "o_pro", "model.layers.0.self"] {
        let checkpoint = fp8_declared(|declared| {
            declared["modules_to_not_convert"] = json!(["lm_head", entry]);
        });
        assert_warning(
            &found(&checkpoint, nothing),
            &[MODULE, &format!("by {entry}")],
        );
    }
}

#[test]
fn an_unquantized_module_that_is_not_listed_is_warned_of() {
    let checkpoint = fp8_declared(|declared| {
        declared["modules_to_not_convert"] = json!([]);
    });
    assert_warning(&found(&checkpoint, nothing), &["does not list", "lm_head"]);
}

#[test]
fn every_list_is_read_with_its_patterns() {
    for key in ["ignored_layers", "ignore", "exclude_modules", "exclude"] {
        let with = |entries: Value| fp8_declared(|declared| declared[key] = entries);
        for entry in [MODULE, "re:.*o_proj$", "model.layers.*"] {
            let checkpoint = with(json!(["lm_head", entry]));
            assert_problem(&found(&checkpoint, nothing), &[key, MODULE]);
        }
        let lacking = with(json!(["re:elsewhere"]));
        let report = found(&lacking, nothing);
        assert_warning(&report, &[key, "does not list", "lm_head"]);
        for head in ["lm_head", "re:.*lm_head", "*head"] {
            let listed = found(&with(json!([head])), nothing);
            let problems = listed.warnings.join("\n");
            assert!(!problems.contains("does not list"), "{problems}");
        }
    }
}

#[test]
fn targets_of_groups_that_name_no_module_are_warned_of() {
    let with = |targets: Value| {
        let groups = json!({"group_0": {"targets": targets, "weights": {"num_bits": 8}}});
        let declaration = json!({"quant_method": "compressed-tensors", "config_groups": groups});
        with_declaration(
            Checkpoint::new().shard(FIRST, [head(), bf16("a.b.weight", &[2, 2])]),
            declaration,
        )
    };
    for target in ["a.c", "re:.*c$", "a.*.b"] {
        let report = found(&with(json!(["Linear", "lm_head", target])), nothing);
        assert_warning(&report, &["config_groups.group_0.targets", target]);
        assert!(!report.warnings.join("\n").contains("lm_head"));
    }
    assert_sound(&found(
        &with(json!(["Linear", "lm_head", "a", "re:a.*"])),
        nothing,
    ));
}

#[test]
fn a_fault_that_many_tensors_have_is_one_line() {
    let names: Vec<String> = (0..20).map(|i| format!("x{i:02}.weight")).collect();
    let unnamed = names.iter().map(|name| bf16(name, &[1]));
    let report = found(&plain().unnamed(unnamed), |directory| {
        edit_index(directory, |index| {
            index["metadata"]["total_size"] = 136.into()
        });
    });
    assert_problem(&report, &["x00.weight", "x04.weight and 15 more"]);
}

#[test]
fn layers_that_the_config_describes_and_that_are_not_there_are_warned_of() {
    let workspace = Workspace::new();
    let report = |name: &str, layers: &[usize], config: &str| {
        let layers = layers.iter();
        let layers = layers.map(|i| bf16(&format!("model.layers.{i}.mlp.weight"), &[4, 4]));
        let checkpoint = Checkpoint::single(layers).config(config);
        structure(&workspace.write(name, &checkpoint)).unwrap()
    };
    let short = report("short", &[0, 1, 3, 4], r#"{"num_hidden_layers": 6}"#);
    assert_eq!(short.problems, [""; 0]);
    let missing = "model.layers has no tensors of layer 2, 5";
    let parts = ["num_hidden_layers", "config.json is 6", missing];
    assert_names(&short.warnings.join("\n"), &parts);
    // A block for multi-token prediction is numbered behind the last layer.
    let config = r#"{"num_hidden_layers": 2, "num_nextn_predict_layers": 1}"#;
    let whole = report("whole", &[0, 1, 2], config);
    assert_eq!(whole.warnings, [""; 0]);
}

#[test]
fn a_modality_that_the_config_describes_and_that_is_not_there_is_warned_of() {
    let workspace = Workspace::new();
    let warnings = |name: &str, tensor: &str, config: &str| {
        let checkpoint = Checkpoint::single([bf16(tensor, &[4, 4])]).config(config);
        structure(&workspace.write(name, &checkpoint))
            .unwrap()
            .warnings
    };
    let config = r#"{"vision_config": {}, "audio_config": null}"#;
    let lost = warnings("lost", "language_model.norm.weight", config);
    assert_names(&lost.join("\n"), &["vision_config", "vision or visual"]);
    assert!(!lost.join("\n").contains("audio_config"), "{lost:?}");
    let whole = warnings("whole", "vision_tower.norm.weight", config);
    assert_eq!(whole, [""; 0]);
}
