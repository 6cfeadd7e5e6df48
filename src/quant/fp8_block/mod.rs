//! Block FP8, as DeepSeek's and Qwen's releases have it: E4M3 codes, and a scale for each block of
//! 128 × 128 (or as config.json says).
//!
//! A weight `X` `[.., rows, cols]` (F8_E4M3 or F8_E5M2) has one companion `X_scale_inv`
//! `[.., ceil(rows / block rows), ceil(cols / block cols)]` (F32, BF16, F16 or F8_E8M0). Blocks at the
//! edges are partial, and begin anew at each leading index. The value is code × scale.

mod check;
mod declaration;
mod decode;
mod encode;
mod format;
mod from_fp4;
mod loaders;
mod measure;
mod naming;
mod nibbles;
mod other;

use std::ops::Range;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Error, Result};
use crate::findings::Faults;
pub use crate::kernels::fp8::ScaleFormat;
use crate::kernels::lanes::Precision;
use crate::quant::compressed_tensors;
use crate::quant::offer::{Dialect, EncodingSettings, Made, Offer};
use crate::quant::scheme::{Encoding, Exactness, Fit, Reading, Role, Scheme, StoredFile, Verified};
use crate::tensor::{Dtype, Name, shape_text};
use encode::{Codes, Matrix};
pub use format::Fp8Block;
use format::{is_code, scale_name, weight_of};
pub(super) use from_fp4::exactness;
pub(super) use loaders::warn_partial_blocks;
pub(super) use other::OtherFp8;

/// Block FP8 as a view makes it, in blocks of 128 × 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp8BlockEncoding {
    pub scale_format: ScaleFormat,
    /// Whether numbers of weights that were FP4 may be rounded.
    pub allows_rounding: bool,
}

/// Block FP8 as people ask for it.
pub(super) const OFFER: Offer = Offer {
    name: "fp8-block",
    options: "",
    dialects: &[Dialect::Fp8, Dialect::CompressedTensors],
    has_scale_format: true,
    has_partial_blocks: true,
    make,
};

fn make(options: &[&str], settings: &EncodingSettings) -> Made {
    match options.first() {
        Some(option) => Err(format!("fp8-block has no options, such as {option}")),
        None if settings.dialect == Some(Dialect::CompressedTensors) => {
            compressed_tensors::block_fp8(settings)
        }
        None => Ok(Box::new(Fp8BlockEncoding {
            scale_format: settings.scale_format.unwrap_or_default(),
            allows_rounding: settings.allows_rounding,
        })),
    }
}

impl Scheme for Fp8Block {
    fn name(&self) -> &'static str {
        "FP8"
    }

    fn readable(&self) -> &'static str {
        "weights of \"fp8\" with \"dynamic\" activations"
    }

    fn is_declared(&self, declaration: &Value) -> bool {
        declaration::is_declared(declaration)
    }

    fn declared(&self, declarations: &[Value], path: &Path) -> Result<Box<dyn Scheme>> {
        Ok(Box::new(declaration::declared(declarations, path)?))
    }

    fn geometry(&self) -> String {
        let [rows, columns] = self.block;
        format!("blocks of {rows} x {columns}")
    }

    fn declare_stored(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        brought: &dyn Fn(&str) -> bool,
        theirs: Option<&Value>,
        relists: bool,
    ) -> Result<()> {
        declaration::declare_stored(self, catalog, quantized, brought, theirs, relists)
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        naming::role(self, tensors, name, tensor)
    }

    fn companions(&self, weight: &str) -> Vec<String> {
        vec![scale_name(weight)]
    }

    fn weight_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        weight_of(name)
    }

    fn has_dtype(&self, dtype: Dtype) -> bool {
        is_code(dtype)
            || matches!(
                dtype,
                Dtype::F8_E8M0 | Dtype::F6_E2M3 | Dtype::F6_E3M2 | Dtype::F4
            )
    }

    fn block_rows(&self) -> u64 {
        self.block[0]
    }

    fn companion_rows(&self, rows: Range<u64>) -> Range<u64> {
        rows.start / self.block[0]..rows.end.div_ceil(self.block[0])
    }

    fn check(&self, name: &str, weight: &Tensor, companions: &[&Tensor]) -> Result<()> {
        let [scales] = companions else {
            let problem = format!("it is {}, without {}", weight.dtype, scale_name(name));
            let origin = weight.origin();
            return Err(Error::of_tensor(Code::MissingScales, origin, name, problem));
        };
        let expected = self.scale_shape(&weight.shape);
        if is_code(weight.dtype) && expected.as_deref() == Some(&scales.shape) {
            return Ok(());
        }
        let [rows, columns] = self.block;
        Err(Error::of_tensor(
            Code::BadScales,
            scales.origin(),
            scale_name(name),
            format!(
                "its shape is {}, but {name} is {} {}; only FP8 weights with a scale per {rows} x {columns} block can change form with their scales, and here those would be {}",
                shape_text(&scales.shape),
                weight.dtype,
                shape_text(&weight.shape),
                expected.map_or("none".to_owned(), |shape| shape_text(&shape))
            ),
        ))
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        decode::check_scales(tensors, name, companion)
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        weight: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        decode::decoded(self, tensors, name, weight, to)
    }

    fn verify<'a>(
        &self,
        declaration: Option<&Value>,
        stored: &'a [StoredFile<'a>],
        reading: &Reading,
        faults: &mut Faults,
    ) -> Result<Verified<'a>> {
        check::verify(declaration, stored, reading, faults)
    }
}

impl Encoding for Fp8BlockEncoding {
    fn check_base(&self, catalog: &mut Catalog) -> Result<()> {
        declaration::check_base(catalog)
    }

    fn fit(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<Fit> {
        let matrix = Matrix::from_tensor(name, tensor, has_companions)?;
        Ok(if matrix.has_whole_blocks() {
            Fit::Whole
        } else {
            Fit::Partial
        })
    }

    fn exactness(&self, tensor: &Tensor) -> Exactness {
        match self.allows_rounding {
            true => Exactness::NotExpected,
            false => from_fp4::exactness(tensor, self.scale_format),
        }
    }

    fn reencoded(
        &self,
        catalog: &Catalog,
        is_meant: &dyn Fn(&str) -> bool,
    ) -> Result<IndexMap<Name, (Tensor, Name)>> {
        from_fp4::reencoded(catalog, is_meant)
    }

    fn encode(
        &self,
        name: &Name,
        tensor: Tensor,
        _shared: Option<&Tensor>,
    ) -> Result<Vec<(Name, Tensor)>> {
        let codes = match self.exactness(&tensor) {
            Exactness::Exact => Codes::Exact,
            Exactness::Rounded(_) | Exactness::NotExpected => Codes::Nearest,
        };
        let (codes, scales) = encode::codes_and_scales(name, tensor, self.scale_format, codes);
        Ok(vec![
            (name.clone(), codes),
            (scale_name(name).into(), scales),
        ])
    }

    fn declare(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        partial: &[Name],
    ) -> Result<()> {
        loaders::warn_partial_blocks(catalog, partial);
        loaders::warn_fused_experts(catalog);
        from_fp4::declare_experts(catalog, quantized)?;
        declaration::declare(catalog, quantized, self.scale_format)
    }
}
