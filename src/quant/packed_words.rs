//! Matrices of unsigned codes of 2, 3, 4 or 8 bits in words of 32 bits, with zero points and scales for groups of
//! columns, given back as numbers: what AWQ and GPTQ have in common.
//!
//! A weight has `rows` outputs and `columns` inputs. Where its tensors are transposed, a band of rows is a strip
//! of columns of each of them.
//!
//! | order | codes | zero points | scales |
//! |---|---|---|---|
//! | [`Order::Down`] | `[columns · bits / 32, rows]`: the code of column `k` begins at bit `bits · k` of the words of its row, one below the other | `[groups, rows · bits / 32]`: that of row `n` begins at bit `bits · n` of the words of its group | `[groups, rows]` |
//! | [`Order::Across`] | `[columns, rows / 8]`: of each word, bits `4i` on are the code of row `8j + AWQ[i]` | `[groups, rows / 8]`, likewise | `[groups, rows]` |
//! | [`Order::Along`] | `[rows, columns / 8]`: of word `j`, bits `4i` on are the code of column `8j + i` | `[rows, words]`: that of group `8j + i` likewise, and unused ones | `[rows, 8 · words]`, unused ones as well |

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Strips, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::gather::{self, Strides};
use crate::kernels::integer::{dequantize_groups, dequantize_indexed, unpack_bits, unpack_place};
use crate::kernels::lanes::Precision;
use crate::quant::dequantize::{ReadScales, scale_reader};
use crate::tensor::Dtype;

/// The most columns of a weight; some rows are computed at once.
pub(super) const MAX_COLUMNS: u64 = 1 << 18;
/// Rows of a band are a multiple of this, so that their zero points are whole words.
const ALIGNED_ROWS: u64 = 32;
/// Bytes of a word.
const WORD: u64 = 4;
/// Codes of four bits in a word.
const NIBBLES: u64 = 8;
/// The row of each code of a word of AWQ, and the place of each row.
const AWQ_PLACES: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How codes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Down,
    Across,
    Along,
}

/// What is added to stored zero points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offset {
    None,
    /// One, in the arithmetic of words of 32 bits where codes do not cross them, as the writer subtracted it.
    One,
}

/// The numbers of such a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matrix {
    pub rows: u64,
    pub columns: u64,
    pub bits: u32,
    /// Columns of a group; of no meaning where an index says the group of each column.
    pub group: u64,
    pub groups: u64,
    pub order: Order,
    pub offset: Offset,
}

/// The tensors of a weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub codes: &'a Tensor,
    pub scales: &'a Tensor,
    pub zero_points: &'a Tensor,
    /// I32 `[columns]`: the group of each column.
    pub index: Option<&'a Tensor>,
}

impl Matrix {
    /// The numbers of the weight called `name`, in dtype `to`. Shapes and dtypes of `parts` are those of this matrix.
    ///
    /// # Errors
    /// If it has more columns than are computed at once, or scales of another dtype than F32, BF16 and F16.
    pub(super) fn numbers(self, name: &str, parts: Parts, to: Precision) -> Result<Tensor> {
        let Parts {
            codes,
            scales,
            zero_points,
            index,
        } = parts;
        let refuse =
            |code, problem: String| Err(Error::of_tensor(code, codes.origin(), name, problem));
        if self.columns > MAX_COLUMNS {
            let problem = format!(
                "it has {} columns; at most {MAX_COLUMNS} can be dequantized, since some rows are computed at once",
                self.columns
            );
            return refuse(Code::OverLimit, problem);
        }
        let read_scales = match scales.dtype {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => scale_reader(scales.dtype),
            _ => None,
        };
        let Some(read_scales) = read_scales else {
            let problem = format!(
                "its scales are {}; only F32, BF16 and F16 scales are known",
                scales.dtype
            );
            return refuse(Code::UnsupportedTensor, problem);
        };
        let kernel = WordsKernel {
            matrix: self,
            to,
            scales: scales.dtype,
            read_scales,
            path: CpuPath::best(),
        };
        let mut original = codes.clone();
        original.shape = vec![self.rows, self.columns].into();
        let mut inputs = vec![codes.clone(), scales.clone(), zero_points.clone()];
        inputs.extend(index.cloned());
        Tensor::in_dtype(name, &original, to.dtype(), inputs, Box::new(kernel))
    }
}

