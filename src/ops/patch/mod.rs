//! Patch: the base, and the tensors that only an extra has.
//!
//! The base wins on every overlap; of several extras, the first that has a tensor wins.
//! Only tensors are taken from an extra, never its config, tokenizer or other files.

mod checks;

use crate::catalog::{Catalog, Opened, Role, SourceReport, Tensor};
use crate::error::Result;
use crate::error::setting::PATCH;
use crate::ops::numbers::Numbers;
use crate::ops::open;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::source::Location;

/// Take the tensors that the base (and every extra before) lacks from these checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchParams {
    pub extras: Vec<Location>,
}

impl Params for PatchParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: PATCH,
            flag: "extra",
            takes: Takes::Sources,
            group: Group::Sources,
            help: "Checkpoint directory or single file (.safetensors, .bin, .pt, .pth, .gguf) to take the tensors from that the base lacks (repeatable, the first that has a tensor counts)",
            comment: "give the tensors that are not there yet, the first that has one",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        self.extras.push(value.into_source().0);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        self.extras.iter().map(Value::source).collect()
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let numbers = Numbers::of(conversions)?;
        let extras = self.extras.iter();
        let extras = extras.map(|extra| open::tensors(extra, &numbers));
        let extras = extras.collect::<Result<_>>()?;
        Ok(vec![Box::new(Patch { extras })])
    }
}

/// Adds what the catalog lacks from other checkpoints, in order of precedence.
#[derive(Debug)]
struct Patch {
    extras: Vec<Opened>,
}

impl Operator for Patch {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        for extra in &self.extras {
            checks::warn_before(catalog, extra)?;
            let (mut added, mut added_bytes) = (0, 0u64);
            for (name, tensor) in &extra.tensors {
                if catalog.tensors.contains_key(name) {
                    continue;
                }
                let tensor = Tensor {
                    home: None,
                    ..tensor.clone()
                };
                added += 1;
                added_bytes = added_bytes.saturating_add(tensor.len());
                catalog.tensors.insert(name.clone(), tensor);
            }
            catalog.sources.extend(&extra.shards, Role::Extra);
            catalog.report.name_source(&extra.path);
            catalog.report.sources.push(SourceReport {
                role: Role::Extra,
                path: extra.path.clone(),
                tensors: extra.tensors.len(),
                bytes: extra.bytes,
                added,
                added_bytes,
                overlapping: extra.tensors.len() - added,
                left_out: extra.left_out.clone(),
                graft: None,
            });
        }
        Ok(())
    }
}
