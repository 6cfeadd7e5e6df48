//! Figures of quantization errors.

use serde::Serialize;

use crate::inspect::{Fidelity, Inspection, MeasuredGroup, MeasuredTensor};
use crate::json::plan::text;

/// `inspection` as JSON.
pub fn inspection(inspection: &Inspection) -> String {
    text(&InspectionJson::from(inspection))
}

/// The inspections of several schemes as JSON, each with what the scheme was called.
pub fn schemes<'a>(inspections: impl Iterator<Item = (String, &'a Inspection)>) -> String {
    let schemes = inspections.map(|(scheme, inspection)| SchemeJson {
        scheme,
        figures: InspectionJson::from(inspection),
    });
    text(&SchemesJson {
        schemes: schemes.collect(),
    })
}

#[derive(Serialize)]
struct SchemesJson<'a> {
    schemes: Vec<SchemeJson<'a>>,
}

#[derive(Serialize)]
struct SchemeJson<'a> {
    scheme: String,
    #[serde(flatten)]
    figures: InspectionJson<'a>,
}

impl<'a> From<&'a Inspection> for InspectionJson<'a> {
    fn from(inspection: &'a Inspection) -> Self {
        InspectionJson {
            tensors: inspection.tensors.iter().map(TensorJson::from).collect(),
            layers: inspection.layers.iter().map(GroupJson::from).collect(),
            groups: inspection.groups.iter().map(GroupJson::from).collect(),
            total: FiguresJson::from(&inspection.total),
        }
    }
}

#[derive(Serialize)]
struct InspectionJson<'a> {
    tensors: Vec<TensorJson<'a>>,
    layers: Vec<GroupJson<'a>>,
    groups: Vec<GroupJson<'a>>,
    total: FiguresJson,
}

#[derive(Serialize)]
struct TensorJson<'a> {
    name: &'a str,
    source_dtype: &'a str,
    shape: &'a [u64],
    #[serde(flatten)]
    figures: FiguresJson,
}

impl<'a> From<&'a MeasuredTensor> for TensorJson<'a> {
    fn from(tensor: &'a MeasuredTensor) -> Self {
        TensorJson {
            name: &tensor.name,
            source_dtype: &tensor.source_dtype,
            shape: &tensor.shape,
            figures: FiguresJson::from(&tensor.fidelity),
        }
    }
}

#[derive(Serialize)]
struct GroupJson<'a> {
    /// `null` for tensors that are in no layer.
    name: Option<&'a str>,
    tensors: usize,
    #[serde(flatten)]
    figures: FiguresJson,
}

impl<'a> From<&'a MeasuredGroup> for GroupJson<'a> {
    fn from(group: &'a MeasuredGroup) -> Self {
        GroupJson {
            name: group.name.as_deref(),
            tensors: group.tensors,
            figures: FiguresJson::from(&group.fidelity),
        }
    }
}

#[derive(Serialize)]
struct FiguresJson {
    elements: u64,
    bytes: u64,
    /// `null` if there are no elements.
    bits_per_weight: Option<f64>,
    blocks: u64,
    zero_blocks: u64,
    /// `null` if there is no noise.
    sqnr_db: Option<f64>,
    signal: f64,
    noise: f64,
    largest_relative_error: f64,
    largest_block_error: f64,
    saturated: u64,
    saturated_share: f64,
    zero_codes: u64,
    zero_share: f64,
    flushed: u64,
    flushed_share: f64,
    /// `null` if all blocks are zero.
    smallest_amax: Option<f32>,
    largest_amax: Option<f32>,
}

impl From<&Fidelity> for FiguresJson {
    fn from(fidelity: &Fidelity) -> Self {
        FiguresJson {
            elements: fidelity.elements,
            bytes: fidelity.bytes,
            bits_per_weight: fidelity.bits_per_weight(),
            blocks: fidelity.blocks,
            zero_blocks: fidelity.zero_blocks,
            sqnr_db: fidelity.sqnr_db(),
            signal: fidelity.signal,
            noise: fidelity.noise,
            largest_relative_error: fidelity.largest_relative_error,
            largest_block_error: fidelity.largest_block_error,
            saturated: fidelity.saturated,
            saturated_share: fidelity.saturated_share(),
            zero_codes: fidelity.zero_codes,
            zero_share: fidelity.zero_share(),
            flushed: fidelity.flushed,
            flushed_share: fidelity.flushed_share(),
            smallest_amax: fidelity.amax.map(|amax| amax.smallest),
            largest_amax: fidelity.amax.map(|amax| amax.largest),
        }
    }
}
