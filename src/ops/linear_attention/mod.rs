//! The input projections of gated linear attention, in the form of Qwen3-Next and in that of Qwen3.5.
//! Rows move as ranges of bytes.
//!
//! With `K` key heads of `k` rows, `V = K·r` value heads of `v` rows and hidden size `H`:
//!
//! | form | tensors, each `.weight` `[rows, H]` |
//! |---|---|
//! | joined (Qwen3-Next) | `in_proj_qkvz`: for each key head its `k` rows of q, `k` of k, `r·v` of v and `r·v` of z; `in_proj_ba`: for each key head `r` rows of b and `r` of a |
//! | split (Qwen3.5) | `in_proj_qkv`: the rows of q of all heads, of k, of v; `in_proj_z`; `in_proj_b`; `in_proj_a` |

mod form;
mod heads;
mod rows;

use crate::catalog::Catalog;
use crate::error::setting::LINEAR_ATTENTION;
use crate::error::{Code, Result, Warning};
use crate::named::Named;
use crate::ops::params::chosen;
use crate::ops::regroup;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::quant::{self, Doing};
pub use form::LinearAttention;
use form::hold_the_same;
use heads::Heads;

/// The requested form of linear attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinearAttentionParams {
    pub form: Option<LinearAttention>,
}

impl Params for LinearAttentionParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: LINEAR_ATTENTION,
            flag: "linear-attention",
            takes: Takes::Choice(LinearAttention::NAMES),
            group: Group::Tensors,
            help: "Split in_proj_qkvz and in_proj_ba (Qwen3-Next) into in_proj_qkv, _z, _b and _a (Qwen3.5), or join these",
            comment: "",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        self.form = Some(chosen(value)?);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let form = self.form.iter();
        form.map(|form| Value::text(form.name())).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let form = self.form.into_iter();
        Ok(form
            .map(|form| Box::new(ChangeProjections(form)) as Box<dyn Operator>)
            .collect())
    }
}

/// Changes the form of the projections of a catalog.
#[derive(Debug)]
struct ChangeProjections(LinearAttention);

impl Operator for ChangeProjections {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let form = self.0;
        let modules = form.modules(catalog)?;
        if modules.is_empty() {
            let names = form.from().join(" or ");
            let problem = format!("it has no effect: no module of this view is called {names}");
            let warning = Warning::new(Code::NoEffect, problem);
            let warning = warning.about_value(LINEAR_ATTENTION, form.name());
            catalog.report.warnings.push(warning);
            return Ok(());
        }
        let heads = Heads::from_catalog(catalog)?;
        let moves_of = match form {
            LinearAttention::Split => heads.split(),
            LinearAttention::Join => heads.joined(),
        };
        let changes = modules.into_iter();
        let changes = changes.map(|module| rows::change(catalog, form, &heads, module, &moves_of));
        let changes = changes.collect::<Result<Vec<_>>>()?;
        let moves = regroup::moves(catalog, &changes, hold_the_same);
        quant::follow(catalog, &moves, Doing::Regrouping)?;
        regroup::carry_out(catalog, changes, "take linear attention in one form only")
    }
}
