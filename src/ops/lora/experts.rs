//! LoRA on the experts of a layer as PEFT stores it for fused ones (`target_parameters`): the factors
//! of all `E` experts in one pair, `A` of shape `[E·r, in]` and `B` of shape `[out, r·E]`, where expert
//! `e` has the rows `e·r..` of one and every `E`-th column from `e` of the other.
//!
//! A wrapper holds one parameter, and wrappers of one module are nested: the factors of the parameter
//! that is defined last are named like the module, those before it with `base_layer` behind that.

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Result};
use crate::ops::experts::model::Model;
use crate::ops::experts::{DOWN, GATE, GATE_UP, UP};
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::factors;
use crate::ops::lora::kernels::{Join, LowRank};
use crate::ops::lora::merging::{Merging, WeightChange, panelled, strided};
use crate::ops::lora::targets::Factors;
use crate::tensor::{Name, shape_text};

/// What is merged for the factors of one wrapper of `module`, the one with `depth` others around it.
pub(super) fn changes(
    merging: &Merging,
    catalog: &Catalog,
    model: &Model,
    module: &str,
    depth: usize,
    factors: &Factors,
) -> Result<Vec<WeightChange>> {
    let parameter = parameter(merging, module, depth, factors)?;
    let (a, b) = merging.factors(module, factors)?;
    let path = format!("{module}.{parameter}");
    let experts = Experts::new(merging, factors, &path, a, b)?;
    let name = merging.renaming.apply(&path);
    if catalog.tensors.contains_key(name.as_str()) {
        return Ok(vec![experts.fused(catalog, model, name.into())?]);
    }
    let module = merging.renaming.apply(module);
    let parts = parts(parameter);
    if parts.is_empty() {
        merging.target(catalog, &name, experts.key)?;
    }
    experts.single(catalog, &module, parts)
}

/// The projections of single experts that the fused parameter has, in their order.
fn parts(parameter: &str) -> &'static [&'static str] {
    match parameter {
        GATE_UP => &[GATE, UP],
        DOWN => &[DOWN],
        _ => &[],
    }
}

/// Whether the base has the fused parameter `name` as weights of single experts.
pub(super) fn are_apart(catalog: &Catalog, name: &str) -> bool {
    let Some((module, parameter)) = name.rsplit_once('.') else {
        return false;
    };
    let mut parts = parts(parameter).iter();
    parts.any(|part| {
        let name = expert_name(catalog, module, 0, part);
        catalog.tensors.contains_key(name.as_str())
    })
}

/// The parameter that the wrapper belongs to.
fn parameter<'a>(
    merging: &'a Merging,
    module: &'a str,
    depth: usize,
    factors: &Factors,
) -> Result<&'a str> {
    let mut parameters: Vec<&str> = merging.parameters(module).collect();
    // As models define them.
    let order = |parameter: &str| [GATE_UP, DOWN].iter().position(|known| *known == parameter);
    parameters.sort_by_key(|parameter| order(parameter));
    parameters.dedup();
    let is_known = parameters.len() == 1 || parameters.iter().all(|p| order(p).is_some());
    match parameters.iter().rev().nth(depth) {
        Some(parameter) if is_known => Ok(parameter),
        _ => Err(merging.adapter.error(Code::UnsupportedAdapter, factors.any(),
            format!(
                "by target_parameters in adapter_config.json, the adapted parameters of {module} are [{}], which does not tell which of them this is",
                parameters.join(", ")
            ),
        )),
    }
}

/// The factors of one parameter.
struct Experts<'a> {
    merging: &'a Merging<'a>,
    key: &'a Name,
    a: Tensor,
    b: Tensor,
    rank: u64,
    scale: f32,
    count: u64,
}

impl<'a> Experts<'a> {
    fn new(
        merging: &'a Merging<'a>,
        factors: &'a Factors,
        path: &str,
        a: Tensor,
        b: Tensor,
    ) -> Result<Self> {
        let key = factors.any();
        let settings = &merging.adapter.settings;
        let rank = settings.rank(path);
        let ranks = a.shape.first().copied().unwrap_or(0);
        let fits = a.shape.len() == 2 && b.shape.len() == 2 && b.shape[1] == ranks;
        if !fits || rank < 1.0 || rank.fract() != 0.0 || ranks % rank as u64 != 0 || ranks == 0 {
            return Err(merging.adapter.error(Code::BadAdapter, key,
                format!(
                    "its shape is {} and that of the other factor is {}; for experts of rank {rank} they must be [experts x rank, in] and [out, rank x experts]",
                    shape_text(&a.shape),
                    shape_text(&b.shape)
                ),
            ));
        }
        if settings.dora || factors.bias.is_some() {
            let problem = "DoRA and lora_bias are not defined for parameters";
            let code = Code::UnsupportedAdapter;
            return Err(merging.adapter.error(code, key, problem));
        }
        Ok(Experts {
            merging,
            key,
            rank: rank as u64,
            scale: merging.scale(path, factors)?,
            count: ranks / rank as u64,
            a,
            b,
        })
    }

