//! Tensors of two views, by name.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::{CONFIG_FILE, Config, Tensor};
use crate::diff::numbers::{self, Values};
use crate::diff::what::What;
use crate::error::Result;
use crate::jobs::{self, Progress, check_going_on};
use crate::kernels::lanes::Precision;
use crate::kernels::numbers::is_known;
use crate::quant::{self, Role, Scheme};
use crate::read::Reader;
use crate::recipe::Plan;
use crate::tensor::{Dtype, Name, Shape};
use crate::view::View;

/// A tensor that is not the same in both views.
#[derive(Debug, Clone, Serialize)]
pub struct TensorDiff {
    pub name: Name,
    pub what: What,
    /// What it is in the first view.
    pub a: Option<Header>,
    /// What it is in the second view.
    pub b: Option<Header>,
    /// How far the numbers are from each other, if they are floats of one shape and were
    /// compared. Those of quantized weights are dequantized.
    pub values: Option<Values>,
}

/// What a header says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    pub dtype: Dtype,
    pub shape: Shape,
}

/// One of the two views.
pub(super) struct Side<'a> {
    reader: &'a Reader,
    tensors: IndexMap<Name, Tensor>,
    /// The numbers of quantized weights, if they can be read.
    decoded: HashMap<Name, Option<Tensor>>,
    /// The weight that each tensor of packed codes is of.
    weights: HashMap<Name, Name>,
}

impl<'a> Side<'a> {
    pub(super) fn new(plan: &Plan, reader: &'a Reader) -> Result<Self> {
        let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        let tensors = tensors.map(|t| (t.name.clone(), t.tensor())).collect();
        let scheme = scheme(plan, reader)?;
        let (mut decoded, mut weights) = (HashMap::new(), HashMap::new());
        for (name, tensor) in &tensors {
            let Role::Codes(weight) = scheme.role(&tensors, name, tensor) else {
                continue;
            };
            let weight = Name::from(weight);
            let numbers = scheme
                .decoded(&tensors, &weight, tensor, Precision::F32)
                .ok();
            // FP8 without scales is compared as the numbers that its codes are.
            if numbers.is_some() || !is_known(tensor.dtype) {
                decoded.insert(weight.clone(), numbers);
            }
            if weight != *name {
                weights.insert(name.clone(), weight);
            }
        }
        Ok(Side {
            reader,
            tensors,
            decoded,
            weights,
        })
    }

    /// Both sides, with one name for each weight that both have.
    pub(super) fn aligned(mut sides: [Self; 2]) -> [Self; 2] {
        let [a, b] = &mut sides;
        a.align(&b.tensors);
        b.align(&a.tensors);
        sides
    }

    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// The tensor as numbers that can be compared, if its dtype is one of those.
    fn numbers(&self, name: &Name, tensor: &Tensor) -> Option<Tensor> {
        let weight = self.weights.get(name).unwrap_or(name);
        if let Some(decoded) = self.decoded.get(weight) {
            return decoded.clone();
        }
        is_known(tensor.dtype).then(|| tensor.clone())
    }

    /// Calls packed codes by their weight's name where the other side has a tensor of that name, so that both are compared.
    fn align(&mut self, other: &IndexMap<Name, Tensor>) {
        let named = std::mem::take(&mut self.tensors)
            .into_iter()
            .map(|(name, tensor)| {
                let weight = self.weights.get(&name);
                let weight = weight.filter(|weight| other.contains_key(*weight));
                (weight.cloned().unwrap_or(name), tensor)
            });
        self.tensors = named.collect();
    }
}

/// How the view's config.json declares its weights to be quantized.
fn scheme(plan: &Plan, reader: &Reader) -> Result<Box<dyn Scheme>> {
    let mut text = Vec::new();
    if let Some(entry) = plan.view.lookup(View::ROOT, CONFIG_FILE.as_ref())
        && let Some(len) = plan.view.file(entry).map(|file| file.len())
        && len <= Config::MAX_BYTES
    {
        text.resize(len as usize, 0);
        reader.read_at(entry, 0, &mut text)?;
    }
    Ok(quant::declared_in(&text))
}

impl From<&Tensor> for Header {
    fn from(tensor: &Tensor) -> Self {
        Header {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        }
    }
}

