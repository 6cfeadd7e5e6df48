//! Directories with files of `torch.save`: which of them are the model, and what the view is called.

use std::fs;

use ckptfs::error::Code;
use ckptfs::ops::{Operations, PatchParams};
use ckptfs::recipe::{Shards, ViewRequest};
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::{assert_new_shard, read_all, read_path, tensors};
use crate::common::{Workspace, assert_names, message};
use crate::file::{FORMS, File, Form, Storage, directory, directory_of, plan};
use crate::pickle::ordered_dict;

const INDEX: &str = "pytorch_model.bin.index.json";

/// A file with one tensor of `count` elements.
fn one(form: Form, name: &str, count: usize) -> Vec<u8> {
    let file = File::new(form, [Storage::floats(count)]);
    file.bytes(&ordered_dict([(name, file.whole(0))]))
}

fn index(entries: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<String, Value> = entries
        .iter()
        .map(|&(name, file)| (name.to_owned(), file.into()))
        .collect();
    json!({"metadata": {"total_size": 0}, "weight_map": map})
        .to_string()
        .into_bytes()
}

const FIRST: &str = "pytorch_model-00001-of-00002.bin";
const SECOND: &str = "pytorch_model-00002-of-00002.bin";

fn sharded(workspace: &Workspace, names: [&str; 2]) -> std::path::PathBuf {
    let files = [one(Form::Zip, names[0], 6), one(Form::Legacy, names[1], 4)];
    let index = index(&[(names[0], FIRST), (names[1], SECOND)]);
    directory_of(
        workspace,
        &[(FIRST, &files[0]), (SECOND, &files[1]), (INDEX, &index)],
    )
}

