//! Rows of numbers to the types of GGUF. The numbers are defined in [`crate::kernels::ggml`].

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::gguf::TensorType;
use crate::kernels::CpuPath;
use crate::kernels::ggml::{self, Type, Unencodable};
use crate::kernels::lanes::Precision;
use crate::ops::convert;
use crate::ops::gguf::importance::Weights;
use crate::tensor::Dtype;

/// The longest row that is encoded: one is in memory as F32.
const MAX_COLUMNS: u64 = 1 << 20;

/// `tensor` as `to`: as it is, in another dtype, or as bytes of blocks (U8, each row as long as its blocks),
/// whose columns may have weights. It is called `name` in messages.
///
/// # Errors
/// If it has no numbers, or its rows are not whole blocks.
pub(super) fn encode(
    name: &str,
    tensor: &Tensor,
    to: TensorType,
    weights: Option<Weights>,
) -> Result<Tensor> {
    let plain = match to {
        TensorType::F32 => Some(Precision::F32),
        TensorType::F16 => Some(Precision::F16),
        TensorType::BF16 => Some(Precision::Bf16),
        _ => None,
    };
    if let Some(precision) = plain {
        return convert(name, tensor, precision);
    }
    let refuse = |code, problem| Error::of_tensor(code, tensor.origin(), name, problem);
    let columns = *tensor.shape.last().unwrap_or(&1);
    let kind = Type::from_number(to.id()).filter(|kind| kind.is_encodable());
    let (Some(kind), Some(row_bytes)) = (kind, to.row_bytes(columns)) else {
        let problem = format!("its rows of {columns} elements cannot become {to}");
        return Err(refuse(Code::UnsupportedTensor, problem));
    };
    if columns > MAX_COLUMNS {
        let problem =
            format!("its rows have {columns} elements; at most {MAX_COLUMNS} are encoded");
        return Err(refuse(Code::OverLimit, problem));
    }
    let numbers = match Precision::from_dtype(tensor.dtype) {
        Some(_) => tensor.clone(),
        None => convert(name, tensor, Precision::F32)?,
    };
    let from = Precision::from_dtype(numbers.dtype).expect("numbers");
    let rows: u64 = tensor.shape.iter().rev().skip(1).product();
    let groups = match &weights {
        Some(weights) => weights.sums.shape[0],
        None => 1,
    };
    let kernel = Encode {
        kind,
        from,
        columns,
        groups,
        rows: rows / groups.max(1),
        counts: weights.as_ref().map(|weights| weights.counts.clone()),
        path: CpuPath::best(),
    };
    let mut shape = tensor.shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = row_bytes;
    }
    let home = tensor.home;
    let mut inputs = vec![numbers];
    inputs.extend(weights.map(|weights| weights.sums));
    let node = Arc::new(Node::new(name, inputs, Box::new(kernel)));
    Ok(Tensor::computed(node, 0, Dtype::U8, shape, home))
}

/// The kernel half: input 0 is the matrix of numbers, output 0 the blocks of its rows. Where columns have
/// weights, input 1 has their sums, for each group.
#[derive(Debug)]
struct Encode {
    kind: Type,
    from: Precision,
    columns: u64,
    groups: u64,
    /// Of a group.
    rows: u64,
    /// What sums are divided by to be weights, for equal parts of all of them.
    counts: Option<Arc<[f32]>>,
    path: CpuPath,
}

impl Encode {
    /// Elements of a tile. K-quants take a core some ten milliseconds for as many.
    const TILE_ELEMENTS: u64 = 1 << 18;

    fn row_bytes(&self) -> u64 {
        let bytes = self.kind.row_bytes(self.columns as usize);
        bytes.expect("rows are whole blocks") as u64
    }
}

impl Kernel for Encode {
    fn identity(&self) -> String {
        let Encode {
            kind,
            from,
            columns,
            groups,
            rows,
            counts,
            path: _,
        } = self;
        let rows = rows * groups;
        let matrix = format!("{kind:?} of {from:?}, {rows} rows of {columns}");
        match counts {
            None => matrix,
            Some(counts) => format!("{matrix}, {groups} x columns by sums over {counts:?}"),
        }
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("gguf").with("to", self.kind.name()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: self.groups,
            rows_per_group: self.rows,
            band_rows: (Self::TILE_ELEMENTS / self.columns.max(1)).max(1),
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        match input {
            0 => self.rows_of(band, self.columns * self.from.bytes() as u64),
            _ => band.group * 4 * self.columns..(band.group + 1) * 4 * self.columns,
        }
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        self.rows_of(band, self.row_bytes())
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        thread_local! {
            static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
            static WEIGHTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let (from, to) = (
            self.columns as usize * self.from.bytes(),
            self.row_bytes() as usize,
        );
        if from == 0 {
            return Ok(());
        }
        let mut weights = WEIGHTS.take();
        weights.clear();
        if let Some(counts) = &self.counts {
            weights.resize(self.columns as usize, 0.0);
            let (total, first) = (self.groups * self.columns, band.group * self.columns);
            Weights::write(counts, total, first, inputs[1], &mut weights);
        }
        let of_columns = self.counts.is_some().then_some(&*weights);
        let encoded = ROW.with_borrow_mut(|row| {
            row.resize(self.columns as usize, 0.0);
            let rows = inputs[0]
                .chunks_exact(from)
                .zip(outputs[0].chunks_exact_mut(to));
            for (number, (source, blocks)) in (band.rows.start..).zip(rows) {
                self.from.decode(source, row);
                let encoded = ggml::encode_row(self.kind, row, of_columns, blocks, self.path);
                encoded.map_err(|found| self.fault(number, row, found))?;
            }
            Ok(())
        });
        WEIGHTS.set(weights);
        encoded
    }
}

impl Encode {
    /// The bytes of the rows of `band`, each of `row` bytes.
    fn rows_of(&self, band: &Band, row: u64) -> Range<u64> {
        let first = band.group * self.rows;
        (first + band.rows.start) * row..(first + band.rows.end) * row
    }

    /// What in `row`, row number `number`, has no block.
    fn fault(&self, number: u64, row: &[f32], found: Unencodable) -> NonFinite {
        let (column, value) = match found {
            // Weights were looked at when the view was planned.
            Unencodable::NotFinite { column, value } | Unencodable::Weight { column, value } => {
                (column, value)
            }
            Unencodable::ScaleOverflow { block } => {
                let start = block * self.kind.block_len();
                let block = row[start..].iter().take(self.kind.block_len()).enumerate();
                let largest = block.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
                let (i, value) = largest.expect("a block has elements");
                (start + i, *value)
            }
        };
        NonFinite {
            row: number,
            column: column as u64,
            value,
            scale: None,
        }
    }
}
