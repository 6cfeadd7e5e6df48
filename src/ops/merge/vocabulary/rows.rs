//! The rows of an embedding or head, in the order of the result's tokens.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::catalog::{Step, Tensor};
use crate::error::{Code, Result};
use crate::kernels::lanes::{Precision, Round};
use crate::ops::convert;
use crate::ops::merge::cast;
use crate::ops::merge::definition::ModelId;
use crate::ops::merge::formula::{At, Formula, Lanes};
use crate::ops::merge::inputs::tensor_error;
use crate::ops::merge::pointwise::PointwiseKernel;
use crate::ops::vocabulary::{Pad, new_rows};
use crate::shown::Show;
use crate::tensor::Dtype;

/// Which row of which model each token has.
#[derive(Debug)]
pub(super) struct TokenRows {
    pub(super) tokens: Vec<String>,
    /// For each model, its row for each token.
    pub(super) models: Vec<Vec<Option<u64>>>,
    /// What the recipe says about some tokens, by id.
    pub(super) rules: HashMap<usize, Rule>,
    /// With those behind the tokens.
    pub(super) count: u64,
}

/// What a recipe says about the rows of a token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    /// A model and its row, or zeros.
    pub(super) source: Option<(ModelId, u64)>,
    pub(super) force: bool,
}

/// Where a row of an input is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// A row of an input.
    Of(usize, u64),
    Zeros,
    /// A row of the mean of the inputs that have the token: which mean, and which row of it.
    Mean(usize, u64),
}

/// The mean of some inputs' rows, of the same tokens.
struct Mean {
    inputs: Vec<usize>,
    tokens: Vec<usize>,
}

impl TokenRows {
    /// `tensors`, those of `models`, with the rows that the result has. Rows that are computed are computed
    /// in `dtype`, or in the dtype of the tensors.
    pub(super) fn align(
        &self,
        name: &str,
        models: &[ModelId],
        base: Option<ModelId>,
        tensors: &[&Tensor],
        dtype: Option<Dtype>,
    ) -> Result<Vec<Tensor>> {
        if let Some(empty) = tensors.iter().find(|tensor| tensor.len() == 0) {
            let problem = "it has no rows";
            return Err(tensor_error(Code::TokenizerMismatch, empty, name, problem));
        }
        let (wanted, means) = self.rows(name, models, base, tensors)?;
        let pads = self.count > self.tokens.len() as u64;
        let mut inputs: Vec<Tensor> = tensors.iter().map(|tensor| (*tensor).clone()).collect();
        let dtypes = inputs.iter().map(|tensor| tensor.dtype);
        let promoted = dtypes.reduce(cast::promote).expect("at least one input");
        let is_mixed = |rows: &Vec<Row>| {
            let of =
                |row: &Row| matches!(row, Row::Of(input, _) if tensors[*input].dtype != promoted);
            rows.iter().any(of)
        };
        if pads || !means.is_empty() || wanted.iter().any(is_mixed) {
            let to = dtype.unwrap_or(promoted);
            let precision = Precision::from_dtype(to).ok_or_else(|| {
                let problem =
                    format!("rows would be computed in {to}; only BF16, F16 and F32 are possible");
                tensor_error(Code::UnsupportedTensor, tensors[0], name, problem)
            })?;
            for input in &mut inputs {
                *input = convert(name, input, precision)?;
            }
        }
        let means = means
            .iter()
            .map(|mean| self.mean(name, models, &inputs, mean))
            .collect::<Result<Vec<_>>>()?;
        let aligned = wanted.iter().map(|rows| {
            let tensor = gather(name, &inputs, &means, rows)?;
            if !pads {
                return Ok(tensor);
            }
            let mut shape = tensor.shape.to_vec();
            shape[0] = self.count;
            let mut more = shape.clone();
            more[0] = self.count - tensor.shape[0];
            let more = new_rows(name, &tensor, more, Pad::Mean);
            Ok(Tensor::joined(&[&tensor, &more], shape))
        });
        aligned.collect()
    }

    /// The rows of each input, and the means among them.
    fn rows(
        &self,
        name: &str,
        models: &[ModelId],
        base: Option<ModelId>,
        tensors: &[&Tensor],
    ) -> Result<(Vec<Vec<Row>>, Vec<Mean>)> {
        let base = base.and_then(|base| models.iter().position(|model| *model == base));
        let mut means: IndexMap<Vec<usize>, Vec<usize>> = IndexMap::new();
        let mut wanted = vec![Vec::with_capacity(self.tokens.len()); models.len()];
        for token in 0..self.tokens.len() {
            let own = |input: usize| self.models[models[input]][token];
            let having = || (0..models.len()).filter(|input| own(*input).is_some());
            let rule = self.rules.get(&token);
            let force = rule.is_some_and(|rule| rule.force);
            let mut others = None;
            if force || having().count() < models.len() {
                let given = rule.and_then(|rule| rule.source);
                let is_zero = rule.is_some_and(|rule| rule.source.is_none());
                others = Some(match (given, having().next(), having().nth(1)) {
                    (Some((model, row)), ..) => {
                        let input = models.iter().position(|input| *input == model);
                        let input = input.ok_or_else(|| {
                            let problem = format!(
                                "the row of token {:?} is to be from a model that does not have this tensor, or is not merged",
                                self.tokens[token]
                            );
                            tensor_error(Code::TokenRow, tensors[0], name, problem)
                        })?;
                        Row::Of(input, row)
                    }
                    _ if is_zero => Row::Zeros,
                    (None, None, _) => Row::Zeros,
                    (None, Some(only), None) => Row::Of(only, own(only).unwrap_or(0)),
                    (None, Some(_), Some(_)) => {
                        match base.and_then(|base| Some(Row::Of(base, own(base)?))) {
                            Some(row) => row,
                            None => {
                                let entry = means.entry(having().collect());
                                let number = entry.index();
                                let tokens = entry.or_default();
                                tokens.push(token);
                                Row::Mean(number, tokens.len() as u64 - 1)
                            }
                        }
                    }
                });
            }
            for (input, rows) in wanted.iter_mut().enumerate() {
                let own = own(input).filter(|_| !force).map(|row| Row::Of(input, row));
                rows.push(own.or(others).unwrap_or(Row::Zeros));
            }
        }
        let means = means.into_iter();
        let means = means.map(|(inputs, tokens)| Mean { inputs, tokens });
        Ok((wanted, means.collect()))
    }

