//! The steps between the layouts, and back: what becomes of the tensors of weights.

use std::ops::Range;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::ops::gather;
use crate::ops::names::families::Step;
use crate::ops::weight::Weight;
use crate::quant::Scheme;
use crate::tensor::{Name, shape_text};

/// The tensors of a weight, or of what becomes of it.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The codes or numbers, then the companions in the order of [`Scheme::companions`].
    tensors: Vec<Tensor>,
    scheme: Option<&'static dyn Scheme>,
}

/// The pieces of each name, by number where there is one for each expert.
pub(super) type Pieces = Vec<Vec<Piece>>;

/// What steps need to know.
pub(super) struct Doing<'a> {
    /// What the result is called in messages.
    pub name: &'a str,
    /// The names that there are after all steps.
    pub count: usize,
    /// The heads of rows that are permuted.
    pub heads: Option<u64>,
    /// Whether the steps are undone.
    pub is_back: bool,
}

impl Piece {
    pub(super) fn new(weight: &Weight) -> Self {
        Piece {
            tensors: weight.tensors().cloned().collect(),
            scheme: weight.quantized.as_ref().map(|quantized| quantized.scheme),
        }
    }

    /// The tensors, called as those of the weight `name`, in the shard of `home`.
    pub(super) fn named(self, name: &str, home: Option<usize>) -> Vec<(Name, Tensor)> {
        let companions = self.scheme.map(|scheme| scheme.companions(name));
        let companions = companions.into_iter().flatten().map(Name::from);
        let names = std::iter::once(Name::from(name)).chain(companions);
        let tensors = self.tensors.into_iter();
        let tensors = tensors.map(|tensor| Tensor { home, ..tensor });
        names.zip(tensors).collect()
    }

