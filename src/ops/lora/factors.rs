//! Tensors of an adapter brought into the form in which they are used, each as a whole.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Tensor};
use crate::kernels::low_rank::{self, Strided};
use crate::tensor::{Dtype, Name, Shape};

/// `$body` with `$T` as the type of `$dtype`, which is one of those that [`is_float`] accepts.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            Dtype::BF16 => {
                type $T = bf16;
                $body
            }
            Dtype::F16 => {
                type $T = f16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

pub(super) use with_float;

/// Whether these kernels read and write `dtype`.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// A left factor (see [`low_rank::pack_left`]) of what `shape` sees in `source`.
pub(super) fn left(name: &str, source: Tensor, shape: Strided) -> Tensor {
    factor(name, source, shape, false)
}

/// A right factor (see [`low_rank::pack_right`]) of what `shape` sees in `source`.
pub(super) fn right(name: &str, source: Tensor, shape: Strided) -> Tensor {
    factor(name, source, shape, true)
}

fn factor(name: &str, source: Tensor, shape: Strided, is_right: bool) -> Tensor {
    let elements = if is_right {
        shape.packed_elements()
    } else {
        shape.elements()
    };
    let kernel = Factor {
        shape,
        is_right,
        dtype: source.dtype,
        input: source.len(),
        output: elements as u64 * F32,
    };
    computed(
        name,
        vec![source],
        Dtype::F32,
        [elements as u64].as_slice(),
        Box::new(kernel),
    )
}

/// Output 0 of a new node.
pub(super) fn computed(
    name: &str,
    inputs: Vec<Tensor>,
    dtype: Dtype,
    shape: impl Into<Shape>,
    kernel: Box<dyn Kernel>,
) -> Tensor {
    let home = inputs[0].home;
    let node = Arc::new(Node::new(Name::from(name), inputs, kernel));
    Tensor::computed(node, 0, dtype, shape, home)
}

/// The one band of a kernel that computes everything at once.
pub(super) const SINGLE_BAND: RowBands = RowBands {
    groups: 1,
    rows_per_group: 1,
    band_rows: 1,
};

/// Brings a factor into form, whole.
#[derive(Debug)]
struct Factor {
    shape: Strided,
    is_right: bool,
    dtype: Dtype,
    input: u64,
    output: u64,
}

impl Kernel for Factor {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn bands(&self) -> RowBands {
        SINGLE_BAND
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..self.input
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..self.output
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let (source, packed) = (inputs[0], &mut *outputs[0]);
        let pack = if self.is_right {
            with_float!(self.dtype, T => low_rank::pack_right::<T>)
        } else {
            with_float!(self.dtype, T => low_rank::pack_left::<T>)
        };
        pack(source, self.shape, packed);
        Ok(())
    }
}
