//! Pickles of protocols 0 to 5, read without being run: nothing is imported or called. What a pickle would import
//! is a [`Value::Global`], what it would call or make an [`Value::Object`], each nothing but names and arguments.
//!
//! The format is that of Python's `pickletools`. Values are kept in one list and refer to each other by position,
//! so that no depth of nesting and no cycle needs a stack or memory of its own.
//!
//! | file | about |
//! |---|---|
//! | `input.rs` | the bytes of a pickle |
//! | `machine.rs` | the opcodes |
//! | `text.rs` | the texts of protocol 0 |
//! | `value.rs` | what comes of them |

mod input;
mod machine;
mod text;
mod value;

pub(in crate::format) use input::{Input, Limits};
pub(in crate::format) use machine::load;
pub(in crate::format) use value::{Id, Pickle, Value};
