//! What `verify` finds where a directory is not the view.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::materialize::{Options, materialize};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::verify::{CompareReport, Difference, Kind, against_view};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::{Workspace, plan_by_rules};
use crate::directory::flip_byte;

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// A view and what `materialize` wrote of it.
struct Written {
    _workspace: Workspace,
    plan: Plan,
    out: PathBuf,
}

impl Written {
    fn new(fp8: bool, hardlink: bool) -> Self {
        let base = Checkpoint::new()
            .shard(
                FIRST,
                [
                    bf16("model.layers.0.self_attn.o_proj.weight", &[1024, 700]),
                    bf16("model.layers.0.input_layernorm.weight", &[256]),
                ],
            )
            .shard(SECOND, [bf16("lm_head.weight", &[32, 256])])
            .aux("deep/er/notes.txt", "some text");
        Written::of(&base, fp8, hardlink)
    }

    fn of(base: &Checkpoint, fp8: bool, hardlink: bool) -> Self {
        let workspace = Workspace::new();
        let base = workspace.write("base", base);
        let plan = if fp8 {
            plan_by_rules(&base).unwrap()
        } else {
            ViewRequest::new(&base).plan().unwrap()
        };
        let out = workspace.path().join("out");
        let options = Options {
            hardlink,
            ..Options::default()
        };
        materialize(&plan, &[base], &out, &options, &()).unwrap();
        Written {
            _workspace: workspace,
            plan,
            out,
        }
    }

    fn compare(&self) -> CompareReport {
        against_view(&self.plan, &self.out, 3, &()).unwrap()
    }

    /// Asserts that this is all that differs.
    fn assert_differs(&self, path: impl AsRef<Path>, kind: Kind) {
        let expected = Difference {
            path: path.as_ref().to_owned(),
            kind,
        };
        assert_eq!(self.compare().differences, [expected]);
    }

    /// Where `tensor` begins in its shard.
    fn offset_of(&self, tensor: &str) -> u64 {
        let shards = self.plan.shards.iter();
        let mut tensors = shards.flat_map(|shard| &shard.tensors);
        tensors.find(|t| *t.name == *tensor).unwrap().offset
    }
}

#[test]
fn what_materialize_wrote_is_the_view() {
    for (fp8, hardlink) in [(true, false), (false, false), (false, true)] {
        let written = Written::new(fp8, hardlink);
        let report = written.compare();
        assert_eq!(report.differences, []);
        assert_eq!(report.extra, [""; 0].map(PathBuf::from));
        assert_eq!(report.files, 5, "two shards, index, config and notes");
        let bytes: u64 = written.plan.view.files().map(|(.., file)| file.len()).sum();
        assert_eq!(report.bytes, bytes);
    }
}

#[test]
fn a_flipped_byte_is_found_with_the_tensor_that_holds_it() {
    for tensor in [
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.self_attn.o_proj.weight_scale_inv",
        "model.layers.0.input_layernorm.weight",
    ] {
        let written = Written::new(true, false);
        let offset = written.offset_of(tensor) + 3;
        flip_byte(&written.out.join(FIRST), offset as usize);
        let tensor = Some(tensor.to_owned());
        written.assert_differs(FIRST, Kind::Byte { offset, tensor });
    }
}

#[test]
fn of_several_flipped_bytes_the_first_is_reported_for_each_file() {
    let written = Written::new(true, false);
    let name = "model.layers.0.self_attn.o_proj.weight";
    let first = written.offset_of(name) + 100_000;
    for offset in [first + 400_000, first, first + 1] {
        flip_byte(&written.out.join(FIRST), offset as usize);
    }
    flip_byte(&written.out.join(SECOND), 10);
    let report = written.compare();
    let text: Vec<String> = report
        .differences
        .iter()
        .map(Difference::to_string)
        .collect();
    assert_eq!(
        text,
        [
            format!("{FIRST}: differs from byte {first} on, in tensor {name}"),
            format!("{SECOND}: differs from byte 10 on"),
        ]
    );
}

#[test]
fn a_flipped_byte_in_a_header_or_another_file_is_in_no_tensor() {
    for path in [FIRST, "config.json", "deep/er/notes.txt"] {
        let written = Written::new(true, false);
        flip_byte(&written.out.join(path), 8);
        let (offset, tensor) = (8, None);
        written.assert_differs(path, Kind::Byte { offset, tensor });
    }
}

