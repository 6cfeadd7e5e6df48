//! Whether the weights of compressed-tensors in a directory, their companions and config.json agree.

use std::collections::HashMap;

use serde_json::Value;

use crate::catalog::CONFIG_FILE;
use crate::error::Code;
use crate::findings::Faults;
use crate::format::StoredTensor;
use crate::quant::compressed_tensors::declaration;
use crate::quant::compressed_tensors::decode::{is_code, packed_groups};
use crate::quant::compressed_tensors::format::{
    Form, INDEX, METHOD, PACKED, SCALE, SHAPE, WEIGHT, Weights, ZERO_POINT, blocks, is_scale,
};
use crate::quant::declared::KEY;
use crate::quant::scheme::{StoredFile, Verified};
use crate::tensor::{Dtype, shape_text};

/// As [`Scheme::verify`](crate::quant::Scheme::verify), for weights of the form that `declaration` has. What
/// another method declares may have tensors of the same names, and is not looked at.
pub(super) fn verify<'a>(
    form: Form,
    declaration: Option<&Value>,
    stored: &'a [StoredFile<'a>],
    faults: &mut Faults,
) -> Verified<'a> {
    let mut verified = Verified {
        lists_by_name: true,
        ..Verified::default()
    };
    let Some(weights) = declaration.and_then(|d| declaration::weights(d)?.ok()) else {
        if form == Form::Packed && declaration.is_none() {
            undeclared(stored, faults);
        }
        return verified;
    };
    if weights.form() != Some(form) {
        return verified;
    }
    let tensors = stored.iter().flat_map(|file| {
        let tensors = file.tensors.iter();
        tensors.map(move |(name, tensor)| (&**name, (file.name, tensor)))
    });
    let tensors: HashMap<&str, (&str, &StoredTensor)> = tensors.collect();
    let codes = if form == Form::Dense { "" } else { PACKED };
    for name in stored.iter().flat_map(|file| file.tensors.keys()) {
        let name = &**name;
        match form.weight_of(name) {
            Some(weight) if !tensors.contains_key(&*[weight, codes].concat()) => {
                let fault = "scales of tensors that do not exist";
                faults.problems.add_item(Code::MissingWeight, fault, name);
            }
            _ => {}
        }
        let Some(weight) = name
            .strip_suffix(codes)
            .filter(|name| name.ends_with(WEIGHT))
        else {
            continue;
        };
        let (shard, tensor) = tensors[name];
        if form == Form::Dense && !is_code(Some(weights.kind), tensor.dtype) {
            if tensors.contains_key(&*[weight, SCALE].concat()) {
                let fault = "tensors with scales that are not of the dtype that is declared";
                let item = format!("{name} ({})", tensor.dtype);
                faults.problems.add_item(Code::BadScales, fault, item);
            }
            continue;
        }
        let mut missing = form
            .suffixes()
            .iter()
            .chain(weights.reordered.then_some(&INDEX))
            .map(|suffix| [weight, suffix].concat())
            .filter(|name| !tensors.contains_key(&**name));
        if let Some(missing) = missing.next() {
            let fault = "quantized weights without all of their companions";
            let item = format!("{name} (without {missing})");
            faults.problems.add_item(Code::MissingScales, fault, item);
            continue;
        }
        let of = |suffix: &str| tensors[&*[weight, suffix].concat()];
        let problem = match form {
            Form::Dense => dense_problem(weights, tensor, of(SCALE).1),
            Form::Packed | Form::PackedAsymmetric => {
                let zero_points = (form == Form::PackedAsymmetric).then(|| of(ZERO_POINT).1);
                let header = |tensor: &'a StoredTensor| (tensor.dtype, &*tensor.shape);
                let groups = packed_groups(
                    Some(weights.strategy),
                    header(tensor),
                    header(of(SCALE).1),
                    zero_points.map(header),
                );
                match (groups, of(SHAPE).1) {
                    (Err(problem), _) => Some(problem),
                    (Ok(_), shape) if *shape.shape != [2] => Some(format!(
                        "{weight}{SHAPE} has shape {}, not [2]",
                        shape_text(&shape.shape)
                    )),
                    (Ok([_, columns, _]), _) if weights.reordered => {
                        let (_, index) = of(INDEX);
                        let fits = (index.dtype, &*index.shape) == (Dtype::I32, &[columns]);
                        (!fits).then(|| {
                            let shape = shape_text(&index.shape);
                            format!(
                                "{weight}{INDEX} is {} {shape}, not I32 [{columns}]",
                                index.dtype
                            )
                        })
                    }
                    _ => None,
                }
            }
        };
        if let Some(problem) = problem {
            let fault = "weights and companions that do not belong together";
            let item = format!("{name} ({problem})");
            faults.problems.add_item(Code::BadScales, fault, item);
        }
        if of(SCALE).0 != shard {
            faults.warnings.add_item(
                Code::ScalesApart,
                "weights whose scales are in another shard",
                format!("{name} ({shard}, {})", of(SCALE).0),
            );
        }
        verified.quantized.push(weight);
    }
    if verified.quantized.is_empty() {
        let problem = format!("{CONFIG_FILE} declares {METHOD}, but no tensor is quantized so");
        faults.problems.add(Code::ConfigMismatch, problem);
    }
    verified
}

/// Packed codes that nothing declares.
fn undeclared(stored: &[StoredFile], faults: &mut Faults) {
    let mut names = stored.iter().flat_map(|file| file.tensors);
    let is_packed = |tensor: &StoredTensor| tensor.dtype == Dtype::I32;
    let found = names.find(|(name, tensor)| {
        let weight = name.strip_suffix(PACKED);
        weight.is_some_and(|weight| weight.ends_with(WEIGHT)) && is_packed(tensor)
    });
    if let Some((name, _)) = found {
        let problem = format!("{CONFIG_FILE} has no {KEY}, but there are packed codes ({name})");
        faults.problems.add(Code::ConfigMismatch, problem);
    }
}

fn dense_problem(weights: Weights, codes: &StoredTensor, scales: &StoredTensor) -> Option<String> {
    let fits = match *codes.shape {
        [rows, columns] => blocks(Some(weights.strategy), [rows, columns], &scales.shape).is_some(),
        _ => false,
    };
    (!fits || !is_scale(scales.dtype)).then(|| {
        format!(
            "of {}, scales {} {}",
            shape_text(&codes.shape),
            scales.dtype,
            shape_text(&scales.shape)
        )
    })
}
