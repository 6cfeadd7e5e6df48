//! What directories are checkpoints, what is taken from them, and in which order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ckptfs::error::Code;
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::readback::{read_all, read_path, tensors};
use crate::common::{Workspace, assert_names, message};

fn plan(directory: &Path) -> ckptfs::Result<Plan> {
    ViewRequest::new(directory).plan()
}

/// Names of the tensors of `plan` as they would be packed: one per shard.
fn packing_order(base: Checkpoint) -> Vec<String> {
    let mut wanted = Wanted::new(base);
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 1;
    let shards = assert_view(&wanted).shards;
    shards
        .into_iter()
        .map(|shard| shard.tensors[0].name.to_string())
        .collect()
}

#[test]
fn the_order_of_the_index_is_kept() {
    let base = Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [bf16("c", &[4]), bf16("a", &[4])],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16("d", &[4]), bf16("b", &[4])],
        )
        .index_order(["b", "a", "d", "c"]);
    assert_eq!(packing_order(base), ["b", "a", "d", "c"]);
}

#[test]
fn without_an_index_shards_are_taken_in_name_order() {
    let base = Checkpoint::new()
        .shard("part-b.safetensors", [bf16("x", &[4]), bf16("a", &[4])])
        .shard("part-a.safetensors", [bf16("z", &[4]), bf16("y", &[4])])
        .without_index();
    assert_eq!(packing_order(base), ["z", "y", "x", "a"]);
}

#[test]
fn without_an_index_a_single_model_safetensors_is_the_whole_checkpoint() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([bf16("a", &[4])]).shard("other.safetensors", [bf16("b", &[4])]);
    let plan = plan(&workspace.write("base", &base)).unwrap();
    assert_eq!(tensors(&plan).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_names(
        &plan.report.sources[0].left_out.join("\n"),
        &["other.safetensors"],
    );
}

#[test]
fn an_index_rules_over_a_model_safetensors_beside_it() {
    let workspace = Workspace::new();
    let base = Checkpoint::new().shard("model-00001-of-00001.safetensors", [bf16("a", &[4])]);
    let directory = workspace.write("base", &base);
    let other = Checkpoint::single([bf16("b", &[4])]);
    other.write(&directory);
    let plan = plan(&directory).unwrap();
    assert_eq!(tensors(&plan).into_keys().collect::<Vec<_>>(), ["a"]);
    assert!(read_path(&plan, "model.safetensors").is_none());
}

#[test]
fn a_plain_view_of_a_standard_checkpoint_is_its_files() {
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [bf16("a", &[4])])
        .shard("model-00002-of-00002.safetensors", [bf16("b", &[4])]);
    let plan = assert_view(&Wanted::new(base));
    assert!(plan.shards.iter().all(|shard| shard.whole_file.is_some()));
    assert_view(&Wanted::new(Checkpoint::single([bf16("a", &[4])])));
}

#[test]
fn safetensors_files_that_the_index_does_not_name_are_left_out_and_listed() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", [bf16("a", &[4])])
        .aux("adapter.safetensors", "not even a safetensors file");
    let plan = plan(&workspace.write("base", &base)).unwrap();
    assert!(read_path(&plan, "adapter.safetensors").is_none());
    assert_names(
        &plan.report.sources[0].left_out.join("\n"),
        &["adapter.safetensors"],
    );
}

#[test]
fn one_scalar_scale_that_several_shards_hold_for_their_fp8_tensors_is_one_tensor() {
    const MODULE: &str = "model.layers.0.self_attn";
    let file = |number: usize| format!("model-{number:05}-of-00003.safetensors");
    let codes = ["q_proj", "k_proj", "v_proj"].map(|name| {
        let name = format!("{MODULE}.{name}.weight");
        tensor(&name, Dtype::F8_E4M3, &[8, 8], 1)
    });
    let scale = tensor(&format!("{MODULE}.weight_scale"), Dtype::F32, &[], 5);
    // The shard that the index names has the scale; the others have copies.
    let base = |home: usize| {
        let mut base = Checkpoint::new();
        for (position, codes) in codes.iter().enumerate() {
            base = if position == home {
                base.shard(&file(position + 1), [codes.clone(), scale.clone()])
            } else {
                let base = base.shard(&file(position + 1), [codes.clone()]);
                base.unnamed([scale.clone()])
            };
        }
        base
    };
    let every = codes.iter().chain([&scale]);
    let every: BTreeMap<String, TensorData> = every.map(|t| (t.name.clone(), t.clone())).collect();
    for home in 0..3 {
        for shards in [
            Shards::Keep,
            Shards::Renumber,
            Shards::Repack,
            Shards::Single,
        ] {
            let wanted = Wanted {
                shards: Some(shards),
                ..Wanted::new(base(home))
            };
            let plan = assert_view(&wanted);
            assert_eq!(tensors(&plan), every);
        }
    }
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base(1).without_index());
    let plan = plan(&directory).unwrap();
    assert_eq!(tensors(&plan), every);
    let left_out = &plan.report.sources[0].left_out;
    assert_eq!(left_out.len(), 2);
    for (left_out, number) in left_out.iter().zip([2, 3]) {
        let parts = [&scale.name, &*file(number), "a copy", &*file(1)];
        assert_names(&left_out.what, &parts);
    }
}

