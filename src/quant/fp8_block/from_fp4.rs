//! Weights that were FP4 with powers of two as scales, and become block FP8: number for number, where the scales of blocks
//! are powers of two too. [`encode`](super::encode) says when that is possible.

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Catalog, NumberKind, Tensor};
use crate::error::setting::{DTYPE, PATTERNS, SCALE_FORMAT};
use crate::error::{Code, Hint, Result, Warning};
use crate::kernels::fp8::ScaleFormat;
use crate::kernels::lanes::Precision;
use crate::quant::fp8_block::format::POWERS_OF_TWO;
use crate::quant::fp8_block::naming::{self, is_nibbles};
use crate::quant::fp8_block::nibbles;
use crate::quant::scheme::{Exactness, Rounding};
use crate::tensor::Name;
use crate::text::{are, listing};

/// What config.json of DeepSeek-V4 says of its experts: "fp4" or "fp8".
const EXPERT_DTYPE: &str = "expert_dtype";
const FP4: &str = "fp4";
/// What the names of their weights contain.
const EXPERTS: &str = ".experts.";

/// What becomes of the numbers of `tensor` in blocks with `scales`, if they were FP4 and are not just to be rounded.
pub(in crate::quant) fn exactness(tensor: &Tensor, scales: ScaleFormat) -> Exactness {
    match (tensor.number_kind(), scales) {
        (NumberKind::Any, _) => Exactness::NotExpected,
        (NumberKind::Fp4, ScaleFormat::Ue8m0) => Exactness::Exact,
        (NumberKind::Fp4, ScaleFormat::Float32) => Exactness::Rounded(Rounding {
            why: "the scales are no powers of two",
            instead: Some((SCALE_FORMAT, POWERS_OF_TWO)),
        }),
        (NumberKind::PartlyFp4, _) => Exactness::Rounded(Rounding {
            why: "they were rounded to F16 before, or are joined with other numbers",
            instead: Some((DTYPE, "bf16")),
        }),
    }
}

/// As [`Encoding::reencoded`](crate::quant::Encoding::reencoded).
pub(super) fn reencoded(
    catalog: &Catalog,
    is_meant: &dyn Fn(&str) -> bool,
) -> Result<IndexMap<Name, (Tensor, Name)>> {
    let tensors = &catalog.tensors;
    let weights = tensors.iter();
    let weights =
        weights.filter(|(name, tensor)| is_nibbles(tensors, name, tensor) && is_meant(name));
    weights
        .map(|(name, codes)| {
            let numbers = nibbles::decoded(tensors, name, codes, Precision::Bf16)?;
            let (scales, _) = naming::scales(tensors, name).expect("by which it is known");
            Ok((name.clone(), (numbers, scales.clone())))
        })
        .collect()
}

/// Corrects what config.json says of the experts of the finished catalog, some of which may have been FP4. `quantized` are
/// the weights that are quantized, in FP8 or still in FP4.
///
/// # Errors
/// If config.json cannot be read.
pub(super) fn declare_experts(catalog: &mut Catalog, quantized: &IndexSet<Name>) -> Result<()> {
    let tensors = &catalog.tensors;
    let is_left = |name: &Name| {
        let codes = tensors.get(name);
        codes.is_some_and(|codes| is_nibbles(tensors, name, codes))
    };
    let experts = quantized.iter().filter(|name| name.contains(EXPERTS));
    let (left, others): (Vec<Name>, Vec<Name>) = experts.cloned().partition(is_left);
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    if others.is_empty() || config.get(EXPERT_DTYPE).is_none_or(|dtype| dtype != FP4) {
        return Ok(());
    }
    if left.is_empty() {
        config.set(EXPERT_DTYPE, &"fp8".into());
    } else {
        let problem = format!(
            "{EXPERT_DTYPE} stays \"{FP4}\", which {} still, but not {}: engines read all experts in one way",
            are(left.len(), "expert weight"),
            listing(&others)
        );
        let warning = Warning::new(Code::ConfigNotUpdated, problem).in_file(config.path());
        let all = Hint::give(PATTERNS).to("select all experts");
        catalog.report.warnings.push(warning.with_hint(all));
    }
    Ok(())
}
