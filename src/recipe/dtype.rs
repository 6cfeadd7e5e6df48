//! Dtypes as people write them.

use crate::ops::Precision;

/// The dtypes that a view can be asked for, each with its names: that of `--dtype` first, then those of
/// torch, NumPy and others.
pub const DTYPES: [(Precision, &[&str]); 3] = [
    (Precision::Bf16, &["bf16", "bfloat16"]),
    (Precision::F16, &["f16", "float16", "fp16", "half"]),
    (Precision::F32, &["f32", "float32", "fp32", "float"]),
];

/// The dtype called `name`, in any case, also as torch prints it (`torch.bfloat16`).
pub fn parse_dtype(name: &str) -> Option<Precision> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("torch.").unwrap_or(&name);
    let mut dtypes = DTYPES.iter();
    dtypes.find_map(|(dtype, names)| names.contains(&name).then_some(*dtype))
}
