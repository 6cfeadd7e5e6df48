//! Quantization schemes: which stored tensors together are one weight, how config.json declares it,
//! and how numbers become codes and codes numbers.
//!
//! A quantized weight is a tensor of codes and its companions (scales, for example), which are told
//! by their names. They are named, moved, kept and left out together. Nothing outside this module
//! knows a companion's name, a block's size or what codes are made of.

mod activations;
mod awq;
mod bitsandbytes;
mod compressed_tensors;
mod declared;
mod dequantize;
mod edited;
mod figures;
mod following;
pub mod fp8_block;
mod gptq;
mod groups;
mod microscaling;
mod mixed;
mod offer;
mod only_read;
mod packed_words;
mod plan_bytes;
mod quantized_module;
mod requested;
mod scheme;
mod schemes;
mod skip_entries;
mod skip_list;

pub use crate::kernels::fp8::ScaleFormat;
pub(crate) use activations::is_activation_scale;
pub(crate) use declared::{KEY, SKIP_KEY, SKIP_KEYS, TEXT_CONFIG};
pub(crate) use declared::{MODELOPT_FILE, target_lists, undeclare};
pub(crate) use edited::{DeclarationCheck, check_declaration};
pub(crate) use following::{Doing, follow, leave_alone};
pub(crate) use groups::{Group, group_of};
pub use offer::{Dialect, EncodingSettings};
pub use requested::SchemeRequest;
pub use scheme::{Encoding, Exactness, Fit, Reading, Role, Rounding, Scheme, StoredFile, Verified};
pub(crate) use schemes::{
    Declared, declaration, declared, declared_in, declared_or_usual, has_quantized,
    seems_quantized, stored, verify,
};
pub use schemes::{companions, is_coded, weight_of};
pub(crate) use skip_entries::{Entry, Moves, is_class};
