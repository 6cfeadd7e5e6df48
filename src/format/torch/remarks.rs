//! What is worth knowing of how tensors are stored.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::format::checkpoint::StoredTensor;
use crate::shown::Show;
use crate::tensor::Name;
use crate::text::are;

/// How many tensors that share bytes are named.
const MAX_NAMED: usize = 8;

/// Which of `tensors` share all of their bytes, and how many are not in order.
pub(in crate::format) fn remarks(tensors: &IndexMap<Name, StoredTensor>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut first: HashMap<(u64, u64, Option<&[u64]>), &Name> = HashMap::new();
    let mut tied = Vec::new();
    for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.len > 0) {
        let place = (tensor.offset, tensor.len, tensor.strides.as_deref());
        match first.get(&place) {
            Some(other) => tied.push(format!("{} is {}", name.shown(), other.shown())),
            None => {
                first.insert(place, name);
            }
        }
    }
    if !tied.is_empty() {
        let count = tied.len();
        tied.truncate(MAX_NAMED);
        if count > tied.len() {
            tied.push(format!("{} more", count - tied.len()));
        }
        let tied = tied.join(", ");
        notes.push(format!(
            "tensors of two names are in the file once, and the view shows both: {tied}"
        ));
    }
    let strided = tensors.values().filter(|tensor| tensor.strides.is_some());
    let strided = strided.count();
    if strided > 0 {
        notes.push(format!(
            "{} stored in another order (transposed, or parts of rows), and put in order when read",
            are(strided, "tensor")
        ));
    }
    notes
}
