//! Whether the weights in a directory, their companions and config.json agree.

use std::collections::HashMap;

use serde_json::Value;

use crate::catalog::CONFIG_FILE;
use crate::error::Code;
use crate::findings::Faults;
use crate::format::StoredTensor;
use crate::quant::microscaling::declaration;
use crate::quant::microscaling::decode::shape;
use crate::quant::microscaling::format::Form;
use crate::quant::scheme::{StoredFile, Verified};

/// As [`Scheme::verify`](crate::quant::Scheme::verify), for weights of this form, if `declaration` has it:
/// tensors of the same names may be of another.
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
    if declaration.and_then(declaration::form) != Some(form) {
        return verified;
    }
    let tensors = stored.iter().flat_map(|file| {
        let tensors = file.tensors.iter();
        tensors.map(move |(name, tensor)| (&**name, (file.name, tensor)))
    });
    let tensors: HashMap<&str, (&str, &StoredTensor)> = tensors.collect();
    for name in stored.iter().flat_map(|file| file.tensors.keys()) {
        let name = &**name;
        if let Some(weight) = form.weight_of(name)
            && !tensors.contains_key(&*[weight, form.codes()].concat())
        {
            let fault = "scales of tensors that do not exist";
            faults.problems.add_item(Code::MissingWeight, fault, name);
        }
        let weight = name.strip_suffix(form.codes());
        let Some(weight) = weight.filter(|weight| form.is_weight(weight)) else {
            continue;
        };
        let (shard, codes) = tensors[name];
        let find = |suffix: &str| tensors.get(&*[weight, suffix].concat());
        if codes.dtype != form.code_dtype() {
            if find(form.scale()).is_some() {
                let fault = "tensors with scales that are not of the dtype that is declared";
                let item = format!("{name} ({})", codes.dtype);
                faults.problems.add_item(Code::BadScales, fault, item);
            }
            continue;
        }
        if let Some(missing) = form.suffixes().find(|suffix| find(suffix).is_none()) {
            let fault = "quantized weights without all of their companions";
            let item = format!("{name} (without {weight}{missing})");
            faults.problems.add_item(Code::MissingScales, fault, item);
            continue;
        }
        let header = |tensor: &'a StoredTensor| (tensor.dtype, &*tensor.shape);
        let of = |suffix: &str| *find(suffix).expect("none is missing");
        let (scale_shard, scales) = of(form.scale());
        let global = form.global().map(|suffix| header(of(suffix).1));
        if let Err(problem) = shape(form, header(codes), header(scales), global) {
            let fault = "weights and companions that do not belong together";
            let item = format!("{name} ({problem})");
            faults.problems.add_item(Code::BadScales, fault, item);
        }
        if scale_shard != shard {
            let fault = "weights whose scales are in another shard";
            let item = format!("{name} ({shard}, {scale_shard})");
            faults.warnings.add_item(Code::ScalesApart, fault, item);
        }
        verified.quantized.push(weight);
    }
    if verified.quantized.is_empty() {
        let problem = format!(
            "{CONFIG_FILE} declares {}, but no tensor is quantized so",
            form.name()
        );
        faults.problems.add(Code::ConfigMismatch, problem);
    }
    verified
}
