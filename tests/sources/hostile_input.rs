//! What a source may hold to make a program panic, hang or take all memory: each case works or is
//! an error that names the file and what was found. (More are in `errors.rs`.)

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ckptfs::ops::{Experts, ExpertsParams, Operations, PartialBlocks, QuantizeParams, RuleSet};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::{Shards, ViewRequest};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::readback::{read_all, read_path};
use crate::common::safetensors_file::{entry, with_length};
use crate::common::{Workspace, assert_names, message, plan_by_rules, plan_fp8, plan_patch};

const MODEL: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHT: &str = "model.layers.0.self_attn.o_proj.weight";

/// A directory with `header` in front of `data_len` bytes that take no space on disk.
fn sparse(workspace: &Workspace, header: &str, data_len: u64) -> PathBuf {
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let bytes = with_length(header);
    let path = directory.join(MODEL);
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64 + data_len).unwrap();
    directory
}

fn header(tensors: &[(&str, Dtype, &[usize])]) -> (String, u64) {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, dtype, shape) in tensors {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        header.insert((*name).to_owned(), entry(*dtype, shape, at, at + len));
        at += len;
    }
    (Value::Object(header).to_string(), at as u64)
}

fn set_len(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

fn patterns(patterns: &[&str]) -> QuantizeParams {
    QuantizeParams {
        patterns: patterns.iter().map(|p| (*p).to_owned()).collect(),
        ..QuantizeParams::default()
    }
}

#[test]
fn a_header_of_more_than_100_megabytes_is_refused_unread() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let mut bytes = 100_000_001u64.to_le_bytes().to_vec();
    bytes.push(b'{');
    fs::write(directory.join(MODEL), bytes).unwrap();
    set_len(&directory.join(MODEL), 1 << 40);
    let refused = message(ViewRequest::new(directory).plan());
    assert_names(&refused, &[MODEL, "100000001", "100000000"]);
}

#[test]
fn a_header_of_100_megabytes_that_is_no_json_is_refused() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    fs::write(directory.join(MODEL), 100_000_000u64.to_le_bytes()).unwrap();
    set_len(&directory.join(MODEL), 100_000_008);
    assert_names(&message(ViewRequest::new(directory).plan()), &[MODEL]);
}

#[test]
fn lengths_that_add_up_to_more_than_64_bits_are_refused() {
    let workspace = Workspace::new();
    let mut at = 0u64;
    let mut entries = serde_json::Map::new();
    for i in 0..9 {
        let len = ((1 << 61) - 1).min(u64::MAX - at);
        let span = [at, at + len];
        let entry = json!({"dtype": "U8", "shape": [len], "data_offsets": span});
        entries.insert(format!("t{i}"), entry);
        at += len;
    }
    let directory = sparse(&workspace, &Value::Object(entries).to_string(), 16);
    assert_names(&message(ViewRequest::new(directory).plan()), &[MODEL, "t8"]);
}

#[test]
fn a_number_that_no_offset_or_dimension_can_be_is_refused() {
    for number in ["1e999", "18446744073709551616", "-1", "0.5", "1e3"] {
        for (shape, end) in [(number, "1"), ("1", number)] {
            let workspace = Workspace::new();
            let text =
                format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,{end}]}}}}"#);
            let directory = sparse(&workspace, &text, 1);
            assert_names(&message(ViewRequest::new(directory).plan()), &[MODEL]);
        }
    }
}

