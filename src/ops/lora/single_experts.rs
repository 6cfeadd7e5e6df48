//! Factors of single experts, merged into the fused weight that the base has of all.
//!
//! An expert's part of it is a run of rows, or of columns where the weight is stored transposed; gpt-oss has
//! gate and up in turns. PEFT merges into fused weights alone, so products are rounded as those of
//! parameters are.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Result};
use crate::ops::experts::model::Model;
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::column_parts::{Columns, put_back, taken};
use crate::ops::lora::expert_names::FusedPart;
use crate::ops::lora::kernels;
use crate::ops::lora::layers::Layer;
use crate::ops::lora::merging::Merging;
use crate::ops::lora::targets::Factors;

/// A module of one expert, as the adapter calls it, and where in a fused weight it belongs.
pub(super) struct SingleExpert<'a> {
    pub module: &'a str,
    pub factors: &'a Factors,
    pub part: FusedPart,
}

/// A fused weight with the factors of single experts merged into it, and their scales.
pub(super) struct Merged {
    pub weight: Tensor,
    pub scales: Vec<f32>,
}

/// The weight `name` of the base with `modules` merged, all of which belong to it.
pub(super) fn merged(
    merging: &Merging,
    catalog: &Catalog,
    model: &Model,
    name: &str,
    modules: &[SingleExpert],
) -> Result<Merged> {
    let weight = merging.target(catalog, name, modules[0].factors.any())?;
    let fused = Fused {
        merging,
        model,
        name,
        weight: &weight,
    };
    let mut experts: BTreeMap<u64, BTreeMap<u64, &SingleExpert>> = BTreeMap::new();
    for module in modules {
        let parts = experts.entry(module.part.expert).or_default();
        if parts.insert(module.part.position(), module).is_some() {
            return Err(merging.adapter.error(
                Code::BadAdapter,
                module.factors.any(),
                "the adapter has factors of this part of the expert twice, by two names",
            ));
        }
    }
    let mut scales = Vec::new();
    let mut pieces = Vec::new();
    let mut end = 0;
    for (expert, parts) in experts {
        let expert = fused.expert(expert, &parts, &mut scales)?;
        if end < expert.start {
            pieces.push(weight.slice(
                end,
                [(expert.start - end) / fused.element_bytes()].as_slice(),
            ));
        }
        end = expert.start + expert.weight.len();
        pieces.push(expert.weight);
    }
    if end < weight.len() {
        pieces.push(weight.slice(
            end,
            [(weight.len() - end) / fused.element_bytes()].as_slice(),
        ));
    }
    let pieces: Vec<&Tensor> = pieces.iter().collect();
    let joined = Tensor::joined(&pieces, weight.shape.clone());
    Ok(Merged {
        weight: Tensor {
            home: weight.home,
            ..joined
        },
        scales,
    })
}

struct Fused<'a> {
    merging: &'a Merging<'a>,
    model: &'a Model,
    name: &'a str,
    weight: &'a Tensor,
}

/// The weight of one expert, and where it begins in the fused one.
struct Expert {
    start: u64,
    weight: Tensor,
}

