//! The commands on mounts in a build without them: each says so.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use ckptfs::error::{Code, Error};

/// The commands that other builds have.
#[derive(Debug, Subcommand)]
pub(crate) enum MountCommand {
    #[command(hide = true)]
    Mount(Anything),
    #[command(hide = true)]
    Unmount(Anything),
    #[command(hide = true)]
    Doctor(Anything),
    #[command(hide = true)]
    Status(Anything),
    #[command(hide = true)]
    Top(Anything),
}

/// Arguments that nothing is done with.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Says that there are no mounts.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let error = Error::new(Code::NoFuse, "this build of ckptfs has no mounts");
    let hint =
        "write the view to disk (ckptfs materialize), or install a build with the feature fuse";
    Err(error.with_hint(hint).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        _command: MountCommand,
    }

    #[test]
    fn each_command_on_mounts_is_taken_with_whatever_is_after_it() {
        for words in [
            &["mount", "--base", "b", "/mnt"][..],
            &["mount", "--help"],
            &["status"],
            &["unmount", "/mnt", "--lazy"],
            &["doctor", "/mnt"],
            &["top"],
        ] {
            let taken = Program::try_parse_from(["ckptfs"].iter().chain(words));
            assert!(taken.is_ok(), "{words:?}: {taken:?}");
        }
    }

    #[test]
    fn the_error_says_that_there_are_no_mounts() {
        let error = run().unwrap_err();
        let error: &Error = error.downcast_ref().unwrap();
        assert_eq!(error.code(), Code::NoFuse);
    }
}
