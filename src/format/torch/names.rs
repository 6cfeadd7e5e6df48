//! How files of `torch.save` are called, and what wrappers of models put before the names of tensors.

use std::ffi::OsStr;

use crate::tensor::Name;

/// The file name of an index.
pub(in crate::format) const INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// The name of a file that is the whole checkpoint, without an index.
pub(in crate::format) const SINGLE_FILE: &str = "pytorch_model.bin";

/// What the names of files that are named alone end in.
const EXTENSIONS: [&[u8]; 3] = [b".bin", b".pt", b".pth"];

/// `torch.nn.parallel.DistributedDataParallel` and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Whether `name` is that of a file that holds the tensors of the model in its directory. Others with these
/// extensions are not (`training_args.bin`, `optimizer.pt`).
pub(in crate::format) fn is_shard(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"pytorch_model") && name.ends_with(b".bin")
}

/// Whether a file called `name` can be one of `torch.save`.
pub(in crate::format) fn has_extension(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
}

/// What wrappers put before all of `names`, one around the other or not at all.
pub(in crate::format) fn wrapping<'a>(names: impl Iterator<Item = &'a Name> + Clone) -> &'a str {
    let Some(first) = names.clone().next() else {
        return "";
    };
    let mut len = 0;
    loop {
        let rest = &first[len..];
        let mut wrappers = WRAPPERS.iter();
        let Some(wrapper) = wrappers.find(|wrapper| rest.starts_with(**wrapper)) else {
            return &first[..len];
        };
        let prefix = &first[..len + wrapper.len()];
        let is_wrapped = |name: &Name| name.len() > prefix.len() && name.starts_with(prefix);
        if !names.clone().all(is_wrapped) {
            return &first[..len];
        }
        len = prefix.len();
    }
}
