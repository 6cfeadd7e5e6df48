//! Running the program.

use std::process::{Command, Output};

use super::Workspace;

/// Runs `ckptfs` in `workspace` with `arguments`, which are separated by spaces.
pub(crate) fn ckptfs(workspace: &Workspace, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(arguments.split_whitespace())
        .current_dir(workspace.path())
        .output()
        .expect("the program runs")
}

/// The standard output of a run that must succeed and say nothing on standard error.
pub(crate) fn stdout(workspace: &Workspace, arguments: &str) -> String {
    let output = ckptfs(workspace, arguments);
    assert_eq!(text(&output.stderr), "", "{arguments}");
    assert_eq!(output.status.code(), Some(0), "{arguments}");
    text(&output.stdout).to_owned()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("what the program prints is UTF-8")
}
