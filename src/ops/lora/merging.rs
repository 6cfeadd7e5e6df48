//! An adapter on its way into a catalog: which tensors of the base it changes, and whether it fits
//! them.

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::low_rank::{PANEL, Strided};
use crate::ops::lora::adapter::Adapter;
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::kernels::{Join, LowRank};
use crate::ops::lora::renaming::Renaming;
use crate::ops::lora::storage::ExpertStorage;
use crate::ops::lora::targets::{Factors, close_names};
use crate::ops::lora::{embeddings, factors};
use crate::ops::{Precision, convert};
use crate::quant;
use crate::shown::Show;
use crate::tensor::{Name, shape_text};

/// The most columns of a weight that an adapter is merged into. A row of so many takes 4 MiB as F32.
const MOST_COLUMNS: u64 = 1 << 20;
/// Maximum size of a factor as F32, in bytes; it is kept in memory while its tensor is read.
const MOST_FACTOR_BYTES: u64 = 512 << 20;

/// A weight and what is merged into it.
pub(super) struct WeightChange {
    pub name: Name,
    pub matrix: Matrix,
    pub change: LowRank,
}

/// An adapter on its way into a catalog.
#[derive(Debug)]
pub(super) struct Merging<'a> {
    pub adapter: &'a Adapter,
    pub weight: f64,
    pub renaming: Renaming,
    pub experts: ExpertStorage,
}

