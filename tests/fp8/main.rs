//! FP8 views: what is quantized, and to which codes, scales and configuration.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod check_values;
mod config;
mod groups;
mod not_finite;
mod official;
mod official_docs;
mod paths;
mod reference;
mod selection;
mod skip_list;
mod unquantized;
mod values;
