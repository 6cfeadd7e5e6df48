//! Running the program with few descriptors.

use std::path::Path;
use std::process::{Command, Stdio};

use super::checkpoint::{Checkpoint, bf16};

/// The program, about to run `command` with at most `descriptors` open, by hard limit too.
pub(crate) fn ckptfs(descriptors: usize, command: &str) -> Command {
    let mut shell = Command::new("sh");
    let run = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    shell.args(["-c", &run, env!("CARGO_BIN_EXE_ckptfs"), command]);
    shell.stdin(Stdio::null());
    shell
}

/// A checkpoint of so many shards and other files.
pub(crate) fn checkpoint(shards: usize, others: usize) -> Checkpoint {
    let shards = (0..shards).fold(Checkpoint::new(), |checkpoint, number| {
        let name = format!("model-{number:05}.safetensors");
        checkpoint.shard(&name, [bf16(&format!("tensor.{number}"), &[2, 4])])
    });
    (0..others).fold(shards, |checkpoint, number| {
        checkpoint.aux(&other(number), format!("text {number}\n"))
    })
}

/// The name of one of the other files.
pub(crate) fn other(number: usize) -> String {
    format!("other/{number:05}.txt")
}

/// The descriptors that `process` has open of files below `directory`.
pub(crate) fn open_below(process: u32, directory: &Path) -> usize {
    let links = Path::new("/proc").join(process.to_string()).join("fd");
    let links = links.read_dir().unwrap().map(|link| link.unwrap().path());
    // One may be closed meanwhile.
    let paths = links.filter_map(|link| link.read_link().ok());
    paths.filter(|path| path.starts_with(directory)).count()
}