    /// Both factors for weights of `rows` × `columns`: `B·A` of each expert, or its transpose.
    fn factors(
        &self,
        name: &str,
        rows: u64,
        columns: u64,
        transposed: bool,
    ) -> Result<(Tensor, Tensor)> {
        let &Experts { rank, count, .. } = self;
        let panels = panelled(columns).saturating_mul(rank * count);
        let lefts = rows.saturating_mul(rank * count);
        self.merging.check_size(self.key, columns, panels)?;
        self.merging.check_size(self.key, columns, lefts)?;
        let of_a = |across: u64| [rank * across, across, 1];
        let of_b = [1, count, rank * count];
        let swapped = |[group, row, column]: [u64; 3]| [group, column, row];
        let (left, right) = if transposed {
            ((&self.a, swapped(of_a(rows))), (&self.b, of_b))
        } else {
            ((&self.b, swapped(of_b)), (&self.a, of_a(columns)))
        };
        Ok((
            factors::left(name, left.0.clone(), strided(count, rows, rank, left.1)),
            factors::right(
                name,
                right.0.clone(),
                strided(count, rank, columns, right.1),
            ),
        ))
    }

    /// The fused parameter.
    fn fused(&self, catalog: &Catalog, model: &Model, name: Name) -> Result<WeightChange> {
        let weight = self.merging.target(catalog, &name, self.key)?;
        let &[count, rows, columns] = &weight.shape[..] else {
            return Err(self.merging.unfit(self.key, &self.a, &name, &weight));
        };
        let plain = (self.a.shape[1], self.b.shape[0]) == (columns, rows);
        let transposed = (self.a.shape[1], self.b.shape[0]) == (rows, columns);
        let transposed = match (plain, transposed) {
            (true, true) => model.transposed_family().is_some(),
            _ => transposed,
        };
        if count != self.count || !(plain || transposed) {
            return Err(self.merging.unfit(self.key, &self.a, &name, &weight));
        }
        let (left, right) = self.factors(&name, rows, columns, transposed)?;
        Ok(WeightChange {
            matrix: Matrix {
                groups: count,
                rows,
                columns,
                dtype: weight.dtype,
            },
            change: self.change(left, right, rows, 0, 0),
            name,
        })
    }

    /// The weights of single experts, each of which is a run of rows of the fused one.
    fn single(&self, catalog: &Catalog, module: &str, parts: &[&str]) -> Result<Vec<WeightChange>> {
        let (rows, columns) = (self.b.shape[0], self.a.shape[1]);
        let (left, right) = self.factors(module, rows, columns, false)?;
        let rows_of_part = rows / parts.len() as u64;
        let mut merges = Vec::new();
        for expert in 0..self.count {
            for (part, first_row) in parts.iter().zip((0..).step_by(rows_of_part as usize)) {
                let name = expert_name(catalog, module, expert, part);
                let weight = self.merging.target(catalog, &name, self.key)?;
                if *weight.shape != [rows_of_part, columns] {
                    return Err(self.merging.unfit(self.key, &self.a, &name, &weight));
                }
                let first_row = expert * rows + first_row;
                merges.push(WeightChange {
                    name: name.into(),
                    matrix: Matrix {
                        groups: 1,
                        rows: rows_of_part,
                        columns,
                        dtype: weight.dtype,
                    },
                    change: self.change(left.clone(), right.clone(), rows, first_row, expert),
                });
            }
        }
        Ok(merges)
    }

    fn change(
        &self,
        left: Tensor,
        right: Tensor,
        left_rows: u64,
        first_row: u64,
        first_group: u64,
    ) -> LowRank {
        LowRank {
            left: Some(left),
            right,
            rank: self.rank,
            scale: self.scale,
            first_row,
            left_rows,
            first_group,
            join: Join::AddRounded,
        }
    }
}

/// The weight of one projection of one expert, as Mixtral calls it if the base does.
fn expert_name(catalog: &Catalog, module: &str, expert: u64, part: &str) -> String {
    let usual = format!("{module}.{expert}.{part}.weight");
    if catalog.tensors.contains_key(usual.as_str()) {
        return usual;
    }
    let mixtral = module.strip_suffix("mlp.experts").map(|layer| {
        let part = match part {
            GATE => "w1",
            UP => "w3",
            _ => "w2",
        };
        format!("{layer}block_sparse_moe.experts.{expert}.{part}.weight")
    });
    let mixtral = mixtral.filter(|name| catalog.tensors.contains_key(name.as_str()));
    mixtral.unwrap_or(usual)
}
