//! FP8 that views do not write: with scales of activations that were measured before (`activation_scheme: "static"`), of
//! fbgemm, or of ModelOpt. A scale is for a tensor, a row or a block.

use indexmap::IndexMap;
use serde_json::Value;

use crate::catalog::Tensor;
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::quant::declared::METHOD_KEY;
use crate::quant::fp8_block::format::{BLOCK_SIZE_KEY, Fp8Block, METHOD, SCALE_SUFFIX};
use crate::quant::fp8_block::{decode, naming};
use crate::quant::only_read::OnlyRead;
use crate::quant::scheme::{Role, Scheme};
use crate::tensor::Name;

/// The names that ModelOpt has for such FP8.
const ALGORITHMS: [&str; 3] = ["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO"];

/// Such FP8, with the blocks of weights that have a scale for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::quant) struct OtherFp8(Fp8Block);

impl OtherFp8 {
    pub(in crate::quant) const USUAL: Self = OtherFp8(Fp8Block::USUAL);
}

impl OnlyRead for OtherFp8 {
    fn name(&self) -> &'static str {
        "FP8"
    }

    fn readable(&self) -> &'static str {
        "FP8 of \"fp8\" with other activations, \"fbgemm_fp8\" and \"modelopt\""
    }

    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>> {
        let is_known = match declaration[METHOD_KEY].as_str()? {
            METHOD | "fbgemm_fp8" => true,
            "modelopt" | "modelopt_fp8" => {
                let algorithm = declaration["quant_algo"].as_str().unwrap_or("FP8");
                ALGORITHMS.contains(&algorithm)
            }
            _ => false,
        };
        let block = match &declaration[BLOCK_SIZE_KEY] {
            Value::Null => Fp8Block::USUAL,
            size => match serde_json::from_value::<[u64; 2]>(size.clone()) {
                Ok([rows, columns]) if rows > 0 && columns > 0 => Fp8Block {
                    block: [rows, columns],
                },
                _ => return is_known.then(|| Err(format!("{BLOCK_SIZE_KEY} {size}"))),
            },
        };
        is_known.then(|| Ok(Box::new(OtherFp8(block)) as Box<dyn Scheme>))
    }

    fn geometry(&self) -> String {
        let [rows, columns] = self.0.block;
        format!("FP8, blocks of {rows} x {columns}")
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        naming::role(&self.0, tensors, name, tensor)
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        decode::check_scales(tensors, name, companion)
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        codes: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        decode::decoded(&self.0, tensors, name, codes, to)
    }

    fn is_verified(
        &self,
        declaration: &Value,
        tensors: &IndexMap<Name, Tensor>,
        weight: &str,
    ) -> bool {
        match naming::scales(tensors, weight) {
            Some((scales, _)) => !scales.ends_with(SCALE_SUFFIX),
            None => declaration[METHOD_KEY] != METHOD,
        }
    }
}
