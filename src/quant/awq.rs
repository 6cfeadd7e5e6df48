//! AWQ, as AutoAWQ writes it: codes of 4 bits with zero points, in the layouts GEMM and GEMV.
//!
//! A weight `X.weight` `[rows, columns]` is stored transposed (GEMM) or not (GEMV); the tables of
//! [`crate::quant::packed_words`] have the order of codes.
//!
//! | tensor | GEMM | GEMV, `w` words of zero points in a row |
//! |---|---|---|
//! | `X.qweight` I32 | `[columns, rows / 8]` | `[rows, columns / 8]` |
//! | `X.qzeros` I32 | `[groups, rows / 8]` | `[rows, w]` |
//! | `X.scales` F16 | `[groups, rows]` | `[rows, 8 · w]` |

use indexmap::IndexMap;
use serde_json::Value;

use crate::catalog::Tensor;
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::quant::declared::METHOD_KEY;
use crate::quant::only_read::OnlyRead;
use crate::quant::packed_words::{Matrix, Offset, Order, zero_words};
use crate::quant::quantized_module::{misfit, parts, role};
use crate::quant::scheme::{Role, Scheme};
use crate::tensor::Name;

/// Codes in a word.
const NIBBLES: u64 = 8;

/// AWQ as a checkpoint declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awq {
    order: Order,
    /// Columns of a group; `None` is all.
    group: Option<u64>,
}

impl Awq {
    pub(super) const USUAL: Self = Awq {
        order: Order::Across,
        group: Some(128),
    };

    fn parsed(declaration: &Value) -> std::result::Result<Self, String> {
        let unknown = |key: &str| Err(format!("{key} {}", declaration[key]));
        let of = |keys: [&'static str; 2]| {
            let mut keys = keys.into_iter();
            keys.find(|key| declaration.get(key).is_some_and(|value| !value.is_null()))
        };
        if let Some(key) = of(["bits", "w_bit"])
            && declaration[key] != 4
        {
            return unknown(key);
        }
        let version = declaration["version"].as_str().map(str::to_ascii_lowercase);
        let order = match version.as_deref() {
            None | Some("gemm" | "exllama" | "ipex") => Order::Across,
            Some("gemv") => Order::Along,
            Some(_) => return unknown("version"),
        };
        let group = match of(["group_size", "q_group_size"]) {
            None => Some(128),
            Some(key) => {
                group_size(&declaration[key]).map_err(|()| format!("{key} {}", declaration[key]))?
            }
        };
        Ok(Awq { order, group })
    }

    /// The geometry of the tensors of these shapes, if they are such a weight.
    fn matrix(&self, codes: &[u64], scales: &[u64], zero_points: &[u64]) -> Option<Matrix> {
        let (&[high, wide], &[_, _], &[_, _]) = (codes, scales, zero_points) else {
            return None;
        };
        let [rows, columns] = match self.order {
            Order::Along => [high, wide.checked_mul(NIBBLES)?],
            Order::Across | Order::Down => [wide.checked_mul(NIBBLES)?, high],
        };
        let group = self.group.unwrap_or(columns).max(1);
        let groups = columns / group;
        let (expected_scales, expected_zeros) = match self.order {
            Order::Along => {
                let words = zero_words(columns, group);
                ([rows, words * NIBBLES], [rows, words])
            }
            Order::Across | Order::Down => ([groups, rows], [groups, wide]),
        };
        let fits = columns.is_multiple_of(group)
            && scales == expected_scales
            && zero_points == expected_zeros;
        fits.then_some(Matrix {
            rows,
            columns,
            bits: 4,
            group,
            groups,
            order: self.order,
            offset: Offset::None,
        })
    }
}

/// The columns of a group that `value` says; `None` if all columns are one.
pub(super) fn group_size(value: &Value) -> std::result::Result<Option<u64>, ()> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(size) if size > 0 => Ok(Some(size as u64)),
        _ => Err(()),
    }
}

impl OnlyRead for Awq {
    fn name(&self) -> &'static str {
        "AWQ"
    }

    fn readable(&self) -> &'static str {
        "\"awq\" of 4 bits in the layouts gemm and gemv"
    }

    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>> {
        let packing = declaration["packing_format"].as_str().unwrap_or_default();
        match declaration[METHOD_KEY].as_str()? {
            "awq" => {}
            "auto-round" | "intel/auto-round" if packing.ends_with("awq") => {}
            _ => return None,
        }
        Some(Self::parsed(declaration).map(|awq| Box::new(awq) as Box<dyn Scheme>))
    }

    fn geometry(&self) -> String {
        let layout = match self.order {
            Order::Along => "gemv",
            Order::Across | Order::Down => "gemm",
        };
        match self.group {
            Some(group) => format!("AWQ {layout} in groups of {group}"),
            None => format!("AWQ {layout} with a scale for each row"),
        }
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
        let mut parts = parts(tensors, name, codes)?;
        // Some tools write one beside it, which says nothing else than the group size does.
        parts.index = None;
        let shapes = (&codes.shape, &parts.scales.shape, &parts.zero_points.shape);
        match self.matrix(shapes.0, shapes.1, shapes.2) {
            Some(matrix) => matrix.numbers(name, parts, to),
            None => Err(misfit(
                name,
                parts,
                &format!("they are not {}", OnlyRead::geometry(self)),
            )),
        }
    }
}
