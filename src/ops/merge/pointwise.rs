//! The kernel of merges: inputs decoded to f32 lanes, a formula on a short run of them at a time,
//! the result encoded.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Survey, Tensor};
use crate::kernels::lanes::{Bf16, F16, F32, Precision, Round, plain_nan};
use crate::kernels::{CpuPath, Loop};
use crate::ops::merge::formula::{At, Formula, Lanes, RUN, Size};
use crate::tensor::{Dtype, Name};

/// The kernel of a [`Formula`]: all inputs and the output have the same shape.
#[derive(Debug)]
pub struct PointwiseKernel<F> {
    formula: F,
    inputs: Vec<Precision>,
    working: Precision,
    output: Precision,
    columns: u64,
    bands: RowBands,
    path: CpuPath,
}

/// Elements of a band: 1 MiB of bf16.
const BAND: u64 = 1 << 19;

impl<F: Formula> PointwiseKernel<F> {
    /// `inputs` are the formats of the inputs, `shape` the shape of each of them.
    pub fn new(
        formula: F,
        inputs: Vec<Precision>,
        working: Precision,
        output: Precision,
        shape: &[u64],
    ) -> Self {
        let elements: u64 = shape.iter().product();
        let columns = F::columns(shape);
        let rows = elements / columns;
        let bands = if F::WHOLE_ROWS {
            RowBands {
                groups: 1,
                rows_per_group: rows,
                band_rows: (BAND / columns).max(1),
            }
        } else {
            RowBands {
                groups: 1,
                rows_per_group: elements,
                band_rows: BAND,
            }
        };
        PointwiseKernel {
            formula,
            inputs,
            working,
            output,
            columns,
            bands,
            path: CpuPath::best(),
        }
    }

    /// The tensor that `formula` computes from `inputs`, which have the same shape and one of the
    /// dtypes that a [`Precision`] stands for, at the home of the first.
    ///
    /// # Panics
    /// If `inputs` is empty or one of them is of another shape or dtype.
    pub fn tensor(
        name: &Name,
        formula: F,
        inputs: Vec<Tensor>,
        working: Precision,
        dtype: Dtype,
    ) -> Tensor {
        let (shape, home) = (inputs[0].shape.clone(), inputs[0].home);
        assert!(inputs.iter().all(|input| input.shape == shape));
        let precision =
            |dtype| Precision::from_dtype(dtype).expect("a dtype that merges compute with");
        let formats = inputs.iter().map(|input| precision(input.dtype)).collect();
        let kernel = Self::new(formula, formats, working, precision(dtype), &shape);
        let node = Arc::new(Node::new(name.clone(), inputs, Box::new(kernel)));
        Tensor::computed(node, 0, dtype, shape, home)
    }

    /// The same on another [`CpuPath`].
    pub fn on(self, path: CpuPath) -> Self {
        PointwiseKernel { path, ..self }
    }

    fn merge<R: Round>(&self, facts: &[f64], run: &Run<'_>, merged: &mut [f32]) {
        self.path.run(Merging {
            formula: &self.formula,
            facts,
            run,
            merged,
            working: PhantomData::<R>,
        });
    }

    fn tally<R: Round>(&self, pass: usize, facts: &[f64], run: &Run<'_>, tally: &mut [f64]) {
        self.path.run(Tallying {
            formula: &self.formula,
            pass,
            facts,
            run,
            tally,
            working: PhantomData::<R>,
        });
    }

    fn extent(&self) -> Size {
        Size {
            elements: self.elements(0..self.bands.rows_per_group).end,
            columns: self.columns,
            bands: self.bands.count(),
        }
    }

    /// The elements of these rows of the bands.
    fn elements(&self, rows: Range<u64>) -> Range<u64> {
        let each = if F::WHOLE_ROWS { self.columns } else { 1 };
        rows.start * each..rows.end * each
    }

    fn bytes(&self, format: Precision, band: &Band) -> Range<u64> {
        let elements = self.elements(band.rows.clone());
        let each = format.bytes() as u64;
        elements.start * each..elements.end * each
    }
}

impl<F: Formula> Kernel for PointwiseKernel<F> {
    fn identity(&self) -> String {
        let PointwiseKernel {
            formula,
            inputs,
            working,
            output,
            bands,
            columns,
            path: _,
        } = self;
        format!("{formula:?} of {inputs:?} in {working:?} as {output:?}, {bands:?} of {columns}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let formats = [("computed_in", self.working), ("given_in", self.output)];
        let with_format = |step: Step, (what, format): (&str, Precision)| {
            step.with(what, format.dtype().to_string())
        };
        Some(formats.into_iter().fold(self.formula.step(), with_format))
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        self.bytes(self.inputs[input], band)
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        self.bytes(self.output, band)
    }

    fn survey(&self) -> Option<&dyn Survey> {
        (self.formula.passes(self.working) > 0).then_some(self)
    }

    fn compute(
        &self,
        facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let mut runs = Runs::new(self, band, inputs);
        let mut merged = vec![0.0; runs.stride];
        while let Some(run) = runs.next() {
            let merged = &mut merged[..run.elements.len()];
            match self.working {
                Precision::Bf16 => self.merge::<Bf16>(facts, &run, merged),
                Precision::F16 => self.merge::<F16>(facts, &run, merged),
                Precision::F32 => self.merge::<F32>(facts, &run, merged),
            }
            self.path.run(Encoding {
                values: merged,
                working: self.working,
                format: self.output,
                bytes: &mut outputs[0][bytes_of(self.output, &run.elements)],
            });
        }
        Ok(())
    }
}

impl<F: Formula> Survey for PointwiseKernel<F> {
    fn passes(&self) -> usize {
        self.formula.passes(self.working)
    }

