//! `mount.ckptfs`: this program as mount(8) calls it, for `mount -t ckptfs` and lines of fstab.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser};

use ckptfs::error::{Code, Error};
use ckptfs::shown::Show;
use ckptfs::source::{Location, missing};

use crate::cli::args::ViewArgs;
use crate::cli::messages::print_error;
use crate::cli::mount::{self, Manner, MountArgs};
use crate::cli::start::{BUILD, start};

/// The name by which mount(8) looks for this program.
pub(crate) const NAME: &str = "mount.ckptfs";

/// Exit codes of mount(8).
const WRONG_USAGE: u8 = 1;
const MOUNT_FAILED: u8 = 32;

/// Mount a view; called by mount(8)
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    long_version = BUILD,
    after_help = "Options are those of `ckptfs mount`, without the dashes: allow_other, \
                  cache-size=1GiB; of a checkpoint directory also fp8, extra=DIR and the like."
)]
struct HelperArgs {
    /// Recipe, or checkpoint directory
    source: PathBuf,

    /// Directory to mount the view on
    mountpoint: PathBuf,

    /// Ignore unknown options
    #[arg(short)]
    sloppy: bool,

    /// Do everything except mount
    #[arg(short)]
    fake: bool,

    /// Ignored: there is no table of mounts to write
    #[arg(short)]
    no_table: bool,

    /// Print the summary of the plan
    #[arg(short)]
    verbose: bool,

    /// Options, separated by commas; quote values with commas (\")
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Type of the filesystem: ckptfs
    #[arg(short = 't', value_name = "TYPE")]
    filesystem_type: Option<String>,
}

/// What options come to.
#[derive(Debug, Parser)]
#[command(name = NAME, no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    mount: MountArgs,
}

/// Options for mount(8), systemd, or the kernel that ask for nothing that is not so anyway: a mount
/// is read-only, without devices, setuid programs and access times. mount(8) always says rw or ro.
const WITHOUT_EFFECT: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "async",
    "sync",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "nosymfollow",
    "symfollow",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
];

/// Flags of `ckptfs mount` that are no options: the source and mountpoint stand before them, and a
/// helper returns once the mount is there.
const NO_OPTIONS: &[&str] = &["base", "source", "recipe", "foreground", "help", "version"];

/// Whether this program was called by the name of the helper.
pub(crate) fn is_called() -> bool {
    let program = std::env::args_os().next();
    program.is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new(NAME)))
}

/// Its command line.
pub(crate) fn command() -> clap::Command {
    HelperArgs::command()
}

/// Runs the helper.
pub(crate) fn run() -> ExitCode {
    let args = match HelperArgs::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(WRONG_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let failed = |code: u8| {
        move |error: anyhow::Error| {
            print_error(NAME, &error);
            ExitCode::from(code)
        }
    };
    let result = flags(&args).map_err(failed(WRONG_USAGE)).and_then(|flags| {
        start()
            .and_then(|()| mount(&args, &flags))
            .map_err(failed(MOUNT_FAILED))
    });
    result.err().unwrap_or(ExitCode::SUCCESS)
}

fn mount(args: &HelperArgs, flags: &Flags) -> anyhow::Result<()> {
    if args.fake {
        flags.view.request()?.plan()?;
        return Ok(());
    }
    mount::run(&flags.view, &flags.mount)
}

/// # Errors
/// If an option is not known (unless sloppy) or its value is none.
fn flags(args: &HelperArgs) -> anyhow::Result<Flags> {
    if let Some(other) = &args.filesystem_type
        && !matches!(&**other, "ckptfs" | "fuse.ckptfs")
    {
        let problem = format!("the type {other} belongs to another program; this is {NAME}");
        return Err(bad_option(problem));
    }
    // As mount(8) has it, which then sees what of fstab is mounted already.
    let mut source_name = args.source.clone();
    let mut flag_of_source = "--base";
    if let Some(path) = Location::from(&args.source).local() {
        let metadata = path.metadata().map_err(|e| match e.kind() {
            ErrorKind::NotFound => missing(path, "source, a recipe or a checkpoint directory"),
            _ => Error::io("open the source", path, e),
        })?;
        if !metadata.is_dir() {
            flag_of_source = "--recipe";
        }
        source_name = std::path::absolute(path)?;
    }
    let mut words: Vec<OsString> = vec![flag_of_source.into(), args.source.clone().into()];
    let mut manner = Manner {
        quiet: !args.verbose,
        source_name: Some(source_name.into()),
        no_exec: false,
    };
    for list in &args.options {
        let list = list
            .to_str()
            .ok_or_else(|| bad_option(format!("the options {} are not UTF-8", list.shown())))?;
        for option in split(list)? {
            match &*option {
                // The last one counts.
                "noexec" => manner.no_exec = true,
                "exec" => manner.no_exec = false,
                "user" | "users" | "owner" | "group" => manner.no_exec = true,
                _ => {}
            }
            match flag(&option) {
                Ok(None) => {}
                Ok(Some(flag)) => words.push(flag.into()),
                Err(_) if args.sloppy => {}
                Err(error) => return Err(error),
            }
        }
    }
    let mut flags = Flags::try_parse_from(words)
        .map_err(|error| bad_option(error.to_string().trim_start_matches("error: ").trim()))?;
    flags.mount.manner = manner;
    flags.mount.mountpoint = args.mountpoint.clone();
    Ok(flags)
}

fn bad_option(problem: impl Into<String>) -> anyhow::Error {
    Error::new(Code::BadValue, problem).into()
}

/// The options of a list. Commas and equal signs in double quotes are part of a value.
fn split(list: &str) -> anyhow::Result<Vec<String>> {
    let mut options = vec![String::new()];
    let mut quoted = false;
    for c in list.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => options.push(String::new()),
            c => options.last_mut().expect("there is one").push(c),
        }
    }
    if quoted {
        let problem = format!("the options {list} have a double quote without its other half");
        return Err(bad_option(problem));
    }
    options.retain(|option| !option.is_empty());
    Ok(options)
}

