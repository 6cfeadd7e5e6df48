//! The arrangements: what becomes of the elements of tensors, by their shapes.

use std::ops::Range;

use crate::catalog::{Gather, Part, Tensor};
use crate::error::{Code, Error, Result};
use crate::tensor::{Shape, shape_text};

/// A shape seen from one dimension: elements before it, along it, and of each entry of it.
struct Seen {
    outer: u64,
    len: u64,
    inner: u64,
}

fn seen(name: &str, tensor: &Tensor, dimension: usize) -> Result<Seen> {
    let shape = &tensor.shape;
    let Some(&len) = shape.get(dimension) else {
        let problem = format!("it has no dimension {dimension}");
        return Err(unfit(name, tensor, &problem));
    };
    Ok(Seen {
        outer: shape[..dimension].iter().product(),
        len,
        inner: shape[dimension + 1..].iter().product(),
    })
}

fn unfit(name: &str, tensor: &Tensor, problem: &str) -> Error {
    let shape = shape_text(&tensor.shape);
    let problem = format!("its shape is {shape}: {problem}");
    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem)
}

/// Checks that `tensors` have one dtype and, but for `dimension`, one shape.
fn check_alike(name: &str, tensors: &[Tensor], dimension: Option<usize>) -> Result<()> {
    let Some(first) = tensors.first() else {
        let problem = format!("{name}: it would be made of no tensor");
        return Err(Error::new(Code::UnsupportedTensor, problem));
    };
    let rest = |tensor: &Tensor| {
        let dimensions = tensor.shape.iter().enumerate();
        let rest = dimensions.filter(|(i, _)| Some(*i) != dimension);
        (tensor.dtype, rest.map(|(_, len)| *len).collect::<Vec<_>>())
    };
    let is_other = |tensor: &&Tensor| rest(tensor) != rest(first);
    match tensors.iter().find(is_other) {
        None => Ok(()),
        Some(other) => Err(unfit(
            name,
            other,
            &format!(
                "it is {}, and another of those that it would be put together with is {} {}",
                other.dtype,
                first.dtype,
                shape_text(&first.shape)
            ),
        )),
    }
}

fn with(shape: &[u64], dimension: usize, len: u64) -> Vec<u64> {
    let mut shape = shape.to_vec();
    shape[dimension] = len;
    shape
}

/// `tensors` one after the other along `dimension`. All are called `name` in messages, here and below.
///
/// # Errors
/// If they are not alike but for that dimension, or parts of bytes would move.
pub fn concatenate(name: &str, tensors: &[Tensor], dimension: usize) -> Result<Tensor> {
    check_alike(name, tensors, Some(dimension))?;
    let mut gather = Gather {
        outer: Vec::new(),
        rows: 0,
        columns: 0,
        parts: Vec::new(),
    };
    let mut len = 0;
    for tensor in tensors {
        let seen = seen(name, tensor, dimension)?;
        let columns = seen.len * seen.inner;
        let part = Part::run(0, columns, gather.columns, columns);
        gather.parts.push(part);
        gather.rows = seen.outer;
        gather.columns += columns;
        len += seen.len;
    }
    let shape = with(&tensors[0].shape, dimension, len);
    gather.tensor(name, tensors.to_vec(), shape)
}

/// The entries `range` along `dimension`.
///
/// # Errors
/// If there are not as many, or parts of bytes would move.
pub fn narrow(name: &str, tensor: &Tensor, dimension: usize, range: Range<u64>) -> Result<Tensor> {
    let seen = seen(name, tensor, dimension)?;
    if range.start > range.end || range.end > seen.len {
        let problem = format!("dimension {dimension} has no entries {range:?}");
        return Err(unfit(name, tensor, &problem));
    }
    let columns = (range.end - range.start) * seen.inner;
    let gather = Gather {
        outer: Vec::new(),
        rows: seen.outer,
        columns,
        parts: vec![Part::run(
            range.start * seen.inner,
            seen.len * seen.inner,
            0,
            columns,
        )],
    };
    let shape = with(&tensor.shape, dimension, range.end - range.start);
    gather.tensor(name, vec![tensor.clone()], shape)
}

/// `count` parts of one length along `dimension`.
///
/// # Errors
/// If it cannot be divided so, or parts of bytes would move.
pub fn chunk(name: &str, tensor: &Tensor, dimension: usize, count: u64) -> Result<Vec<Tensor>> {
    let len = share(name, tensor, dimension, count)?;
    let ranges = (0..count).map(|i| i * len..(i + 1) * len);
    ranges
        .map(|range| narrow(name, tensor, dimension, range))
        .collect()
}

/// The length of each of `count` parts along `dimension`.
fn share(name: &str, tensor: &Tensor, dimension: usize, count: u64) -> Result<u64> {
    let seen = seen(name, tensor, dimension)?;
    if count == 0 || !seen.len.is_multiple_of(count) {
        let problem = format!("dimension {dimension} cannot be divided by {count}");
        return Err(unfit(name, tensor, &problem));
    }
    Ok(seen.len / count)
}