#[test]
fn the_view_is_safetensors_with_an_index_and_the_other_files() {
    for form in FORMS {
        let workspace = Workspace::new();
        let base = directory(&workspace, &one(form, "w", 6));
        fs::write(base.join("tokenizer.json"), "{}").unwrap();
        let plan = plan(&base).unwrap();
        let files = read_all(&plan);
        let names: Vec<String> = files
            .keys()
            .map(|path| path.display().to_string())
            .collect();
        let shard = "model-00001-of-00001.safetensors";
        let expected = [
            "config.json",
            shard,
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(names, expected);
        assert_new_shard(shard, &files[std::path::Path::new(shard)]);
    }
}

#[test]
fn an_index_says_which_files_there_are_and_its_partition_can_be_kept() {
    let workspace = Workspace::new();
    let base = sharded(&workspace, ["a", "b"]);
    assert_eq!(plan(&base).unwrap().shards.len(), 1, "repacked by default");
    let request = ViewRequest {
        shards: Some(Shards::Keep),
        ..ViewRequest::new(&*base)
    };
    let kept = request.plan().unwrap();
    let names: Vec<&str> = kept.shards.iter().map(|shard| &*shard.name).collect();
    let expected = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(names, expected);
    let found = tensors(&kept);
    assert_eq!(&*found["a"].bytes, Storage::floats(6).data);
    assert_eq!(&*found["b"].bytes, Storage::floats(4).data);
}

#[test]
fn prefixes_are_taken_off_the_names_of_all_shards_or_none() {
    let workspace = Workspace::new();
    let all = plan(&sharded(&workspace, ["module.a", "module.b"])).unwrap();
    assert_eq!(tensors(&all).into_keys().collect::<Vec<_>>(), ["a", "b"]);
    let workspace = Workspace::new();
    let one = plan(&sharded(&workspace, ["module.a", "b"])).unwrap();
    assert_eq!(
        tensors(&one).into_keys().collect::<Vec<_>>(),
        ["b", "module.a"]
    );
}

#[test]
fn index_and_files_that_do_not_agree_are_refused() {
    for (names, code) in [
        ([("a", FIRST), ("b", FIRST)], Code::IndexMismatch),
        ([("a", FIRST), ("c", SECOND)], Code::IndexMismatch),
        (
            [("a", FIRST), ("b", "pytorch_model-00003-of-00003.bin")],
            Code::MissingShard,
        ),
    ] {
        let workspace = Workspace::new();
        let base = sharded(&workspace, ["a", "b"]);
        fs::write(base.join(INDEX), index(&names)).unwrap();
        assert_eq!(plan(&base).unwrap_err().code(), code);
    }
}

#[test]
fn without_an_index_all_shards_are_the_model_unless_one_file_is() {
    let workspace = Workspace::new();
    let base = sharded(&workspace, ["a", "b"]);
    fs::remove_file(base.join(INDEX)).unwrap();
    let both = plan(&base).unwrap();
    assert_eq!(tensors(&both).into_keys().collect::<Vec<_>>(), ["a", "b"]);
    fs::write(base.join("pytorch_model.bin"), one(Form::Zip, "w", 6)).unwrap();
    let alone = plan(&base).unwrap();
    assert_eq!(tensors(&alone).into_keys().collect::<Vec<_>>(), ["w"]);
    let left_out = alone.report.sources[0].left_out.join("\n");
    assert_names(
        &left_out,
        &[FIRST, SECOND, "pytorch_model.bin is the whole checkpoint"],
    );
}

#[test]
fn safetensors_in_the_same_directory_are_the_model() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    fs::write(base.join("pytorch_model.bin"), one(Form::Zip, "w", 6)).unwrap();
    let plan = plan(&base).unwrap();
    assert_eq!(tensors(&plan).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_names(
        &plan.report.sources[0].left_out.join("\n"),
        &["pytorch_model.bin", "another format"],
    );
    assert_eq!(read_path(&plan, "pytorch_model.bin"), None);
}

#[test]
fn files_of_training_are_no_weights_and_are_shown_as_they_are() {
    let workspace = Workspace::new();
    let base = directory(&workspace, &one(Form::Zip, "w", 6));
    let others = [
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state_0.pth",
        "spiece.bin",
    ];
    for name in others {
        fs::write(base.join(name), name).unwrap();
    }
    let plan = plan(&base).unwrap();
    assert_eq!(tensors(&plan).len(), 1);
    for name in others {
        assert_eq!(read_path(&plan, name).as_deref(), Some(name.as_bytes()));
    }
    // And alone they are no checkpoint.
    fs::remove_file(base.join("pytorch_model.bin")).unwrap();
    let error = crate::file::plan(&base).unwrap_err();
    assert_eq!(error.code(), Code::NoCheckpoint);
    assert_names(&error.to_string(), &["pytorch_model.bin", "*.safetensors"]);
}

#[test]
fn weights_of_other_frameworks_beside_it_are_left_out() {
    let workspace = Workspace::new();
    let base = directory(&workspace, &one(Form::Zip, "w", 6));
    for name in ["tf_model.h5", "flax_model.msgpack", "consolidated.00.pth"] {
        fs::write(base.join(name), "x").unwrap();
    }
    let plan = plan(&base).unwrap();
    let left_out = plan.report.sources[0].left_out.join("\n");
    assert_names(
        &left_out,
        &["tf_model.h5", "flax_model.msgpack", "consolidated.00.pth"],
    );
    assert_eq!(read_path(&plan, "tf_model.h5"), None);
}

#[test]
fn a_file_of_any_name_is_a_base_of_its_tensors_alone() {
    for name in ["model.pt", "checkpoint.pth", "weights.bin"] {
        let workspace = Workspace::new();
        let file = workspace.path().join(name);
        fs::write(&file, one(Form::Zip, "w", 6)).unwrap();
        fs::write(workspace.path().join("other.bin"), "x").unwrap();
        let plan = plan(&file).unwrap();
        let found = tensors(&plan);
        assert_eq!(&*found["w"].bytes, Storage::floats(6).data);
        let names: Vec<_> = read_all(&plan).into_keys().collect();
        assert_eq!(names.len(), 2, "a shard and its index: {names:?}");
        let mode = plan.view.root().attributes.mode;
        assert_eq!(
            mode & 0o100,
            0o100,
            "its directory can be entered: {mode:o}"
        );
    }
}

#[test]
fn a_file_of_any_name_is_an_extra() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let file = workspace.path().join("more.pt");
    fs::write(&file, one(Form::Legacy, "w", 6)).unwrap();
    let request = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![(&file).into()],
            },
            ..Operations::default()
        },
        ..ViewRequest::new(&*base)
    };
    let plan = request.plan().unwrap();
    assert_eq!(&*tensors(&plan)["w"].bytes, Storage::floats(6).data);
}

#[test]
fn a_file_that_is_not_of_torch_is_no_base() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let error = message(plan(&base.join("model.safetensors")));
    assert_names(&error, &["model.safetensors", "a directory is wanted"]);
}