/// The flag that `option` stands for; none if it asks for nothing.
///
/// # Errors
/// If nobody knows it.
fn flag(option: &str) -> anyhow::Result<Option<String>> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let prefixed = ["x-", "X-", "comment=", "uhelper=", "helper="];
    if WITHOUT_EFFECT.contains(&option)
        || option == "noexec"
        || prefixed.iter().any(|prefix| option.starts_with(prefix))
    {
        return Ok(None);
    }
    // allow_other is how other filesystems spell it.
    let long = name.replace('_', "-");
    let command = Flags::command();
    let known = command.get_arguments().find(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let mut names = argument.get_long().into_iter().chain(aliases);
        names.any(|name| name == long) && !NO_OPTIONS.contains(&&*long)
    });
    let Some(argument) = known else {
        let names: BTreeSet<&str> = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .filter(|name| !NO_OPTIONS.contains(name))
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        return Err(bad_option(format!(
            "the option {name} is not known; known are {} and what mount(8) says of all filesystems",
            names.join(", ")
        )));
    };
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, None) => Ok(Some(format!("--{long}"))),
        (ArgAction::SetTrue, Some(_)) => {
            Err(bad_option(format!("the option {name} takes no value")))
        }
        (_, None) => Err(bad_option(format!(
            "the option {name} needs a value: {name}=…"
        ))),
        (_, Some(value)) => Ok(Some(format!("--{long}={value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_belong_to_a_value() {
        let list = r#"ro,,extra=/a b,only="x{1,2}",fp8"#;
        let options = ["ro", "extra=/a b", "only=x{1,2}", "fp8"];
        assert_eq!(split(list).unwrap(), options);
        assert!(split("a\"").is_err());
    }

    #[test]
    fn options_are_flags_and_what_mount_says_of_all_filesystems_is_none() {
        let flag = |option| flag(option).map_err(|error| error.to_string());
        for option in [
            "rw",
            "ro",
            "_netdev",
            "nofail",
            "x-systemd.automount",
            "noexec",
        ] {
            assert_eq!(flag(option), Ok(None), "{option}");
        }
        for (option, expected) in [
            ("allow_other", "--allow-other"),
            ("allow-other", "--allow-other"),
            ("cache-size=1GiB", "--cache-size=1GiB"),
            ("extra=/a=b", "--extra=/a=b"),
            ("fp8", "--fp8"),
            ("shards=renumber", "--shards=renumber"),
        ] {
            assert_eq!(flag(option), Ok(Some(expected.to_owned())), "{option}");
        }
        for (option, problem) in [
            ("fp9", "the option fp9 is not known; known are add-file, "),
            ("foreground", "not known"),
            ("base=/x", "not known"),
            ("remount", "not known"),
            ("fp8=yes", "takes no value"),
            ("extra", "needs a value"),
        ] {
            let error = flag(option).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
