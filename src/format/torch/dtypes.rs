//! What torch calls the kinds of elements, and storages of them.

use crate::tensor::Dtype;

/// What a class of storages holds: nothing if it is bytes, and `Err` if safetensors have no such elements.
pub(super) fn dtype_of_storage(module: &str, class: &str) -> Result<Option<Dtype>, ()> {
    let is_of_torch = module == "torch" || module == "torch.storage" || module == "torch.cuda";
    let dtype = match class {
        _ if !is_of_torch => return Err(()),
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        "UntypedStorage" | "_UntypedStorage" => return Ok(None),
        _ => return Err(()),
    };
    Ok(Some(dtype))
}

/// The dtype that torch calls `name`, if an element takes whole bytes and safetensors have it.
pub(in crate::format) fn dtype_named(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        _ => return None,
    })
}
