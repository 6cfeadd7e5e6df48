//! Weights of compressed-tensors given back as numbers.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::error::setting::{DROP, DTYPE};
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::CpuPath;
use crate::kernels::lanes::Precision;
use crate::quant::compressed_tensors::format::{
    Form, INDEX, Kind, NIBBLES, PACKED, SCALE, SHAPE, Strategy, Weights, ZERO_POINT, blocks,
    is_scale, matrix,
};
use crate::quant::compressed_tensors::unpack::{Groups, UnpackKernel};
use crate::quant::dequantize::{self, row_kernel, scale_reader};
use crate::quant::plan_bytes;
use crate::tensor::{Dtype, Name, shape_text};

/// The most columns of a weight; at least some rows are computed at once.
const MOST_COLUMNS: u64 = 1 << 20;

/// The numbers of the weight called `weight`, whose codes are `codes`, in dtype `to`.
///
/// # Errors
/// If companions are not there, or have other dtypes or shapes.
pub(super) fn decoded(
    form: Form,
    weights: Option<Weights>,
    tensors: &IndexMap<Name, Tensor>,
    weight: &str,
    codes: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let scales = companion(tensors, weight, SCALE, codes)?;
    if form != Form::Dense {
        return packed(form, weights, tensors, weight, codes, scales, to);
    }
    let misfit = || {
        format!(
            "its shape is {}, and that of {weight}{SCALE} is {}, which are not the scales that config.json declares",
            shape_text(&codes.shape),
            shape_text(&scales.shape)
        )
    };
    let strategy = weights.map(|weights| weights.strategy);
    let shape = matrix(codes);
    let Some((shape, block)) =
        shape.and_then(|shape| Some((shape, blocks(strategy, shape, &scales.shape)?)))
    else {
        let error = Error::of_tensor(Code::BadScales, codes.origin(), weight, misfit());
        return Err(error.with_hint(Hint::leave_out(DTYPE)));
    };
    let mut scales = scales.clone();
    let grid = [shape[0].div_ceil(block[0]), shape[1].div_ceil(block[1])];
    scales.shape = grid.to_vec().into();
    dequantize::dequantized(weight, codes, &scales, block, to, &misfit)
}

/// The companion of `weight` whose name ends with `suffix`.
pub(super) fn companion<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    weight: &str,
    suffix: &str,
    codes: &Tensor,
) -> Result<&'a Tensor> {
    let name = [weight, suffix].concat();
    tensors.get(&*name).ok_or_else(|| {
        let problem = format!("it is quantized ({}), and there is no {name}", codes.dtype);
        let error = Error::of_tensor(Code::MissingScales, codes.origin(), weight, problem);
        error.with_hint(Hint::leave_out(DTYPE).or(Hint::give(DROP).to("leave this tensor out")))
    })
}

/// What is wrong with the tensors of a packed weight, if they do not belong together.
pub(super) fn packed_groups(
    strategy: Option<Strategy>,
    codes: (Dtype, &[u64]),
    scales: (Dtype, &[u64]),
    zero_points: Option<(Dtype, &[u64])>,
) -> std::result::Result<[u64; 3], String> {
    let wrong = |what: &str, found: (Dtype, &[u64]), expected: String| {
        Err(format!(
            "{what} is {} {}; expected {expected}",
            found.0,
            shape_text(found.1)
        ))
    };
    let &[rows, words] = codes.1 else {
        return wrong("it", codes, "I32 of two dimensions".to_owned());
    };
    if codes.0 != Dtype::I32 {
        return wrong("it", codes, "I32 of two dimensions".to_owned());
    }
    let group_count = match *scales.1 {
        [of_rows, groups] if of_rows == rows && groups > 0 && is_scale(scales.0) => groups,
        _ => {
            let expected = format!("BF16, F16 or F32 [{rows}, groups]");
            return wrong("its scale", scales, expected);
        }
    };
    // Columns are whole words in all that engines load.
    let columns = words.saturating_mul(NIBBLES);
    let group = match strategy {
        Some(Strategy::Group(size)) => size,
        Some(Strategy::Channel | Strategy::Tensor) => columns,
        _ => columns / group_count,
    };
    if group == 0 || columns.div_ceil(group) != group_count || columns % group != 0 {
        let expected = format!("a scale for each {group} of {columns} columns");
        return wrong("its scale", scales, expected);
    }
    if zero_points.is_some() && group % 2 != 0 {
        return wrong(
            "its scale",
            scales,
            "groups of an even number of columns".to_owned(),
        );
    }
    if let Some(found) = zero_points
        && (found.0 != Dtype::I32 || *found.1 != [rows.div_ceil(NIBBLES), group_count])
    {
        let expected = format!("I32 [{}, {group_count}]", rows.div_ceil(NIBBLES));
        return wrong("its zero point", found, expected);
    }
    Ok([rows, columns, group])
}

