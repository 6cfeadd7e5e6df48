//! Checkpoints that are not valid: the error names the file and the tensor.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use ckptfs::error::Code;
use ckptfs::kernels::lanes::Precision;
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::safetensors_file::{serialize, with_length};
use crate::common::{Workspace, assert_names, message};

const SHARD: &str = "model-00001-of-00002.safetensors";
const OTHER: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A valid checkpoint: `first.weight` in one shard, `second.weight` in the other.
fn valid(workspace: &Workspace) -> PathBuf {
    let checkpoint = Checkpoint::new()
        .shard(SHARD, [bf16("first.weight", &[4, 4])])
        .shard(OTHER, [bf16("second.weight", &[4, 4])]);
    workspace.write("base", &checkpoint)
}

fn plan(directory: &Path) -> ckptfs::Result<Plan> {
    ViewRequest::new(directory).plan()
}

/// The message for the valid checkpoint with `change` made to it, which names all of `parts`.
fn assert_refused(change: impl FnOnce(&Path), parts: &[&str]) {
    let workspace = Workspace::new();
    let directory = valid(&workspace);
    plan(&directory).expect("it is valid before the change");
    change(&directory);
    assert_names(&message(plan(&directory)), parts);
}

/// Edits the index.
fn edit_index(directory: &Path, edit: impl FnOnce(&mut Value)) {
    let path = directory.join(INDEX);
    let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut index);
    fs::write(path, index.to_string()).unwrap();
}

fn write_shard(directory: &Path, bytes: &[u8]) {
    fs::write(directory.join(SHARD), bytes).unwrap();
}

#[test]
fn a_tensor_that_its_shard_does_not_hold() {
    assert_refused(
        |directory| {
            edit_index(directory, |index| {
                index["weight_map"]["third.weight"] = SHARD.into()
            })
        },
        &[SHARD, "third.weight"],
    );
}

#[test]
fn a_tensor_that_is_in_another_shard_than_the_index_says() {
    assert_refused(
        |directory| {
            edit_index(directory, |index| {
                index["weight_map"]["first.weight"] = OTHER.into()
            })
        },
        &[OTHER, "first.weight"],
    );
}

/// Holds that the valid checkpoint is refused if the second shard has `first` too, a `first.weight`.
fn assert_refused_with(first: &TensorData, has_index: bool, parts: &[&str]) {
    let change = |directory: &Path| {
        if !has_index {
            fs::remove_file(directory.join(INDEX)).unwrap();
        }
        let second = bf16("second.weight", &[4, 4]);
        fs::write(directory.join(OTHER), serialize(&[first.clone(), second])).unwrap();
    };
    assert_refused(change, &[&[OTHER, "first.weight", SHARD], parts].concat());
}

#[test]
fn a_tensor_that_two_shards_hold_with_other_bytes_dtype_or_shape() {
    let first = bf16("first.weight", &[4, 4]);
    let mut bytes = first.bytes.to_vec();
    bytes[31] ^= 1;
    let changed = TensorData::new(&first.name, first.dtype, &first.shape, bytes);
    let flat = TensorData::new(&first.name, first.dtype, &[16], first.bytes.to_vec());
    let halves = TensorData::new(&first.name, Dtype::F16, &[4, 4], first.bytes.to_vec());
    for has_index in [true, false] {
        assert_refused_with(&changed, has_index, &["other bytes"]);
        assert_refused_with(&flat, has_index, &["another dtype or shape"]);
        assert_refused_with(&halves, has_index, &["another dtype or shape"]);
    }
}

#[test]
fn a_long_tensor_that_two_shards_hold_whatever_its_bytes() {
    let long = bf16("first.weight", &[1 << 16]);
    let both = |directory: &Path| {
        write_shard(directory, &serialize(std::slice::from_ref(&long)));
        let second = bf16("second.weight", &[4, 4]);
        fs::write(directory.join(OTHER), serialize(&[long.clone(), second])).unwrap();
    };
    assert_refused(both, &[OTHER, "first.weight", SHARD, "65536"]);
}