/// The kernel half: inputs are codes, scales, zero points and, if there is one, the index; output 0 the numbers.
#[derive(Debug)]
struct WordsKernel {
    matrix: Matrix,
    to: Precision,
    scales: Dtype,
    read_scales: ReadScales,
    path: CpuPath,
}

/// What of an input a band needs: `count` runs of `len` bytes from `start` on, each `stride` after the one before.
#[derive(Debug, Clone, Copy)]
struct Runs {
    start: u64,
    len: u64,
    stride: u64,
    count: u64,
}

impl Runs {
    fn one(start: u64, len: u64) -> Self {
        Runs {
            start,
            len,
            stride: len,
            count: 1,
        }
    }

    /// Whether they are read apart, because much is between them.
    fn are_apart(&self) -> bool {
        const READ_ANYWAY: u64 = 4096;
        self.count > 1 && self.stride > (4 * self.len).max(READ_ANYWAY)
    }

    fn span(&self) -> Range<u64> {
        let last = self.count.saturating_sub(1) * self.stride;
        self.start..self.start + last + self.len
    }

    /// How far one is from the next in what is read.
    fn pitch(&self) -> usize {
        let pitch = if self.are_apart() {
            self.len
        } else {
            self.stride
        };
        pitch as usize
    }
}

impl WordsKernel {
    const CODES: usize = 0;
    const SCALES: usize = 1;
    const ZERO_POINTS: usize = 2;

    /// Words of the zero points of a row, in [`Order::Along`].
    fn zero_words(&self) -> u64 {
        zero_words(self.matrix.columns, self.matrix.group)
    }

    fn runs(&self, input: usize, band: &Band) -> Runs {
        let Matrix {
            rows,
            columns,
            bits,
            groups,
            order,
            ..
        } = self.matrix;
        let Range { start, end } = band.rows;
        let height = end - start;
        let bits = u64::from(bits);
        let scale = self.scales.bitsize() as u64 / 8;
        let strips = |start: u64, len: u64, stride: u64, count: u64| Runs {
            start,
            len,
            stride,
            count,
        };
        // Rows of a band, and of all, in words.
        let words = |rows: u64| rows * bits / 8;
        match (input, order) {
            (Self::CODES, Order::Down) => {
                let count = columns * bits / 32;
                strips(start * WORD, height * WORD, rows * WORD, count)
            }
            (Self::CODES, Order::Across) => {
                strips(words(start), words(height), words(rows), columns)
            }
            (Self::CODES, Order::Along) => Runs::one(start * columns / 2, height * columns / 2),
            (Self::SCALES, Order::Down | Order::Across) => {
                strips(start * scale, height * scale, rows * scale, groups)
            }
            (Self::SCALES, Order::Along) => {
                let row = self.zero_words() * NIBBLES * scale;
                Runs::one(start * row, height * row)
            }
            (Self::ZERO_POINTS, Order::Down | Order::Across) => {
                strips(words(start), words(height), words(rows), groups)
            }
            (Self::ZERO_POINTS, Order::Along) => {
                let row = self.zero_words() * WORD;
                Runs::one(start * row, height * row)
            }
            _ => Runs::one(0, columns * WORD),
        }
    }

    /// The scales of each row of `band`, row after row.
    fn row_scales(&self, band: &Band, bytes: &[u8]) -> Vec<f32> {
        let all = (self.read_scales)(bytes);
        let height = (band.rows.end - band.rows.start) as usize;
        let groups = self.matrix.groups as usize;
        if self.matrix.order == Order::Along {
            let width = (self.zero_words() * NIBBLES) as usize;
            let rows = all.chunks_exact(width.max(1));
            return rows.flat_map(|row| &row[..groups]).copied().collect();
        }
        let pitch = self.runs(Self::SCALES, band).pitch() / (self.scales.bitsize() / 8);
        let rows = (0..height).flat_map(|row| (0..groups).map(move |group| (row, group)));
        rows.map(|(row, group)| all[group * pitch + row]).collect()
    }

