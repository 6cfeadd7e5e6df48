//! More or fewer rows of the embedding and the head, one for each token, at the end.
//!
//! | | rows of embedding, head and the head's bias | config.json |
//! |---|---|---|
//! | fewer | the first ones, ranges of what they were | `vocab_size` is their number |
//! | more | all that there are, ranges of what they were, and new ones: zeros, or the mean row | the same |

mod pad;
mod tokens;

use crate::catalog::{Catalog, OperatorReport, Tensor};
use crate::error::setting::{DTYPE, RENAME, VOCAB_MULTIPLE, VOCAB_PAD, VOCAB_SIZE};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::named::Named;
use crate::ops::embeddings::{self, Embeddings, VOCABULARY};
pub use crate::ops::vocabulary::pad::Pad;
pub(super) use crate::ops::vocabulary::pad::rows as new_rows;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value, chosen};
use crate::quant;
use crate::tensor::{Name, Shape, byte_len};
use crate::text::listing;

/// Change the number of rows of embedding and head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VocabularyParams {
    /// So many.
    pub size: Option<u64>,
    /// The next multiple of this, if there are not as many.
    pub multiple: Option<u64>,
    /// What new rows are.
    pub pad: Option<Pad>,
}

impl Params for VocabularyParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: VOCAB_SIZE,
                flag: "vocab-size",
                takes: Takes::Number("N"),
                group: Group::Tensors,
                help: "Cut or pad embedding and head to N rows, one for each token",
                comment: "",
            },
            Setting {
                key: VOCAB_MULTIPLE,
                flag: "vocab-multiple",
                takes: Takes::Number("M"),
                group: Group::Tensors,
                help: "Pad embedding and head to the next multiple of M rows, such as 64",
                comment: "",
            },
            Setting {
                key: VOCAB_PAD,
                flag: "vocab-pad",
                takes: Takes::Choice(Pad::NAMES),
                group: Group::Tensors,
                help: "New rows of embedding and head: zeros, or the mean of the others [default: zeros]",
                comment: "",
            },
        ]
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let (setting, number) = match key {
            VOCAB_SIZE => (VOCAB_SIZE, &mut self.size),
            VOCAB_MULTIPLE => (VOCAB_MULTIPLE, &mut self.multiple),
            _ => {
                self.pad = Some(chosen(value)?);
                return Ok(());
            }
        };
        let given = value.into_number();
        if given == 0 {
            let error = Error::new(Code::BadValue, "it must not be 0");
            return Err(error.about_value(setting, "0"));
        }
        *number = Some(given);
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        let value = match key {
            VOCAB_SIZE => self.size.map(Value::Number),
            VOCAB_MULTIPLE => self.multiple.map(Value::Number),
            _ => self.pad.map(|pad| Value::text(pad.name())),
        };
        value.into_iter().collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let size = match (self.size, self.multiple) {
            (Some(_), Some(_)) => {
                let problem = "a number of rows and a multiple of it exclude each other";
                let hint = Hint::leave_out(VOCAB_SIZE).or(Hint::leave_out(VOCAB_MULTIPLE));
                return Err(Error::new(Code::Conflict, problem).with_hint(hint));
            }
            (Some(rows), None) => Size::Rows(rows),
            (None, Some(multiple)) => Size::Multiple(multiple),
            (None, None) => {
                let problem = "it says what new rows are, and nothing asks for new rows";
                let hint = Hint::give(VOCAB_SIZE).or(Hint::give(VOCAB_MULTIPLE));
                let error = Error::new(Code::Conflict, problem).about(VOCAB_PAD);
                return Err(error.with_hint(hint));
            }
        };
        Ok(vec![Box::new(Resize {
            size,
            pad: self.pad,
        })])
    }
}

/// The requested number of rows.
#[derive(Debug, Clone, Copy)]
enum Size {
    Rows(u64),
    Multiple(u64),
}

impl Size {
    fn setting(self) -> &'static str {
        match self {
            Size::Rows(_) => VOCAB_SIZE,
            Size::Multiple(_) => VOCAB_MULTIPLE,
        }
    }

    /// The number where there are `rows` now; `None` if it is beyond all numbers.
    fn of_rows(self, rows: u64) -> Option<u64> {
        match self {
            Size::Rows(rows) => Some(rows),
            Size::Multiple(multiple) => rows.checked_next_multiple_of(multiple),
        }
    }
}

/// How many tensors were cut or padded.
#[derive(Debug)]
struct Resized(usize);

impl OperatorReport for Resized {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("resized", self.0)]
    }
}

/// Changes the number of rows of embedding and head.
#[derive(Debug)]
struct Resize {
    size: Size,
    pad: Option<Pad>,
}

