//! LoRA on the experts of a layer as PEFT stores it for fused ones (`target_parameters`): the factors
//! of all `E` experts in one pair, `A` of shape `[E·r, in]` and `B` of shape `[out, r·E]`, where expert
//! `e` has the rows `e·r..` of one and every `E`-th column from `e` of the other.
//!
//! A wrapper holds one parameter, and wrappers of one module are nested: the factors of the parameter
//! that is defined last are named like the module, those before it with `base_layer` behind that.

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Result};
use crate::ops::experts::model::Model;
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::expert_names::{expert_name, parameter, parts};
use crate::ops::lora::factors;
use crate::ops::lora::kernels::{Join, LowRank};
use crate::ops::lora::merging::{Merging, WeightChange, panelled, strided};
use crate::ops::lora::storage::Place;
use crate::ops::lora::targets::Factors;
use crate::ops::lora::writer::ExpertOrder;
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
    let parameter = parameter(merging.adapter, module, depth, factors)?;
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
    experts.single(catalog, model, &module, parts)
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
        let of_b = match self.merging.experts.order {
            ExpertOrder::RankMajor => [1, count, rank * count],
            ExpertOrder::ExpertMajor => [rank, 1, rank * count],
        };
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
        let place = Place {
            rows,
            columns,
            is_apart: false,
        };
        let transposed = self.is_transposed(model, &place, &name, &weight)?;
        if count != self.count {
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

    /// Whether the product is that of `A` over the rows of `place`, which is, or is a part of, `weight` of the
    /// base, and `B` over its columns.
    fn is_transposed(
        &self,
        model: &Model,
        place: &Place,
        name: &str,
        weight: &Tensor,
    ) -> Result<bool> {
        let shapes = (self.a.shape[1], self.b.shape[0]);
        if let Some(told) = place.a_is_rows(shapes.0, shapes.1) {
            return Ok(told);
        }
        if shapes != (place.rows, place.columns) {
            return Err(self.merging.unfit(self.key, &self.a, name, weight));
        }
        let is_flipped = place.is_apart && model.is_transposed();
        let a_is_first = self.merging.experts.a_is_first;
        a_is_first.map(|first| first ^ is_flipped).ok_or_else(|| {
            self.merging.adapter.error(Code::UnsupportedAdapter, self.key,
                format!(
                    "one expert of {name} is square ({} x {}), so the shapes do not show which of its dimensions lora_A belongs to; PEFT stores it differently before and since 0.19.1, and adapter_config.json does not say which version trained it",
                    place.rows, place.columns
                ),
            ).with_hint("set \"peft_version\" in adapter_config.json to the release that trained it, or to 0.19.1 if lora_A belongs to the input of an expert")
        })
    }

    /// The weights of single experts, each of which is a run of rows of the fused one.
    fn single(
        &self,
        catalog: &Catalog,
        model: &Model,
        module: &str,
        parts: &[&str],
    ) -> Result<Vec<WeightChange>> {
        let first = expert_name(catalog, module, 0, parts[0]);
        let weight = self.merging.target(catalog, &first, self.key)?;
        let &[rows_of_part, columns] = &weight.shape[..] else {
            return Err(self.merging.unfit(self.key, &self.a, &first, &weight));
        };
        let rows = rows_of_part.saturating_mul(parts.len() as u64);
        if weight.len() == 0 {
            return Err(self.merging.unfit(self.key, &self.a, &first, &weight));
        }
        let place = Place {
            rows,
            columns,
            is_apart: true,
        };
        let transposed = self.is_transposed(model, &place, &first, &weight)?;
        let (left, right) = self.factors(module, rows, columns, transposed)?;
        let mut merges = Vec::new();
        for expert in 0..self.count {
            for (part, first_row) in parts.iter().zip((0..).map(|part| part * rows_of_part)) {
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
