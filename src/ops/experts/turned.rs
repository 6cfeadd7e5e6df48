//! Transposed fused experts: where the elements of a single expert's weights are in them, and back.

use crate::catalog::{Gather, Part, Tensor};
use crate::error::Result;
use crate::ops::experts::families::Layout;

/// The sizes of a layer's experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimensions {
    pub count: u64,
    pub intermediate: u64,
    pub hidden: u64,
    /// Whether the fused tensors have the shapes of transposed ones.
    pub is_transposed: bool,
}

/// How far it is from gate to up in a row of `gate_up_proj` of this layout, and from one column of
/// either to the next.
fn halves(layout: Layout, intermediate: u64) -> (u64, u64) {
    match layout {
        Layout::Interleaved => (1, 2),
        Layout::Rows | Layout::Columns => (intermediate, 1),
    }
}

/// A projection of a transposed fused tensor.
pub(super) struct Turned {
    pub layout: Layout,
    pub dimensions: Dimensions,
    pub is_down: bool,
    pub is_up: bool,
}

impl Turned {
    /// The weight of one expert, called `name`: `[I, H]` of `[E, H, 2I]`, or `[H, I]` of `[E, I, H]`.
    pub(super) fn single(&self, name: &str, fused: &Tensor, expert: u64) -> Result<Tensor> {
        let Dimensions {
            intermediate,
            hidden,
            ..
        } = self.dimensions;
        let (to_up, step) = halves(self.layout, intermediate);
        let (rows, columns, part) = if self.is_down {
            (
                hidden,
                intermediate,
                columns_as_rows(0, 1, hidden, intermediate),
            )
        } else {
            let start = if self.is_up { to_up } else { 0 };
            let part = columns_as_rows(start, step, 2 * intermediate, hidden);
            (intermediate, hidden, part)
        };
        // Of its expert alone, so that it is known where it comes from.
        let shape = [fused.shape[1], fused.shape[2]];
        let each = fused.len() / fused.shape[0];
        let whole = fused.slice(expert * each, shape.as_slice());
        let gather = Gather {
            outer: Vec::new(),
            rows,
            columns,
            parts: vec![part],
        };
        gather.tensor(name, vec![whole], vec![rows, columns])
    }
}

/// A matrix with `count` columns whose rows are columns of one of `width` columns: from column `start` on
/// every `step`-th.
fn columns_as_rows(start: u64, step: u64, width: u64, count: u64) -> Part {
    Part {
        start,
        row_stride: step,
        column_stride: width,
        first: 0,
        step: 1,
        count,
    }
}

/// The part `[H, 2I]` of the fused tensor `name` that one expert with these weights of `[I, H]` has.
pub(super) fn gate_up(name: &str, gate: &Tensor, up: &Tensor, layout: Layout) -> Result<Tensor> {
    let (intermediate, hidden) = (gate.shape[0], gate.shape[1]);
    let (to_up, step) = halves(layout, intermediate);
    let parts = [0, to_up].map(|first| Part {
        first,
        step,
        ..columns_as_rows(0, 1, hidden, intermediate)
    });
    let gather = Gather {
        outer: Vec::new(),
        rows: hidden,
        columns: 2 * intermediate,
        parts: parts.to_vec(),
    };
    let inputs = vec![gate.clone(), up.clone()];
    gather.tensor(name, inputs, vec![hidden, 2 * intermediate])
}