/// `tensors` as entries of a new dimension `dimension`.
///
/// # Errors
/// If they are not alike, or parts of bytes would move.
pub fn stack(name: &str, tensors: &[Tensor], dimension: usize) -> Result<Tensor> {
    check_alike(name, tensors, None)?;
    let shape = &tensors[0].shape;
    if dimension > shape.len() {
        let problem = format!("there cannot be a dimension {dimension} more");
        return Err(unfit(name, &tensors[0], &problem));
    }
    let mut one = shape.to_vec();
    one.insert(dimension, 1);
    let entries = tensors.iter().map(|tensor| reshaped(tensor, &*one));
    concatenate(name, &entries.collect::<Vec<_>>(), dimension)
}

/// The entries of `dimension`, each without it.
///
/// # Errors
/// If there is no such dimension, or parts of bytes would move.
pub fn unstack(name: &str, tensor: &Tensor, dimension: usize) -> Result<Vec<Tensor>> {
    let seen = seen(name, tensor, dimension)?;
    let mut shape = tensor.shape.to_vec();
    shape.remove(dimension);
    let entries = (0..seen.len).map(|i| {
        let entry = narrow(name, tensor, dimension, i..i + 1)?;
        Ok(reshaped(&entry, &*shape))
    });
    entries.collect()
}

/// The last two dimensions exchanged.
///
/// # Errors
/// If there are fewer, or elements do not take whole bytes.
pub fn transpose(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let [outer @ .., rows, columns] = &tensor.shape[..] else {
        let problem = "it has no two dimensions to exchange";
        return Err(unfit(name, tensor, problem));
    };
    let shape = [outer, &[*columns, *rows]].concat();
    if tensor.len() == 0 || *rows == 1 || *columns == 1 {
        return Ok(reshaped(tensor, shape));
    }
    let matrices = (0..outer.iter().product::<u64>()).map(|i| {
        let gather = Gather {
            outer: Vec::new(),
            rows: *columns,
            columns: *rows,
            parts: vec![Part {
                start: i * rows * columns,
                row_stride: 1,
                column_stride: *columns,
                first: 0,
                step: 1,
                count: *rows,
            }],
        };
        gather.tensor(name, vec![tensor.clone()], vec![*columns, *rows])
    });
    let matrices: Vec<Tensor> = matrices.collect::<Result<_>>()?;
    let matrices: Vec<&Tensor> = matrices.iter().collect();
    Ok(Tensor::joined(&matrices, shape))
}

/// Entry 0 along `dimension` of each of `tensors`, then entry 1 of each, and so on.
///
/// # Errors
/// If they are not alike, or parts of bytes would move.
pub fn interleave(name: &str, tensors: &[Tensor], dimension: usize) -> Result<Tensor> {
    check_alike(name, tensors, None)?;
    let Seen { outer, len, inner } = seen(name, &tensors[0], dimension)?;
    let count = tensors.len() as u64;
    let shape = with(&tensors[0].shape, dimension, len * count);
    let parts = (0..count).map(|i| Part::run(0, inner, i * inner, inner));
    let gather = Gather {
        outer: Vec::new(),
        rows: outer * len,
        columns: inner * count,
        parts: parts.collect(),
    };
    gather.tensor(name, tensors.to_vec(), shape)
}

/// `count` tensors, of which the first has every `count`-th entry along `dimension` from entry 0 on, the
/// next from entry 1 on, and so on.
///
/// # Errors
/// If it cannot be divided so, or parts of bytes would move.
pub fn deinterleave(
    name: &str,
    tensor: &Tensor,
    dimension: usize,
    count: u64,
) -> Result<Vec<Tensor>> {
    let share = share(name, tensor, dimension, count)?;
    let Seen { outer, inner, .. } = seen(name, tensor, dimension)?;
    let shape = with(&tensor.shape, dimension, share);
    let parts = (0..count).map(|i| {
        let gather = Gather {
            outer: Vec::new(),
            rows: outer * share,
            columns: inner,
            parts: vec![Part::run(i * inner, count * inner, 0, inner)],
        };
        gather.tensor(name, vec![tensor.clone()], shape.clone())
    });
    parts.collect()
}

/// The rows of `heads` heads of a projection, each with the two numbers of every rotated pair next to each
/// other, in the order of those that rotate halves: of each head the first numbers, then the second
/// ones; `inverse`: back.
///
/// # Errors
/// If the first dimension cannot be divided so, or parts of bytes would move.
pub fn permute_for_rope(name: &str, tensor: &Tensor, heads: u64, inverse: bool) -> Result<Tensor> {
    let share = share(name, tensor, 0, heads)?;
    let by_head = [&[heads, share], &tensor.shape[1..]].concat();
    let by_head = reshaped(tensor, by_head);
    let permuted = if inverse {
        interleave(name, &chunk(name, &by_head, 1, 2)?, 1)?
    } else {
        concatenate(name, &deinterleave(name, &by_head, 1, 2)?, 1)?
    };
    Ok(reshaped(&permuted, &*tensor.shape))
}

/// The same bytes in another shape.
fn reshaped(tensor: &Tensor, shape: impl Into<Shape>) -> Tensor {
    tensor.slice(0, shape)
}