impl Operator for Resize {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let setting = self.size.setting();
        let names = Embeddings::find(&catalog.tensors).map_err(|error| {
            let rename =
                Hint::give(RENAME).to("give the tensor of the language model another name");
            error.about(setting).with_hint(rename)
        })?;
        let name = names.embedding();
        let embedding = &catalog.tensors[&*name];
        embeddings::check_plain(&catalog.tensors, &name, embedding)
            .map_err(|error| self.refused(error))?;
        let old = embedding.shape[0];
        let too_many =
            || Error::new(Code::OverLimit, "there would be 2^61 rows or more").about(setting);
        let rows = self.size.of_rows(old).ok_or_else(too_many)?;
        let objects = embeddings::language_models(catalog, old)?;
        if rows < old {
            tokens::check_cut(catalog, &objects, rows, old)?;
        }
        let mut resized: Vec<(Name, Tensor)> = Vec::new();
        for (name, tensor) in &catalog.tensors {
            if names.has_row_for_each_token(name) {
                embeddings::check_plain(&catalog.tensors, name, tensor)
                    .map_err(|error| self.refused(error))?;
                if tensor.shape[0] == rows {
                    continue;
                }
                // A copy, such as a head that was untied, has the same new rows.
                let copy = resized.iter().find(|(other, _)| {
                    let other = &catalog.tensors[other];
                    (other.dtype, &other.shape) == (tensor.dtype, &tensor.shape)
                        && other.extents.is_same(&tensor.extents)
                });
                let new = match copy {
                    Some((_, copy)) => Tensor {
                        home: tensor.home,
                        ..copy.clone()
                    },
                    None => self.resized(name, tensor, rows)?,
                };
                resized.push((name.clone(), new));
            }
        }
        self.note_others(catalog, &names, old);
        let edited = self.edit_config(catalog, objects, rows)?;
        self.warn_idle(catalog, &resized, edited, rows);
        catalog.report.add(Resized(resized.len()));
        for (name, tensor) in resized {
            catalog.tensors[&name] = tensor;
        }
        Ok(())
    }
}

impl Resize {
    /// The error about a tensor that cannot be cut or padded.
    fn refused(&self, error: Error) -> Error {
        let dequantize = Hint::give(DTYPE).to("dequantize it first, if it is quantized");
        error
            .about(self.size.setting())
            .with_hint(dequantize.or(Hint::leave_out(self.size.setting())))
    }

    /// `tensor`, called `name`, with `rows` rows.
    fn resized(&self, name: &str, tensor: &Tensor, rows: u64) -> Result<Tensor> {
        let mut shape: Vec<u64> = tensor.shape.to_vec();
        let old = std::mem::replace(&mut shape[0], rows);
        if rows < old {
            return Ok(tensor.slice(0, shape));
        }
        let mut added = shape.clone();
        added[0] = rows - old;
        if byte_len(tensor.dtype, &Shape::from(shape.clone())).is_none() {
            let problem = format!("with {rows} rows it would have 2^61 bytes or more");
            let error = Error::of_tensor(Code::OverLimit, tensor.origin(), name, problem);
            return Err(error.about(self.size.setting()));
        }
        let new = pad::rows(name, tensor, added, self.pad.unwrap_or_default());
        Ok(Tensor::joined(&[tensor, &new], shape))
    }

    /// Has config.json say the number of rows, wherever it is of the language model. Returns whether that
    /// changed anything.
    fn edit_config(
        &self,
        catalog: &mut Catalog,
        objects: Vec<Vec<String>>,
        rows: u64,
    ) -> Result<bool> {
        let setting = self.size.setting();
        let what = format!("{VOCABULARY}: {rows}");
        let Some(config) = catalog.config_mut()? else {
            embeddings::warn_without_config(catalog, setting, &what);
            return Ok(false);
        };
        // The language model says it also where it left it to its kind.
        let nearest = match objects.iter().find(|path| *path == &[quant::TEXT_CONFIG]) {
            Some(text_config) => text_config.clone(),
            None => Vec::new(),
        };
        let mut edited = false;
        for path in objects {
            let keys = path.iter().map(String::as_str);
            let keys: Vec<&str> = keys.chain([VOCABULARY]).collect();
            let value = config.get_at(&keys);
            let is_said = value.is_some() || path == nearest;
            if is_said && value.is_none_or(|value| value != rows) {
                config.set_at(&keys, &rows.into())?;
                edited = true;
            }
        }
        Ok(edited)
    }

    /// Says which other tensors have as many rows as the embedding had, and stay as they are.
    fn note_others(&self, catalog: &mut Catalog, names: &Embeddings, old: u64) {
        let others = catalog.tensors.iter().filter(|(name, tensor)| {
            tensor.shape.first() == Some(&old) && !names.has_row_for_each_token(name)
        });
        let others: Vec<&str> = others.map(|(name, _)| &**name).collect();
        if !others.is_empty() {
            let note = format!(
                "these have {old} rows too, and stay as they are, since they are not called like embedding or head: {}",
                listing(&others)
            );
            catalog.report.notes.push(note);
        }
    }

    fn warn_idle(
        &self,
        catalog: &mut Catalog,
        resized: &[(Name, Tensor)],
        edited: bool,
        rows: u64,
    ) {
        let warnings = &mut catalog.report.warnings;
        if resized.is_empty() && !edited {
            let problem = format!("it has no effect: embedding and head have {rows} rows");
            warnings.push(Warning::new(Code::NoEffect, problem).about(self.size.setting()));
        }
        let pads = |(name, new): &(Name, Tensor)| new.shape[0] > catalog.tensors[name].shape[0];
        if self.pad.is_some() && !resized.is_empty() && !resized.iter().any(pads) {
            let problem = "it has no effect: no row is added";
            warnings.push(Warning::new(Code::NoEffect, problem).about(VOCAB_PAD));
        }
    }
}
