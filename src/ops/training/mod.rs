//! Training checkpoints as models of Hugging Face: tensors made of pieces, names, and the files of a model.
//!
//! | file | about |
//! |---|---|
//! | `assemble.rs` | tensors, made of their pieces |
//! | `expected.rs` | the tensors and the config that there should be |
//! | `megatron/` | names and fused tensors of Megatron-Core |
//! | `meta.rs` | names of Meta's Llama, and the order of rows in its heads |
//! | `names.rs` | what programs put before and into names |

mod assemble;
mod expected;
mod megatron;
mod meta;
mod names;

use indexmap::IndexMap;

use crate::catalog::{Opened, Tensor};
use crate::error::Result;
use crate::format::{Checkpoint, LeftOut, Training};
use crate::ops::training::expected::{Expected, Tensors};
use crate::source::Location;
use crate::tensor::Name;

/// What `checkpoint`, which is `training`, has of a model, with config and tokenizer of the directory `like` or its own.
/// Tensors that it lacks are only noted if others may be `added`.
///
/// # Errors
/// If there is no config.json, pieces do not cover a tensor, or the tensors are not those of the model.
pub(super) fn opened(
    checkpoint: Checkpoint,
    training: Training,
    like: Option<&Location>,
    added: bool,
) -> Result<Opened> {
    let Checkpoint {
        path,
        attributes,
        shards,
        mut aux,
        mut left_out,
        mut notes,
        ..
    } = checkpoint;
    if let Some(like) = like {
        let files = Checkpoint::files_beside(like)?;
        aux = files.entries;
        left_out.extend(files.left_out.into_iter().map(LeftOut::from));
    }
    let expected = Expected::read(&path, &aux, like)?;
    let names = names::cleaned(&path, training.tensors.keys())?;
    let mut tensors = Tensors::new();
    let mut assemble = |wanted: &mut dyn Iterator<Item = (Name, &Name)>| -> Result<()> {
        for (name, own) in wanted {
            let tensor = assemble::tensor(own, &training.tensors[own], &shards)?;
            tensors.insert(name, tensor);
        }
        Ok(())
    };
    let keys = || names.keys().map(|name| &**name);
    let found = match (meta::prefix(keys()), megatron::prefix(keys())) {
        (Some(prefix), _) => {
            let rest = without(&names, prefix);
            assemble(&mut rest.into_iter())?;
            meta::renamed(&path, tensors, &expected, &mut left_out)?
        }
        (_, Some(prefix)) => {
            let rest = without(&names, prefix);
            assemble(&mut rest.into_iter())?;
            megatron::renamed(&path, tensors, &expected, &mut left_out)?
        }
        (None, None) => {
            let prefix = names::prefix(keys(), expected.names().as_ref());
            if !prefix.is_empty() {
                notes.push(format!(
                    "names begin with {prefix} in the checkpoint: it is taken off"
                ));
            }
            let wanted = names.iter().filter_map(|(name, own)| {
                let rest: Name = name.strip_prefix(&*prefix)?.into();
                expected.has(&rest).then_some((rest, *own))
            });
            assemble(&mut wanted.into_iter())?;
            let others = names.keys().filter(|name| {
                let rest = name.strip_prefix(&*prefix);
                rest.is_none_or(|rest| !expected.has(rest))
            });
            left_out.extend(others.map(|name| expected.not_of_model(name)));
            tensors
        }
    };
    let tensors = expected.checked(&path, found, added, &mut left_out, &mut notes)?;
    let bytes = tensors.values().map(Tensor::len);
    Ok(Opened {
        bytes: bytes.fold(0, u64::saturating_add),
        path,
        attributes,
        shards,
        tensors,
        aux,
        left_out,
        notes,
    })
}

/// The names that begin with `prefix`, without it.
fn without<'a>(names: &IndexMap<Name, &'a Name>, prefix: &str) -> Vec<(Name, &'a Name)> {
    let rest = names.iter();
    rest.filter_map(|(name, own)| Some((name.strip_prefix(prefix)?.into(), *own)))
        .collect()
}
