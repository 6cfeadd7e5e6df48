//! Quantization schemes: which stored tensors together are one weight, how config.json declares it,
//! and how numbers become codes and codes numbers.
//!
//! A quantized weight is a tensor of codes and its companions (scales, for example), which are told
//! by their names. They are named, moved, kept and left out together. Nothing outside this module
//! knows a companion's name, a block's size or what codes are made of.

mod declared;
pub mod fp8_block;
mod groups;
mod scheme;
mod schemes;
mod skip_list;

pub(crate) use declared::{KEY, METHOD_KEY, SKIP_KEY, TEXT_CONFIG, skips};
pub(crate) use declared::{MODELOPT_FILE, undeclare};
pub(crate) use groups::{Group, group_of};
pub use scheme::{Encoding, Reading, Scheme, StoredFile, Verified};
pub(crate) use schemes::{Declared, declaration, declared, declared_in, stored, verify};
pub use schemes::{companions, is_coded, weight_of};
