//! The methods of merging, by name.

mod arcee_fusion;
mod linear;
mod model_stock;
mod passthrough;
mod several;
mod task_arithmetic;
mod two_models;

use crate::error::{Code, Error, Result};
use crate::ops::merge::method::Method;
use crate::spelling::did_you_mean;

/// Every method, by name.
static METHODS: [&dyn Method; 20] = [
    &linear::Linear,
    &passthrough::Passthrough,
    &two_models::Slerp,
    &two_models::Nu,
    &two_models::Near,
    &task_arithmetic::TASK_ARITHMETIC,
    &task_arithmetic::TIES,
    &task_arithmetic::DARE_LINEAR,
    &task_arithmetic::DARE_TIES,
    &task_arithmetic::BREADCRUMBS,
    &task_arithmetic::BREADCRUMBS_TIES,
    &task_arithmetic::DELLA,
    &task_arithmetic::DELLA_LINEAR,
    &model_stock::Stock,
    &several::Karcher,
    &several::MultiSlerp,
    &several::RAM,
    &several::RAM_PLUS,
    &several::SelectCalculateErase,
    &arcee_fusion::Fusion,
];

/// The method called `name`.
///
/// # Errors
/// If there is none; the message lists those that there are.
pub fn method(name: &str) -> Result<&'static dyn Method> {
    let found = METHODS.iter().find(|method| method.spec().name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|method| method.spec().name).collect();
        Error::new(
            Code::RecipeValue,
            format!(
                "{name:?} is not a merge method that ckptfs has; it has {}{}",
                names.join(", "),
                did_you_mean(name, names.iter().copied())
            ),
        )
    })
}