    /// The zero points of each row of `band`, row after row.
    fn row_zero_points(&self, band: &Band, bytes: &[u8]) -> Vec<f32> {
        let Matrix {
            bits,
            order,
            offset,
            groups,
            ..
        } = self.matrix;
        let groups = groups as usize;
        let height = (band.rows.end - band.rows.start) as usize;
        let mut zero_points = vec![0.0; height * groups];
        let runs = self.runs(Self::ZERO_POINTS, band);
        if order == Order::Along {
            let row_bytes = (self.zero_words() * WORD) as usize;
            let mut codes = vec![0; row_bytes * 2];
            let rows = bytes.chunks_exact(row_bytes.max(1));
            for (row, of_row) in rows.zip(zero_points.chunks_exact_mut(groups.max(1))) {
                unpack_bits(row, bits, &mut codes, self.path);
                for (zero_point, code) in of_row.iter_mut().zip(&codes) {
                    *zero_point = f32::from(*code);
                }
            }
            return zero_points;
        }
        let mut codes = vec![0; height];
        for group in 0..groups {
            let mut packed = bytes[group * runs.pitch()..][..runs.len as usize].to_vec();
            if offset == Offset::One && bits != 3 {
                add_one(&mut packed, bits);
            }
            unpack_bits(&packed, bits, &mut codes, self.path);
            if offset == Offset::One && bits == 3 {
                codes.iter_mut().for_each(|code| *code = (*code + 1) & 7);
            }
            for row in 0..height {
                let place = match order {
                    Order::Across => row / 8 * 8 + AWQ_PLACES[row % 8] as usize,
                    Order::Down | Order::Along => row,
                };
                zero_points[row * groups + group] = f32::from(codes[place]);
            }
        }
        zero_points
    }

    /// The words of each row (of each eight rows, where a word has codes of so many), one after the other.
    fn row_words<'a>(&self, band: &Band, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        let runs = self.runs(Self::CODES, band);
        if self.matrix.order == Order::Along {
            return bytes.into();
        }
        let (count, words) = (runs.count as usize, (runs.len / WORD) as usize);
        let mut turned = vec![0; count * words * WORD as usize];
        let from = Strides {
            row: 1,
            column: runs.pitch() / WORD as usize,
        };
        let to = Strides {
            row: count,
            column: 1,
        };
        gather::copy(WORD as usize, [words, count], bytes, from, &mut turned, to);
        turned.into()
    }
}

/// Adds one to each code of `bits` bits, word by word.
fn add_one(packed: &mut [u8], bits: u32) {
    let ones = (0..32 / bits).fold(0u32, |ones, i| ones | 1 << (bits * i));
    for word in packed.as_chunks_mut::<4>().0 {
        *word = u32::from_le_bytes(*word).wrapping_add(ones).to_le_bytes();
    }
}

/// Words of the zero points of a row of `columns` columns, in [`Order::Along`]: as many as hold all, and for groups
/// of fewer than 128 columns a multiple of two or four.
pub(super) fn zero_words(columns: u64, group: u64) -> u64 {
    let multiple = match group {
        64 => 2,
        32 => 4,
        _ => 1,
    };
    (columns / group.max(1))
        .div_ceil(NIBBLES)
        .next_multiple_of(multiple)
}