#[test]
fn tensors_of_every_dtype_and_rank_are_passed_through() {
    use Dtype::*;
    let dtypes = [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ];
    let named = |dtype: Dtype, shape: &[usize]| tensor(&format!("{dtype:?}"), dtype, shape, 3);
    let mut all: Vec<TensorData> = dtypes.map(|dtype| named(dtype, &[3, 4, 5, 2])).into();
    all.push(tensor("scalar", F64, &[], 4));
    all.push(tensor("odd scalar", BOOL, &[], 5));
    all.push(tensor("none", F32, &[0], 6));
    all.push(tensor("none of many", I64, &[7, 0, 3], 7));
    all.push(tensor("vector", F16, &[7], 8));
    all.push(tensor("deep", I16, &[1, 3, 1, 5, 1], 9));
    let mut wanted = Wanted::new(Checkpoint::single(all));
    assert_view(&wanted);
    wanted.shards = Some(Shards::Repack);
    let plan = assert_view(&wanted);
    assert_eq!(plan.shards.len(), 1);
}

#[test]
fn names_with_any_characters_are_passed_through() {
    let names = [
        "a\"quote",
        "back\\slash",
        "tab\tand\nline",
        "ünïcode/✓",
        " ",
        "\u{1}",
    ];
    let mut wanted = Wanted::new(Checkpoint::single(names.map(|name| bf16(name, &[4]))));
    wanted.shards = Some(Shards::Repack);
    let plan = assert_view(&wanted);
    assert_eq!(plan.shards[0].tensors.len(), names.len());
}

#[test]
fn tensors_without_bytes_stay_in_the_order_of_the_header() {
    let names = ["c", "a", "e", "b", "f", "d"];
    let empty = |name| bf16(name, &[0, 4]);
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single(names.map(empty)));
    let plan = ViewRequest::new(directory).plan().unwrap();
    let planned = plan.shards[0].tensors.iter().map(|tensor| &*tensor.name);
    assert_eq!(planned.collect::<Vec<_>>(), names);
}

#[test]
fn a_header_that_is_padded_and_a_header_that_is_not_are_both_read() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[2])]));
    for padding in 0..9 {
        let entry = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        let header = entry.to_owned() + &" ".repeat(padding);
        let mut file = crate::common::safetensors_file::with_length(&header);
        file.extend_from_slice(&[1, 2, 3, 4]);
        fs::write(directory.join("model.safetensors"), file).unwrap();
        assert_eq!(
            *tensors(&plan(&directory).unwrap())["a"].bytes,
            [1, 2, 3, 4]
        );
    }
}

/// Moves every file of `directory` into a store of blobs and leaves links, as the hub cache does.
fn into_hub_cache(directory: &Path, hub: &Path) -> std::path::PathBuf {
    let snapshot = hub.join("snapshots/abc123");
    fs::create_dir_all(hub.join("blobs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (i, entry) in fs::read_dir(directory).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), hub.join(format!("blobs/hash{i}"))).unwrap();
        symlink(
            format!("../../blobs/hash{i}"),
            snapshot.join(entry.file_name()),
        )
        .unwrap();
    }
    snapshot
}

#[test]
fn a_snapshot_of_links_into_a_hub_cache_is_a_checkpoint() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [bf16("a", &[4])])
        .shard("model-00002-of-00002.safetensors", [bf16("b", &[4])])
        .aux("tokenizer.json", "{}");
    let directory = workspace.write("base", &base);
    let plain = read_all(&plan(&directory).unwrap());
    let snapshot = into_hub_cache(&directory, &workspace.path().join("hub"));
    let linked = plan(&snapshot).unwrap();
    assert!(plain == read_all(&linked), "links are followed");
    let wanted = snapshot.join("model-00001-of-00002.safetensors");
    assert_eq!(linked.shards[0].whole_file.as_ref(), Some(&wanted));
}

#[test]
fn modes_are_those_of_the_sources_without_their_write_bits() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", [bf16("a", &[4])])
        .aux("run.sh", "")
        .aux("deep/file", "");
    let directory = workspace.write("base", &base);
    let set = |path: &str, mode| {
        fs::set_permissions(directory.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("run.sh", 0o750);
    set("model-00001-of-00001.safetensors", 0o664);
    set("deep", 0o711);
    let plan = plan(&directory).unwrap();
    let mode = |path: &str| {
        let mut ids = 0..plan.view.len();
        let id = ids
            .find(|id| plan.view.path(*id) == Path::new(path))
            .unwrap();
        plan.view.get(id).unwrap().attributes.mode
    };
    assert_eq!(mode("run.sh"), 0o550);
    assert_eq!(mode("model-00001-of-00001.safetensors"), 0o444);
    assert_eq!(mode("deep"), 0o511);
    assert_eq!(mode("model.safetensors.index.json"), 0o444);
}

#[test]
fn a_source_that_is_written_to_after_planning_gives_an_error_and_never_other_bytes() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single([bf16("a", &[4])]));
    let plan = plan(&directory).unwrap();
    let reader = crate::common::readback::reader(&plan);
    crate::common::readback::read_tensor(&plan, &reader, "a").unwrap();
    let path = directory.join("model.safetensors");
    let mut longer = fs::read(&path).unwrap();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    let error = crate::common::readback::read_tensor(&plan, &reader, "a").unwrap_err();
    assert!(error.code() == Code::SourceChanged, "{error}");
    assert_names(&error.to_string(), &["model.safetensors"]);
}

#[test]
fn a_directory_without_weights_is_an_error_that_names_it() {
    let workspace = Workspace::new();
    let directory = workspace.write("nothing-here", &Checkpoint::new().without_index());
    assert_names(&message(plan(&directory)), &["nothing-here"]);
    let missing = workspace.path().join("missing");
    assert_names(&message(plan(&missing)), &["missing"]);
}