#[test]
fn the_last_byte_of_a_large_file_is_compared() {
    let bytes = (0..70usize << 20).map(|i| (i % 251) as u8).collect();
    let large = TensorData::new("large", Dtype::U8, &[70 << 20], bytes);
    let written = Written::of(&Checkpoint::single([large]), false, false);
    assert_eq!(written.compare().differences, []);
    let offset = written.plan.shards[0].len - 1;
    let path = written.out.join("model.safetensors");
    flip_byte(&path, offset as usize);
    let tensor = Some("large".to_owned());
    written.assert_differs(
        "model.safetensors",
        Kind::Byte {
            offset,
            tensor: tensor.clone(),
        },
    );
    flip_byte(&path, (8 << 20) + 1);
    let offset = (8 << 20) + 1;
    written.assert_differs("model.safetensors", Kind::Byte { offset, tensor });
}

#[test]
fn a_missing_file_is_found() {
    for path in [FIRST, "deep/er/notes.txt"] {
        let written = Written::new(true, false);
        fs::remove_file(written.out.join(path)).unwrap();
        written.assert_differs(path, Kind::Missing);
    }
}

#[test]
fn a_missing_directory_is_found_with_what_is_in_it() {
    let written = Written::new(true, false);
    fs::remove_dir_all(written.out.join("deep")).unwrap();
    let report = written.compare();
    let paths: Vec<&Path> = report
        .differences
        .iter()
        .map(|d| d.path.as_path())
        .collect();
    assert_eq!(
        paths,
        ["deep", "deep/er", "deep/er/notes.txt"].map(Path::new)
    );
    assert!(report.differences.iter().all(|d| d.kind == Kind::Missing));
}

#[test]
fn a_file_in_place_of_a_directory_and_the_reverse_are_found() {
    let written = Written::new(true, false);
    fs::remove_dir_all(written.out.join("deep/er")).unwrap();
    fs::write(written.out.join("deep/er"), "a file").unwrap();
    fs::remove_file(written.out.join("config.json")).unwrap();
    fs::create_dir(written.out.join("config.json")).unwrap();
    let report = written.compare();
    let found: Vec<(&Path, &Kind)> = report
        .differences
        .iter()
        .map(|d| (d.path.as_path(), &d.kind))
        .collect();
    assert_eq!(
        found,
        [
            (Path::new("config.json"), &Kind::OtherType),
            (Path::new("deep/er"), &Kind::OtherType),
            (Path::new("deep/er/notes.txt"), &Kind::Missing),
        ]
    );
}

#[test]
fn another_length_is_found() {
    let written = Written::new(true, false);
    let path = written.out.join(SECOND);
    let view = path.metadata().unwrap().len();
    for (directory, tensors) in [
        (
            view - 1,
            vec!["it ends before the end of: lm_head.weight".to_owned()],
        ),
        (view + 1, vec![]),
    ] {
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(directory)
            .unwrap();
        let kind = Kind::Length {
            view,
            directory,
            tensors,
        };
        written.assert_differs(SECOND, kind);
    }
}

#[test]
fn of_a_shard_of_another_length_the_tensors_that_differ_are_named() {
    let name = "model.layers.0.self_attn.o_proj.weight";
    let shard = |tensors: Vec<TensorData>| Checkpoint::new().shard(FIRST, tensors);
    let norm = || bf16("model.norm.weight", &[256]);
    let written = Written::of(&shard(vec![bf16(name, &[128, 128]), norm()]), true, false);
    let other = shard(vec![
        bf16(name, &[128, 64]),
        norm(),
        bf16("new.weight", &[2, 2]),
    ]);
    other.write(&written.out);
    let report = written.compare();
    let mut shards = report.differences.iter();
    let difference = shards.find(|d| d.path == Path::new(FIRST)).unwrap();
    crate::common::assert_names(
        &difference.to_string(),
        &[
            FIRST,
            " bytes long, in the view ",
            &format!("; only in the view: {name}_scale_inv"),
            &format!(
                "; of another dtype or shape: {name} (BF16 [128, 64], in the view F8_E4M3 [128, 128])"
            ),
            "; only in the directory: new.weight",
        ],
    );
}

#[test]
fn weights_that_the_view_does_not_have_are_a_difference_and_other_files_are_told() {
    let written = Written::new(true, false);
    fs::write(written.out.join("more.safetensors"), "weights").unwrap();
    fs::write(
        written.out.join("deep/more.safetensors"),
        "not read by loaders",
    )
    .unwrap();
    fs::write(written.out.join("README.md"), "text").unwrap();
    written.assert_differs("more.safetensors", Kind::ExtraWeights);
    let extra = ["README.md", "deep/more.safetensors"].map(PathBuf::from);
    assert_eq!(written.compare().extra, extra);
}

#[test]
fn a_directory_that_does_not_exist_is_an_error() {
    let written = Written::new(true, false);
    let nowhere = written.out.join("nowhere");
    let error = against_view(&written.plan, &nowhere, 1, &()).unwrap_err();
    crate::common::assert_names(&error.to_string(), &["nowhere"]);
}
