//! bitsandbytes: codes of 4 bits into a table of 16 numbers (NF4, FP4), and integers of 8 bits (LLM.int8).
//!
//! | kind | tensors of a weight `X` | value |
//! |---|---|---|
//! | 4 bits | `X` U8 `[bytes, 1]`: two codes in a byte, the first in its upper half, of all elements of the weight in order; `X.quant_map` F32 `[16]`; `X.absmax` F32 `[blocks]`; `X.quant_state.bitsandbytes__nf4` (`__fp4`) U8, JSON with shape and block size | `quant_map[code] × absmax` of the block |
//! | 4 bits, double quantization | `X.absmax` U8 `[blocks]`, `X.nested_quant_map` F32 `[256]`, `X.nested_absmax` F32, a number for each 256 blocks | the same, with `absmax = nested_quant_map[code] × nested_absmax + nested_offset` |
//! | 8 bits | `Y.weight` I8 `[rows, columns]`, `Y.SCB` F32 `[rows]`, `Y.weight_format` U8 | `code × SCB × (1 / 127)`, in this order |

mod eight_bits;
mod format;
mod four_bits;

use indexmap::IndexMap;
use serde_json::Value;

use crate::catalog::Tensor;
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::quant::bitsandbytes::format::{ABSMAX, FORMAT, OF_FOUR_BITS, SCALES, WEIGHT};
use crate::quant::declared::METHOD_KEY;
use crate::quant::only_read::OnlyRead;
use crate::quant::scheme::{Role, Scheme};
use crate::tensor::{Dtype, Name};

/// Weights of bitsandbytes: what each is shows by its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BitsAndBytes;

impl OnlyRead for BitsAndBytes {
    fn name(&self) -> &'static str {
        "bitsandbytes"
    }

    fn readable(&self) -> &'static str {
        "\"bitsandbytes\" of 4 and 8 bits"
    }

    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>> {
        let is_named = declaration[METHOD_KEY] == "bitsandbytes";
        // Older ones have no name of the method.
        let loads = ["load_in_4bit", "load_in_8bit"];
        let is_unnamed =
            declaration[METHOD_KEY].is_null() && loads.iter().any(|key| declaration[*key] == true);
        (is_named || is_unnamed).then(|| Ok(Box::new(BitsAndBytes) as Box<dyn Scheme>))
    }

    fn geometry(&self) -> String {
        "bitsandbytes".to_owned()
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        let has = |name: &str| tensors.contains_key(name);
        let of_four = OF_FOUR_BITS.iter();
        let mut of_four = of_four.filter_map(|suffix| name.strip_suffix(suffix));
        if let Some(weight) = of_four.find(|weight| has(weight)) {
            return Role::Companion(weight.to_owned());
        }
        let mut of_eight = [SCALES, FORMAT].into_iter();
        if let Some(module) = of_eight.find_map(|suffix| name.strip_suffix(suffix)) {
            let weight = [module, WEIGHT].concat();
            if has(&weight) {
                return Role::Companion(weight);
            }
        }
        let is_coded = match tensor.dtype {
            Dtype::U8 => has(&[name, ABSMAX].concat()),
            Dtype::I8 => name
                .strip_suffix(WEIGHT)
                .is_some_and(|module| has(&[module, SCALES].concat())),
            _ => false,
        };
        if is_coded {
            Role::Codes(name.to_owned())
        } else {
            Role::Plain
        }
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        codes: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        match codes.dtype {
            Dtype::I8 => eight_bits::decoded(tensors, name, codes, to),
            _ => four_bits::decoded(tensors, name, codes, to),
        }
    }
}