impl Merging<'_> {
    /// The parameters of a module that are targeted by themselves, apart from its weight.
    pub(super) fn parameters<'b>(&'b self, module: &'b str) -> impl Iterator<Item = &'b str> {
        self.adapter.settings.parameters_of(module)
    }

    /// Puts the tensor `key` of the adapter where the base has `name`; says whether its shape is
    /// another one.
    pub(super) fn replace(&self, catalog: &mut Catalog, name: &str, key: &str) -> Result<bool> {
        let name = self.renaming.apply(name);
        let base = self.target(catalog, &name, key)?;
        let (_, mut given) = Tensor::stored(key, &self.adapter.weights, base.home);
        embeddings::check_shape(self.adapter, key, &name, &given.shape, &base)?;
        let resized = given.shape != base.shape;
        if let Some(to) = Precision::from_dtype(base.dtype) {
            self.check_dtype(key, &given)?;
            given = convert(&name, &given, to)?;
        }
        catalog.tensors[name.as_str()] = given;
        Ok(resized)
    }

    /// The tensor of the base that `key` changes, one that can be computed with.
    pub(super) fn target(&self, catalog: &Catalog, name: &str, key: &str) -> Result<Tensor> {
        let is_quantized = quant::seems_quantized(&catalog.tensors, name);
        let dequantize = || Hint::give_value(DTYPE, "bf16").to("dequantize the base first");
        let Some(tensor) = catalog.tensors.get(name) else {
            if is_quantized {
                let problem = format!("it belongs to {name}, which the base has in packed codes");
                let error = self.adapter.error(Code::QuantizedBase, key, problem);
                return Err(error.with_hint(dequantize()));
            }
            return Err(self.adapter.error(
                Code::AdapterMismatch,
                key,
                format!(
                    "it belongs to {name}, which the base does not have{}",
                    close_names(catalog, name)
                ),
            ));
        };
        if factors::is_float(tensor.dtype) {
            return Ok(tensor.clone());
        }
        let advice = match is_quantized {
            true => dequantize(),
            false => Hint::text("start from the checkpoint that is not quantized"),
        };
        Err(Error::of_tensor(Code::QuantizedBase, tensor.origin(),
            name,
            format!(
                "the adapter {} changes it, but its dtype is {}, and only BF16, F16 and F32 can be changed",
                self.adapter.directory.shown(),
                tensor.dtype
            ),
        ).with_hint(advice))
    }

    pub(super) fn check_dtype(&self, key: &str, tensor: &Tensor) -> Result<()> {
        if factors::is_float(tensor.dtype) {
            Ok(())
        } else {
            Err(self.adapter.error(
                Code::UnsupportedTensor,
                key,
                format!(
                    "its dtype is {}, but must be BF16, F16 or F32",
                    tensor.dtype
                ),
            ))
        }
    }

    /// A tensor of the adapter that is computed with.
    pub(super) fn stored(&self, key: &Name) -> Result<Tensor> {
        let (_, tensor) = Tensor::stored(key, &self.adapter.weights, None);
        self.check_dtype(key, &tensor)?;
        Ok(tensor)
    }

    /// Both factors of a module.
    pub(super) fn factors(&self, module: &str, factors: &Factors) -> Result<(Tensor, Tensor)> {
        let missing = |which: &str| {
            let problem = format!("{module} has no lora_{which} beside it");
            self.adapter.error(Code::BadAdapter, factors.any(), problem)
        };
        let a = factors.a.as_ref().ok_or_else(|| missing("A"))?;
        let b = factors.b.as_ref().ok_or_else(|| missing("B"))?;
        Ok((self.stored(a)?, self.stored(b)?))
    }

    /// What the product is multiplied by.
    pub(super) fn scale(&self, path: &str, factors: &Factors) -> Result<f32> {
        let scale = self.adapter.settings.scaling(path, self.weight) as f32;
        if scale.is_finite() {
            Ok(scale)
        } else {
            Err(self.adapter.error(
                Code::BadAdapter,
                factors.any(),
                "by rank, alpha and weight, its scaling is larger than any f32",
            ))
        }
    }

    /// `bias + s · given`.
    pub(super) fn bias(
        &self,
        catalog: &Catalog,
        name: String,
        key: &Name,
        scale: f32,
    ) -> Result<WeightChange> {
        let bias = self.target(catalog, &name, key)?;
        let given = self.stored(key)?;
        if given.shape != bias.shape || bias.shape.len() != 1 {
            return Err(self.unfit(key, &given, &name, &bias));
        }
        let columns = bias.shape[0];
        let matrix = Matrix {
            groups: 1,
            rows: 1,
            columns,
            dtype: bias.dtype,
        };
        self.check_size(key, columns, panelled(columns))?;
        let strided = strided(1, 1, columns, [0, 0, 1]);
        Ok(WeightChange {
            change: LowRank {
                left: None,
                right: factors::right(&name, given, strided),
                rank: 1,
                scale,
                first_row: 0,
                left_rows: 0,
                first_group: 0,
                join: Join::Add,
            },
            name: name.into(),
            matrix,
        })
    }

    /// Checks that rows and factors are not so large that they could not be held in memory.
    pub(super) fn check_size(&self, key: &Name, columns: u64, elements: u64) -> Result<()> {
        let refuse = |problem: String| Err(self.adapter.error(Code::OverLimit, key, problem));
        if columns > MOST_COLUMNS {
            return refuse(format!(
                "it changes rows of {columns} elements; at most {MOST_COLUMNS} are supported"
            ));
        }
        if elements.saturating_mul(4) > MOST_FACTOR_BYTES {
            return refuse(format!(
                "as F32 it takes {} bytes; at most {MOST_FACTOR_BYTES} are supported, since ckptfs keeps all of them in memory",
                elements.saturating_mul(4)
            ));
        }
        Ok(())
    }

    /// An error that names both shapes.
    pub(super) fn unfit(&self, key: &Name, tensor: &Tensor, name: &str, base: &Tensor) -> Error {
        self.adapter
            .error(
                Code::AdapterMismatch,
                key,
                format!(
                    "its shape {} does not fit {name} of the base, whose shape is {}",
                    shape_text(&tensor.shape),
                    shape_text(&base.shape)
                ),
            )
            .with_hint("was the adapter trained on another model?")
    }
}

/// Columns of a right factor once they are in whole panels.
pub(super) fn panelled(columns: u64) -> u64 {
    columns.next_multiple_of(PANEL as u64)
}

/// What `[group, row, column]` strides see; the numbers are those of tensors that exist.
pub(super) fn strided(groups: u64, rows: u64, columns: u64, strides: [u64; 3]) -> Strided {
    Strided {
        groups: groups as usize,
        rows: rows as usize,
        columns: columns as usize,
        strides: strides.map(|stride| stride as usize),
    }
}
