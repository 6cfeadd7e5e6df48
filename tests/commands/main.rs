//! The program's commands: what they say, what they write, and how they end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/directory.rs"]
mod directory;

mod build_info;
mod demo;
mod diff;
mod figures;
mod long_work;
mod man_and_completions;
mod no_effect;
mod plan;
mod report;
mod troubleshooting;
