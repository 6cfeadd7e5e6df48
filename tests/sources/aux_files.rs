//! Files of a checkpoint directory that are not its weights.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use ckptfs::recipe::{Plan, ViewRequest};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::{read_all, read_path};
use crate::common::{Workspace, assert_names};

fn base() -> Checkpoint {
    Checkpoint::single([bf16("a", &[4])])
}

fn plan(directory: &Path) -> Plan {
    ViewRequest::new(directory).plan().unwrap()
}

fn paths(plan: &Plan) -> BTreeSet<PathBuf> {
    read_all(plan).into_keys().collect()
}

#[test]
fn top_level_files_and_whole_subdirectories_are_shown_verbatim() {
    let kept = [
        "tokenizer.json",
        "README.md",
        "no-extension",
        ".gitattributes",
        "empty",
        "onnx/model.onnx",
        "onnx/deep/er/config.json",
        "original/consolidated.00.pth",
        "1_Pooling/model.safetensors",
        "1_Pooling/pytorch_model.bin",
    ];
    let content = |path: &str| {
        if path == "empty" {
            String::new()
        } else {
            format!("this is {path}")
        }
    };
    let checkpoint = kept.iter().fold(base(), |checkpoint, path| {
        checkpoint.aux(path, content(path))
    });
    let workspace = Workspace::new();
    let plan = plan(&workspace.write("base", &checkpoint));
    for path in kept {
        assert_eq!(
            read_path(&plan, path).as_deref(),
            Some(content(path).as_bytes()),
            "{path}"
        );
    }
}

#[test]
fn weights_in_other_formats_and_the_marks_of_tools_are_left_out_and_listed() {
    let left_out = [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "flax_model.msgpack",
        "consolidated.safetensors",
        "consolidated.00.pth",
        "consolidated.safetensors.index.json",
        ".git/HEAD",
        ".cache/huggingface/x.lock",
        ".ckptfs/stats.json",
    ];
    let checkpoint = left_out
        .iter()
        .fold(base(), |checkpoint, path| checkpoint.aux(path, path));
    let workspace = Workspace::new();
    let plan = plan(&workspace.write("base", &checkpoint));
    let shown = paths(&plan);
    let listed = plan.report.sources[0].left_out.join("\n");
    for path in left_out {
        assert!(!shown.contains(Path::new(path)), "{path} is shown");
        assert_names(&listed, &[path.split('/').next().unwrap()]);
    }
}

#[test]
fn the_indexes_of_other_formats_are_left_out() {
    let indexes = ["tf_model.h5.index.json", "flax_model.msgpack.index.json"];
    let checkpoint = indexes
        .iter()
        .fold(base(), |checkpoint, path| checkpoint.aux(path, path));
    let workspace = Workspace::new();
    let shown = paths(&plan(&workspace.write("base", &checkpoint)));
    assert!(
        indexes.iter().all(|path| !shown.contains(Path::new(path))),
        "{shown:?}"
    );
}

#[test]
fn a_name_that_only_looks_like_one_that_is_left_out_is_shown() {
    let kept = [
        "my_pytorch_model.txt",
        "tf_model.h5.txt",
        ".github/workflow.yml",
        ".gitignore",
        "tokenizer/.ckptfs/stats.json",
    ];
    let checkpoint = kept
        .iter()
        .fold(base(), |checkpoint, path| checkpoint.aux(path, path));
    let workspace = Workspace::new();
    let shown = paths(&plan(&workspace.write("base", &checkpoint)));
    assert!(
        kept.iter().all(|path| shown.contains(Path::new(path))),
        "{shown:?}"
    );
}

#[test]
fn links_to_files_and_directories_are_followed() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let outside = workspace.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("merges.txt"), "merges").unwrap();
    symlink("../outside/merges.txt", directory.join("merges.txt")).unwrap();
    symlink("../outside", directory.join("linked")).unwrap();
    let plan = plan(&directory);
    assert_eq!(read_path(&plan, "merges.txt").unwrap(), b"merges");
    assert_eq!(read_path(&plan, "linked/merges.txt").unwrap(), b"merges");
}

#[test]
fn names_that_are_not_utf8_are_shown_as_they_are() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let name = OsStr::from_bytes(b"caf\xE9.txt");
    fs::write(directory.join(name), "coffee").unwrap();
    assert_eq!(read_path(&plan(&directory), name).unwrap(), b"coffee");
}

#[test]
fn an_empty_directory_is_shown() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    fs::create_dir_all(directory.join("empty/inside")).unwrap();
    let plan = plan(&directory);
    let outer = plan.view.lookup(0, OsStr::new("empty")).unwrap();
    let inner = plan.view.lookup(outer, OsStr::new("inside")).unwrap();
    assert_eq!(plan.view.children(inner), Some([].as_slice()));
}

#[test]
fn directories_that_link_to_themselves_do_not_keep_planning_from_ending() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    fs::create_dir(directory.join("deep")).unwrap();
    for link in ["deep/one", "deep/two"] {
        symlink("../deep", directory.join(link)).unwrap();
    }
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(ViewRequest::new(directory).plan().map(drop).is_ok()));
    let limit = Duration::from_secs(30);
    receiver.recv_timeout(limit).expect("planning ends");
}

#[test]
fn a_fifo_among_the_other_files_is_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let path = directory.join("queue");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let plan = ViewRequest::new(directory).plan().unwrap();
        sender.send((paths(&plan), plan.report.sources[0].left_out.join("\n")))
    });
    let limit = Duration::from_secs(30);
    let (shown, left_out) = receiver
        .recv_timeout(limit)
        .expect("planning and reading end");
    assert!(!shown.contains(Path::new("queue")));
    assert_names(&left_out, &["queue"]);
}
