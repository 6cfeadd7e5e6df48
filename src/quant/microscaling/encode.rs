//! Numbers into codes with a scale of 8 bits for a few columns of a row: a kernel whose outputs are codes,
//! scales and, of NVFP4, the number for the whole weight. The numbers are defined in
//! [`crate::kernels::microscaling`].

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, ErrorMeasure, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::Result;
use crate::kernels::CpuPath;
use crate::kernels::fp8::{Element, NonFiniteAt};
use crate::kernels::microscaling::{
    Format, Mxfp4, Mxfp4Modelopt, Mxfp4Triton, Mxfp8, Mxfp8Modelopt, Nvfp4, Nvfp4Modelopt,
    quantize_rows,
};
use crate::quant::microscaling::decode::transposed;
use crate::quant::microscaling::format::Form;
use crate::tensor::{Dtype, Name};

/// In whose arithmetic scales and codes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    CompressedTensors,
    Modelopt,
    Triton,
}

/// What is quantized, and to what: matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrices {
    pub form: Form,
    pub arithmetic: Arithmetic,
    groups: u64,
    rows: u64,
    pub columns: u64,
    pub dtype: Dtype,
}

/// What is to be done by the type of a format.
pub(super) trait WithFormat {
    type Output;

    fn run<F: Format>(self) -> Self::Output;
}

impl Matrices {
    fn element_bytes(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// Does `work` by the format of the numbers.
    pub(super) fn with_format<W: WithFormat>(&self, work: W) -> W::Output {
        match (self.form, self.arithmetic) {
            (Form::Nvfp4, _) => work.run::<Nvfp4>(),
            (Form::Nvfp4Modelopt, _) => work.run::<Nvfp4Modelopt>(),
            (Form::Mxfp8, Arithmetic::Modelopt) => work.run::<Mxfp8Modelopt>(),
            (Form::Mxfp8, _) => work.run::<Mxfp8>(),
            (_, Arithmetic::Modelopt) => work.run::<Mxfp4Modelopt>(),
            (_, Arithmetic::Triton) => work.run::<Mxfp4Triton>(),
            _ => work.run::<Mxfp4>(),
        }
    }
}

/// The tensors that `tensor`, the weight called `name`, becomes. `amax` is the largest magnitude of all that
/// share the scale of the whole weight, where there is one.
///
/// # Errors
/// If its elements cannot be put in another order.
pub(super) fn encode(
    form: Form,
    arithmetic: Arithmetic,
    name: &Name,
    tensor: Tensor,
    amax: Option<&Tensor>,
) -> Result<Vec<(Name, Tensor)>> {
    let home = tensor.home;
    let tensor = match form {
        Form::GptOss => transposed(name, tensor)?,
        _ => tensor,
    };
    let (leading, &[rows, columns]) = tensor.shape.split_last_chunk().expect("it was checked");
    let matrices = Matrices {
        form,
        arithmetic,
        groups: if tensor.len() == 0 {
            0
        } else {
            leading.iter().product()
        },
        rows,
        columns,
        dtype: tensor.dtype,
    };
    let [codes, scales] = form.shapes(&tensor.shape).expect("it was checked");
    let kernel = EncodeKernel {
        matrices,
        path: CpuPath::best(),
    };
    let mut inputs = vec![tensor];
    inputs.extend(amax.cloned());
    let node = Arc::new(Node::new(name.clone(), inputs, Box::new(kernel)));
    let output = |suffix: &str, output, dtype, shape: Vec<u64>| {
        let name: Name = [name, suffix].concat().into();
        let tensor = Tensor::computed(node.clone(), output, dtype, shape, home);
        (name, tensor)
    };
    let mut tensors = vec![
        output(form.codes(), 0, form.code_dtype(), codes),
        output(form.scale(), 1, form.scale_dtypes()[0], scales),
    ];
    if let Some(suffix) = form.global() {
        // As each of both has it.
        let shape = match form {
            Form::Nvfp4Modelopt => Vec::new(),
            _ => vec![1],
        };
        tensors.push(output(suffix, 2, Dtype::F32, shape));
    }
    Ok(tensors)
}

/// The kernel half: input 0 are the matrices, input 1 the largest magnitude; outputs are codes, scales and
/// the number for the whole weight.
#[derive(Debug)]
struct EncodeKernel {
    matrices: Matrices,
    path: CpuPath,
}

impl EncodeKernel {
    fn all_rows(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.matrices.rows;
        first + band.rows.start..first + band.rows.end
    }
}

/// The bytes of a band.
struct Rows<'a> {
    source: &'a [u8],
    matrices: Matrices,
    amax: f32,
    codes: &'a mut [u8],
    scales: &'a mut [u8],
    path: CpuPath,
}

