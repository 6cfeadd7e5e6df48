//! `--quantize`: schemes other than block FP8.

#[path = "../common/mod.rs"]
mod common;

mod block_floats;
mod block_kernels;
mod block_values;
#[cfg(feature = "cli")]
mod command;
mod config;
mod definition;
mod figures;
mod from_fp4;
mod kernels;
mod others;
mod values;

use std::path::Path;

use ckptfs::ops::{DtypeParams, Precision, QuantizeParams};
use ckptfs::quant::Dialect;
use ckptfs::recipe::{Plan, ViewRequest};

use definition::Scheme;

/// Asks for `scheme`, of the tensors that a pattern matches.
fn params(scheme: Scheme, pattern: &str) -> QuantizeParams {
    QuantizeParams {
        scheme: Some(scheme.name().parse().unwrap()),
        dialect: (scheme == Scheme::Fp8Block).then_some(Dialect::CompressedTensors),
        patterns: vec![pattern.to_owned()],
        ..QuantizeParams::default()
    }
}

fn request(base: &Path, scheme: Scheme) -> ViewRequest {
    ViewRequest::new(base).with(|asked| asked.quantize = params(scheme, r".*\.weight"))
}

fn plan(base: &Path, scheme: Scheme) -> Plan {
    request(base, scheme).plan().unwrap()
}

/// The view of `base` in dtype `to`.
fn in_dtype(base: &Path, to: Precision) -> ckptfs::Result<Plan> {
    let request = ViewRequest::new(base).with(|asked| asked.dtype = DtypeParams { to: Some(to) });
    request.plan()
}