#[test]
fn an_index_value_that_is_not_a_plain_file_name() {
    let workspace = Workspace::new();
    let outside = Checkpoint::new().shard("x.safetensors", [bf16("first.weight", &[4, 4])]);
    let outside = workspace.write("outside", &outside).join("x.safetensors");
    let absolute = outside.to_str().unwrap().to_owned();
    let values = [
        "../outside/x.safetensors",
        "sub/x.safetensors",
        "./model-00001-of-00002.safetensors",
        "..",
        ".",
        "",
        "/",
        &absolute,
    ];
    for value in values {
        let directory = valid(&workspace);
        let sub = directory.join("sub");
        fs::create_dir_all(&sub).unwrap();
        fs::copy(&outside, sub.join("x.safetensors")).unwrap();
        edit_index(&directory, |index| {
            index["weight_map"]["first.weight"] = value.into()
        });
        assert_names(&message(plan(&directory)), &[INDEX, "first.weight", value]);
    }
}

#[test]
fn an_index_value_that_is_not_a_string() {
    assert_refused(
        |directory| {
            edit_index(directory, |index| {
                index["weight_map"]["first.weight"] = json!(3)
            })
        },
        &[INDEX],
    );
}

#[test]
fn an_index_that_names_a_tensor_twice() {
    let text = format!(
        r#"{{"metadata":{{}},"weight_map":{{"first.weight":"{SHARD}","second.weight":"{OTHER}","first.weight":"{SHARD}"}}}}"#
    );
    assert_refused(
        |directory| fs::write(directory.join(INDEX), text).unwrap(),
        &[INDEX, "first.weight"],
    );
}

#[test]
fn an_index_that_is_not_json_or_has_no_weight_map() {
    for text in [
        "",
        "[]",
        "{",
        r#"{"metadata": {}}"#,
        r#"{"weight_map": []}"#,
    ] {
        assert_refused(
            |directory| fs::write(directory.join(INDEX), text).unwrap(),
            &[INDEX],
        );
    }
}

#[test]
fn text_that_is_not_utf8_though_nobody_asks_for_it() {
    let spoil = |text: &str| -> Vec<u8> {
        let at = text.find('?').unwrap();
        [&text.as_bytes()[..at], b"\xB1", &text.as_bytes()[at + 1..]].concat()
    };
    let index = format!(
        r#"{{"metadata":{{"by":"?"}},"weight_map":{{"first.weight":"{SHARD}","second.weight":"{OTHER}"}}}}"#
    );
    assert_refused(
        |directory| fs::write(directory.join(INDEX), spoil(&index)).unwrap(),
        &[INDEX, "utf-8"],
    );
    let header =
        r#"{"first.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[0,32],"by":"?"}}"#;
    let mut file = with_length(header);
    file.resize(file.len() + 32, 0);
    assert_refused(
        |directory| {
            write_shard(directory, &file);
            plan(directory).expect("what nobody asks for does no harm");
            let start = 8 + header.len();
            file[8..start].copy_from_slice(&spoil(header));
            write_shard(directory, &file);
        },
        &[SHARD, "utf-8"],
    );
}

#[test]
fn a_shard_that_does_not_exist() {
    assert_refused(
        |directory| fs::remove_file(directory.join(SHARD)).unwrap(),
        &[SHARD],
    );
}

#[test]
fn a_link_to_a_blob_that_does_not_exist() {
    assert_refused(
        |directory| {
            fs::remove_file(directory.join(SHARD)).unwrap();
            std::os::unix::fs::symlink("../blobs/gone", directory.join(SHARD)).unwrap();
        },
        &[SHARD],
    );
}

#[test]
fn a_directory_where_a_shard_should_be() {
    assert_refused(
        |directory| {
            fs::remove_file(directory.join(SHARD)).unwrap();
            fs::create_dir(directory.join(SHARD)).unwrap();
        },
        &[SHARD],
    );
}

