//! Checkpoints of compressed-tensors, whose `config_groups` say how weights are quantized.
//!
//! A weight `X.weight` of shape `[rows, cols]` is stored in one of these forms:
//!
//! | form | tensors | value |
//! |---|---|---|
//! | dense | `X.weight` (F8_E4M3 or I8), `X.weight_scale` (BF16, F16 or F32; `[1]`, `[rows, 1]`, `[rows, groups]` or a scale for each block) | code × scale |
//! | packed | `X.weight_packed` (I32 `[rows, ceil(cols / 8)]`: the code of column `8i + j` plus 8 in the bits from `4j` on), `X.weight_scale` `[rows, groups]`, `X.weight_shape` (I64 `[2]`) | code × scale |
//! | packed, asymmetric | the same and `X.weight_zero_point` (I32 `[ceil(rows / 8), groups]`: that of row `8i + j` plus 8 in the bits from `4j` on) | (code − zero point) × scale |
//!
//! A packed weight may also have `X.weight_g_idx` (I32 `[cols]`), the group of each column.
//!
//! The scheme calls a packed weight `X.weight` too, though no tensor has that name.

mod check;
mod declaration;
mod decode;
mod encode;
mod encodings;
mod format;
mod measure;
mod order;
mod unpack;

use std::ops::Range;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{DROP, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::findings::Faults;
use crate::kernels::lanes::Precision;
use crate::quant::scheme::{Reading, Scheme, StoredFile, Verified};
use crate::tensor::{Dtype, Name, shape_text};
pub(super) use declaration::{IGNORE, check_base, declare_stored};
pub(super) use encodings::{FP8_CHANNEL, INT4, INT8_CHANNEL, block_fp8};
use format::{Form, PACKED, SCALE, Strategy, Weights};

/// Weights of compressed-tensors in one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompressedTensors {
    form: Form,
    /// What config.json says of them, if it is known.
    weights: Option<Weights>,
}

impl CompressedTensors {
    pub(super) const DENSE: Self = Self::of(Form::Dense, None);
    pub(super) const PACKED: Self = Self::of(Form::Packed, None);
    pub(super) const PACKED_ASYMMETRIC: Self = Self::of(Form::PackedAsymmetric, None);

    const fn of(form: Form, weights: Option<Weights>) -> Self {
        CompressedTensors { form, weights }
    }
}

