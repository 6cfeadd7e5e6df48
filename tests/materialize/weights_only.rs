//! `materialize` of the weights alone: shards and index join an existing model directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckptfs::materialize::{Options, Summary, materialize};
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{CONFIG, Checkpoint, bf16, of_values};
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names, message, plan_by_rules};
use crate::directory::{files, names};

const INDEX: &str = "model.safetensors.index.json";

fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [bf16("model.layers.0.self_attn.o_proj.weight", &[256, 256])],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16("model.norm.weight", &[256])],
        )
        .aux("tokenizer.json", "{}")
}

/// A base, and a model directory with a config, files of its own, and no weights.
struct Model {
    workspace: Workspace,
    sources: Vec<PathBuf>,
    out: PathBuf,
}

impl Model {
    fn new(base: &Checkpoint) -> Self {
        let workspace = Workspace::new();
        let sources = vec![workspace.write("base", base)];
        let out = workspace.path().join("out");
        fs::create_dir_all(out.join("deep")).unwrap();
        fs::write(out.join("config.json"), CONFIG).unwrap();
        fs::write(out.join("deep/notes.txt"), "mine").unwrap();
        Model {
            workspace,
            sources,
            out,
        }
    }

    fn plain(&self) -> Plan {
        ViewRequest::new(&self.sources[0]).plan().unwrap()
    }

    fn place(&self, plan: &Plan, overwrite: bool) -> ckptfs::Result<Summary> {
        let options = Options {
            weights_only: true,
            overwrite,
            ..Options::default()
        };
        materialize(plan, &self.sources, &self.out, &options, &())
    }

    fn assert_refused(&self, plan: &Plan, overwrite: bool, parts: &[&str]) {
        let before = files(self.workspace.path());
        assert_names(&message(self.place(plan, overwrite)), parts);
        let mut after = files(self.workspace.path());
        // Files that are complete wait here for the next run.
        after.retain(|path, _| !path.starts_with("out/.ckptfs-partial"));
        assert!(after == before, "something was changed");
    }
}

/// The shards and the index of the view.
fn weights(plan: &Plan) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = read_all(plan);
    files.retain(|path, _| path.to_str().unwrap().contains(".safetensors"));
    files
}

#[test]
fn shards_and_index_are_placed_and_no_other_file_is_touched() {
    let model = Model::new(&base());
    let plan = plan_by_rules(&model.sources[0]).unwrap();
    let state = |name: &str| {
        let metadata = model.out.join(name).metadata().unwrap();
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    };
    let before = [state("config.json"), state("deep/notes.txt")];
    let mut expected = files(&model.out);
    let summary = model.place(&plan, false).unwrap();

    expected.extend(weights(&plan));
    assert_eq!(files(&model.out), expected);
    assert_eq!([state("config.json"), state("deep/notes.txt")], before);
    assert_eq!(summary.files, 3, "two shards and the index");
    assert_eq!(
        names(&model.out),
        [
            "config.json",
            "deep",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            INDEX
        ]
    );
}

#[test]
fn a_directory_that_does_not_exist_is_refused() {
    let model = Model::new(&base());
    fs::remove_dir_all(&model.out).unwrap();
    let error = message(model.place(&model.plain(), false));
    assert_names(&error, &["out", "does not exist"]);
    assert!(!model.out.exists());
}

#[test]
fn a_name_that_is_taken_is_refused_without_overwrite() {
    for name in ["model-00002-of-00002.safetensors", INDEX] {
        let model = Model::new(&base());
        fs::write(model.out.join(name), "mine").unwrap();
        model.assert_refused(&model.plain(), false, &["out", name, "use overwrite"]);
    }
}

#[test]
fn with_overwrite_the_taken_names_get_the_weights_of_the_view() {
    let model = Model::new(&base());
    for name in ["model-00002-of-00002.safetensors", INDEX] {
        fs::write(model.out.join(name), "old").unwrap();
    }
    let mut expected = files(&model.out);
    let plan = model.plain();
    let summary = model.place(&plan, true).unwrap();
    expected.extend(weights(&plan));
    assert_eq!(files(&model.out), expected);
    assert_eq!(summary.warnings, [""; 0]);
    assert!(!names(&model.out).iter().any(|name| name.starts_with('.')));
}

