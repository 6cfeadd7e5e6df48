//! Scales that are powers of two by what computes them.

use std::collections::HashSet;

use serde::Deserialize;

use crate::quant::weight_of;

/// Scales of a mount that are known to be powers of two.
#[derive(Debug, Clone, Default)]
pub struct KnownScales {
    /// The mounted filesystem, which alone has them.
    device: u64,
    names: HashSet<String>,
}

/// What `plan --json` has that matters here.
#[derive(Deserialize)]
struct Plan {
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    /// The format of scales that the view computes.
    scale_fmt: Option<String>,
}

impl KnownScales {
    /// The scales that the mount with the device number `device` computes as powers of two, by its
    /// plan: `text` must be what that mount shows, and not a file of the same name. None are known
    /// if a version that writes plans in another way serves it.
    pub fn of_mount(device: u64, text: &[u8]) -> Self {
        let Ok(plan) = serde_json::from_slice::<Plan>(text) else {
            return KnownScales::default();
        };
        let tensors = plan.shards.into_iter().flat_map(|shard| shard.tensors);
        let is_known = |tensor: &Tensor| {
            tensor.scale_fmt.as_deref() == Some("ue8m0") && weight_of(&tensor.name).is_some()
        };
        let known = tensors.filter(is_known);
        KnownScales {
            device,
            names: known.map(|tensor| tensor.name).collect(),
        }
    }

    /// Whether the scales called `name`, in a file on `device`, are among them.
    pub(super) fn has(&self, name: &str, device: u64) -> bool {
        self.device == device && self.names.contains(name)
    }
}