/// Gives how many tensors are the same, and all others.
pub(super) fn compare(
    sides: &[Side; 2],
    values: bool,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<(usize, Vec<TensorDiff>)> {
    let [a, b] = sides;
    let pairs: Vec<_> = a
        .tensors
        .iter()
        .map(|(name, tensor)| (name, tensor, b.tensors.get(name)))
        .collect();
    if values {
        let both = pairs.iter();
        let both = both.filter_map(|&(name, of_a, of_b)| Some((name, [of_a, of_b?])));
        progress.start(both.map(|(name, of)| bytes_to_read(sides, name, of)).sum());
    }
    let found = jobs::map(&pairs, jobs, |&(name, of_a, of_b)| {
        let Some(of_b) = of_b else {
            return Ok(Some(only(name, What::Removed, of_a)));
        };
        changed(sides, name, [of_a, of_b], values, progress)
    })?;
    let mut different: Vec<TensorDiff> = found.into_iter().flatten().collect();
    let equal = pairs.len() - different.len();
    let added = b
        .tensors
        .iter()
        .filter(|(name, _)| !a.tensors.contains_key(*name));
    different.extend(added.map(|(name, tensor)| only(name, What::Added, tensor)));
    Ok((equal, different))
}

fn only(name: &Name, what: What, tensor: &Tensor) -> TensorDiff {
    let header = Some(Header::from(tensor));
    let (a, b) = match what {
        What::Added => (None, header),
        _ => (header, None),
    };
    TensorDiff {
        name: name.clone(),
        what,
        a,
        b,
        values: None,
    }
}

/// Bytes that comparing a tensor that both have reads, to begin with: how many more does it take to
/// find figures of what is different is not known before.
fn bytes_to_read([a, b]: &[Side; 2], name: &Name, [of_a, of_b]: [&Tensor; 2]) -> u64 {
    if Header::from(of_a) == Header::from(of_b) {
        return if is_same_place(of_a, of_b) {
            0
        } else {
            of_a.len() + of_b.len()
        };
    }
    let numbers = (a.numbers(name, of_a), b.numbers(name, of_b));
    match numbers {
        (Some(in_a), Some(in_b)) if in_a.shape == in_b.shape => in_a.len() + in_b.len(),
        _ => 0,
    }
}

/// How a tensor that both have is different, if it is.
fn changed(
    sides: &[Side; 2],
    name: &Name,
    [of_a, of_b]: [&Tensor; 2],
    values: bool,
    progress: &dyn Progress,
) -> Result<Option<TensorDiff>> {
    let [a, b] = sides;
    let headers = [Header::from(of_a), Header::from(of_b)];
    let is_same_header = headers[0] == headers[1];
    let unread = match (is_same_header, values) {
        (true, false) => None,
        (true, true) => bytes_after_difference([(of_a, a.reader), (of_b, b.reader)], progress)?,
        (false, _) => Some(bytes_to_read(sides, name, [of_a, of_b])),
    };
    let Some(unread) = unread else {
        return Ok(None);
    };
    let mut figures = None;
    if values
        && let (Some(of_a), Some(of_b)) = (a.numbers(name, of_a), b.numbers(name, of_b))
        && of_a.shape == of_b.shape
    {
        let sides = [(&of_a, a.reader), (&of_b, b.reader)];
        figures = Some(numbers::compare(sides, unread, progress)?);
    } else if values {
        progress.advance(unread);
    }
    let [header_a, header_b] = headers;
    Ok(Some(TensorDiff {
        name: name.clone(),
        what: What::Changed,
        a: Some(header_a),
        b: Some(header_b),
        values: figures,
    }))
}

/// Whether both are the same bytes of the same file.
fn is_same_place(a: &Tensor, b: &Tensor) -> bool {
    match (a.as_stored(), b.as_stored()) {
        (Some((blob, offset)), Some((other, at))) => {
            offset == at && a.len() == b.len() && blob.is_same(&**other)
        }
        _ => false,
    }
}

/// Compares the bytes of two tensors of the same length, up to the first difference. `None` if there
/// is none, else how many bytes of both were not read.
fn bytes_after_difference(
    [(a, reader_a), (b, reader_b)]: [(&Tensor, &Reader); 2],
    progress: &dyn Progress,
) -> Result<Option<u64>> {
    const CHUNK_BYTES: u64 = 1 << 20;
    if is_same_place(a, b) {
        return Ok(None);
    }
    let mut buffers = [(); 2].map(|()| vec![0; CHUNK_BYTES.min(a.len()) as usize]);
    let mut at = 0;
    while at < a.len() {
        check_going_on(progress)?;
        let count = CHUNK_BYTES.min(a.len() - at) as usize;
        let [of_a, of_b] = &mut buffers;
        let (of_a, of_b) = (&mut of_a[..count], &mut of_b[..count]);
        reader_a.read_tensor(a, at, of_a)?;
        reader_b.read_tensor(b, at, of_b)?;
        if of_a != of_b {
            return Ok(Some(2 * (a.len() - at)));
        }
        progress.advance(2 * count as u64);
        at += count as u64;
    }
    Ok(None)
}
