//! What can be asked of adapters.

use crate::catalog::{Catalog, Role};
use crate::error::setting::{LORA, LORA_EXPERTS};
use crate::error::{Code, Error, Result, Warning};
use crate::named::Named;
use crate::ops::dtype::InDtype;
use crate::ops::lora::operator::{AdapterReport, Lora};
use crate::ops::lora::writer::ExpertOrder;
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::source::Location;

/// The most adapters in one view.
const MOST_ADAPTERS: usize = 16;

/// An adapter to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRequest {
    /// Where adapter_config.json and adapter_model.safetensors are.
    pub adapter: Location,
    /// What its scaling is multiplied by: 1 merges it as it was trained.
    pub weight: f64,
}

/// Merge these adapters, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoraParams {
    pub adapters: Vec<LoraRequest>,
    /// How `lora_B` of fused experts is stored, where adapter_config.json does not say.
    pub experts: Option<ExpertOrder>,
}

impl Params for LoraParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: LORA,
                flag: "lora",
                takes: Takes::WeightedSources,
                group: Group::Sources,
                help: "PEFT adapter to merge into the base, with its scaling multiplied by WEIGHT (repeatable, merged in order)",
                comment: "merged in this order",
            },
            Setting {
                key: LORA_EXPERTS,
                flag: "lora-experts",
                takes: Takes::Choice(ExpertOrder::NAMES),
                group: Group::Sources,
                help: "Order of lora_B of fused experts, where an adapter does not say it [default: rank-major, as PEFT has it]",
                comment: "",
            },
        ]
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        if key == LORA_EXPERTS {
            self.experts = Some(chosen(value)?);
            return Ok(());
        }
        let (adapter, weight) = value.into_source();
        self.adapters.push(LoraRequest { adapter, weight });
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        if key == LORA_EXPERTS {
            let order = self.experts.iter();
            return order.map(|order| Value::text(order.name())).collect();
        }
        let adapters = self.adapters.iter().cloned();
        let source = |LoraRequest {
                          adapter: location,
                          weight,
                      }| Value::Source {
            location,
            weight,
            names: None,
        };
        adapters.map(source).collect()
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        if self.adapters.len() > MOST_ADAPTERS {
            return Err(Error::new(
                Code::OverLimit,
                format!(
                    "the request has {} adapters; at most {MOST_ADAPTERS} are merged at once",
                    self.adapters.len()
                ),
            ));
        }
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if let Some(to) = conversions.dtype {
            // Adapters are merged into numbers.
            operators.push(Box::new(InDtype::where_possible(to)));
        }
        for LoraRequest { adapter, weight } in &self.adapters {
            operators.push(Box::new(Lora::open(adapter, *weight, self.experts)?));
        }
        if let Some(order) = self.experts {
            operators.push(Box::new(UsedOrder(order)));
        }
        Ok(operators)
    }
}

/// Warns if the order that a request says is that of no adapter.
#[derive(Debug)]
struct UsedOrder(ExpertOrder);

impl Operator for UsedOrder {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let report = &mut catalog.report;
        // The models of a merge may have adapters of their own.
        let is_merge = report
            .sources
            .iter()
            .any(|source| source.role == Role::Model);
        let asks = |adapter: &AdapterReport| adapter.asks_order;
        if !is_merge && !report.reports::<AdapterReport>().any(asks) {
            let problem = "it has no effect: no adapter has factors of fused experts whose order it does not say itself, or that depend on it";
            let warning = Warning::new(Code::NoEffect, problem);
            let warning = warning.about_value(LORA_EXPERTS, self.0.name());
            report.warnings.push(warning);
        }
        Ok(())
    }
}
