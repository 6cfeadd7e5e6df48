//! What GGUF files have of small tensors is a function of what Hugging Face's layout has; here is its inverse.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::ops::convert;
use crate::tensor::Dtype;

/// A function of single elements, in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// x − 1, of norms that are stored with the one that they are added to.
    MinusOne,
    /// ln(−x), of decays that are stored as −exp(x).
    LogOfNegative,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::MinusOne => "minus one",
            Function::LogOfNegative => "log of negative",
        }
    }

    fn apply(self, x: f32) -> f32 {
        match self {
            Function::MinusOne => x - 1.0,
            // In f64 the logarithms of different libraries differ far beyond what is left after rounding.
            Function::LogOfNegative => (-f64::from(x)).ln() as f32,
        }
    }

    /// The values of `tensor`, called `name`, in F32.
    ///
    /// # Errors
    /// If it is not of plain floating-point numbers.
    pub(super) fn of(self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let input = convert(name, tensor, Precision::F32)?;
        let shape = input.shape.clone();
        let kernel = Elementwise {
            function: self,
            elements: input.len() / 4,
        };
        let node = Arc::new(Node::new(name, vec![input], Box::new(kernel)));
        Ok(Tensor::computed(node, 0, Dtype::F32, shape, None))
    }
}

/// Input 0 is a tensor of F32; output 0 has as many elements.
#[derive(Debug)]
struct Elementwise {
    function: Function,
    elements: u64,
}

impl Kernel for Elementwise {
    fn identity(&self) -> String {
        format!("{}, {} elements", self.function.name(), self.elements)
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("gguf_values").with("function", self.function.name()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: 1 << 18,
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        band.rows.start * 4..band.rows.end * 4
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.rows.start * 4..band.rows.end * 4
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let elements = inputs[0].chunks_exact(4);
        for (x, y) in elements.zip(outputs[0].chunks_exact_mut(4)) {
            let x = f32::from_le_bytes(x.try_into().expect("4 bytes"));
            y.copy_from_slice(&self.function.apply(x).to_le_bytes());
        }
        Ok(())
    }
}
