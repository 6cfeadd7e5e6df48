//! LoRA on a module with one weight: a linear layer, an embedding, or a convolution.

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Result};
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::factors;
use crate::ops::lora::kernels::{Join, LowRank};
use crate::ops::lora::merging::{Merging, WeightChange, panelled, strided};
use crate::ops::lora::targets::Factors;
use crate::tensor::{Name, shape_text};

/// The most columns of a weight where DoRA needs their norms, of which sums are kept for every band.
const MOST_SUMMED_COLUMNS: u64 = 1 << 16;

/// A module with one weight: linear, embedding, or convolution.
pub(super) struct Layer<'a> {
    pub merging: &'a Merging<'a>,
    pub name: &'a str,
    pub weight: &'a Tensor,
    pub factors: &'a Factors,
    /// `[rank, in]`, and the kernel of a convolution behind that.
    pub a: Tensor,
    /// `[out, rank]`, and ones behind that.
    pub b: Tensor,
}

impl Layer<'_> {
    /// The rank that both factors have, checked against the settings.
    pub(super) fn rank(&self, path: &str) -> Result<u64> {
        let adapter = self.merging.adapter;
        let of_a = self.a.shape.first().copied();
        let of_b = self.b.shape.get(1).copied();
        let (key_a, key_b) = (self.key_a(), self.key_b());
        let (Some(rank), true) = (of_a, of_a == of_b) else {
            return Err(adapter.error(Code::BadAdapter, key_a,
                format!(
                    "its shape is {} and that of {key_b} is {}; the first dimension of one must be the second of the other, the rank",
                    shape_text(&self.a.shape),
                    shape_text(&self.b.shape)
                ),
            ));
        };
        let expected = adapter.settings.rank(path);
        if rank as f64 != expected {
            return Err(adapter.error(
                Code::BadAdapter,
                key_a,
                format!(
                    "its rank is {rank} (shape {}), but adapter_config.json says {expected}",
                    shape_text(&self.a.shape)
                ),
            ));
        }
        Ok(rank)
    }

    fn key_a(&self) -> &Name {
        self.factors.a.as_ref().expect("it was read")
    }

    fn key_b(&self) -> &Name {
        self.factors.b.as_ref().expect("it was read")
    }

    /// `transposed` says whether the weight is `[in, out]`.
    pub(super) fn change(
        &self,
        transposed: bool,
        rank: u64,
        scale: f32,
        is_parameter: bool,
    ) -> Result<WeightChange> {
        let (a, b, weight) = (&self.a, &self.b, self.weight);
        let settings = &self.merging.adapter.settings;
        let rows = weight.shape[0];
        let columns = weight.len() / rows / (weight.dtype.bitsize() as u64 / 8);
        let panels = panelled(columns).saturating_mul(rank);
        self.merging.check_size(self.key_a(), columns, panels)?;
        self.merging
            .check_size(self.key_b(), columns, rows.saturating_mul(rank))?;
        // Stored as it is used, or as its transpose.
        let (left, right) = if transposed {
            ((a, [0, 1, rows]), (b, [0, 1, rank]))
        } else {
            ((b, [0, rank, 1]), (a, [0, columns, 1]))
        };
        let left = factors::left(self.name, left.0.clone(), strided(1, rows, rank, left.1));
        let right = factors::right(
            self.name,
            right.0.clone(),
            strided(1, rank, columns, right.1),
        );
        let rounds = self.factors.embedding || is_parameter || settings.rounds_product;
        let join = match self.magnitude(transposed, rows, columns)? {
            Some(join) => join,
            None if rounds => Join::AddRounded,
            None => Join::Add,
        };
        Ok(WeightChange {
            name: self.name.into(),
            matrix: Matrix {
                groups: 1,
                rows,
                columns,
                dtype: weight.dtype,
            },
            change: LowRank {
                left: Some(left),
                right,
                rank,
                scale,
                first_row: 0,
                left_rows: rows,
                first_group: 0,
                join,
            },
        })
    }

    /// How DoRA scales the sum, if it does.
    fn magnitude(&self, transposed: bool, rows: u64, columns: u64) -> Result<Option<Join>> {
        let adapter = self.merging.adapter;
        let key = match (&self.factors.magnitude, adapter.settings.dora) {
            (None, false) => return Ok(None),
            (Some(key), true) => key,
            (Some(key), false) => {
                return Err(adapter.error(
                    Code::BadAdapter,
                    key,
                    "adapter_config.json does not say use_dora",
                ));
            }
            (None, true) => {
                let problem = "adapter_config.json says use_dora, but there is no lora_magnitude_vector beside it";
                return Err(adapter.error(Code::BadAdapter, self.key_a(), problem));
            }
        };
        let magnitudes = self.merging.stored(key)?;
        let expected = if transposed { columns } else { rows };
        let elements: u64 = magnitudes.shape.iter().product();
        if elements != expected {
            return Err(self.merging.unfit(key, &magnitudes, self.name, self.weight));
        }
        if !transposed {
            let shape = strided(1, rows, 1, [0, 1, 0]);
            let left = factors::left(self.name, magnitudes, shape);
            return Ok(Some(Join::RowMagnitudes(left)));
        }
        if columns > MOST_SUMMED_COLUMNS {
            return Err(adapter.error(
                Code::OverLimit,
                key,
                format!("it scales {columns} columns; at most {MOST_SUMMED_COLUMNS} are supported"),
            ));
        }
        Ok(Some(Join::ColumnMagnitudes(magnitudes)))
    }

    /// Whether the weight is `[in, out]`: that of an embedding or of a Conv1D.
    pub(super) fn is_transposed(&self, catalog: &Catalog) -> Result<bool> {
        let (a, b, weight) = (&self.a.shape, &self.b.shape, &self.weight.shape);
        let is_matrix = weight.len() == 2 && a.len() == 2 && b.len() == 2;
        let transposed = is_matrix && a[1] == weight[0] && b[0] == weight[1];
        let ones = |rest: &[u64]| rest.iter().all(|&size| size == 1);
        let plain = weight.len() >= 2
            && weight.len() == a.len()
            && a[1..] == weight[1..]
            && b[0] == weight[0]
            && ones(&b[2.min(b.len())..]);
        match (plain, transposed) {
            _ if self.factors.embedding && transposed => Ok(true),
            (true, false) if !self.factors.embedding => Ok(false),
            (false, true) => Ok(true),
            (true, true) => self.square_is_transposed(catalog),
            _ => {
                let (key, factor) = if a.get(1..) == weight.get(1..) {
                    (self.key_b(), &self.b)
                } else {
                    (self.key_a(), &self.a)
                };
                Err(self.merging.unfit(key, factor, self.name, self.weight))
            }
        }
    }

    /// Whether a square weight is `[in, out]`, which its shape does not tell. PEFT's own setting tells
    /// it of the layer that was adapted last, not of all: the base's other layers are asked first.
    fn square_is_transposed(&self, catalog: &Catalog) -> Result<bool> {
        let module = self.name.strip_suffix(".weight").unwrap_or(self.name);
        let is_named = is_conv1d(module);
        if let (true, Some(transposed)) = (is_named, conv1d_is_transposed(catalog)) {
            return Ok(transposed);
        }
        let declared = self.merging.adapter.settings.fan_in_fan_out;
        if is_named == declared {
            Ok(declared)
        } else {
            Err(self.merging.adapter.error(Code::UnsupportedAdapter, self.key_a(),
                format!(
                    "{} is square, so its shape does not show whether it is stored transposed, and fan_in_fan_out in adapter_config.json ({declared}) is not what layers of this name have",
                    self.name
                ),
            ))
        }
    }
}

/// Whether `module` is called like those that are a Conv1D in transformers 5.23 (in clvp,
/// decision_transformer, gpt2, imagegpt and openai-gpt; in other families they are linear layers).
fn is_conv1d(module: &str) -> bool {
    const NAMES: [&str; 4] = ["c_attn", "q_attn", "c_proj", "c_fc"];
    let name = module.rsplit('.').next();
    name.is_some_and(|name| NAMES.contains(&name))
}

/// Whether layers called like a Conv1D are one, by the first that is not square and has a bias.
fn conv1d_is_transposed(catalog: &Catalog) -> Option<bool> {
    catalog.tensors.iter().find_map(|(name, weight)| {
        let module = name
            .strip_suffix(".weight")
            .filter(|module| is_conv1d(module))?;
        let bias = catalog.tensors.get(format!("{module}.bias").as_str())?;
        match (&weight.shape[..], &bias.shape[..]) {
            (&[rows, columns], &[bias]) if rows != columns => Some(bias == columns),
            _ => None,
        }
    })
}
