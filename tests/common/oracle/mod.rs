//! What a view must hold, built whole and in memory from the checkpoints it is made of.

pub(crate) mod casting;
pub(crate) mod config;
pub(crate) mod numbers;
pub(crate) mod selection;
pub(crate) mod shards;

use std::collections::BTreeSet;

use ckptfs::ops::{Operations, PartialBlocks, PatchParams, QuantizeParams, RuleSet};
use ckptfs::recipe::{Shards, ViewRequest};
use ckptfs::source::Location;
use safetensors::Dtype;

use super::Workspace;
use super::checkpoint::{Checkpoint, TensorData};
use numbers::{BLOCK, quantize, scale_name};

/// A view to be made: the checkpoints in memory, and what is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) base: Checkpoint,
    pub(crate) extras: Vec<Checkpoint>,
    pub(crate) fp8: Option<Fp8Wanted>,
    pub(crate) shards: Option<Shards>,
    pub(crate) shard_bytes: u64,
}

/// How tensors are selected for FP8, and which names that selects.
#[derive(Debug, Clone)]
pub(crate) struct Fp8Wanted {
    pub(crate) request: QuantizeParams,
    /// Written and added to the request's references.
    pub(crate) references: Vec<Checkpoint>,
    pub(crate) selected: BTreeSet<String>,
}

/// A tensor of a view, and where it was before.
#[derive(Debug, Clone)]
pub(crate) struct ViewTensor {
    pub(crate) data: TensorData,
    /// The base shard it belongs to; none if an extra gave it.
    pub(crate) home: Option<String>,
    /// Whether the view makes it: codes or scales.
    pub(crate) computed: bool,
}

impl Wanted {
    pub(crate) fn new(base: Checkpoint) -> Self {
        Wanted {
            base,
            extras: Vec::new(),
            fp8: None,
            shards: None,
            shard_bytes: 4 << 30,
        }
    }

    /// FP8 with a selection that selects `selected`.
    pub(crate) fn fp8<'a>(
        mut self,
        request: QuantizeParams,
        selected: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.fp8 = Some(Fp8Wanted {
            request,
            references: Vec::new(),
            selected: selected.into_iter().map(str::to_owned).collect(),
        });
        self
    }

    /// FP8 by the rule set.
    pub(crate) fn fp8_by_rules(self, request: QuantizeParams) -> Self {
        let sources = || std::iter::once(&self.base).chain(&self.extras);
        let names: Vec<String> = sources()
            .flat_map(Checkpoint::in_order)
            .map(|(tensor, _)| tensor.name.clone())
            .filter(|name| selection::rule_set_selects(name))
            .collect();
        let request = QuantizeParams {
            rules: Some(RuleSet::Exact),
            ..request
        };
        self.fp8(request, names.iter().map(String::as_str))
    }

    /// Writes the sources into `workspace` and makes the request for the view.
    pub(crate) fn write(&self, workspace: &Workspace) -> ViewRequest {
        let write_all = |role: &str, checkpoints: &[Checkpoint]| -> Vec<Location> {
            let numbered = checkpoints.iter().enumerate();
            let write =
                |(i, checkpoint)| workspace.write(&format!("{role}-{i}"), checkpoint).into();
            numbered.map(write).collect()
        };
        let fp8 = self.fp8.as_ref().map(|fp8| {
            let mut request = fp8.request.clone();
            request
                .references
                .extend(write_all("reference", &fp8.references));
            request
        });
        ViewRequest {
            operations: Operations {
                patch: PatchParams {
                    extras: write_all("extra", &self.extras),
                },
                quantize: fp8.unwrap_or_default(),
                ..Operations::default()
            },
            shards: self.shards,
            shard_bytes: self.shard_bytes,
            ..ViewRequest::new(workspace.write("base", &self.base))
        }
    }

    /// The tensors of base and extras, first come first kept, in order.
    pub(crate) fn union(&self) -> Vec<ViewTensor> {
        let mut seen = BTreeSet::new();
        let mut union = Vec::new();
        for (number, source) in std::iter::once(&self.base).chain(&self.extras).enumerate() {
            for (tensor, shard) in source.in_order() {
                if seen.insert(&tensor.name) {
                    union.push(ViewTensor {
                        data: tensor.clone(),
                        home: (number == 0).then(|| shard.file.clone()),
                        computed: false,
                    });
                }
            }
        }
        union
    }

    /// Whether the view holds `tensor` quantized.
    pub(crate) fn quantizes(&self, tensor: &TensorData) -> bool {
        let Some(fp8) = &self.fp8 else { return false };
        let partial = tensor.shape.iter().rev().take(2).any(|d| d % BLOCK != 0);
        fp8.selected.contains(&tensor.name)
            && tensor.dtype != Dtype::F8_E4M3
            && !(partial && fp8.request.partial_blocks == Some(PartialBlocks::Keep))
    }

    /// All tensors of the view, each scale right behind its weight.
    pub(crate) fn tensors(&self) -> Vec<ViewTensor> {
        let mut tensors = Vec::new();
        for tensor in self.union() {
            if !self.quantizes(&tensor.data) {
                tensors.push(tensor);
                continue;
            }
            let format = self
                .fp8
                .as_ref()
                .unwrap()
                .request
                .scale_format
                .unwrap_or_default();
            let quantized = quantize(&tensor.data, format);
            for data in [quantized.weight, quantized.scale] {
                let home = tensor.home.clone();
                tensors.push(ViewTensor {
                    data,
                    home,
                    computed: true,
                });
            }
        }
        tensors
    }

    /// Names of the tensors that are FP8 with a scale in the view, made by it or not.
    pub(crate) fn quantized_names(tensors: &[ViewTensor]) -> BTreeSet<String> {
        let names: BTreeSet<&str> = tensors.iter().map(|t| t.data.name.as_str()).collect();
        tensors
            .iter()
            .map(|t| &t.data)
            .filter(|data| data.dtype == Dtype::F8_E4M3)
            .filter(|data| names.contains(scale_name(&data.name).as_str()))
            .map(|data| data.name.clone())
            .collect()
    }
}