#[test]
fn a_shape_whose_product_overflows_is_refused_also_if_it_has_a_zero_behind() {
    for shape in [
        json!([1u64 << 33, 1u64 << 33]),
        json!([1u64 << 33, 1u64 << 33, 0]),
    ] {
        let workspace = Workspace::new();
        let text = json!({"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]}});
        let directory = sparse(&workspace, &text.to_string(), 0);
        assert_names(&message(ViewRequest::new(directory).plan()), &[MODEL, "a"]);
    }
}

#[test]
fn a_million_tensors_in_one_header_are_read() {
    const COUNT: usize = 1_000_000;
    let mut text = String::from("{");
    for i in 0..COUNT {
        let end = i + 1;
        let comma = if i == 0 { "" } else { "," };
        text += &format!(
            r#"{comma}"layer.{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{end}]}}"#
        );
    }
    text.push('}');
    let workspace = Workspace::new();
    let directory = sparse(&workspace, &text, COUNT as u64);
    let plan = ViewRequest::new(directory).plan().unwrap();
    assert_eq!(plan.shards[0].tensors.len(), COUNT);
    assert_eq!(&*plan.shards[0].tensors[COUNT - 1].name, "layer.999999");

    // What the other tests of this process take is little beside it.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(
        peak * 1024 < 40 * text.len(),
        "{peak} kB for {} bytes",
        text.len()
    );
}

#[test]
fn tensors_without_bytes_come_in_the_same_order_every_time() {
    let workspace = Workspace::new();
    let names: Vec<String> = (0..40).map(|i| format!("empty.{i:02}")).collect();
    let tensors: Vec<(&str, Dtype, &[usize])> = names
        .iter()
        .map(|name| (name.as_str(), Dtype::F32, &[0][..]))
        .collect();
    let (text, len) = header(&tensors);
    let directory = sparse(&workspace, &text, len);
    let view = || {
        let plan = ViewRequest {
            shards: Some(Shards::Repack),
            shard_bytes: 1,
            ..ViewRequest::new(&directory)
        }
        .plan()
        .unwrap();
        let order = plan.shards[0].tensors.iter().map(|t| t.name.to_string());
        (
            order.collect::<Vec<_>>(),
            read_all(&ViewRequest::new(&directory).plan().unwrap()),
        )
    };
    let (order, first) = view();
    assert_eq!(order, names);
    assert!((0..4).all(|_| view().1 == first));
}

#[test]
fn a_tensor_without_bytes_may_have_dimensions_of_any_size() {
    let shapes: [&[u64]; 4] = [
        &[0, 1 << 63],
        &[1 << 60, 0],
        &[0, 1 << 40, 1 << 62],
        &[1 << 20, 1 << 40, 0],
    ];
    for shape in shapes {
        for partial_blocks in [PartialBlocks::Quantize, PartialBlocks::Keep] {
            let workspace = Workspace::new();
            let text = json!({WEIGHT: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}});
            let directory = sparse(&workspace, &text.to_string(), 0);
            let request = QuantizeParams {
                rules: Some(RuleSet::Exact),
                partial_blocks: Some(partial_blocks),
                ..QuantizeParams::default()
            };
            let plan = plan_fp8(&directory, request).unwrap();
            let shown = &plan.shards[0].tensors[0];
            assert_eq!((shown.dtype, shown.len), (Dtype::F8_E4M3, 0));
            assert_eq!(&*shown.shape, shape);
            read_all(&plan);
        }
    }
}

#[test]
fn a_row_that_takes_terabytes_is_refused_before_it_is_read() {
    let workspace = Workspace::new();
    let (text, len) = header(&[(WEIGHT, Dtype::BF16, &[1, 1 << 38])]);
    let directory = sparse(&workspace, &text, len);
    let refused = message(plan_by_rules(&directory));
    assert_names(&refused, &[MODEL, WEIGHT, "274877906944", "1048576"]);
}

#[test]
fn scales_of_terabytes_are_not_read_at_once() {
    let workspace = Workspace::new();
    let (text, len) = header(&[
        (WEIGHT, Dtype::F8_E4M3, &[2, 2]),
        (&format!("{WEIGHT}_scale_inv"), Dtype::F32, &[1 << 38]),
    ]);
    let directory = sparse(&workspace, &text, len);
    let request = QuantizeParams {
        rules: Some(RuleSet::Exact),
        scale_format: Some(ScaleFormat::Ue8m0),
        ..QuantizeParams::default()
    };
    // Zero is no power of two, which the first of them shows.
    let plan = plan_fp8(&directory, request).unwrap();
    let config = read_path(&plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["quantization_config"].get("scale_fmt"), None);
}

#[test]
fn a_shape_that_claims_billions_of_experts_is_refused() {
    let workspace = Workspace::new();
    let experts = 1 << 34;
    let (text, len) = header(&[
        (
            "model.layers.0.mlp.experts.gate_up_proj",
            Dtype::U8,
            &[experts, 2, 1],
        ),
        (
            "model.layers.0.mlp.experts.down_proj",
            Dtype::U8,
            &[experts, 1, 1],
        ),
    ]);
    let directory = sparse(&workspace, &text, len);
    fs::remove_file(directory.join("config.json")).unwrap();
    let request = ViewRequest {
        operations: Operations {
            experts: ExpertsParams::all(Experts::Unfuse),
            ..Operations::default()
        },
        ..ViewRequest::new(directory)
    };
    let parts = [MODEL, "experts.gate_up_proj", "17179869184", "262144"];
    assert_names(&message(request.plan()), &parts);
}

