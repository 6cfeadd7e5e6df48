//! What the Python package `ckptfs` cannot do in Python: planning views and reading them. The package
//! itself, in `python/ckptfs`, has everything that people call.

mod errors;
mod network;
mod request;
mod view;
mod work;

use pyo3::prelude::*;

/// The private module `ckptfs._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::network::network;
    #[pymodule_export]
    use crate::request::settings;
    #[pymodule_export]
    use crate::view::{NativeView, diff, verify};
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
