//! The program's commands: what they say, what they write, and how they end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/directory.rs"]
mod directory;

mod build_info;
mod demo;
mod diff;
mod figures;
mod fp8_rules;
mod graft;
mod long_work;
mod man_and_completions;
mod missing_paths;
mod no_effect;
mod one_word;
mod outputs;
mod plan;
mod programs;
mod report;
mod shard_choices;
mod troubleshooting;
mod untrusted_names;
