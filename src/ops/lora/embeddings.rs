//! Input and output embeddings under an adapter, which may give them another size.

use crate::catalog::{CONFIG_FILE, Catalog, Tensor};
use crate::error::{Code, Error, Result};
use crate::ops::lora::adapter::Adapter;
use crate::shown::Show;
use crate::tensor::shape_text;

/// What models call the module that embeds tokens, and the one that gives their scores.
const INPUTS: [&str; 4] = ["embed_tokens", "wte", "word_embeddings", "embed_in"];
const OUTPUTS: [&str; 2] = ["lm_head", "embed_out"];

const VOCABULARY: &str = "vocab_size";

/// Whether `name` is the weight of an embedding; of an output one too.
pub(super) fn is_embedding(name: &str) -> bool {
    module(name).is_some_and(|module| INPUTS.contains(&module) || OUTPUTS.contains(&module))
}

pub(super) fn is_output(name: &str) -> bool {
    module(name).is_some_and(|module| OUTPUTS.contains(&module))
}

/// `model.embed_tokens.weight` → `embed_tokens`.
fn module(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")?.rsplit('.').next()
}

/// Checks whether `given`, a tensor of the adapter called `key`, may take the place of `base`.
pub(super) fn check_shape(
    adapter: &Adapter,
    key: &str,
    name: &str,
    given: &[u64],
    base: &Tensor,
) -> Result<()> {
    let resized = is_embedding(name) && given.len() == 2 && given[1..] == base.shape[1..];
    if *given == *base.shape || resized {
        return Ok(());
    }
    Err(adapter.error(
        Code::AdapterMismatch,
        key,
        format!(
            "it replaces {name} of the base, but its shape is {} and that of the base is {}",
            shape_text(given),
            shape_text(&base.shape)
        ),
    ))
}

/// Brings `vocab_size` into line with embeddings that an adapter brought in another size.
pub(super) fn follow_vocabulary(catalog: &mut Catalog, adapter: &Adapter) -> Result<()> {
    let refuse = |problem: String| {
        Err(Error::of_file(
            Code::AdapterVocabulary,
            &adapter.directory,
            problem,
        ))
    };
    let rows = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
    let embeddings = catalog
        .tensors
        .iter()
        .filter(|(name, _)| is_embedding(name));
    let mut embeddings = embeddings.map(|(name, tensor)| (name, rows(tensor)));
    let Some((first, rows)) = embeddings.next() else {
        return Ok(());
    };
    if let Some((other, others)) = embeddings.find(|&(_, others)| others != rows) {
        return refuse(format!(
            "it brings embeddings of another size, and in the merged model {first} would have {rows} rows and {other} {others}; an adapter must bring both"
        ));
    }
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    if config.get(VOCABULARY).is_none() {
        return refuse(format!(
            "it brings embeddings of {rows} rows, but {CONFIG_FILE} has no {VOCABULARY} at its top level that could be changed to that"
        ));
    }
    config.set(VOCABULARY, &rows.into());
    catalog.report.notes.push(format!(
        "{VOCABULARY} in {CONFIG_FILE} becomes {rows}, the rows of the embeddings that {} brings",
        adapter.directory.shown()
    ));
    Ok(())
}
