//! Tensors as pickles describe them: by calls of a few functions of torch, none of which is called.

use crate::format::torch::dtypes::dtype_named;
use crate::format::torch::pickle::{Id, Pickle, Value};
use crate::format::torch::storage::Storage;
use crate::tensor::Dtype;

/// How deep wrappers of a tensor are looked into: a parameter is one, a subclass another.
const MAX_WRAPPERS: usize = 8;

/// The most entries of a tensor's metadata; torch has two.
const MAX_METADATA: usize = 64;

/// A tensor: elements of a storage, all in elements.
#[derive(Debug)]
pub(super) struct Described<'a> {
    pub storage: Storage<'a>,
    pub dtype: Dtype,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What a value is, as far as tensors go.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Tensor(Described<'a>),
    /// A tensor of a kind that safetensors have not, which it says.
    Refused(String),
    /// A tensor whose description contradicts itself.
    Damaged(&'static str),
    NoTensor,
}

/// What `id` of `pickle` is.
pub(super) fn tensor(pickle: &Pickle, id: Id) -> Found<'_> {
    look(pickle, id, MAX_WRAPPERS)
}

fn look(pickle: &Pickle, id: Id, depth: usize) -> Found<'_> {
    let Some((function, arguments)) = pickle.call(id) else {
        return Found::NoTensor;
    };
    call(pickle, function, arguments, depth)
}

/// What a call of `function` gives.
fn call<'a>(
    pickle: &'a Pickle,
    (module, name): (&str, &str),
    arguments: &[Id],
    depth: usize,
) -> Found<'a> {
    let Some(depth) = depth.checked_sub(1) else {
        return Found::Damaged("it is nested too deep");
    };
    let found = match (module, name) {
        ("torch._utils", "_rebuild_tensor") => match arguments {
            &[storage, offset, shape, strides] => {
                view(pickle, storage, [offset, shape, strides], None)
            }
            _ => None,
        },
        ("torch._utils", "_rebuild_tensor_v2") => match arguments {
            &[storage, offset, shape, strides, _, _, ref metadata @ ..] => marked(pickle, metadata)
                .or_else(|| view(pickle, storage, [offset, shape, strides], None)),
            _ => None,
        },
        ("torch._utils", "_rebuild_tensor_v3") => match arguments {
            &[
                storage,
                offset,
                shape,
                strides,
                _,
                _,
                dtype,
                ref metadata @ ..,
            ] => marked(pickle, metadata)
                .or_else(|| view(pickle, storage, [offset, shape, strides], Some(dtype))),
            _ => None,
        },
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            arguments.first().map(|&data| look(pickle, data, depth))
        }
        ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => match arguments {
            &[function, class, inner, _] => match (
                pickle.global(function),
                pickle.global(class),
                pickle.tuple(inner),
            ) {
                (Some(_), Some((module, class)), _) if !is_plain(module, class) => Some(
                    Found::Refused(format!("a tensor of the subclass {module}.{class}")),
                ),
                (Some(function), Some(_), Some(inner)) => {
                    Some(call(pickle, function, inner, depth))
                }
                _ => None,
            },
            _ => None,
        },
        _ => return refused(module, name).map_or(Found::NoTensor, Found::Refused),
    };
    found.unwrap_or(Found::Damaged("its description is not one of torch"))
}

/// Whether a class is that of tensors, or one that has nothing more.
fn is_plain(module: &str, class: &str) -> bool {
    matches!(
        (module, class),
        ("torch", "Tensor")
            | ("torch._tensor", "Tensor")
            | ("torch.nn" | "torch.nn.parameter", "Parameter" | "Buffer")
    )
}

/// What kind of tensor a call makes that safetensors cannot have.
fn refused(module: &str, name: &str) -> Option<String> {
    let kind = match (module, name) {
        ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
            "a sparse tensor"
        }
        ("torch._utils", "_rebuild_qtensor") => "a quantized tensor of torch",
        ("torch._utils", "_rebuild_nested_tensor") => "a nested tensor",
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => "a meta tensor, which has no data",
        ("torch._utils", "_rebuild_wrapper_subclass") => "a tensor of a subclass",
        ("torch.storage", "_load_from_bytes") => "a storage that is a pickle of its own",
        ("torch._utils", name) if name.starts_with("_rebuild_") => {
            return Some(format!("a tensor made by {module}.{name}"));
        }
        ("torch.nn" | "torch.nn.parameter", "Parameter")
        | ("torch" | "torch._tensor", "Tensor") => {
            "a tensor that was pickled by other means than torch's own"
        }
        _ => return None,
    };
    Some(kind.to_owned())
}

/// The marks in a tensor's metadata that its elements have another value than is stored.
fn marked<'a>(pickle: &Pickle, metadata: &[Id]) -> Option<Found<'a>> {
    let items = metadata
        .first()
        .and_then(|&metadata| pickle.dict(metadata))?;
    if items.len() > MAX_METADATA {
        return Some(Found::Damaged(
            "it has more metadata than any tensor of torch",
        ));
    }
    let is_mark = |&(key, value): &(Id, Id)| {
        matches!(pickle.text(key), Some("conj" | "neg"))
            && matches!(pickle.value(value), Value::Bool(true))
    };
    items.iter().any(is_mark).then(|| {
        Found::Refused("a tensor whose elements are stored negated or conjugated".to_owned())
    })
}

/// The tensor that is a view of `storage`; `None` if this describes none.
fn view(
    pickle: &Pickle,
    storage: Id,
    [offset, shape, strides]: [Id; 3],
    dtype: Option<Id>,
) -> Option<Found<'_>> {
    let Value::Persistent(name) = pickle.value(storage) else {
        return match pickle.call(storage) {
            Some(((module, name), _)) => refused(module, name).map(Found::Refused),
            None => None,
        };
    };
    let storage = Storage::of(pickle, *name)?;
    let dtype = match (dtype, storage.dtype) {
        (_, Err(())) => return Some(Found::Refused(format!("a tensor of {}", storage.class))),
        (None, Ok(Some(dtype))) => dtype,
        (None, Ok(None)) => return None,
        (Some(dtype), Ok(_)) => {
            let (module, name) = pickle.global(dtype)?;
            match dtype_named(name).filter(|_| module == "torch") {
                Some(dtype) => dtype,
                None => return Some(Found::Refused(format!("a tensor of {module}.{name}"))),
            }
        }
    };
    let shape = pickle.counts(shape)?;
    let strides = pickle.counts(strides)?;
    if shape.len() != strides.len() {
        return None;
    }
    Some(Found::Tensor(Described {
        dtype,
        offset: pickle.count(offset)?,
        shape,
        strides,
        storage,
    }))
}