#[test]
fn a_directory_in_place_of_a_shard_is_refused_even_with_overwrite() {
    let model = Model::new(&base());
    fs::create_dir(model.out.join(INDEX)).unwrap();
    model.assert_refused(
        &model.plain(),
        true,
        &[INDEX, "is a directory", "move it away"],
    );
}

#[test]
fn other_weights_in_the_directory_are_named_and_refused_even_with_overwrite() {
    for name in ["model.safetensors", "model-00003-of-00003.safetensors"] {
        let model = Model::new(&base());
        fs::write(model.out.join(name), "mine").unwrap();
        for overwrite in [false, true] {
            model.assert_refused(&model.plain(), overwrite, &[name, "delete or move"]);
        }
    }
}

#[test]
fn an_index_that_a_single_file_would_stand_beside_is_refused() {
    let model = Model::new(&base());
    let request = ViewRequest {
        shards: Some(Shards::Single),
        ..ViewRequest::new(&model.sources[0])
    };
    let plan = request.plan().unwrap();
    fs::write(model.out.join(INDEX), "{}").unwrap();
    for overwrite in [false, true] {
        model.assert_refused(&plan, overwrite, &[INDEX, "delete or move"]);
    }
    fs::remove_file(model.out.join(INDEX)).unwrap();
    model.place(&plan, false).unwrap();
    assert!(model.out.join("model.safetensors").is_file());
    assert!(!model.out.join(INDEX).exists());
}

#[test]
fn a_failure_midway_leaves_the_directory_as_it_was() {
    let broken = base().shard(
        "model-00003-of-00003.safetensors",
        [of_values(
            "model.layers.1.self_attn.o_proj.weight",
            Dtype::BF16,
            &[1, 1],
            &[f32::INFINITY],
        )],
    );
    let model = Model::new(&broken);
    fs::write(model.out.join(INDEX), "mine").unwrap();
    let plan = plan_by_rules(&model.sources[0]).unwrap();
    model.assert_refused(
        &plan,
        true,
        &["model.layers.1.self_attn.o_proj.weight", "inf"],
    );
}

#[test]
fn a_config_without_the_quantization_of_the_view_is_warned_of() {
    let model = Model::new(&base());
    let plan = plan_by_rules(&model.sources[0]).unwrap();
    let summary = model.place(&plan, false).unwrap();
    let [warning] = &summary.warnings[..] else {
        panic!("one warning: {:?}", summary.warnings);
    };
    assert_names(
        warning,
        &["out/config.json", "quantization_config is missing"],
    );
}

#[test]
fn a_config_with_a_quantization_that_the_view_lacks_is_warned_of() {
    let model = Model::new(&base());
    let config = CONFIG.replacen(
        '{',
        r#"{"quantization_config": {"quant_method": "fp8"},"#,
        1,
    );
    fs::write(model.out.join("config.json"), config).unwrap();
    let summary = model.place(&model.plain(), false).unwrap();
    assert_names(
        &summary.warnings.concat(),
        &["quantization_config is only there"],
    );
}

#[test]
fn a_config_that_says_the_same_in_other_words_is_not_warned_of() {
    let model = Model::new(&base());
    let config: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    fs::write(model.out.join("config.json"), config.to_string()).unwrap();
    let summary = model.place(&model.plain(), false).unwrap();
    assert_eq!(summary.warnings, [""; 0]);
}

#[test]
fn a_missing_config_is_warned_of() {
    let model = Model::new(&base());
    fs::remove_file(model.out.join("config.json")).unwrap();
    let summary = model.place(&model.plain(), false).unwrap();
    assert_names(
        &summary.warnings.concat(),
        &["config.json", "the directory does not"],
    );
}

#[test]
fn the_base_is_refused() {
    let mut model = Model::new(&base());
    model.out = model.sources[0].clone();
    model.assert_refused(&model.plain(), true, &["this is", "base"]);
}

#[test]
fn unchanged_shards_are_hard_links_if_asked_for() {
    let model = Model::new(&base());
    let options = Options {
        weights_only: true,
        hardlink: true,
        ..Options::default()
    };
    let plan = model.plain();
    let summary = materialize(&plan, &model.sources, &model.out, &options, &()).unwrap();
    assert_eq!(summary.linked, 2);
    let inode = |path: &Path| path.metadata().unwrap().ino();
    for shard in &plan.shards {
        let [out, base] = [&model.out, &model.sources[0]].map(|d| inode(&d.join(&shard.name)));
        assert_eq!(out, base);
    }
}
