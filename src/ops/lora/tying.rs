//! Input and output embeddings that are one tensor of the base.
//!
//! What an adapter changes of one of two uses cannot be merged into it. What it changes of both alike can:
//! rows of tokens, which PEFT trains so; tensors that take the place of both and are equal, or of one
//! where adapter_config.json says `ensure_weight_tying`; and factors of one that are the other's transposed.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::UNTIE;
use crate::error::{Code, Error, Hint, Result};
use crate::format::StoredTensor;
use crate::memory;
use crate::ops::lora::adapter::Adapter;
use crate::ops::lora::embeddings::{is_embedding, is_output};
use crate::ops::lora::targets::{Contents, Factors};
use crate::tensor::Name;

/// The largest factors of tied embeddings that are compared, in bytes.
const MOST_FACTOR_BYTES: u64 = 512 << 20;

/// Leaves out of `contents` what it says of an output embedding that is tied to the input, which then stands
/// for both. Gives the name, in the adapter's model, of what the output follows.
///
/// # Errors
/// If the base ties them, and the adapter changes them otherwise than alike.
pub(super) fn tie(
    catalog: &mut Catalog,
    adapter: &Adapter,
    contents: &mut Contents,
) -> Result<Option<String>> {
    let names = contents.changed_names(&adapter.settings);
    let mut changed = names.iter().filter(|name| is_embedding(name));
    let Some(first) = changed.next() else {
        return Ok(None);
    };
    let Some(how) = how_tied(catalog)? else {
        return Ok(None);
    };
    let refuse = |name: &str, what: &str| {
        Err(Error::of_file(Code::TiedEmbeddings, &adapter.directory,
            format!(
                "it changes {name}, but input and output embedding are tied ({how}): a merge would change both, though {what}"
            ),
        ).with_hint(advice()))
    };
    const ONE: &str = "training changed one use of them";
    const TWO: &str = "training changed its two uses in different ways";

    let token_output = contents
        .tokens
        .keys()
        .find(|module| is_output_module(module));
    if let Some(module) = token_output {
        return refuse(&format!("{module}.weight"), TWO);
    }
    let find = |is_wanted: &dyn Fn(&str) -> bool| {
        let mut found = contents.replacements.iter();
        found.find(|(name, _)| is_wanted(name))
    };
    let input = find(&|name| is_embedding(name) && !is_output(name));
    match (input, find(&is_output)) {
        (None, None) => {}
        (None, Some((name, _))) => return refuse(name, ONE),
        (Some(_), None) if adapter.settings.ties => {}
        (Some((name, _)), None) => return refuse(name, ONE),
        (Some((name, input)), Some((_, output))) => {
            if !are_equal(adapter, input, output)? {
                return refuse(name, TWO);
            }
        }
    }
    let find = |is_wanted: &dyn Fn(&str) -> bool| {
        let mut found = contents.modules.iter();
        found.find(|(module, _)| is_wanted(&format!("{module}.weight")))
    };
    let input = find(&|name| is_embedding(name) && !is_output(name));
    match (input, find(&is_output)) {
        (None, None) => {}
        (Some((module, input)), Some((_, output))) => {
            if !are_transposes(adapter, input, output)? {
                return refuse(&format!("{module}.weight"), TWO);
            }
        }
        (Some((module, _)), None) | (None, Some((module, _))) => {
            return refuse(&format!("{module}.weight"), ONE);
        }
    }
    let follows = names
        .iter()
        .find(|name| is_embedding(name) && !is_output(name));
    let follows = follows.unwrap_or(first).clone();
    contents.replacements.retain(|name, _| !is_output(name));
    contents
        .modules
        .retain(|module, _| !is_output_module(module));
    Ok(Some(follows))
}

fn advice() -> Hint {
    Hint::give(UNTIE).to("give the base a head of its own first")
}

fn is_output_module(module: &str) -> bool {
    is_output(&format!("{module}.weight"))
}

/// What says that the base's embeddings are tied, if they are.
fn how_tied(catalog: &mut Catalog) -> Result<Option<String>> {
    let declared = match catalog.config_mut()? {
        Some(config) => config.text_model("tie_word_embeddings"),
        None => None,
    };
    Ok(match declared.as_ref().and_then(Value::as_bool) {
        Some(true) => Some(format!(
            "{CONFIG_FILE} of the base says tie_word_embeddings"
        )),
        Some(false) => None,
        None if catalog.tensors.keys().any(|name| is_output(name)) => None,
        None => Some("the base has no output embedding of its own".to_owned()),
    })
}

