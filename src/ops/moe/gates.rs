//! The routers of a mixture of experts, one row for each expert, and the kernels that compute them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::lanes::{Precision, plain_nan};
use crate::ops::random::RandomNumbers;
use crate::tensor::Name;

/// The number of distinct tokens in the prompts of one expert, at most.
const MOST_TOKENS: usize = 1 << 14;

/// Tokens of some prompts, and how often each is in them.
pub(super) type Tokens = BTreeMap<u64, u64>;

/// Rows that are the directions of embeddings: for each expert those of its positive tokens, less the direction of its
/// negative ones if there are some.
///
/// # Errors
/// If a token has no embedding, or there are too many.
pub(super) fn cheap_embed(
    name: &str,
    embedding: &Tensor,
    prompts: &[(Tokens, Tokens)],
    precision: Precision,
) -> Result<Tensor> {
    let columns = embedding.shape[1];
    let row_bytes = embedding.len() / embedding.shape[0].max(1);
    let Some(format) = Precision::from_dtype(embedding.dtype) else {
        let problem = format!("it is {}, and routers are made of numbers", embedding.dtype);
        let origin = embedding.origin();
        return Err(Error::of_tensor(
            Code::UnsupportedTensor,
            origin,
            name,
            problem,
        ));
    };
    let mut inputs = Vec::new();
    let mut groups = Vec::new();
    for (expert, (positive, negative)) in prompts.iter().enumerate() {
        if positive.is_empty() {
            let problem = format!("the positive prompts of expert {expert} have no tokens");
            let origin = embedding.origin();
            return Err(Error::of_tensor(Code::TokenRow, origin, name, problem));
        }
        for (sign, tokens) in [(1.0, positive), (-1.0, negative)] {
            if tokens.is_empty() {
                continue;
            }
            if tokens.len() > MOST_TOKENS {
                let problem = format!(
                    "the prompts of expert {expert} have {} distinct tokens; at most {MOST_TOKENS} are possible",
                    tokens.len()
                );
                let origin = embedding.origin();
                return Err(Error::of_tensor(Code::OverLimit, origin, name, problem));
            }
            if let Some(token) = tokens.keys().find(|token| **token >= embedding.shape[0]) {
                let problem = format!(
                    "a prompt of expert {expert} has token {token}, and the embedding has {} rows",
                    embedding.shape[0]
                );
                let origin = embedding.origin();
                return Err(Error::of_tensor(Code::TokenRow, origin, name, problem));
            }
            let rows = tokens.keys();
            let rows: Vec<Tensor> = rows
                .map(|token| embedding.slice(token * row_bytes, vec![1, columns]))
                .collect();
            let rows: Vec<&Tensor> = rows.iter().collect();
            inputs.push(Tensor::joined(&rows, vec![rows.len() as u64, columns]));
            groups.push(Prompted {
                expert,
                sign,
                counts: tokens.values().copied().collect(),
            });
        }
    }
    let kernel = EmbeddedPrompts {
        groups,
        experts: prompts.len() as u64,
        columns,
        format,
        precision,
    };
    let shape = vec![prompts.len() as u64, columns];
    let node = Arc::new(Node::new(name, inputs, Box::new(kernel)));
    Ok(Tensor::computed(node, 0, precision.dtype(), shape, None))
}

/// Which expert an input is of: the rows of the tokens of its positive or negative prompts.
#[derive(Debug)]
struct Prompted {
    expert: usize,
    sign: f64,
    /// How often each token is in the prompts.
    counts: Vec<u64>,
}

/// Computes all rows in one band.
#[derive(Debug)]
struct EmbeddedPrompts {
    groups: Vec<Prompted>,
    experts: u64,
    columns: u64,
    format: Precision,
    precision: Precision,
}

/// A vector shorter than this counts as this long.
const SHORTEST: f64 = 1e-8;

