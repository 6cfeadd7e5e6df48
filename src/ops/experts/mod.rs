//! Experts: the weights of a mixture-of-experts layer, one tensor per expert and projection, or
//! fused into two tensors. Changing the form moves ranges of bytes or, of families that store fused
//! experts transposed, elements; it changes no number.
//!
//! | form | tensors of a layer with `E` experts, hidden size `H` and intermediate size `I` |
//! |---|---|
//! | per expert | `<p>.experts.<j>.{gate,up}_proj.weight` `[I, H]`, `<p>.experts.<j>.down_proj.weight` `[H, I]` |
//! | fused | `<p>.experts.gate_up_proj` `[E, 2I, H]`, of each expert the rows of gate, then those of up; `<p>.experts.down_proj` `[E, H, I]` |
//!
//! Families differ (`families.rs`): some call the single weights `w1`, `w3` and `w2`, have no gate (`up_proj`
//! `[E, I, H]` is fused then), or store fused ones transposed, some of these with gate and up by turns, and with biases.
//!
//! Companions (the scales of a quantized weight) take the same form: those of a fused tensor are
//! stacked per expert.

mod families;
mod form;
mod fuse;
pub(in crate::ops) mod model;
mod turned;
mod unfuse;
mod weight;

use indexmap::IndexSet;

use crate::catalog::Catalog;
use crate::error::setting::EXPERTS;
use crate::error::{Code, Error, Result, Warning};
use crate::named::Named;
use crate::ops::params::{chosen, scoped};
use crate::ops::pattern::Pattern;
use crate::ops::regroup::{self, Change};
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::quant::{self, Doing};
use crate::shown::Show;
pub use form::Experts;
pub(in crate::ops) use form::form_of;
use model::Model;
pub(in crate::ops) use unfuse::MOST_EXPERTS;
use weight::in_experts;
pub(in crate::ops) use weight::{DOWN, GATE, GATE_UP, UP};

/// Which experts to give which form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpertsParams {
    /// The form of all experts that none of the expressions below is about.
    pub form: Option<Experts>,
    /// Unfuse the experts whose module (`model.layers.0.mlp.experts`) one of these regular
    /// expressions matches as a whole.
    pub unfuse: Vec<String>,
    /// Fuse these.
    pub fuse: Vec<String>,
}

impl ExpertsParams {
    /// All experts in one form.
    pub fn all(form: Experts) -> Self {
        ExpertsParams {
            form: Some(form),
            ..ExpertsParams::default()
        }
    }

    fn scopes(&self, form: Experts) -> &[String] {
        match form {
            Experts::Unfuse => &self.unfuse,
            Experts::Fuse => &self.fuse,
        }
    }
}

impl Params for ExpertsParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: EXPERTS,
            flag: "",
            takes: Takes::ScopedFlags(&[
                (
                    "unfuse",
                    "unfuse-experts",
                    "Split fused experts (experts.gate_up_proj, experts.down_proj) into one tensor per expert [REGEX: only modules that match it]",
                ),
                (
                    "fuse",
                    "fuse-experts",
                    "Fuse the experts of each layer into gate_up_proj and down_proj [REGEX: only modules that match it]",
                ),
            ]),
            group: Group::Tensors,
            help: "",
            comment: "",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let Value::Scoped { name, scope } = value else {
            self.form = Some(chosen(value)?);
            return Ok(());
        };
        Pattern::new(EXPERTS, &scope)?;
        match chosen(Value::Text(name))? {
            Experts::Unfuse => self.unfuse.push(scope),
            Experts::Fuse => self.fuse.push(scope),
        }
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let form = self.form.iter();
        let form = form.map(|form| Value::text(form.name()));
        let scoped = Experts::VALUES.iter().flat_map(|form| {
            let scopes = self.scopes(*form).iter();
            scopes.map(|scope| Value::Scoped {
                name: form.name().to_owned(),
                scope: scope.clone(),
            })
        });
        form.chain(scoped).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let scopes = Experts::VALUES.iter().flat_map(|form| {
            let scopes = self.scopes(*form).iter();
            scopes.map(|scope| {
                Ok(Scope {
                    form: *form,
                    modules: Pattern::new(EXPERTS, scope)?,
                })
            })
        });
        Ok(vec![Box::new(ChangeExperts {
            form: self.form,
            scopes: scopes.collect::<Result<_>>()?,
        })])
    }
}

