//! Values that are not the same in GGUF: norms, of which one is added, and decay rates, which are −exp.

use std::ops::Range;

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor};
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::ops::convert;
use crate::tensor::Dtype;

/// What becomes of each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    PlusOne,
    MinusExp,
}

impl Function {
    /// In F16, the arithmetic of the converter is F16's; else F32's. −exp is that of F64, rounded.
    fn of(self, value: f32, precision: Precision) -> f32 {
        let result = match self {
            Function::PlusOne => value + 1.0,
            Function::MinusExp => -(f64::from(value).exp()) as f32,
        };
        match precision {
            Precision::F16 => Precision::F16.round(result),
            Precision::Bf16 | Precision::F32 => result,
        }
    }
}

/// `function` of each value of `tensor`, in F32. It is called `name` in messages.
///
/// # Errors
/// If it has no numbers.
pub(super) fn apply(name: &str, tensor: &Tensor, function: Function) -> Result<Tensor> {
    let tensor = match Precision::from_dtype(tensor.dtype) {
        Some(_) => tensor.clone(),
        None => convert(name, tensor, Precision::F32)?,
    };
    let from = Precision::from_dtype(tensor.dtype).expect("numbers");
    let kernel = Elementwise {
        function,
        from,
        elements: tensor.len() / from.bytes() as u64,
    };
    let inputs = vec![tensor.clone()];
    Tensor::in_dtype(name, &tensor, Dtype::F32, inputs, Box::new(kernel))
}

/// The kernel half: input 0 seen as one long column; output 0 the same in F32.
#[derive(Debug)]
struct Elementwise {
    function: Function,
    from: Precision,
    elements: u64,
}

impl Kernel for Elementwise {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let function = match self.function {
            Function::PlusOne => "x + 1",
            Function::MinusExp => "-exp(x)",
        };
        Some(Step::new("gguf_values").with("function", function))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: 1 << 18,
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let width = self.from.bytes() as u64;
        band.rows.start * width..band.rows.end * width
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
        const LEN: usize = 1024;
        let mut values = [0.0; LEN];
        let from = inputs[0].chunks(LEN * self.from.bytes());
        for (from, to) in from.zip(outputs[0].chunks_mut(LEN * 4)) {
            let values = &mut values[..to.len() / 4];
            self.from.decode(from, values);
            for value in &mut *values {
                *value = self.function.of(*value, self.from);
            }
            Precision::F32.encode(values, to, |x| x);
        }
        Ok(())
    }
}