    fn tally_len(&self, pass: usize) -> usize {
        self.formula.tally_len(self.working, pass, self.extent())
    }

    fn wants(&self, pass: usize, facts: &[f64], band: &Band) -> bool {
        self.formula.wants(self.working, pass, facts, band.index)
    }

    fn tally(&self, pass: usize, facts: &[f64], band: &Band, inputs: &[&[u8]], tally: &mut [f64]) {
        let mut runs = Runs::new(self, band, inputs);
        while let Some(run) = runs.next() {
            match self.working {
                Precision::Bf16 => self.tally::<Bf16>(pass, facts, &run, tally),
                Precision::F16 => self.tally::<F16>(pass, facts, &run, tally),
                Precision::F32 => self.tally::<F32>(pass, facts, &run, tally),
            }
        }
    }

    fn conclude(&self, pass: usize, tally: &[f64], facts: &mut Vec<f64>) {
        let extent = self.extent();
        self.formula
            .conclude(self.working, pass, extent, tally, facts);
    }

    fn check(&self, facts: &[f64]) -> Result<(), String> {
        self.formula.check(facts)
    }
}

/// The runs of a band, decoded one after the other.
struct Runs<'a, F> {
    kernel: &'a PointwiseKernel<F>,
    band: &'a Band,
    inputs: &'a [&'a [u8]],
    /// Elements of the band.
    count: usize,
    /// The most elements of a run.
    stride: usize,
    /// Elements of the band in the run that is decoded now.
    now: Range<usize>,
    values: Vec<f32>,
}

impl<'a, F: Formula> Runs<'a, F> {
    fn new(kernel: &'a PointwiseKernel<F>, band: &'a Band, inputs: &'a [&'a [u8]]) -> Self {
        let elements = kernel.elements(band.rows.clone());
        let count = (elements.end - elements.start) as usize;
        let stride = if F::WHOLE_ROWS {
            kernel.columns as usize
        } else {
            RUN.min(count.max(1))
        };
        Runs {
            kernel,
            band,
            inputs,
            count,
            stride,
            now: 0..0,
            values: vec![0.0; stride * inputs.len()],
        }
    }

    /// Decodes the next run, if there is one.
    fn next(&mut self) -> Option<Run<'_>> {
        if self.now.end == self.count {
            return None;
        }
        self.now = self.now.end..(self.now.end + self.stride).min(self.count);
        let kernel = self.kernel;
        let decoded = self.values.chunks_exact_mut(self.stride);
        for ((bytes, format), values) in self.inputs.iter().zip(&kernel.inputs).zip(decoded) {
            kernel.path.run(Decoding {
                bytes: &bytes[bytes_of(*format, &self.now)],
                format: *format,
                values: &mut values[..self.now.len()],
                working: kernel.working,
            });
        }
        let first = self.kernel.elements(self.band.rows.clone()).start;
        Some(Run {
            elements: self.now.clone(),
            at: At {
                element: first + self.now.start as u64,
                band: self.band.index,
            },
            inputs: Lanes {
                values: &self.values,
                stride: self.stride,
                len: self.now.len(),
            },
        })
    }
}

/// A run of elements of a band, decoded.
struct Run<'a> {
    /// Positions in the band.
    elements: Range<usize>,
    at: At,
    inputs: Lanes<'a>,
}

/// Where `elements` of a band are among its bytes.
fn bytes_of(format: Precision, elements: &Range<usize>) -> Range<usize> {
    elements.start * format.bytes()..elements.end * format.bytes()
}

/// The values of a run of one input, rounded to the format `working`.
struct Decoding<'a> {
    bytes: &'a [u8],
    format: Precision,
    values: &'a mut [f32],
    working: Precision,
}

impl Loop for Decoding<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.format.decode(self.bytes, self.values);
        if self.format != self.working {
            self.working.round_all(self.values);
        }
    }
}

/// Merged values of a run, rounded to the format `working` and then to `format`.
struct Encoding<'a> {
    values: &'a [f32],
    working: Precision,
    format: Precision,
    bytes: &'a mut [u8],
}

impl Loop for Encoding<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Encoding {
            values,
            working,
            format,
            bytes,
        } = self;
        if format == working {
            return format.encode(values, bytes, plain_nan);
        }
        match working {
            Precision::Bf16 => format.encode(values, bytes, |x| Bf16::round(plain_nan(x))),
            Precision::F16 => format.encode(values, bytes, |x| F16::round(plain_nan(x))),
            Precision::F32 => format.encode(values, bytes, plain_nan),
        }
    }
}

/// [`Formula::merge`] of a run as a loop, in the working format `R`.
struct Merging<'a, F, R> {
    formula: &'a F,
    facts: &'a [f64],
    run: &'a Run<'a>,
    merged: &'a mut [f32],
    working: PhantomData<R>,
}

impl<F: Formula, R: Round> Loop for Merging<'_, F, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Run { at, inputs, .. } = self.run;
        self.formula
            .merge::<R>(self.facts, *at, *inputs, self.merged);
    }
}

/// [`Formula::tally`] of a run as a loop, in the working format `R`.
struct Tallying<'a, F, R> {
    formula: &'a F,
    pass: usize,
    facts: &'a [f64],
    run: &'a Run<'a>,
    tally: &'a mut [f64],
    working: PhantomData<R>,
}

impl<F: Formula, R: Round> Loop for Tallying<'_, F, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Run { at, inputs, .. } = self.run;
        self.formula
            .tally::<R>(self.pass, self.facts, *at, *inputs, self.tally);
    }
}
