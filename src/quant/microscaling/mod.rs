//! Weights of floating-point codes of 4 or 8 bits, with a scale of 8 bits for 16 or 32 columns of a row.
//!
//! A weight `X.weight` of shape `[rows, cols]` is stored in one of these forms; E2M1 codes are two in a
//! byte, that of the even column in its lower half:
//!
//! | form | codes | scales | scale of all | value |
//! |---|---|---|---|---|
//! | NVFP4 of compressed-tensors | `X.weight_packed` U8 `[rows, cols / 2]` | `X.weight_scale` F8_E4M3 `[rows, cols / 16]` | `X.weight_global_scale` F32 `[1]` | code × (scale / scale of all) |
//! | NVFP4 of ModelOpt | `X.weight` U8 `[rows, cols / 2]` | the same | `X.weight_scale_2` F32 `[]` | code × (scale × scale of all) |
//! | MXFP4 of compressed-tensors | `X.weight_packed` U8 `[rows, cols / 2]` | `X.weight_scale` U8 `[rows, cols / 32]` | | code × 2^(scale − 127) |
//! | MXFP4 of ModelOpt | `X.weight` U8 `[rows, cols / 2]` | the same | | the same |
//! | MXFP8 | `X.weight` F8_E4M3 `[rows, cols]` | the same | | the same |
//! | MXFP4 of gpt-oss, of `X` `[E, cols, rows]` | `X_blocks` U8 `[E, rows, cols / 32, 16]` | `X_scales` U8 `[E, rows, cols / 32]` | | the same, transposed |
//!
//! The scheme calls a weight `X.weight` (or `X`) also where no tensor has that name.

mod amax;
mod check;
mod declaration;
mod decode;
mod encode;
pub(super) mod encodings;
mod format;
mod measure;

use std::ops::Range;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{DROP, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::findings::Faults;
use crate::kernels::lanes::Precision;
use crate::quant::compressed_tensors;
use crate::quant::scheme::{Reading, Scheme, StoredFile, Verified};
use crate::tensor::{Dtype, Name};
use format::Form;

/// Weights in one of these forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Microscaling {
    form: Form,
}

impl Microscaling {
    pub(super) const NVFP4: Self = Self::of(Form::Nvfp4);
    pub(super) const NVFP4_MODELOPT: Self = Self::of(Form::Nvfp4Modelopt);
    pub(super) const MXFP4: Self = Self::of(Form::Mxfp4);
    pub(super) const MXFP4_MODELOPT: Self = Self::of(Form::Mxfp4Modelopt);
    pub(super) const MXFP8: Self = Self::of(Form::Mxfp8);
    pub(super) const GPT_OSS: Self = Self::of(Form::GptOss);

    const fn of(form: Form) -> Self {
        Microscaling { form }
    }

    /// Whether the codes have the weight's own name.
    fn is_in_place(&self) -> bool {
        self.form.codes().is_empty()
    }
}

impl Scheme for Microscaling {
    fn name(&self) -> &'static str {
        self.form.name()
    }

    fn readable(&self) -> &'static str {
        self.form.name()
    }

    fn is_declared(&self, declaration: &Value) -> bool {
        declaration::form(declaration) == Some(self.form)
    }

    fn declared(&self, _declarations: &[Value], _path: &Path) -> Result<Box<dyn Scheme>> {
        Ok(Box::new(*self))
    }

    fn geometry(&self) -> String {
        format!("groups of {} columns", self.form.group())
    }

    fn declare_stored(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        _brought: &dyn Fn(&str) -> bool,
        theirs: Option<&Value>,
        relists: bool,
    ) -> Result<()> {
        let key = declaration::list_key(self.form);
        compressed_tensors::declare_stored(self, catalog, quantized, theirs, relists.then_some(key))
    }

    fn codes(&self, weight: &str) -> String {
        [weight, self.form.codes()].concat()
    }

    fn companions(&self, weight: &str) -> Vec<String> {
        let suffixes = self.form.suffixes();
        suffixes.map(|suffix| [weight, suffix].concat()).collect()
    }

    fn weight_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.form.weight_of(name)
    }

    fn has_dtype(&self, dtype: Dtype) -> bool {
        // U8 elements are numbers too, and codes only where they have scales.
        self.form == Form::Mxfp8 && dtype == Dtype::F8_E4M3
    }

    fn is_stored(&self, tensors: &IndexMap<Name, Tensor>, weight: &str) -> bool {
        let dtype = |name: String| tensors.get(&*name).map(|tensor| tensor.dtype);
        let scale = dtype([weight, self.form.scale()].concat());
        dtype(self.codes(weight)) == Some(self.form.code_dtype())
            && scale.is_some_and(|dtype| self.form.scale_dtypes().contains(&dtype))
    }

    fn is_quantized(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> bool {
        // Codes of E4M3 are nothing without their scales, which decoding will ask for.
        let is_scaled =
            self.form == Form::Mxfp8 || tensors.contains_key(&*[name, self.form.scale()].concat());
        self.is_in_place() && tensor.dtype == self.form.code_dtype() && is_scaled
    }

    fn lists_by_name(&self) -> bool {
        true
    }

    fn needs_modules(&self) -> bool {
        self.form != Form::GptOss
    }

    fn block_rows(&self) -> u64 {
        match self.form {
            // Rows become columns.
            Form::GptOss => u64::MAX,
            _ => 1,
        }
    }

    fn companion_rows(&self, rows: Range<u64>) -> Range<u64> {
        rows
    }

    fn check(&self, name: &str, weight: &Tensor, companions: &[&Tensor]) -> Result<()> {
        let header = |tensor: &'_ Tensor| (tensor.dtype, tensor.shape.to_vec());
        // Those after the codes, if these are one.
        let skip = usize::from(!self.is_in_place());
        let headers: Vec<_> = companions.iter().skip(skip).map(|c| header(c)).collect();
        let found = match &headers[..] {
            [scales, global @ ..] => decode::shape(
                self.form,
                (weight.dtype, &weight.shape),
                (scales.0, &scales.1),
                global.first().map(|(dtype, shape)| (*dtype, &**shape)),
            ),
            [] => Err("it has no scales".to_owned()),
        };
        match found {
            Ok(_) => Ok(()),
            Err(problem) => {
                let origin = weight.origin();
                Err(Error::of_tensor(Code::BadScales, origin, name, problem))
            }
        }
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        let weight = self.weight_of(name).unwrap_or(name);
        let codes = self.codes(weight);
        let (problem, hint) = match tensors.get(&*codes) {
            Some(tensor) if tensor.dtype == self.form.code_dtype() => return Ok(()),
            Some(tensor) => (
                format!(
                    "it belongs to {codes}, which is {} and not quantized as config.json declares",
                    tensor.dtype
                ),
                Hint::text("take weight and scales from the same checkpoint"),
            ),
            None => (
                format!("it belongs to {codes}, which is not in this view"),
                Hint::give(PATCH)
                    .to("add it")
                    .or(Hint::give(DROP).to("leave this out")),
            ),
        };
        let origin = companion.origin();
        let error = Error::of_tensor(Code::MissingWeight, origin, name, problem);
        Err(error.with_hint(hint))
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        weight: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        decode::decoded(self.form, tensors, name, weight, to)
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