fn packed(
    form: Form,
    weights: Option<Weights>,
    tensors: &IndexMap<Name, Tensor>,
    weight: &str,
    codes: &Tensor,
    scales: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let shape = companion(tensors, weight, SHAPE, codes)?;
    let zero_points = match form {
        Form::PackedAsymmetric => Some(companion(tensors, weight, ZERO_POINT, codes)?),
        Form::Packed | Form::Dense => None,
    };
    let header = |tensor: &'_ Tensor| (tensor.dtype, tensor.shape.to_vec());
    let (codes_header, scales_header) = (header(codes), header(scales));
    let zero_header = zero_points.map(header);
    let groups = packed_groups(
        weights.map(|weights| weights.strategy),
        (codes_header.0, &codes_header.1),
        (scales_header.0, &scales_header.1),
        zero_header
            .as_ref()
            .map(|(dtype, shape)| (*dtype, &**shape)),
    );
    let refuse = |code, problem| {
        let name = [weight, PACKED].concat();
        Err(Error::of_tensor(code, codes.origin(), name, problem))
    };
    let [rows, columns, group] = match groups {
        Ok(groups) => groups,
        Err(problem) => return refuse(Code::BadScales, problem),
    };
    if columns > MOST_COLUMNS && rows > 0 {
        let problem = format!(
            "it has {columns} columns; at most {MOST_COLUMNS} can be dequantized, since rows are computed at once"
        );
        return refuse(Code::OverLimit, problem);
    }
    if let Some(said) = numbers(shape)?
        && said != [rows, columns]
    {
        let problem = format!(
            "it is for {rows} x {columns} numbers, but {weight}{SHAPE} says {} x {}",
            said[0], said[1]
        );
        return refuse(Code::BadScales, problem);
    }
    let index = index(weights, tensors, weight, codes)?;
    if let Some(index) = index
        && (index.dtype, &*index.shape) != (Dtype::I32, &[columns])
    {
        let problem = format!(
            "{weight}{INDEX} is {} {}; expected I32 [{columns}], the group of each column",
            index.dtype,
            shape_text(&index.shape)
        );
        return refuse(Code::BadScales, problem);
    }
    let kernel = UnpackKernel {
        groups: Groups {
            rows,
            columns,
            group,
        },
        to,
        scales: scales.dtype,
        is_asymmetric: zero_points.is_some(),
        is_reordered: index.is_some(),
        row: row_kernel(Dtype::I8, to).expect("integers can be dequantized"),
        read_scales: scale_reader(scales.dtype).expect("its dtype was checked"),
        path: CpuPath::best(),
    };
    let mut original = codes.clone();
    original.shape = vec![rows, columns].into();
    let mut inputs = vec![codes.clone(), scales.clone()];
    inputs.extend(zero_points.cloned());
    inputs.extend(index.cloned());
    Tensor::in_dtype(weight, &original, to.dtype(), inputs, Box::new(kernel))
}

/// The group of each column of `weight`, if they are not runs of columns.
///
/// # Errors
/// If there is one and config.json declares none, or the reverse.
fn index<'a>(
    weights: Option<Weights>,
    tensors: &'a IndexMap<Name, Tensor>,
    weight: &str,
    codes: &Tensor,
) -> Result<Option<&'a Tensor>> {
    let found = tensors.get(&*[weight, INDEX].concat());
    match weights.map(|weights| weights.reordered) {
        Some(true) => companion(tensors, weight, INDEX, codes).map(Some),
        Some(false) if found.is_some() => {
            let problem = format!(
                "there is {weight}{INDEX}, the group of each column, and config.json does not declare actorder \"group\""
            );
            let error = Error::of_tensor(Code::ConfigMismatch, codes.origin(), weight, problem);
            Err(error.with_hint(Hint::leave_out(DTYPE)))
        }
        Some(false) | None => Ok(found),
    }
}

/// The two integers that `tensor` holds, if it holds such.
///
/// # Errors
/// If they cannot be read.
fn numbers(tensor: &Tensor) -> Result<Option<[u64; 2]>> {
    let element = match (tensor.dtype, &*tensor.shape) {
        (Dtype::I64, [2]) => 8,
        (Dtype::I32, [2]) => 4,
        _ => return Ok(None),
    };
    let Some(bytes) = plan_bytes::read(tensor)? else {
        return Ok(None);
    };
    let number = |at: usize| {
        let mut number = [0; 8];
        number[..element].copy_from_slice(&bytes[at * element..(at + 1) * element]);
        u64::from_le_bytes(number)
    };
    Ok(Some([number(0), number(1)]))
}

/// Whether tensors of `dtype` are codes of `kind`.
pub(super) fn is_code(kind: Option<Kind>, dtype: Dtype) -> bool {
    match kind {
        Some(Kind::Float8) => dtype == Dtype::F8_E4M3,
        Some(Kind::Int8) => dtype == Dtype::I8,
        Some(Kind::Int4) => dtype == Dtype::I32,
        None => matches!(dtype, Dtype::F8_E4M3 | Dtype::I8),
    }
}