/// The message of planning `directory`, which must come without waiting for a writer.
fn message_in_time(directory: PathBuf) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(plan(&directory).map(drop)));
    let limit = Duration::from_secs(30);
    message(
        receiver
            .recv_timeout(limit)
            .expect("planning does not wait for a writer"),
    )
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_refused_and_not_waited_for() {
    for name in [SHARD, INDEX] {
        let workspace = Workspace::new();
        let directory = valid(&workspace);
        fs::remove_file(directory.join(name)).unwrap();
        make_fifo(&directory.join(name));
        assert_names(&message_in_time(directory), &[name]);
    }
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_file_that_is_longer_or_shorter_than_its_header_says() {
    let whole = serialize(&[bf16("first.weight", &[4, 4])]);
    let longer = [whole.as_slice(), &[0]].concat();
    for bytes in [&whole[..whole.len() - 1], &longer] {
        assert_refused(|directory| write_shard(directory, bytes), &[SHARD]);
    }
}

#[test]
fn a_header_that_is_cut_off() {
    let whole = serialize(&[bf16("first.weight", &[4, 4])]);
    for len in [0, 1, 7, 8, 9, 40] {
        assert_refused(|directory| write_shard(directory, &whole[..len]), &[SHARD]);
    }
}

#[test]
fn a_header_of_an_impossible_length() {
    let whole = serialize(&[bf16("first.weight", &[4, 4])]);
    for length in [0, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 7] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&u64::to_le_bytes(length));
        assert_refused(|directory| write_shard(directory, &bytes), &[SHARD]);
    }
}

/// Refuses a shard that has `header` and `data_len` bytes of data.
fn assert_header_refused(header: &str, data_len: usize, parts: &[&str]) {
    let mut bytes = with_length(header);
    bytes.resize(bytes.len() + data_len, 0);
    assert_refused(|directory| write_shard(directory, &bytes), parts);
}

#[test]
fn a_header_that_is_not_a_header() {
    let headers = ["", "[]", "{", "null", "\u{feff}{}", r#"{"first.weight":3}"#];
    for header in headers {
        assert_header_refused(header, 0, &[SHARD]);
    }
}

#[test]
fn a_header_that_names_a_tensor_twice() {
    let entry = r#""first.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[0,32]}"#;
    let header = format!("{{{entry},{entry}}}");
    assert_header_refused(&header, 32, &[SHARD, "first.weight"]);
}

#[test]
fn a_header_with_an_unknown_value_that_others_cannot_read() {
    let header = |value: &str| {
        format!(
            r#"{{"first.weight":{{"dtype":"BF16","shape":[4,4],"by":{value},"data_offsets":[0,32]}}}}"#
        )
    };
    for value in ["1e999".to_owned(), "[".repeat(200) + &"]".repeat(200)] {
        assert_header_refused(&header(&value), 32, &[]);
        let mut file = with_length(&header(&value));
        file.resize(file.len() + 32, 0);
        assert!(SafeTensors::deserialize(&file).is_err());
    }
    let mut file = with_length(&header("[1e99,{}]"));
    file.resize(file.len() + 32, 0);
    let workspace = Workspace::new();
    let directory = valid(&workspace);
    write_shard(&directory, &file);
    plan(&directory).expect("what others read is read here");
    SafeTensors::deserialize(&file).expect("others read it");
}

#[test]
fn of_several_invalid_shards_the_first_is_told() {
    let workspace = Workspace::new();
    let directory = valid(&workspace);
    fs::write(directory.join(OTHER), "short").unwrap();
    // Whoever reads both at once is done with the short one long before.
    write_shard(&directory, &with_length(&" ".repeat(20 << 20)));
    assert_names(&message(plan(&directory)), &[SHARD]);
}

#[test]
fn tensors_that_overlap_or_leave_holes() {
    let header = |a: [usize; 2], b: [usize; 2]| {
        let entry = |span| json!({"dtype": "U8", "shape": [4], "data_offsets": span});
        json!({"first.weight": entry(a), "b": entry(b)}).to_string()
    };
    assert_header_refused(&header([0, 4], [2, 6]), 6, &[SHARD]);
    assert_header_refused(&header([0, 4], [6, 10]), 10, &[SHARD]);
    assert_header_refused(&header([2, 6], [6, 10]), 10, &[SHARD]);
    assert_header_refused(&header([4, 0], [4, 8]), 8, &[SHARD]);
}

#[test]
fn a_tensor_whose_shape_and_length_disagree() {
    let header = |shape: Value| {
        json!({"first.weight": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 32]}})
            .to_string()
    };
    for shape in [
        json!([4, 5]),
        json!([-4, 4]),
        json!([1u64 << 40, 1u64 << 40]),
        json!("4x4"),
    ] {
        assert_header_refused(&header(shape), 32, &[SHARD]);
    }
}