    /// Each of its tensors changed in the same way.
    fn each(&self, mut change: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Piece> {
        let tensors = self.tensors.iter().map(&mut change);
        Ok(Piece {
            tensors: tensors.collect::<Result<_>>()?,
            scheme: self.scheme,
        })
    }

    /// The rows `rows`, with what of the companions belongs to them.
    fn rows(&self, name: &str, rows: &Range<u64>) -> Result<Piece> {
        let tensors = self.tensors.iter().enumerate().map(|(i, tensor)| {
            let rows = match self.scheme {
                Some(scheme) if i > 0 => scheme.companion_rows(rows.clone()),
                _ => rows.clone(),
            };
            gather::narrow(name, tensor, 0, rows)
        });
        Ok(Piece {
            tensors: tensors.collect::<Result<_>>()?,
            scheme: self.scheme,
        })
    }

    /// Checks that no block has rows of two of the parts of `rows` rows each.
    fn check_blocks(&self, name: &str, rows: u64) -> Result<()> {
        let Some(scheme) = self.scheme else {
            return Ok(());
        };
        let block = scheme.block_rows();
        if rows.is_multiple_of(block) && self.tensors[0].shape.len() == 2 {
            return Ok(());
        }
        let problem = format!(
            "it is {}, and parts of {rows} rows each are one in one layout and apart in the other, which is no multiple of {block}: their blocks would be cut",
            scheme.name()
        );
        Err(self.error(Code::BadScales, name, problem))
    }

    /// Checks that it is not quantized, where elements are put in another order.
    fn check_plain(&self, name: &str) -> Result<()> {
        let Some(scheme) = self.scheme else {
            return Ok(());
        };
        let problem = format!(
            "it is {}, and its rows or columns are in another order in the other layout: its blocks would be cut",
            scheme.name()
        );
        Err(self.error(Code::BadScales, name, problem))
    }

    fn error(&self, code: Code, name: &str, problem: String) -> Error {
        let error = Error::of_tensor(code, self.tensors[0].origin(), name, problem);
        match code {
            Code::BadScales => error.with_hint("start from the unquantized checkpoint"),
            _ => error,
        }
    }
}

/// What `steps`, or their undoing, make of `pieces`.
pub(super) fn carry_out(steps: &[Step], doing: &Doing, mut pieces: Pieces) -> Result<Pieces> {
    let mut steps: Vec<Step> = steps.to_vec();
    if doing.is_back {
        steps.reverse();
    }
    for step in steps {
        pieces = match (step, doing.is_back) {
            (Step::Stack, false) => of_each_name(pieces, |of_numbers| {
                Ok(vec![stacked(doing.name, &of_numbers)?])
            }),
            (Step::Stack, true) => of_each_name(pieces, |fused| unstacked(doing.name, &fused[0])),
            (Step::Concatenate, false) | (Step::Chunk, true) => {
                let numbers = 0..pieces[0].len();
                let one = numbers.map(|number| {
                    let parts = pieces.iter().map(|of_name| of_name[number].clone());
                    concatenated(doing.name, &parts.collect::<Vec<_>>())
                });
                Ok(vec![one.collect::<Result<_>>()?])
            }
            (Step::Concatenate, true) | (Step::Chunk, false) => {
                let mut parts: Pieces = vec![Vec::new(); doing.count];
                for whole in &pieces[0] {
                    let chunks = chunks(doing.name, whole, doing.count as u64)?;
                    for (part, chunk) in parts.iter_mut().zip(chunks) {
                        part.push(chunk);
                    }
                }
                Ok(parts)
            }
            (Step::PermuteForRope(count), is_back) => {
                let heads = doing.heads.unwrap_or(1);
                for piece in pieces.iter_mut().take(count).flatten() {
                    piece.check_plain(doing.name)?;
                    *piece = piece.each(|tensor| {
                        gather::permute_for_rope(doing.name, tensor, heads, is_back)
                    })?;
                }
                Ok(pieces)
            }
            (Step::TransposeExperts, _) => of_each_name(pieces, |of_numbers| {
                let transposed = of_numbers.iter().map(|piece| {
                    piece.check_plain(doing.name)?;
                    piece.each(|tensor| gather::transpose(doing.name, tensor))
                });
                transposed.collect()
            }),
        }?;
    }
    Ok(pieces)
}

fn of_each_name(
    pieces: Pieces,
    change: impl Fn(Vec<Piece>) -> Result<Vec<Piece>>,
) -> Result<Pieces> {
    pieces.into_iter().map(change).collect()
}

/// Checks that the pieces are quantized alike, or none of them, and calls `join` with each of their tensors.
fn joined(
    name: &str,
    pieces: &[Piece],
    join: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Piece> {
    let first = &pieces[0];
    let kind = |piece: &Piece| piece.scheme.map(|scheme| scheme.geometry());
    if let Some(other) = pieces.iter().find(|piece| kind(piece) != kind(first)) {
        let said = |piece: &Piece| piece.scheme.map_or("not quantized", |scheme| scheme.name());
        let problem = format!(
            "a part of it is {}, and another is {}",
            said(first),
            said(other)
        );
        return Err(other.error(Code::NamesLayout, name, problem));
    }
    let tensors = (0..first.tensors.len()).map(|i| {
        let parts = pieces.iter().map(|piece| piece.tensors[i].clone());
        join(&parts.collect::<Vec<_>>())
    });
    Ok(Piece {
        tensors: tensors.collect::<Result<_>>()?,
        scheme: first.scheme,
    })
}

fn stacked(name: &str, pieces: &[Piece]) -> Result<Piece> {
    joined(name, pieces, |tensors| gather::stack(name, tensors, 0))
}

fn unstacked(name: &str, piece: &Piece) -> Result<Vec<Piece>> {
    let entries = piece.tensors.iter();
    let entries = entries.map(|tensor| gather::unstack(name, tensor, 0));
    let mut entries: Vec<_> = entries
        .map(|entries| entries.map(Vec::into_iter))
        .collect::<Result<_>>()?;
    let count = piece.tensors[0].shape[0];
    let entries = (0..count).map(|_| Piece {
        tensors: entries.iter_mut().filter_map(Iterator::next).collect(),
        scheme: piece.scheme,
    });
    Ok(entries.collect())
}

fn concatenated(name: &str, pieces: &[Piece]) -> Result<Piece> {
    let rows = |piece: &Piece| piece.tensors[0].shape.first().copied();
    let first = rows(&pieces[0]);
    // Parts of other lengths could not be told apart on the way back.
    if let Some(other) = pieces.iter().find(|piece| rows(piece) != first) {
        let shapes = [&pieces[0], other].map(|piece| shape_text(&piece.tensors[0].shape));
        let problem = format!(
            "it would be made of parts of {} and {}; they must have the same number of rows",
            shapes[0], shapes[1]
        );
        return Err(other.error(Code::NamesLayout, name, problem));
    }
    for piece in pieces {
        piece.check_blocks(name, first.unwrap_or(0))?;
    }
    joined(name, pieces, |tensors| {
        gather::concatenate(name, tensors, 0)
    })
}

fn chunks(name: &str, whole: &Piece, count: u64) -> Result<Vec<Piece>> {
    let rows = whole.tensors[0].shape.first().copied().unwrap_or(0);
    if rows == 0 || !rows.is_multiple_of(count) {
        let problem = format!(
            "its shape is {}, and its rows would be {count} tensors of the same size",
            shape_text(&whole.tensors[0].shape)
        );
        return Err(whole.error(Code::NamesLayout, name, problem));
    }
    let each = rows / count;
    whole.check_blocks(name, each)?;
    let ranges = (0..count).map(|i| i * each..(i + 1) * each);
    ranges.map(|rows| whole.rows(name, &rows)).collect()
}
