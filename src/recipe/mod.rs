//! From a request to a view: a base, or a merge that a recipe describes, then the operators in their
//! order ([`Operations`](crate::ops::Operations)), then shards.

mod document;
mod emit;
mod from_file;
mod merge_request;
mod models;
mod quoted;
mod request;
mod settings;
mod surveys;
mod view_section;
mod wanted;
mod yaml;

pub use crate::size::{parse_shard_size, parse_size};
pub use merge_request::{MergeRequest, MergedModel};
pub use models::Places;
pub use request::{DEFAULT_SHARD_BYTES, ViewRequest};
pub use surveys::Surveys;
pub use wanted::Wanted;

pub use crate::layout::{Plan, Shards};