impl Rows<'_> {
    fn quantize<T: Element, F: Format>(self) -> std::result::Result<f32, NonFiniteAt> {
        let global = F::global(self.amax);
        let columns = self.matrices.columns as usize;
        let (codes, scales) = (self.codes, self.scales);
        quantize_rows::<T, F>(self.source, columns, global, codes, scales, self.path)?;
        Ok(global)
    }
}

impl WithFormat for Rows<'_> {
    /// The number for the whole weight.
    type Output = std::result::Result<f32, NonFiniteAt>;

    fn run<F: Format>(self) -> Self::Output {
        match self.matrices.dtype {
            Dtype::BF16 => self.quantize::<bf16, F>(),
            Dtype::F16 => self.quantize::<f16, F>(),
            _ => self.quantize::<f32, F>(),
        }
    }
}

impl Kernel for EncodeKernel {
    fn identity(&self) -> String {
        format!("{:?}", self.matrices)
    }

    fn step(&self, output: usize) -> Option<Step> {
        const OUTPUTS: [&str; 3] = ["codes", "scales", "scale of all"];
        let scheme = match self.matrices.form {
            Form::Nvfp4 | Form::Nvfp4Modelopt => "nvfp4",
            Form::Mxfp8 => "mxfp8",
            Form::Mxfp4 | Form::Mxfp4Modelopt | Form::GptOss => "mxfp4",
        };
        let step = Step::new("quantize")
            .with("gives", OUTPUTS[output])
            .with("scheme", scheme)
            .with("form", self.matrices.form.name());
        Some(step)
    }

    fn bands(&self) -> RowBands {
        /// Source bytes that are worth computing at once.
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = (self.matrices.columns * self.matrices.element_bytes()).max(1);
        RowBands {
            groups: self.matrices.groups,
            rows_per_group: self.matrices.rows,
            band_rows: (TILE_BYTES / row_bytes).max(1),
        }
    }

    fn outputs(&self) -> usize {
        2 + usize::from(self.matrices.form.global().is_some())
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        if input == 1 {
            return 0..4;
        }
        let row_bytes = self.matrices.columns * self.matrices.element_bytes();
        let rows = self.all_rows(band);
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn shares_input(&self, input: usize) -> bool {
        input == 1
    }

    fn output_bytes(&self, output: usize, band: &Band) -> Range<u64> {
        let Matrices { form, columns, .. } = self.matrices;
        let row_bytes = match output {
            0 => columns * form.bits() / 8,
            1 => columns / form.group(),
            _ => return if band.index == 0 { 0..4 } else { 4..4 },
        };
        let rows = self.all_rows(band);
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn error_measure(&self) -> Option<&dyn ErrorMeasure> {
        Some(&self.matrices)
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([source, amax @ ..], [codes, scales, global @ ..]) = (inputs, outputs) else {
            unreachable!("one input or two and two outputs or three, as declared");
        };
        let amax = amax.first().map_or(0.0, |bytes| {
            f32::from_le_bytes((*bytes).try_into().expect("four bytes"))
        });
        let rows = Rows {
            source,
            matrices: self.matrices,
            amax,
            codes,
            scales,
            path: self.path,
        };
        let found = self.matrices.with_format(rows).map_err(|at| NonFinite {
            row: band.rows.start + at.row as u64,
            column: at.column as u64,
            value: at.value,
            scale: None,
        })?;
        if let [global] = global
            && !global.is_empty()
        {
            global.copy_from_slice(&found.to_le_bytes());
        }
        Ok(())
    }
}
