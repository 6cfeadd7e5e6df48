//! How the factors of fused experts are stored, found for all of an adapter.

use crate::catalog::Catalog;
use crate::error::{Code, Result};
use crate::ops::experts::model::Model;
use crate::ops::lora::adapter::Adapter;
use crate::ops::lora::expert_names::{expert_name, parameter, parts};
use crate::ops::lora::renaming::Renaming;
use crate::ops::lora::targets::{Contents, unwrapped};
use crate::ops::lora::writer::{ExpertOrder, Peft};
use crate::tensor::Name;

/// How all factors of an adapter's experts are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertStorage {
    /// Whether `A` is over the first dimension of a fused weight, and `B` over the second; `None` if nothing
    /// tells.
    pub a_is_first: Option<bool>,
    pub order: ExpertOrder,
    /// Whether the order is assumed, and matters.
    pub is_assumed: bool,
    /// Whether the adapter leaves it to the request to say the order.
    pub asks_order: bool,
}

impl ExpertStorage {
    /// How `adapter` has them, by what shapes tell of any of them, and by who wrote it. `asked` is the
    /// order that the request says.
    ///
    /// # Errors
    /// If the shapes of two contradict each other.
    pub(super) fn find(
        adapter: &Adapter,
        catalog: &Catalog,
        model: &Model,
        contents: &Contents,
        renaming: &Renaming,
        asked: Option<ExpertOrder>,
    ) -> Result<Self> {
        let is_transposed = model.is_transposed();
        let mut told: Option<(bool, &Name)> = None;
        let mut order_matters = false;
        for (module, factors) in &contents.modules {
            let (path, depth) = unwrapped(module);
            let parameter = parameter(adapter, path, depth, factors);
            let (Ok(parameter), Some(a), Some(b)) = (parameter, &factors.a, &factors.b) else {
                continue;
            };
            if parameter == "weight" {
                continue;
            }
            let [a, b] = [a, b].map(|key| &adapter.weights.tensors[key].shape[..]);
            let (&[ranks, a_columns], &[b_rows, _]) = (a, b) else {
                continue;
            };
            let rank = adapter.settings.rank(&format!("{path}.{parameter}"));
            order_matters |= rank > 1.0 && ranks as f64 > rank;
            let place = Place::find(catalog, &renaming.apply(path), parameter);
            let Some(place) = place else { continue };
            let Some(a_is_rows) = place.a_is_rows(a_columns, b_rows) else {
                continue;
            };
            let a_is_first = a_is_rows ^ (place.is_apart && is_transposed);
            match told {
                Some((other, key)) if other != a_is_first => {
                    return Err(adapter.error(Code::BadAdapter, factors.any(), format!(
                        "by its shape, A and B are over the dimensions of the weight the other way round than those of {key}; PEFT stores all of an adapter alike"
                    )));
                }
                _ => told = Some((a_is_first, factors.any())),
            }
        }
        let writer = &adapter.settings.writer;
        // Checkpoints of this family store the weights transposed, and transformers 5 holds them untransposed in
        // memory. An old adapter may have been trained on either; its PEFT version does not say which.
        let is_either =
            model.is_either_way() && matches!(writer.peft, Peft::Before0_19 | Peft::Unsaid);
        let by_release = writer.peft.a_is_first(is_transposed).filter(|_| !is_either);
        let by_shape = told.map(|(a_is_first, _)| a_is_first);
        Ok(ExpertStorage {
            a_is_first: by_shape.or(by_release),
            order: writer.order.or(asked).unwrap_or(ExpertOrder::RankMajor),
            is_assumed: order_matters && writer.order.or(asked).is_none(),
            asks_order: order_matters && writer.order.is_none(),
        })
    }
}

/// Where the base has a fused parameter: as one, or as weights of single experts that it is made of.
pub(super) struct Place {
    /// Of the fused weight of one expert; if `is_apart`, of its parts below each other.
    pub rows: u64,
    pub columns: u64,
    pub is_apart: bool,
}

impl Place {
    fn find(catalog: &Catalog, module: &str, parameter: &str) -> Option<Self> {
        let name = format!("{module}.{parameter}");
        if let Some(fused) = catalog.tensors.get(name.as_str()) {
            let &[_, rows, columns] = &fused.shape[..] else {
                return None;
            };
            return Some(Place {
                rows,
                columns,
                is_apart: false,
            });
        }
        let parts = parts(parameter);
        let name = expert_name(catalog, module, 0, parts.first()?);
        let &[rows, columns] = &catalog.tensors.get(name.as_str())?.shape[..] else {
            return None;
        };
        Some(Place {
            rows: rows.checked_mul(parts.len() as u64)?,
            columns,
            is_apart: true,
        })
    }

    /// Whether an `A` of so many columns is over the rows, and a `B` of so many rows over the columns, if their
    /// shapes tell.
    pub(super) fn a_is_rows(&self, a_columns: u64, b_rows: u64) -> Option<bool> {
        let is_rows = (a_columns, b_rows) == (self.rows, self.columns);
        let is_columns = (a_columns, b_rows) == (self.columns, self.rows);
        (is_rows != is_columns).then_some(is_rows)
    }
}
