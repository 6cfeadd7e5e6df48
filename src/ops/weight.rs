//! A weight with what is stored beside it, which operators move together.

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Error, Result};
use crate::quant::{self, Scheme};
use crate::tensor::Name;

/// A weight with its companions, if it is quantized.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Weight<'a> {
    pub name: String,
    pub tensor: &'a Tensor,
    pub quantized: Option<Quantized<'a>>,
}

/// How a weight is quantized.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Quantized<'a> {
    pub scheme: &'static dyn Scheme,
    /// In the order of [`Scheme::companions`].
    pub companions: Vec<&'a Tensor>,
}

impl<'a> Weight<'a> {
    /// The weight called `name`, its companions checked.
    pub(in crate::ops) fn find(catalog: &'a Catalog, name: String) -> Result<Option<Self>> {
        let Some(tensor) = catalog.tensors.get(&*name) else {
            return Ok(None);
        };
        let stored = quant::stored(&catalog.tensors, &name);
        if let Some((scheme, companions)) = &stored {
            scheme.check(&name, tensor, companions)?;
        }
        Ok(Some(Weight {
            name,
            tensor,
            quantized: stored.map(|(scheme, companions)| Quantized { scheme, companions }),
        }))
    }

    /// The tensors that it is: the weight and its companions.
    pub(in crate::ops) fn tensors(&self) -> impl Iterator<Item = &'a Tensor> {
        let companions = self.quantized.iter().flat_map(|q| &q.companions);
        std::iter::once(self.tensor).chain(companions.copied())
    }

    /// What these are called if the weight is called `name`.
    pub(in crate::ops) fn names_as(&self, name: &str) -> impl Iterator<Item = Name> {
        let quantized = self.quantized.iter();
        let companions = quantized.flat_map(|quantized| quantized.scheme.companions(name));
        std::iter::once(name.into()).chain(companions.map(Name::from))
    }

    /// What they are called.
    pub(in crate::ops) fn names(&self) -> impl Iterator<Item = Name> {
        self.names_as(&self.name)
    }

    /// An error about the weight.
    pub(in crate::ops) fn error(&self, code: Code, problem: impl Into<String>) -> Error {
        Error::of_tensor(code, self.tensor.origin(), &self.name, problem)
    }
}