/// Gives output embeddings that a base stores, though they are tied, what the input `name` has become.
pub(super) fn follow(catalog: &mut Catalog, name: &str) {
    let Some(input) = catalog.tensors.get(name).cloned() else {
        return;
    };
    for (name, output) in &mut catalog.tensors {
        if is_output(name) {
            let home = output.home;
            *output = input.clone();
            output.home = home;
        }
    }
}

/// Whether two tensors of the adapter have the same dtype, shape and bytes.
fn are_equal(adapter: &Adapter, one: &Name, other: &Name) -> Result<bool> {
    const PIECE: u64 = 1 << 20;
    let [first, second] = [one, other].map(|key| &adapter.weights.tensors[key]);
    if (first.dtype, &first.shape) != (second.dtype, &second.shape) {
        return Ok(false);
    }
    if first == second {
        return Ok(true);
    }
    if first.strides.is_some() || second.strides.is_some() {
        return are_equal_matrices(adapter, first, second, |row, column| (row, column));
    }
    let mut buffers = [memory::zeros(PIECE)?, memory::zeros(PIECE)?];
    let mut done = 0;
    while done < first.len {
        let piece = PIECE.min(first.len - done) as usize;
        for (buffer, tensor) in buffers.iter_mut().zip([first, second]) {
            let blob = &adapter.weights.blob;
            blob.read_at(&mut buffer[..piece], tensor.offset + done)?;
        }
        if buffers[0][..piece] != buffers[1][..piece] {
            return Ok(false);
        }
        done += piece as u64;
    }
    Ok(true)
}

/// Whether the factors of an output embedding are those of the input, each transposed and in the other's place.
fn are_transposes(adapter: &Adapter, input: &Factors, output: &Factors) -> Result<bool> {
    let alone = [input, output]
        .iter()
        .all(|f| f.magnitude.is_none() && f.bias.is_none());
    match (&input.a, &input.b, &output.a, &output.b) {
        (Some(a), Some(b), Some(output_a), Some(output_b)) if alone && input.embedding => {
            Ok(is_transpose(adapter, a, output_b)? && is_transpose(adapter, b, output_a)?)
        }
        _ => Ok(false),
    }
}

fn is_transpose(adapter: &Adapter, one: &Name, other: &Name) -> Result<bool> {
    let [first, second] = [one, other].map(|key| &adapter.weights.tensors[key]);
    let (&[rows, columns], &[other_rows, other_columns]) = (&first.shape[..], &second.shape[..])
    else {
        return Ok(false);
    };
    if first.dtype != second.dtype || [rows, columns] != [other_columns, other_rows] {
        return Ok(false);
    }
    are_equal_matrices(adapter, first, second, |row, column| (column, row))
}

/// Whether each element of the matrix `first` is that of `second` at `place` of its row and column. Larger ones
/// than factors, and what are no matrices, are not.
fn are_equal_matrices(
    adapter: &Adapter,
    first: &StoredTensor,
    second: &StoredTensor,
    place: impl Fn(u64, u64) -> (u64, u64),
) -> Result<bool> {
    let &[rows, columns] = &first.shape[..] else {
        return Ok(false);
    };
    if [first, second]
        .iter()
        .any(|tensor| tensor.span() > MOST_FACTOR_BYTES)
    {
        return Ok(false);
    }
    let read = |tensor: &StoredTensor| -> Result<Vec<u8>> {
        let mut bytes = memory::zeros(tensor.span())?;
        adapter.weights.blob.read_at(&mut bytes, tensor.offset)?;
        Ok(bytes)
    };
    let (first_bytes, second_bytes) = (read(first)?, read(second)?);
    let width = first.dtype.bitsize() / 8;
    let equal = |row: u64, column: u64| {
        let (other_row, other_column) = place(row, column);
        let here = first.place(row, column);
        let there = second.place(other_row, other_column);
        first_bytes[here..here + width] == second_bytes[there..there + width]
    };
    Ok((0..rows).all(|row| (0..columns).all(|column| equal(row, column))))
}