impl Fused<'_> {
    fn element_bytes(&self) -> u64 {
        self.weight.dtype.bitsize() as u64 / 8
    }

    /// The expert with `parts` merged, by their position.
    fn expert(
        &self,
        expert: u64,
        parts: &BTreeMap<u64, &SingleExpert>,
        scales: &mut Vec<f32>,
    ) -> Result<Expert> {
        let first = parts
            .values()
            .next()
            .expect("an expert is listed for a part");
        let key = first.factors.any();
        let (a, _) = self.merging.factors(first.module, first.factors)?;
        let &[count, rows, columns] = &self.weight.shape[..] else {
            return Err(self.merging.unfit(key, &a, self.name, self.weight));
        };
        if expert >= count || self.weight.len() == 0 {
            return Err(self.merging.adapter.error(
                Code::AdapterMismatch,
                key,
                format!("{} of the base has {count} experts", self.name),
            ));
        }
        let matrix = Matrix {
            groups: 1,
            rows,
            columns,
            dtype: self.weight.dtype,
        };
        let start = expert * rows * columns * self.element_bytes();
        let whole = self.weight.slice(start, [rows, columns].as_slice());
        let mut changed = Vec::new();
        for part in parts.values() {
            let (a, b) = self.merging.factors(part.module, part.factors)?;
            let transposed = self.is_transposed(part, &a, &b, matrix)?;
            let place = self.place(part, transposed, matrix)?;
            let own = match place {
                Place::Rows { first, count } => {
                    let start = first * columns * self.element_bytes();
                    whole.slice(start, [count, columns].as_slice())
                }
                Place::Columns(columns) => taken(self.name, &whole, matrix, columns),
            };
            let merged = self.part(part, a, b, own, transposed, scales)?;
            changed.push((place, merged));
        }
        let mut rows_changed = Vec::new();
        let mut columns_changed = Vec::new();
        for (place, merged) in changed {
            match place {
                Place::Rows { first, count } => rows_changed.push((first, count, merged)),
                Place::Columns(columns) => columns_changed.push((columns, merged)),
            }
        }
        let weight = if columns_changed.is_empty() {
            self.with_rows(&whole, columns, rows_changed)
        } else {
            // Where gate and up differ in rank or scale, that of the first is told; the parts tell their own.
            let rank = self.merging.adapter.settings.rank(first.module) as u64;
            let scale = self.merging.scale(first.module, first.factors)?;
            let step = kernels::step(self.merging.adapter.settings.dora, rank, scale);
            put_back(self.name, &whole, matrix, columns_changed, step)
        };
        Ok(Expert { start, weight })
    }

    /// `whole` with runs of its rows replaced, which are in order.
    fn with_rows(&self, whole: &Tensor, columns: u64, changed: Vec<(u64, u64, Tensor)>) -> Tensor {
        let row_bytes = columns * self.element_bytes();
        let between = |rows: std::ops::Range<u64>| {
            whole.slice(
                rows.start * row_bytes,
                [rows.end - rows.start, columns].as_slice(),
            )
        };
        let mut pieces = Vec::new();
        let mut end = 0;
        for (first, count, merged) in changed {
            if end < first {
                pieces.push(between(end..first));
            }
            pieces.push(merged);
            end = first + count;
        }
        if end < whole.shape[0] {
            pieces.push(between(end..whole.shape[0]));
        }
        let pieces: Vec<&Tensor> = pieces.iter().collect();
        Tensor::joined(&pieces, whole.shape.clone())
    }

    /// One part, merged.
    fn part(
        &self,
        part: &SingleExpert,
        a: Tensor,
        b: Tensor,
        own: Tensor,
        transposed: bool,
        scales: &mut Vec<f32>,
    ) -> Result<Tensor> {
        if let Some(bias) = &part.factors.bias {
            return Err(self.merging.adapter.error(
                Code::UnsupportedAdapter,
                bias,
                "the experts of the base are fused, and lora_bias of single ones is not merged into those",
            ));
        }
        let layer = Layer {
            merging: self.merging,
            name: self.name,
            weight: &own,
            factors: part.factors,
            a,
            b,
        };
        let rank = layer.rank(part.module)?;
        let scale = self.merging.scale(part.module, part.factors)?;
        let change = layer.change(transposed, rank, scale, true)?;
        scales.push(scale);
        Ok(kernels::merged(
            self.name,
            own.clone(),
            change.matrix,
            change.change,
        ))
    }

    /// Whether the weight has what factors are over in the other order than a linear layer.
    fn is_transposed(
        &self,
        part: &SingleExpert,
        a: &Tensor,
        b: &Tensor,
        matrix: Matrix,
    ) -> Result<bool> {
        let fits = |[out, inputs]: [u64; 2]| {
            a.shape.len() == 2
                && b.shape.len() == 2
                && a.shape[1] == inputs
                && b.shape[0].checked_mul(part.part.parts()) == Some(out)
        };
        let plain = fits([matrix.rows, matrix.columns]);
        let transposed = fits([matrix.columns, matrix.rows]);
        match (plain, transposed) {
            (true, true) => Ok(self.model.is_transposed()),
            (false, false) => {
                let key = part.factors.any();
                Err(self.merging.unfit(key, a, self.name, self.weight))
            }
            _ => Ok(transposed),
        }
    }

    /// Where the part is in the weight of its expert.
    fn place(&self, part: &SingleExpert, transposed: bool, matrix: Matrix) -> Result<Place> {
        let position = part.part.position();
        let parts = part.part.parts();
        if !transposed || parts == 1 {
            let count = matrix.rows / if transposed { 1 } else { parts };
            let first = position * count;
            return Ok(Place::Rows { first, count });
        }
        let count = matrix.columns / parts;
        let Some(by_turns) = self.model.columns_by_turns() else {
            return Err(self.merging.adapter.error(Code::UnsupportedAdapter, part.factors.any(),
                format!(
                    "{} of the base is stored transposed, and by its config.json it is of no family whose order of gate and up is known",
                    self.name
                ),
            ));
        };
        let (first, step) = if by_turns {
            (position, parts)
        } else {
            (position * count, 1)
        };
        Ok(Place::Columns(Columns { first, step, count }))
    }
}

/// Where a part is in the weight of its expert.
#[derive(Clone, Copy)]
enum Place {
    Rows { first: u64, count: u64 },
    Columns(Columns),
}
