//! Checkpoints to make views of, and an independent account of what the views must hold.
//!
//! Nothing here uses the library's operators, kernels or layouts: [`oracle`] states in plain
//! scalar code what a view is, and [`compare`] holds a view against it.

// Every test file uses a part of this.
#![allow(dead_code)]

pub(crate) mod adapter;
pub(crate) mod checkpoint;
// Only tests are told where the program is.
#[cfg(all(test, feature = "cli"))]
pub(crate) mod command;
pub(crate) mod compare;
pub(crate) mod connection;
// Likewise.
#[cfg(all(test, feature = "cli"))]
pub(crate) mod limited;
pub(crate) mod oracle;
pub(crate) mod readback;
#[cfg(feature = "fuse")]
pub(crate) mod real_directory;
pub(crate) mod safetensors_file;
#[cfg(feature = "remote")]
pub(crate) mod store_server;
pub(crate) mod strategies;
pub(crate) mod values;
#[cfg(feature = "remote")]
pub(crate) mod web_server;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::recipe::{Plan, ViewRequest};

use checkpoint::Checkpoint;

/// A temporary directory that checkpoints are written into.
pub(crate) struct Workspace {
    directory: tempfile::TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Workspace {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `checkpoint` as the directory `name`.
    pub(crate) fn write(&self, name: &str, checkpoint: &Checkpoint) -> PathBuf {
        let directory = self.path().join(name);
        checkpoint.write(&directory);
        directory
    }
}

/// Writes the view to the directory `name` of `workspace`.
pub(crate) fn materialized(workspace: &Workspace, name: &str, request: &ViewRequest) -> PathBuf {
    let out = workspace.path().join(name);
    let plan = request.plan().expect("the view can be planned");
    materialize(&plan, &request.inputs(), &out, &Options::default(), &())
        .expect("the view can be written");
    out
}

/// The plan of an FP8 view of `base` by the rule set, all options at their defaults.
pub(crate) fn plan_by_rules(base: &Path) -> ckptfs::Result<Plan> {
    plan_fp8(base, QuantizeParams::by_rules())
}

/// The plan of an FP8 view of `base`.
pub(crate) fn plan_fp8(base: &Path, fp8: QuantizeParams) -> ckptfs::Result<Plan> {
    ViewRequest {
        operations: Operations {
            quantize: fp8,
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
}

/// The plan of `base` patched with `extras`.
pub(crate) fn plan_patch(base: &Path, extras: &[&Path]) -> ckptfs::Result<Plan> {
    ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: extras.iter().map(|extra| extra.into()).collect(),
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
}

/// Names of the tensors that the plan shows as FP8.
pub(crate) fn fp8_names(plan: &Plan) -> BTreeSet<&str> {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    let fp8 = tensors.filter(|tensor| tensor.dtype == ckptfs::tensor::Dtype::F8_E4M3);
    fp8.map(|tensor| &*tensor.name).collect()
}

/// The message of the error that `result` is.
pub(crate) fn message<T>(result: ckptfs::Result<T>) -> String {
    match result {
        Ok(_) => panic!("this must be an error"),
        Err(error) => error.to_string(),
    }
}

/// Asserts that `text` holds every one of `parts`.
pub(crate) fn assert_names(text: &(impl AsRef<str> + ?Sized), parts: &[&str]) {
    let text = text.as_ref();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}
