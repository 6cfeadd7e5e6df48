//! What `inspect` measures, against the definitions of docs/FIDELITY.md computed naively, and
//! what the command prints.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod composed;
mod figures;
mod grouping;
mod naive;

use ckptfs::inspect::{self, Fidelity, Inspection};
use ckptfs::ops::QuantizeParams;
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::Plan;

use common::checkpoint::{Checkpoint, TensorData};
use common::readback::reader;
use common::{Workspace, plan_fp8};

const FORMATS: [ScaleFormat; 2] = [ScaleFormat::Ue8m0, ScaleFormat::Float32];

/// The plan of a view that quantizes all of `tensors`.
fn plan_all(workspace: &Workspace, tensors: &[TensorData], scale_format: ScaleFormat) -> Plan {
    let base = workspace.write("base", &Checkpoint::single(tensors.to_vec()));
    let request = QuantizeParams {
        patterns: vec![".*".to_owned()],
        scale_format: Some(scale_format),
        ..QuantizeParams::default()
    };
    plan_fp8(&base, request).unwrap()
}

fn try_inspect(plan: &Plan) -> ckptfs::Result<Inspection> {
    inspect::inspect(&reader(plan), &inspect::quantized_tensors(plan), 2, &())
}

/// What is measured when all of `tensors` are quantized.
fn inspect_all(tensors: &[TensorData], scale_format: ScaleFormat) -> Inspection {
    let workspace = Workspace::new();
    try_inspect(&plan_all(&workspace, tensors, scale_format)).unwrap()
}

/// The figures of `tensor` alone.
fn measure(tensor: &TensorData, scale_format: ScaleFormat) -> Fidelity {
    inspect_all(std::slice::from_ref(tensor), scale_format).total
}