impl Kernel for WordsKernel {
    fn identity(&self) -> String {
        let WordsKernel {
            matrix, to, scales, ..
        } = self;
        format!("packed codes times {scales:?} as {to:?}, {matrix:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("bits", u64::from(self.matrix.bits))
            .with("group", self.matrix.group);
        Some(step)
    }

    fn bands(&self) -> RowBands {
        // A band needs a strip of every row of transposed codes: the wider, the fewer reads.
        const BAND_BYTES: u64 = 8 << 20;
        let row_bytes = (self.matrix.columns * self.to.bytes() as u64).max(1);
        let rows = (BAND_BYTES / row_bytes).max(ALIGNED_ROWS);
        let is_empty = self.matrix.columns == 0;
        RowBands {
            groups: 1,
            rows_per_group: if is_empty { 0 } else { self.matrix.rows },
            band_rows: rows / ALIGNED_ROWS * ALIGNED_ROWS,
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        self.runs(input, band).span()
    }

    fn input_strips(&self, input: usize, band: &Band) -> Option<Strips> {
        let runs = self.runs(input, band);
        runs.are_apart().then_some(Strips {
            first: runs.start..runs.start + runs.len,
            stride: runs.stride,
            count: runs.count,
        })
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.matrix.columns * self.to.bytes() as u64;
        band.rows.start * row_bytes..band.rows.end * row_bytes
    }

    fn describe_fault(&self, _band: &Band, fault: &NonFinite) -> Option<Error> {
        let NonFinite { column, value, .. } = fault;
        let groups = self.matrix.groups;
        let problem = format!(
            "column {column} is said to be of group {value}, and there are {groups} groups"
        );
        Some(Error::new(Code::BadScales, problem))
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let (codes, scales, zero_points) = (
            inputs[Self::CODES],
            inputs[Self::SCALES],
            inputs[Self::ZERO_POINTS],
        );
        let Matrix {
            columns,
            bits,
            group,
            groups,
            order,
            ..
        } = self.matrix;
        let (columns, groups) = (columns as usize, groups as usize);
        let index = match inputs.get(3) {
            None => None,
            Some(index) => Some(self.index(index)?),
        };
        let scales = self.row_scales(band, scales);
        let zero_points = self.row_zero_points(band, zero_points);
        let words = self.row_words(band, codes);
        let row_bytes = match order {
            Order::Across => columns * WORD as usize,
            Order::Down | Order::Along => columns * bits as usize / 8,
        };
        let mut values = vec![0; columns];
        let targets = outputs[0].chunks_exact_mut(columns * self.to.bytes());
        for (row, target) in targets.enumerate() {
            match order {
                Order::Across => {
                    let words = &words[row / 8 * row_bytes..][..row_bytes];
                    unpack_place(words, AWQ_PLACES[row % 8], &mut values, self.path);
                }
                Order::Down | Order::Along => {
                    let words = &words[row * row_bytes..][..row_bytes];
                    unpack_bits(words, bits, &mut values, self.path);
                }
            }
            let scales = &scales[row * groups..][..groups];
            let zero_points = &zero_points[row * groups..][..groups];
            match &index {
                None => {
                    let dequantize = match self.to {
                        Precision::Bf16 => dequantize_groups::<bf16>,
                        Precision::F16 => dequantize_groups::<f16>,
                        Precision::F32 => dequantize_groups::<f32>,
                    };
                    let group = group as usize;
                    dequantize(&values, zero_points, scales, group, target, self.path);
                }
                Some(index) => {
                    let dequantize = match self.to {
                        Precision::Bf16 => dequantize_indexed::<bf16>,
                        Precision::F16 => dequantize_indexed::<f16>,
                        Precision::F32 => dequantize_indexed::<f32>,
                    };
                    dequantize(&values, index, zero_points, scales, target, self.path);
                }
            }
        }
        Ok(())
    }
}

impl WordsKernel {
    /// The group of each column.
    ///
    /// # Errors
    /// The first that does not exist.
    fn index(&self, bytes: &[u8]) -> std::result::Result<Vec<u32>, NonFinite> {
        let numbers = bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b));
        let groups = numbers.enumerate().map(|(column, group)| {
            let exists = u32::try_from(group).ok();
            let exists = exists.filter(|group| u64::from(*group) < self.matrix.groups);
            exists.ok_or(NonFinite {
                row: 0,
                column: column as u64,
                value: group as f32,
                scale: None,
            })
        });
        groups.collect()
    }
}
