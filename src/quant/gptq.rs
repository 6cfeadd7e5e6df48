//! GPTQ, as AutoGPTQ and GPTQModel write it: codes of 2, 3, 4 or 8 bits with zero points, for groups of columns
//! that may be in another order (`desc_act`).
//!
//! A weight `X.weight` `[rows, columns]` is stored transposed; the table of [`crate::quant::packed_words`] has the
//! order of codes.
//!
//! | tensor | shape |
//! |---|---|
//! | `X.qweight` I32 | `[columns · bits / 32, rows]` |
//! | `X.qzeros` I32 | `[groups, rows · bits / 32]`; in the first version of the format zero points less one |
//! | `X.scales` F16 | `[groups, rows]` |
//! | `X.g_idx` I32, in most | `[columns]`: the group of each column |

use indexmap::IndexMap;
use serde_json::Value;

use crate::catalog::Tensor;
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::quant::awq::group_size;
use crate::quant::declared::METHOD_KEY;
use crate::quant::only_read::OnlyRead;
use crate::quant::packed_words::{Matrix, Offset, Order, Parts};
use crate::quant::quantized_module::{misfit, parts, role};
use crate::quant::scheme::{Role, Scheme};
use crate::tensor::Name;

/// GPTQ as a checkpoint declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gptq {
    /// Bits of a code; `None` if modules have bits of their own.
    bits: Option<u32>,
    /// Columns of a group where no tensor says the group of each; `None` is all.
    group: Option<u64>,
    offset: Offset,
}

impl Gptq {
    pub(super) const USUAL: Self = Gptq {
        bits: Some(4),
        group: Some(128),
        offset: Offset::One,
    };

    fn parsed(declaration: &Value) -> std::result::Result<Self, String> {
        let unknown = |key: &str| Err(format!("{key} {}", declaration[key]));
        let is_set = |key: &str| declaration.get(key).is_some_and(|value| !value.is_null());
        let bits = match declaration["bits"].as_u64() {
            Some(bits @ (2 | 3 | 4 | 8)) => bits as u32,
            _ => return unknown("bits"),
        };
        let format = |key: &'static str| Some((key, declaration[key].as_str()?));
        let offset = match format("checkpoint_format").or(format("format")) {
            None | Some((_, "gptq" | "")) => Offset::One,
            Some((_, "gptq_v2")) => Offset::None,
            Some((key, _)) => return unknown(key),
        };
        if declaration["is_marlin_format"] == true {
            return unknown("is_marlin_format");
        }
        if is_set("pack_dtype") && declaration["pack_dtype"] != "int32" {
            return unknown("pack_dtype");
        }
        let group = if is_set("group_size") {
            group_size(&declaration["group_size"])
                .map_err(|()| format!("group_size {}", declaration["group_size"]))?
        } else {
            Some(128)
        };
        let has_own_bits = declaration["dynamic"]
            .as_object()
            .is_some_and(|d| !d.is_empty())
            || declaration["extra_config"].is_object();
        Ok(Gptq {
            bits: (!has_own_bits).then_some(bits),
            group,
            offset,
        })
    }

    /// The geometry of `parts`, if they are such a weight.
    fn matrix(&self, parts: Parts) -> Option<Matrix> {
        let (&[high, rows], &[groups, of_rows], &[of_groups, wide]) = (
            &*parts.codes.shape,
            &*parts.scales.shape,
            &*parts.zero_points.shape,
        ) else {
            return None;
        };
        // As many words of zero points as their bits take say how many bits those are.
        let bits = match self.bits {
            Some(bits) => bits,
            None => {
                let fits = |bits: &u32| rows.checked_mul(u64::from(*bits)) == wide.checked_mul(32);
                [2, 3, 4, 8].into_iter().find(fits)?
            }
        };
        let is_whole = |words: u64, of: u64| words.checked_mul(32) == of.checked_mul(bits.into());
        let columns = high.checked_mul(32)? / u64::from(bits);
        let group = self.group.unwrap_or(columns).max(1);
        let fits = is_whole(high, columns)
            && is_whole(wide, rows)
            && of_rows == rows
            && of_groups == groups
            && match parts.index {
                Some(index) => *index.shape == [columns] && groups > 0,
                None => columns.div_ceil(group) == groups,
            };
        fits.then_some(Matrix {
            rows,
            columns,
            bits,
            group,
            groups,
            order: Order::Down,
            offset: self.offset,
        })
    }
}

impl OnlyRead for Gptq {
    fn name(&self) -> &'static str {
        "GPTQ"
    }

    fn readable(&self) -> &'static str {
        "\"gptq\" of 2, 3, 4 or 8 bits in the formats gptq and gptq_v2"
    }

    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>> {
        let packing = declaration["packing_format"].as_str().unwrap_or_default();
        match declaration[METHOD_KEY].as_str()? {
            "gptq" => {}
            "auto-round" | "intel/auto-round" if packing.ends_with("gptq") => {}
            _ => return None,
        }
        Some(Self::parsed(declaration).map(|gptq| Box::new(gptq) as Box<dyn Scheme>))
    }

    fn geometry(&self) -> String {
        let bits = self
            .bits
            .map_or("several".to_owned(), |bits| bits.to_string());
        let group = self
            .group
            .map_or("a row".to_owned(), |group| group.to_string());
        let zero_points = match self.offset {
            Offset::One => "zero points less one",
            Offset::None => "zero points",
        };
        format!("GPTQ of {bits} bits in groups of {group} with {zero_points}")
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, _tensor: &Tensor) -> Role {
        role(tensors, name)
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        codes: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        let parts = parts(tensors, name, codes)?;
        match self.matrix(parts) {
            Some(matrix) => matrix.numbers(name, parts, to),
            None => Err(misfit(
                name,
                parts,
                &format!("they are not {}", OnlyRead::geometry(self)),
            )),
        }
    }
}