fn make_unit(vector: &mut [f64]) {
    let length: f64 = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let length = if length < SHORTEST { SHORTEST } else { length };
    vector.iter_mut().for_each(|x| *x /= length);
}

impl Kernel for EmbeddedPrompts {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let tokens = self.groups.iter().flat_map(|group| &group.counts);
        Some(Step::new("router").with("of_embedded_tokens", tokens.sum::<u64>()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.experts,
            band_rows: self.experts,
        }
    }

    fn input_bytes(&self, input: usize, _band: &Band) -> Range<u64> {
        let rows = self.groups[input].counts.len() as u64;
        0..rows * self.columns * self.format.bytes() as u64
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..self.experts * self.columns * self.precision.bytes() as u64
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let columns = self.columns as usize;
        let mut gates = vec![0.0; self.experts as usize * columns];
        let mut row = vec![0.0f32; columns];
        for (group, rows) in self.groups.iter().zip(inputs) {
            let mut sums = vec![0.0; columns];
            let rows = rows.chunks_exact(columns * self.format.bytes());
            for (bytes, count) in rows.zip(&group.counts) {
                self.format.decode(bytes, &mut row);
                for (sum, x) in sums.iter_mut().zip(&row) {
                    *sum += *count as f64 * f64::from(*x);
                }
            }
            make_unit(&mut sums);
            let gate = &mut gates[group.expert * columns..][..columns];
            for (gate, sum) in gate.iter_mut().zip(&sums) {
                *gate += group.sign * sum;
            }
        }
        let row_bytes = columns * self.precision.bytes();
        let bytes = outputs[0].chunks_exact_mut(row_bytes);
        for (gate, bytes) in gates.chunks_exact_mut(columns).zip(bytes) {
            make_unit(gate);
            for (x, value) in row.iter_mut().zip(gate.iter()) {
                *x = *value as f32;
            }
            self.precision.encode(&row, bytes, plain_nan);
        }
        Ok(())
    }
}

/// What numbers are that no model has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Distribution {
    Zeros,
    Normal,
    /// From `-bound` to `bound`.
    Uniform(f64),
}

/// Rows of such numbers, each a function of `seed`, `name` and its position. `like` is a tensor of the model; none of
/// its bytes are used.
pub(super) fn made(
    name: &str,
    like: &Tensor,
    shape: [u64; 2],
    seed: u64,
    distribution: Distribution,
    precision: Precision,
) -> Tensor {
    let kernel = MadeRows {
        numbers: RandomNumbers::new(seed, 0, name),
        distribution,
        rows: shape[0],
        columns: shape[1],
        precision,
    };
    let name: Name = name.into();
    let node = Arc::new(Node::new(name, vec![like.clone()], Box::new(kernel)));
    Tensor::computed(node, 0, precision.dtype(), shape.to_vec(), None)
}

#[derive(Debug)]
struct MadeRows {
    numbers: RandomNumbers,
    distribution: Distribution,
    rows: u64,
    columns: u64,
    precision: Precision,
}

impl Kernel for MadeRows {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let distribution = match self.distribution {
            Distribution::Zeros => return Some(Step::new("zeros")),
            Distribution::Normal => "normal",
            Distribution::Uniform(_) => "uniform",
        };
        Some(Step::new("router").with("random", distribution))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.rows,
            band_rows: ((1 << 18) / self.columns.max(1)).max(1),
        }
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row = self.columns * self.precision.bytes() as u64;
        band.rows.start * row..band.rows.end * row
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        _inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let positions = band.rows.start * self.columns..band.rows.end * self.columns;
        let number = |position: u64| match self.distribution {
            Distribution::Zeros => 0.0,
            Distribution::Normal => self.numbers.normal(position),
            Distribution::Uniform(bound) => (2.0 * self.numbers.share(position) - 1.0) * bound,
        };
        let values: Vec<f32> = positions.map(|position| number(position) as f32).collect();
        self.precision.encode(&values, outputs[0], plain_nan);
        Ok(())
    }
}