#[test]
fn layers_and_counts_up_to_the_last_64_bit_number_can_be_patched() {
    let workspace = Workspace::new();
    let last = u64::MAX;
    let config = format!(r#"{{"num_hidden_layers": {last}, "num_nextn_predict_layers": {last}}}"#);
    let name = format!("model.layers.{last}.mlp.gate.weight");
    let base = Checkpoint::single([bf16(&name, &[2])]).config(&config);
    let extra = Checkpoint::single([bf16("model.layers.1.mlp.gate.weight", &[2])]);
    let base = workspace.write("base", &base);
    let extra = workspace.write("extra", &extra);
    let plan = plan_patch(&base, &[&extra]).unwrap();
    let tensors = plan.shards.iter().map(|shard| shard.tensors.len());
    assert_eq!(tensors.sum::<usize>(), 2);
}

#[test]
fn names_that_are_not_utf8_are_refused_in_headers_and_indexes() {
    let bytes = |text: &str| -> Vec<u8> {
        let whole = text.bytes();
        whole.map(|b| if b == b'?' { 0xff } else { b }).collect()
    };
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let text = r#"{"a?":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}"#;
    let mut file = bytes(std::str::from_utf8(&with_length(text)).unwrap());
    file.extend([0; 8]);
    fs::write(directory.join(MODEL), file).unwrap();
    assert_names(&message(ViewRequest::new(&directory).plan()), &[MODEL]);

    fs::write(
        directory.join(INDEX),
        bytes(r#"{"weight_map":{"a?":"model.safetensors"}}"#),
    )
    .unwrap();
    assert_names(&message(ViewRequest::new(&directory).plan()), &[INDEX]);
}

#[test]
fn a_nul_is_part_of_a_tensors_name_but_of_no_shards() {
    let workspace = Workspace::new();
    let base = Checkpoint::new().shard("model-00001-of-00001.safetensors", [bf16("a\0b", &[4])]);
    let directory = workspace.write("base", &base);
    let plan = ViewRequest::new(&directory).plan().unwrap();
    assert_eq!(&*plan.shards[0].tensors[0].name, "a\0b");

    let text = json!({"weight_map": {"first": "model\0.safetensors"}});
    fs::write(directory.join(INDEX), text.to_string()).unwrap();
    assert_names(
        &message(ViewRequest::new(&directory).plan()),
        &[INDEX, "first", "\\0"],
    );
}

#[test]
fn an_index_that_names_a_tensor_twice_by_different_escapes_is_refused() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let text = r#"{"weight_map":{"a":"model.safetensors","\u0061":"model.safetensors"}}"#;
    fs::write(directory.join(INDEX), text).unwrap();
    assert_names(
        &message(ViewRequest::new(&directory).plan()),
        &[INDEX, "tensor a"],
    );
}

#[test]
fn nesting_without_end_is_refused_and_takes_no_stack() {
    let deep = "[".repeat(1 << 20);
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16(WEIGHT, &[4, 4])]));
    let closed = format!("{deep}{}", "]".repeat(1 << 20));

    // A value that nobody looks into keeps its text.
    fs::write(
        directory.join("config.json"),
        format!(r#"{{"a": {closed}}}"#),
    )
    .unwrap();
    let plan = plan_by_rules(&directory).unwrap();
    let text = String::from_utf8(read_path(&plan, "config.json").unwrap()).unwrap();
    assert!(text.contains(&closed));

    for key in ["quantization_config", "text_config"] {
        fs::write(
            directory.join("config.json"),
            format!(r#"{{"{key}": {closed}}}"#),
        )
        .unwrap();
        assert_names(&message(plan_by_rules(&directory)), &["config.json", key]);
    }
    fs::write(directory.join(INDEX), format!(r#"{{"weight_map": {deep}"#)).unwrap();
    assert_names(&message(ViewRequest::new(&directory).plan()), &[INDEX]);
    fs::remove_file(directory.join(INDEX)).unwrap();
    fs::write(
        directory.join(MODEL),
        with_length(&format!(r#"{{"a": {deep}"#)),
    )
    .unwrap();
    assert_names(&message(ViewRequest::new(&directory).plan()), &[MODEL]);
}

#[test]
fn a_number_beyond_all_bounds_hides_no_setting_of_a_config() {
    let text =
        r#"{"text_config": {"rope": 1e999, "quantization_config": {"quant_method": "awq"}}}"#;
    let workspace = Workspace::new();
    let base = Checkpoint::single([bf16(WEIGHT, &[4, 4])]).config(text);
    let refused = message(plan_by_rules(&workspace.write("base", &base)));
    assert_names(&refused, &["config.json", "text_config"]);
}

#[test]
fn a_config_or_index_of_terabytes_is_refused_unread() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16(WEIGHT, &[4, 4])]));
    set_len(&directory.join("config.json"), 1 << 40);
    let plain = ViewRequest::new(&directory).plan();
    assert!(plain.is_ok(), "a view that does not edit it just shows it");
    let refused = message(plan_by_rules(&directory));
    assert_names(&refused, &["config.json", "1099511627776", "16777216"]);

    fs::write(directory.join(INDEX), "{").unwrap();
    set_len(&directory.join(INDEX), 1 << 40);
    let refused = message(ViewRequest::new(&directory).plan());
    assert_names(&refused, &[INDEX, "1099511627776", "536870912"]);
}

#[test]
fn links_that_lead_in_a_circle_are_refused_as_shards_and_left_out_otherwise() {
    let workspace = Workspace::new();
    let base = Checkpoint::new().shard("model-00001-of-00001.safetensors", [bf16("a", &[4])]);
    let directory = workspace.write("base", &base);
    symlink("loop", directory.join("loop")).unwrap();
    let plan = ViewRequest::new(&directory).plan().unwrap();
    assert_names(&plan.report.sources[0].left_out.join("\n"), &["loop"]);

    let shard = directory.join("model-00001-of-00001.safetensors");
    fs::remove_file(&shard).unwrap();
    symlink("model-00001-of-00001.safetensors", &shard).unwrap();
    let refused = message(ViewRequest::new(&directory).plan());
    assert_names(&refused, &["model-00001-of-00001.safetensors", "tensor a"]);
}

#[test]
fn links_that_multiply_directories_are_refused() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    for i in 0..32 {
        let level = directory.join(format!("d{i:02}"));
        fs::create_dir(&level).unwrap();
        for link in ["a", "b"] {
            symlink(format!("../d{:02}", i + 1), level.join(link)).unwrap();
        }
    }
    fs::create_dir(directory.join("d32")).unwrap();
    let refused = message(ViewRequest::new(directory).plan());
    assert_names(&refused, &["base/d00/", "256 links"]);
}