/// Splits all fused experts of `catalog`.
///
/// # Errors
/// If some cannot be split.
pub(in crate::ops) fn unfuse(catalog: &mut Catalog) -> Result<()> {
    let change = ChangeExperts {
        form: Some(Experts::Unfuse),
        scopes: Vec::new(),
    };
    change.apply(catalog)
}

/// Gives the experts of a catalog other forms.
#[derive(Debug)]
struct ChangeExperts {
    /// That of experts that no scope is about.
    form: Option<Experts>,
    scopes: Vec<Scope>,
}

/// The experts of some modules, and the form that they get.
#[derive(Debug)]
struct Scope {
    form: Experts,
    modules: Pattern,
}

impl ChangeExperts {
    /// The form that the experts of `module` get.
    fn form_for(&self, module: &str) -> Option<Experts> {
        let mut scopes = self.scopes.iter();
        let scope = scopes.find(|scope| scope.modules.matches(module));
        scope.map(|scope| scope.form).or(self.form)
    }

    /// The forms that are asked for.
    fn forms(&self) -> impl Iterator<Item = Experts> {
        let is_asked = |form: &Experts| {
            self.form == Some(*form) || self.scopes.iter().any(|scope| scope.form == *form)
        };
        Experts::VALUES.iter().copied().filter(is_asked)
    }

    /// Checks that no experts are to have both forms.
    fn check_scopes(&self, catalog: &Catalog) -> Result<()> {
        let modules = catalog.tensors.keys().filter_map(|name| in_experts(name));
        let modules: IndexSet<&str> = modules.map(|(module, _)| module).collect();
        for module in modules {
            let mut matching = self.scopes.iter().filter(|s| s.modules.matches(module));
            let Some(first) = matching.next() else {
                continue;
            };
            if let Some(other) = matching.find(|scope| scope.form != first.form) {
                let problem = format!(
                    "both {} and {} are about {}",
                    first.value(),
                    other.value(),
                    module.shown()
                );
                return Err(Error::new(Code::Conflict, problem)
                    .about(EXPERTS)
                    .with_hint("make one of the regular expressions match less"));
            }
        }
        Ok(())
    }

    /// Warns of what is asked and changes none of `changes`.
    fn warn_idle(&self, catalog: &mut Catalog, changes: &[Change]) {
        let mut idle = |problem: String, value: String| {
            let warning = Warning::new(Code::NoEffect, problem);
            let warning = warning.about_value(EXPERTS, value);
            catalog.report.warnings.push(warning);
        };
        for scope in &self.scopes {
            let in_scope = |change: &Change| scope.modules.matches(&change.module);
            if !changes.iter().any(in_scope) {
                let problem = format!(
                    "it has no effect: no tensor of a module that this matches as a whole is called {}",
                    names_of(scope.form)
                );
                idle(problem, scope.value());
            }
        }
        if let Some(form) = self.form {
            let in_no_scope = |change: &Change| {
                let mut scopes = self.scopes.iter();
                !scopes.any(|scope| scope.modules.matches(&change.module))
            };
            if !changes.iter().any(in_no_scope) {
                let problem = format!(
                    "it has no effect: no tensor of this view is called {}",
                    names_of(form)
                );
                idle(problem, form.name().to_owned());
            }
        }
    }
}

impl Scope {
    /// As hints and warnings have it.
    fn value(&self) -> String {
        scoped(self.form.name(), self.modules.text())
    }
}

/// The names of what can be given another form so.
fn names_of(form: Experts) -> &'static str {
    match form {
        Experts::Unfuse => "*.experts.{gate_up,down}_proj",
        Experts::Fuse => {
            "*.experts.<number>.{gate,up,down}_proj.weight or *.experts.<number>.{w1,w2,w3}.weight"
        }
    }
}

impl Operator for ChangeExperts {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let model = Model::from_catalog(catalog)?;
        self.check_scopes(catalog)?;
        let mut changes = Vec::new();
        for form in self.forms() {
            let in_scope = |module: &str| self.form_for(module) == Some(form);
            let changed = match form {
                Experts::Unfuse => unfuse::changes(catalog, &model, &in_scope)?,
                Experts::Fuse => fuse::changes(catalog, &model, &in_scope)?,
            };
            changes.extend(changed);
        }
        self.warn_idle(catalog, &changes);
        let moves = regroup::moves(catalog, &changes, weight::are_of_one_kind);
        quant::follow(catalog, &moves, Doing::Regrouping)?;
        regroup::carry_out(catalog, changes, "take the experts in one form only")
    }
}