    fn mean(
        &self,
        name: &str,
        models: &[ModelId],
        inputs: &[Tensor],
        mean: &Mean,
    ) -> Result<Tensor> {
        let rows_of = |input: &usize| {
            let tokens = mean.tokens.iter();
            let rows = tokens.map(|token| {
                let row = self.models[models[*input]][*token];
                Row::Of(*input, row.expect("it has these tokens"))
            });
            gather(name, inputs, &[], &rows.collect::<Vec<_>>())
        };
        let tensors = mean
            .inputs
            .iter()
            .map(rows_of)
            .collect::<Result<Vec<_>>>()?;
        let dtype = tensors[0].dtype;
        let working = Precision::from_dtype(dtype).expect("inputs were converted");
        Ok(PointwiseKernel::tensor(
            &name.into(),
            MeanRow,
            tensors,
            working,
            dtype,
        ))
    }
}

/// The mean of the inputs: their sum, in their order, divided by their number, each operation in the working format.
#[derive(Debug)]
struct MeanRow;

impl Formula for MeanRow {
    fn step(&self) -> Step {
        Step::merge("mean of models")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        output.fill(0.0);
        let mut count = 0.0;
        for input in inputs.iter() {
            count += 1.0;
            for (sum, x) in output.iter_mut().zip(input) {
                *sum = R::round(*sum + x);
            }
        }
        output.iter_mut().for_each(|sum| *sum /= count);
    }
}

/// The tensor of these rows.
fn gather(name: &str, inputs: &[Tensor], means: &[Tensor], rows: &[Row]) -> Result<Tensor> {
    let follows = |a: &Row, b: &Row| match (a, b) {
        (Row::Of(one, row), Row::Of(other, next)) => one == other && row + 1 == *next,
        (Row::Mean(one, row), Row::Mean(other, next)) => one == other && row + 1 == *next,
        (Row::Zeros, Row::Zeros) => true,
        _ => false,
    };
    let mut pieces = Vec::new();
    for run in rows.chunk_by(follows) {
        let count = run.len() as u64;
        pieces.push(match run[0] {
            Row::Of(input, first) => cut(name, &inputs[input], first, count)?,
            Row::Mean(mean, first) => cut(name, &means[mean], first, count)?,
            Row::Zeros => zeros(name, &inputs[0], count),
        });
    }
    let Some(first) = pieces.first() else {
        return Err(tensor_error(
            Code::BadTokenizer,
            &inputs[0],
            name,
            "the tokenizer has no tokens",
        ));
    };
    if let Some(other) = pieces.iter().find(|piece| piece.dtype != first.dtype) {
        let problem = format!(
            "its rows would be from here ({}) and from {} ({}), and dtypes cannot be mixed",
            other.dtype,
            first.origin().shown(),
            first.dtype
        );
        return Err(tensor_error(Code::MergeUnlike, other, name, problem));
    }
    let mut shape = first.shape.to_vec();
    shape[0] = rows.len() as u64;
    let pieces: Vec<&Tensor> = pieces.iter().collect();
    Ok(Tensor::joined(&pieces, shape))
}

/// `count` rows like those of `tensor`, of zeros.
fn zeros(name: &str, tensor: &Tensor, count: u64) -> Tensor {
    let mut shape = tensor.shape.to_vec();
    shape[0] = count;
    new_rows(name, tensor, shape, Pad::Zeros)
}

/// `rows` rows of `tensor` from `first`.
pub(super) fn cut(name: &str, tensor: &Tensor, first: u64, rows: u64) -> Result<Tensor> {
    let has = tensor.shape[0];
    if (first, rows) == (0, has) {
        return Ok(tensor.clone());
    }
    if first.checked_add(rows).is_none_or(|end| end > has) {
        let problem = format!("it has {has} rows, and its tokenizer numbers more tokens");
        return Err(tensor_error(Code::TokenizerMismatch, tensor, name, problem));
    }
    let mut shape = tensor.shape.to_vec();
    shape[0] = rows;
    Ok(tensor.slice(first * (tensor.len() / has), shape))
}