#[test]
fn patterns_that_are_too_large_are_refused_by_name() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([bf16(WEIGHT, &[4, 4])]));
    for pattern in [
        "(a{1000}){1000}",
        r"\w{5000}",
        &r"\w{500}".repeat(30),
        "((((a{100}){100}){100}){100}){100}",
    ] {
        assert_names(&message(plan_fp8(&base, patterns(&[pattern]))), &[pattern]);
    }
    let nested = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    assert_names(
        &message(plan_fp8(&base, patterns(&[&nested]))),
        &["((((", "nest"],
    );
    let long = r"\w".repeat(1 << 20);
    let refused = message(plan_fp8(&base, patterns(&[&long])));
    assert_names(&refused, &[r"\w\w", "2097152", "16384"]);
}

#[test]
fn a_pattern_that_others_would_backtrack_over_takes_linear_time() {
    let workspace = Workspace::new();
    let name = "a".repeat(100_000);
    let base = workspace.write("base", &Checkpoint::single([bf16(&name, &[4, 4])]));
    let plan = plan_fp8(&base, patterns(&["(a|aa|a*)*b", "(x+x+)+y", "(a*)*(a*)*"])).unwrap();
    assert_eq!(plan.report.count("quantized"), 1);
}

#[test]
fn skip_lists_of_names_inside_names_take_no_more_than_a_few_times_their_length() {
    const PARTS: usize = 200;
    let workspace = Workspace::new();
    // Every kept name occurs in every quantized one, many times.
    let kept = (1..PARTS).map(|n| {
        tensor(
            &format!("{}.weight", "a".repeat(n)),
            Dtype::BF16,
            &[1, 1],
            1,
        )
    });
    let quantized = (0..PARTS).map(|n| {
        let name = format!("x{n}{}.weight", "a".repeat(PARTS));
        tensor(&name, Dtype::BF16, &[1, 1], 2)
    });
    let base = Checkpoint::single(kept.chain(quantized));
    let base = workspace.write("base", &base);
    let plan = plan_fp8(&base, patterns(&["x.*"])).unwrap();
    let warning = plan
        .report
        .warnings
        .iter()
        .find(|w| w.text().starts_with("transformers 4"));
    // Four are listed, and every module is counted once.
    assert_names(warning.unwrap(), &["and 196 more"]);
}
