//! Errors and warnings of the library, with settings spelled as flags.

use std::fmt;
use std::io;

use rustix::io::Errno;

use ckptfs::error::{Code, Error, Warning, in_words, setting};
use ckptfs::ops::{Setting, Takes, split_scope};
use ckptfs::recipe::ViewRequest;
use ckptfs::shown::lines;

use crate::cli::progress::Stopped;

/// How a setting of the request is written as a flag, with its value if one is given.
pub(crate) fn flag(name: &str, value: Option<&str>) -> String {
    let mut settings = ViewRequest::settings().into_iter();
    let found: Option<&Setting> = settings.find(|setting| setting.key == name);
    let switch = |flag: &str| format!("--{flag}");
    let with_value = |flag: &str| match value {
        Some(value) => format!("--{flag} {value}"),
        None => format!("--{flag}"),
    };
    match (found, name, value) {
        (Some(setting), ..) => match setting.takes {
            Takes::SwitchOrChoice { flag, .. } => match value {
                Some(_) => with_value(flag),
                None => switch(setting.flag),
            },
            Takes::ScopedFlags(flags) => {
                let (name, scope) = value.map(split_scope).unwrap_or_default();
                let given = flags.iter().find(|(known, ..)| *known == name);
                let flags = given.map_or(flags, std::slice::from_ref);
                let flags = flags.iter().map(|(_, flag, _)| match scope {
                    Some(scope) => format!("--{flag}={scope}"),
                    None => switch(flag),
                });
                flags.collect::<Vec<_>>().join(" or ")
            }
            _ => with_value(setting.flag),
        },
        (None, setting::LAZY, Some(mountpoint)) => format!("ckptfs unmount --lazy {mountpoint}"),
        (None, setting::CHECK_SPACE, Some("false")) => switch("no-space-check"),
        (None, _, Some("true")) => switch(&name.replace('_', "-")),
        (None, ..) => with_value(&name.replace('_', "-")),
    }
}

/// The text of an error with its code, as [`said`] made it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    text: String,
    may_pass: bool,
}

impl Said {
    /// What another process said, and whether it [`may_pass`].
    #[cfg(any(feature = "fuse", test))]
    pub(crate) fn elsewhere(text: String, may_pass: bool) -> Self {
        Said { text, may_pass }
    }

    #[cfg(feature = "fuse")]
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// What is said of `error`, with a note after it.
    pub(crate) fn with_note(error: ckptfs::Error, note: &str) -> Self {
        let may_pass = error.may_pass();
        Said {
            text: format!("{}\nnote: {note}", said(&error.into())),
            may_pass,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Said {}

/// Whether the command that failed with `error` may work later.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Said>() {
        Some(said) => said.may_pass,
        None => error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<Error>())
            .any(Error::may_pass),
    }
}

/// `error[no-checkpoint]: …`, with settings as flags. What somebody stopped is no error.
pub(crate) fn said(error: &anyhow::Error) -> String {
    match parts(error) {
        (None, text) => text,
        (Some(code), text) => format!("error[{code}]: {text}"),
    }
}

/// The code and the text of an error; no code where the text has one, or somebody stopped it.
pub(crate) fn parts(error: &anyhow::Error) -> (Option<Code>, String) {
    if error.is::<Said>() || error.is::<Stopped>() {
        return (None, error.to_string());
    }
    let mut parts = Vec::new();
    let mut code = Code::Internal;
    for cause in error.chain() {
        // The messages of these have those of their sources.
        if let Some(error) = cause.downcast_ref::<Error>() {
            code = error.code();
            parts.push(error.spelled(flag));
            break;
        }
        let errno = cause.downcast_ref::<Errno>();
        let errno = errno.map(|errno| io::Error::from(*errno));
        if let Some(error) = cause.downcast_ref().or(errno.as_ref()) {
            code = Code::from(error);
            parts.push(in_words(error));
            break;
        }
        parts.push(cause.to_string());
    }
    let code = (code != Code::Interrupted).then_some(code);
    (code, parts.join(": "))
}

/// What is wrong with the value of a setting, without the setting.
pub(crate) fn problem_of_value(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {}", error.problem(), hint.spelled(flag)),
        None => error.problem().to_owned(),
    }
}

/// A line: `warning[no-effect]: …`.
pub(crate) fn line(kind: &str, warning: &Warning) -> String {
    // In one line, whatever the message holds.
    let text = warning.spelled(flag).replace('\n', "\\n");
    format!("{kind}[{}]: {text}\n", warning.code())
}

/// Prints `error`, which `program` ends with.
pub(crate) fn print_error(program: &str, error: &anyhow::Error) {
    eprintln!("{program}: {}", lines(&said(error)));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use anyhow::Context;
    use ckptfs::error::Hint;
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_setting_has_its_flag() {
        let cli = Cli::command();
        let arguments = cli
            .get_subcommands()
            .flat_map(|command| command.get_arguments());
        let known: HashSet<&str> = arguments
            .filter_map(|argument| argument.get_long())
            .collect();
        // Without mounts, their flags are not there.
        let settings = if cfg!(feature = "fuse") {
            setting::ALL
        } else {
            &[]
        };
        for name in settings {
            let value = (*name == setting::CHECK_SPACE).then_some("false");
            for flag in flag(name, value).split(" or ") {
                assert!(known.contains(&flag[2..]), "{name}: {flag}");
            }
        }
        for (name, value, expected) in [
            ("dtype", Some("bf16"), "--dtype bf16"),
            ("experts", Some("unfuse"), "--unfuse-experts"),
            ("patch", None, "--extra"),
            (
                "quantize.partial_blocks",
                Some("keep"),
                "--partial-blocks keep",
            ),
            ("shards", Some("repack"), "--shards repack"),
            ("check_space", Some("false"), "--no-space-check"),
            ("lazy", Some("/mnt"), "ckptfs unmount --lazy /mnt"),
        ] {
            assert_eq!(flag(name, value), expected);
        }
    }

    #[test]
    fn an_error_is_said_once_with_its_code_and_flags() {
        let hint = Hint::give_value("dtype", "bf16").or(Hint::leave_out("lora"));
        let error = Error::new(Code::QuantizedBase, "it is FP8").with_hint(hint);
        let error = anyhow::Error::new(error).context("while planning");
        assert_eq!(
            said(&error),
            "error[quantized-base]: while planning: it is FP8; use --dtype bf16, or leave out --lora"
        );
        let io = Err::<(), _>(Error::io("open", "/x", io::ErrorKind::NotFound.into()));
        assert_eq!(
            said(&io.context("the plan").unwrap_err()),
            "error[not-found]: the plan: /x: cannot open: there is no such file or directory"
        );
        assert_eq!(said(&Error::interrupted().into()), "interrupted");
        let full = io::Error::from(Errno::NOSPC);
        let full = anyhow::Error::new(full).context("cannot make a directory");
        assert_eq!(
            said(&full),
            "error[no-space]: cannot make a directory: no space is left on the filesystem; make room, or choose another"
        );
        let said_before = Said::elsewhere("error[io]: x".to_owned(), false);
        assert_eq!(said(&said_before.into()), "error[io]: x");
        assert_eq!(said(&anyhow::anyhow!("a bug")), "error[internal]: a bug");
    }

    #[test]
    fn a_warning_is_one_line() {
        let warning = Warning::new(Code::NoMatch, "it matches\nnothing").about_value("only", "x");
        let expected = "warning[no-match]: --only x: it matches\\nnothing\n";
        assert_eq!(line("warning", &warning), expected);
        assert_eq!(warning, "only: x: it matches\nnothing");
    }
}