#[test]
fn a_tensor_of_a_dtype_that_nobody_knows() {
    let header = r#"{"first.weight":{"dtype":"Q7","shape":[4,4],"data_offsets":[0,32]}}"#;
    assert_header_refused(header, 32, &[SHARD]);
}

#[test]
fn a_source_that_is_no_directory() {
    let workspace = Workspace::new();
    let directory = valid(&workspace);
    assert_names(&message(plan(&directory.join(SHARD))), &[SHARD]);
}

/// What a clone without Git LFS has in place of a file of `size` bytes.
fn lfs_pointer(size: u64) -> String {
    let id = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize {size}\n")
}

#[test]
fn a_pointer_in_place_of_weights_index_or_config_says_what_to_run() {
    for name in [SHARD, INDEX, "config.json"] {
        let workspace = Workspace::new();
        let directory = valid(&workspace);
        fs::write(directory.join(name), lfs_pointer(4_976_698_672)).unwrap();
        // --dtype reads config.json.
        let request = ViewRequest::new(&directory);
        let request = request.with(|asked| asked.dtype.to = Some(Precision::F32));
        let error = request.plan().unwrap_err();
        assert_eq!(error.code(), Code::NotDownloaded, "{name}");
        let pull = format!("git -C {} lfs pull", directory.display());
        assert_names(&error.to_string(), &[name, "4976698672 bytes"]);
        let hint = error.hint().unwrap().spelled(ckptfs::error::as_keys);
        assert_names(&hint, &[&pull]);
    }
}

#[test]
fn a_pointer_in_place_of_another_file_is_shown_and_warned_of() {
    let workspace = Workspace::new();
    let directory = valid(&workspace);
    let pointer = lfs_pointer(17_209_003);
    fs::create_dir(directory.join("deep")).unwrap();
    for name in ["tokenizer.json", "deep/vocab.txt"] {
        fs::write(directory.join(name), &pointer).unwrap();
    }
    let plan = plan(&directory).unwrap();
    let warnings = &plan.report.warnings;
    let codes: Vec<Code> = warnings.iter().map(|warning| warning.code()).collect();
    assert_eq!(codes, [Code::NotDownloaded; 2]);
    assert_names(warnings[0].text(), &["deep/vocab.txt", "17209003"]);
    assert_names(warnings[1].text(), &["tokenizer.json", "17209003"]);
    let shown = crate::common::readback::read_all(&plan);
    assert_eq!(shown[Path::new("tokenizer.json")], pointer.as_bytes());
}

#[test]
fn other_files_with_the_name_of_a_shard_are_called_what_they_are() {
    for (content, found) in [
        (&b"PK\x03\x04\x14\x00\x08\x08archive"[..], "zip"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j", "pickle"),
        (b"GGUF\x03\x00\x00\x00\x00", "GGUF"),
        (b"<!DOCTYPE html><html>", "HTML"),
    ] {
        assert_refused(
            |directory| fs::write(directory.join(SHARD), content).unwrap(),
            &[SHARD, "not a safetensors file", found],
        );
    }
}