impl Scheme for CompressedTensors {
    fn name(&self) -> &'static str {
        format::METHOD
    }

    fn readable(&self) -> &'static str {
        match self.form {
            Form::Dense => {
                "\"compressed-tensors\" of 8 bits with scales per tensor, channel, group or block"
            }
            Form::Packed => "\"compressed-tensors\" of 4 bits, packed",
            Form::PackedAsymmetric => "the same with zero points",
        }
    }

    fn is_declared(&self, declaration: &Value) -> bool {
        declaration::form(declaration) == Some(self.form)
    }

    fn unreadable(&self, declaration: &Value) -> Option<String> {
        declaration::weights(declaration)?.err()
    }

    fn declared(&self, declarations: &[Value], path: &Path) -> Result<Box<dyn Scheme>> {
        let weights = declaration::declared(declarations, path)?;
        Ok(Box::new(Self::of(self.form, weights)))
    }

    fn geometry(&self) -> String {
        match self.weights {
            Some(weights) => format!("{weights:?}"),
            None => format!("{:?}", self.form),
        }
    }

    fn declare_stored(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        _brought: &dyn Fn(&str) -> bool,
        theirs: Option<&Value>,
        relists: bool,
    ) -> Result<()> {
        let key = relists.then_some(IGNORE);
        declare_stored(self, catalog, quantized, theirs, key)
    }

    fn codes(&self, weight: &str) -> String {
        match self.form {
            Form::Dense => weight.to_owned(),
            Form::Packed | Form::PackedAsymmetric => [weight, PACKED].concat(),
        }
    }

    fn companions(&self, weight: &str) -> Vec<String> {
        let suffixes = self.form.suffixes().iter();
        suffixes.map(|suffix| [weight, suffix].concat()).collect()
    }

    fn weight_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.form.weight_of(name)
    }

    fn has_dtype(&self, dtype: Dtype) -> bool {
        // Integers are numbers too, and codes only where they have scales.
        self.form == Form::Dense && dtype == Dtype::F8_E4M3
    }

    fn is_quantized(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> bool {
        let kind = self.weights.map(|weights| weights.kind);
        self.form == Form::Dense
            && (tensor.dtype == Dtype::F8_E4M3
                || decode::is_code(kind, tensor.dtype)
                    && tensors.contains_key(&*[name, SCALE].concat()))
    }

    fn has_dtypes_of(&self, tensors: &IndexMap<Name, Tensor>, weight: &str) -> bool {
        let dtype = |name: String| tensors.get(&*name).map(|tensor| tensor.dtype);
        let codes = dtype(self.codes(weight));
        let scales = dtype([weight, SCALE].concat());
        let is_code = |dtype| match self.form {
            Form::Dense => decode::is_code(self.weights.map(|weights| weights.kind), dtype),
            Form::Packed | Form::PackedAsymmetric => dtype == Dtype::I32,
        };
        codes.is_some_and(is_code) && scales.is_some_and(format::is_scale)
    }

    fn lists_by_name(&self) -> bool {
        true
    }

    fn needs_modules(&self) -> bool {
        true
    }

    fn block_rows(&self) -> u64 {
        match (self.form, self.weights.map(|weights| weights.strategy)) {
            (_, Some(Strategy::Block([rows, _]))) => rows,
            (Form::PackedAsymmetric, _) => format::NIBBLES,
            // Not cut at all.
            (_, Some(Strategy::Tensor)) => u64::MAX,
            _ => 1,
        }
    }

    fn companion_rows(&self, rows: Range<u64>) -> Range<u64> {
        match self.weights.map(|weights| weights.strategy) {
            Some(Strategy::Block([high, _])) => rows.start / high..rows.end.div_ceil(high),
            _ => rows,
        }
    }

    fn check(&self, name: &str, weight: &Tensor, companions: &[&Tensor]) -> Result<()> {
        let fits = match (self.form, companions, &*weight.shape) {
            (Form::Dense, [scales], &[rows, columns]) => {
                let strategy = self.weights.map(|weights| weights.strategy);
                let kind = self.weights.map(|weights| weights.kind);
                decode::is_code(kind, weight.dtype)
                    && format::blocks(strategy, [rows, columns], &scales.shape).is_some()
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let scales = companions.first().map(|scales| shape_text(&scales.shape));
        let problem = format!(
            "it is {} {}, and its scales are {}, which are not the ones of a weight of 8 bits",
            weight.dtype,
            shape_text(&weight.shape),
            scales.unwrap_or_default()
        );
        Err(Error::of_tensor(
            Code::BadScales,
            weight.origin(),
            name,
            problem,
        ))
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        let weight = self.weight_of(name).unwrap_or(name);
        let codes = self.codes(weight);
        match tensors.get(&*codes) {
            Some(tensor)
                if self.form != Form::Dense || self.is_quantized(tensors, weight, tensor) =>
            {
                Ok(())
            }
            Some(tensor) => {
                let problem = format!(
                    "these are the scales of {codes}, which is {} and not quantized as config.json declares",
                    tensor.dtype
                );
                let hint = "take weight and scales from the same checkpoint";
                let error =
                    Error::of_tensor(Code::MissingWeight, companion.origin(), name, problem);
                Err(error.with_hint(hint))
            }
            None => {
                let problem = format!("it belongs to {codes}, which is not in this view");
                let hint = Hint::give(PATCH).to("add it");
                let hint = hint.or(Hint::give(DROP).to("leave this out"));
                let error =
                    Error::of_tensor(Code::MissingWeight, companion.origin(), name, problem);
                Err(error.with_hint(hint))
            }
        }
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        weight: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        decode::decoded(self.form, self.weights, tensors, name, weight, to)
    }

    fn verify<'a>(
        &self,
        declaration: Option<&Value>,
        stored: &'a [StoredFile<'a>],
        _reading: &Reading,
        faults: &mut Faults,
    ) -> Result<Verified<'a>> {
        Ok(check::verify(self.form, declaration, stored, faults))
    }
}
