//! Values that several parts of a recipe have.

use crate::error::{Code, Result};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::recipe::yaml::{Fields, Node};
use crate::tensor::Dtype;

/// The items of a list that must have some.
pub(super) fn nonempty<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match node.list(what)? {
        [] => Err(node
            .place
            .error(Code::RecipeValue, format!("{what} is empty"))),
        nodes => Ok(nodes),
    }
}

/// A dtype that is computed in.
pub(super) fn dtype(fields: &Fields, key: &str) -> Result<Option<Dtype>> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    match Precision::named(node.text(key)?) {
        Some(dtype) => Ok(Some(dtype.dtype())),
        None => Err(node.expected(key, "bfloat16, float16 or float32")),
    }
}
