//! Schemes that other tools write, and that are only given back as numbers: views neither quantize so, nor move
//! such weights one by one.

use std::ops::Range;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{DROP, DTYPE};
use crate::error::{Code, Error, Hint, Result};
use crate::findings::Faults;
use crate::kernels::lanes::Precision;
use crate::quant::declared::KEY;
use crate::quant::scheme::{Reading, Role, Scheme, StoredFile, Verified};
use crate::tensor::{Dtype, Name};

/// Such a scheme, as config.json declares it or as it usually is.
pub(super) trait OnlyRead: std::fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// The weights that it can give as numbers, for messages.
    fn readable(&self) -> &'static str;

    /// The scheme that `declaration` declares: `None` if that is another one, and what of it is not known, for
    /// messages.
    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>>;

    /// As [`Scheme::geometry`].
    fn geometry(&self) -> String;

    /// What the tensor called `name` is among `tensors`, which is one of them.
    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role;

    /// As [`Scheme::check_companion`].
    fn check_companion(
        &self,
        _tensors: &IndexMap<Name, Tensor>,
        _name: &str,
        _companion: &Tensor,
    ) -> Result<()> {
        Ok(())
    }

    /// As [`Scheme::decoded`].
    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        codes: &Tensor,
        to: Precision,
    ) -> Result<Tensor>;

    /// Whether the weight `weight` of a directory with this `declaration` is to be checked: not what another
    /// scheme has checked.
    fn is_verified(
        &self,
        _declaration: &Value,
        _tensors: &IndexMap<Name, Tensor>,
        _weight: &str,
    ) -> bool {
        true
    }
}

impl<T: OnlyRead> Scheme for T {
    fn name(&self) -> &'static str {
        OnlyRead::name(self)
    }

    fn readable(&self) -> &'static str {
        OnlyRead::readable(self)
    }

    fn is_declared(&self, declaration: &Value) -> bool {
        matches!(self.parse(declaration), Some(Ok(_)))
    }

    fn unreadable(&self, declaration: &Value) -> Option<String> {
        self.parse(declaration)?.err()
    }

    fn declared(&self, declarations: &[Value], path: &Path) -> Result<Box<dyn Scheme>> {
        let mut all = declarations.iter().filter_map(|d| self.parse(d)?.ok());
        let first = all.next().expect("a scheme is asked for what is declared");
        match all.find(|other| other.geometry() != first.geometry()) {
            None => Ok(first),
            Some(other) => {
                let (first, other) = (first.geometry(), other.geometry());
                let problem = format!("{KEY} declares {first} and {other}");
                Err(Error::of_file(Code::BadConfig, path, problem).with_hint("remove one"))
            }
        }
    }

    fn geometry(&self) -> String {
        OnlyRead::geometry(self)
    }

    fn is_movable(&self) -> bool {
        false
    }

    fn declare_stored(
        &self,
        catalog: &mut Catalog,
        _quantized: &IndexSet<Name>,
        _brought: &dyn Fn(&str) -> bool,
        _theirs: Option<&Value>,
        _relists: bool,
    ) -> Result<()> {
        let path = catalog
            .config
            .as_ref()
            .map(|config| config.path().to_owned());
        let problem = format!("weights of {} are not declared anew", OnlyRead::name(self));
        let error = Error::of_file(Code::OtherQuantization, path.unwrap_or_default(), problem);
        Err(error.with_hint(Hint::give(DTYPE).to("dequantize them")))
    }

    fn lists_by_name(&self) -> bool {
        true
    }

    fn needs_modules(&self) -> bool {
        true
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        OnlyRead::role(self, tensors, name, tensor)
    }

    fn companions(&self, _weight: &str) -> Vec<String> {
        Vec::new()
    }

    fn weight_of<'a>(&self, _name: &'a str) -> Option<&'a str> {
        None
    }

    fn has_dtype(&self, _dtype: Dtype) -> bool {
        false
    }

    fn block_rows(&self) -> u64 {
        u64::MAX
    }

    fn companion_rows(&self, rows: Range<u64>) -> Range<u64> {
        rows
    }

    fn check(&self, _name: &str, _weight: &Tensor, _companions: &[&Tensor]) -> Result<()> {
        Ok(())
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        OnlyRead::check_companion(self, tensors, name, companion)
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        weight: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        OnlyRead::decoded(self, tensors, name, weight, to)
    }

    fn verify<'a>(
        &self,
        declaration: Option<&Value>,
        stored: &'a [StoredFile<'a>],
        _reading: &Reading,
        faults: &mut Faults,
    ) -> Result<Verified<'a>> {
        if let Some(declaration) = declaration
            && let Some(Ok(scheme)) = self.parse(declaration)
        {
            let is_meant =
                |tensors: &_, weight: &str| self.is_verified(declaration, tensors, weight);
            verify(&*scheme, stored, is_meant, faults);
        }
        Ok(Verified {
            lists_by_name: true,
            ..Verified::default()
        })
    }
}

/// Finds weights of `stored`, of those that are meant, that `scheme` cannot give as numbers.
fn verify(
    scheme: &dyn Scheme,
    stored: &[StoredFile],
    is_meant: impl Fn(&IndexMap<Name, Tensor>, &str) -> bool,
    faults: &mut Faults,
) {
    let files = stored.iter().flat_map(|file| {
        let names = file.tensors.iter();
        names.map(move |(name, tensor)| {
            let tensor = Tensor::placed(name, tensor, file.file, None);
            (name.clone(), tensor)
        })
    });
    let tensors: IndexMap<Name, Tensor> = files.collect();
    for (name, tensor) in &tensors {
        if let Role::Codes(weight) = scheme.role(&tensors, name, tensor)
            && is_meant(&tensors, &weight)
            && let Err(error) = scheme.decoded(&tensors, &weight, tensor, Precision::F32)
        {
            let fault = "quantized weights that are not as config.json declares them";
            let item = format!("{name} ({})", error.problem());
            faults.problems.add_item(error.code(), fault, item);
        }
    }
}

/// The tensor `name` of `tensors`, a companion of the weight `weight` with the codes `codes`.
///
/// # Errors
/// If it is not there.
pub(super) fn companion<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    weight: &str,
    name: &str,
    codes: &Tensor,
) -> Result<&'a Tensor> {
    tensors.get(name).ok_or_else(|| {
        let problem = format!("it is quantized ({}), and there is no {name}", codes.dtype);
        let error = Error::of_tensor(Code::MissingScales, codes.origin(), weight, problem);
        error.with_hint(Hint::leave_out(DTYPE).or(Hint::give(DROP).to("leave this tensor out")))
    })
}
