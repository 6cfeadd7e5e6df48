//! Views in one of the layouts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ckptfs::error::Code;
use ckptfs::ops::{NameLayout, NamesParams, Operations};
use ckptfs::recipe::{Plan, ViewRequest};

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::{Workspace, materialized};

pub(crate) fn request(base: &Path, layout: NameLayout) -> ViewRequest {
    ViewRequest {
        operations: Operations {
            names: NamesParams {
                layout: Some(layout),
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

pub(crate) fn plan(base: &Path, layout: NameLayout) -> ckptfs::Result<Plan> {
    request(base, layout).plan()
}

/// A checkpoint of `model_type`, with more of config.json: `, "key": value`.
pub(crate) fn checkpoint(model_type: &str, more: &str, tensors: &[TensorData]) -> Checkpoint {
    let config = format!(r#"{{"model_type": "{model_type}"{more}}}"#);
    Checkpoint::single(tensors.to_vec()).config(&config)
}

pub(crate) fn by_name(tensors: &[TensorData]) -> BTreeMap<String, TensorData> {
    let tensors = tensors.iter();
    tensors.map(|t| (t.name.clone(), t.clone())).collect()
}

/// Checks that `released` and `transformers` are one model in the two layouts: each becomes the other, also where
/// the other was written before, and each stays as it is.
pub(crate) fn assert_layouts(
    model_type: &str,
    more: &str,
    released: &[TensorData],
    transformers: &[TensorData],
) {
    let workspace = Workspace::new();
    let layouts = [
        (NameLayout::Released, released),
        (NameLayout::Transformers, transformers),
    ];
    for [(from, have), (to, want)] in [layouts, [layouts[1], layouts[0]]] {
        let base = checkpoint(model_type, more, have);
        let base = workspace.write(&format!("{from:?}"), &base);
        let there = plan(&base, to).unwrap();
        assert!(
            there.report.warnings.is_empty(),
            "{:?}",
            there.report.warnings
        );
        assert_eq!(tensors(&there), by_name(want), "{model_type} {to:?}");
        let written = materialized(
            &workspace,
            &format!("{from:?}-written"),
            &request(&base, to),
        );
        assert_eq!(tensors(&plan(&written, from).unwrap()), by_name(have));
        assert_is_as_it_is(&written, to);
        assert_is_as_it_is(&base, from);
    }
}

/// Checks that the layout is that of `base`, whose files are those of the view.
pub(crate) fn assert_is_as_it_is(base: &Path, layout: NameLayout) {
    let same = plan(base, layout).unwrap();
    let codes = same.report.warnings.iter().map(|warning| warning.code());
    let notes = &same.report.notes;
    assert_eq!(codes.collect::<Vec<_>>(), [Code::NoEffect], "{notes:?}");
    let mut shards = same.shards.iter();
    assert!(shards.all(|shard| shard.whole_file.is_some()));
}

/// The code and the text of why `base` cannot be in `layout`.
pub(crate) fn refusal(base: &Checkpoint, layout: NameLayout) -> (Code, String) {
    let workspace = Workspace::new();
    let base: PathBuf = workspace.write("base", base);
    let error = plan(&base, layout).unwrap_err();
    (error.code(), error.to_string())
}
