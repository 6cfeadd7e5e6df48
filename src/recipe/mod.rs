//! From a request to a view: a base, or a merge that a recipe describes, then the operators in their
//! order ([`Operations`](crate::ops::Operations)), then shards.

mod assembly;
mod document;
mod emit;
mod fields;
mod from_file;
mod latest;
mod models;
mod moe_document;
mod quoted;
mod request;
mod settings;
mod surveys;
mod view_section;
mod wanted;
mod yaml;

pub use crate::size::{parse_shard_size, parse_size};
pub use assembly::Assembly;
pub use models::Places;
pub use request::{DEFAULT_SHARD_BYTES, MergeRequest, MergedModel, ModelOrigin, ViewRequest};
pub use surveys::Surveys;
pub use wanted::Wanted;

pub use crate::layout::{Plan, Shards};
