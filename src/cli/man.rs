//! `ckptfs man`: the man pages, made from what `--help` says.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use ckptfs::error::Error;

#[cfg(feature = "fuse")]
use crate::cli::mount_helper;

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory of man pages, such as ~/.local/share/man; writes to its man1 and man8
    directory: PathBuf,
}

/// On the page of the program; commands with codes of their own say so in their notes.
const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "The job is done."),
    ("1", "It failed; standard error says why."),
    ("2", "The command line is wrong."),
    (
        "75",
        "It failed, and the same command may work later: a server or a disk did not answer, or another process writes the same.",
    ),
    (
        "128 and more",
        "A signal of this number less 128 ended it. The pages of the commands list other exit codes.",
    ),
];

/// As in mount(8).
#[cfg(feature = "fuse")]
const EXIT_STATUS_OF_HELPER: [(&str, &str); 3] = [
    ("0", "The view is mounted."),
    ("1", "The command line or an option is wrong."),
    ("32", "The mount failed; standard error says why."),
];

/// Writes a page for `program`, for each of its commands, and for the mount helper.
pub(crate) fn run(program: Command, args: &ManArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let pages: Vec<String> = commands(&program).map(name).collect();
    let of_others = |own: &str| {
        let others = pages.iter().filter(|page| *page != own);
        let others = others.map(|page| (page.clone(), "1"));
        #[cfg(feature = "fuse")]
        let others = others.chain([(mount_helper::NAME.to_owned(), "8")]);
        others.collect::<Vec<_>>()
    };
    for command in commands(&program) {
        let see_also = of_others(&name(command));
        let exit_status: &[_] = if command.has_subcommands() {
            &EXIT_STATUS
        } else {
            &[]
        };
        write(directory, command, "1", exit_status, &see_also)?;
    }
    #[cfg(feature = "fuse")]
    write_helper(directory)?;
    Ok(())
}

#[cfg(feature = "fuse")]
fn write_helper(directory: &Path) -> anyhow::Result<()> {
    let helper = mount_helper::command();
    let see_also = [("ckptfs-mount", "1"), ("mount", "8"), ("fstab", "5")];
    let see_also = see_also.map(|(page, section)| (page.to_owned(), section));
    write(directory, &helper, "8", &EXIT_STATUS_OF_HELPER, &see_also)
}

/// The program itself, and its commands that are not hidden.
fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    let commands = program.get_subcommands();
    std::iter::once(program).chain(commands.filter(|command| !command.is_hide_set()))
}

fn name(command: &Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or(command.get_name()).to_owned()
}

fn write(
    directory: &Path,
    command: &Command,
    section: &str,
    exit_status: &[(&str, &str)],
    see_also: &[(String, &str)],
) -> anyhow::Result<()> {
    let page = Man::new(command.clone())
        .section(section)
        .source(concat!("ckptfs ", env!("CARGO_PKG_VERSION")));
    let directory = directory.join(format!("man{section}"));
    fs::create_dir_all(&directory).map_err(|e| Error::io("make the directory", &directory, e))?;
    let path = directory.join(page.get_filename());
    let text = render(&page, command, exit_status, see_also)?;
    Ok(fs::write(&path, text).map_err(|e| Error::io("write", &path, e))?)
}

fn render(
    page: &Man,
    command: &Command,
    exit_status: &[(&str, &str)],
    see_also: &[(String, &str)],
) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command
        .get_subcommands()
        .any(|command| !command.is_hide_set())
    {
        page.render_subcommands_section(&mut text)?;
    }
    let mut end = Roff::new();
    let notes = command.get_after_long_help().or(command.get_after_help());
    if let Some(notes) = notes {
        let notes = notes.to_string();
        // Several lines are laid out as they are.
        let fill = if notes.lines().count() > 1 {
            "nf"
        } else {
            "fi"
        };
        end.control("SH", ["NOTES"]).control(fill, []);
        for line in notes.lines() {
            end.text([roman(line)]);
        }
        end.control("fi", []);
    }
    if !exit_status.is_empty() {
        end.control("SH", ["EXIT STATUS"]);
    }
    for (code, meaning) in exit_status {
        end.control("TP", []);
        end.text([bold(*code)]).text([roman(*meaning)]);
    }
    end.control("SH", ["SEE ALSO"]);
    for (i, (page, section)) in see_also.iter().enumerate() {
        let comma = if i + 1 < see_also.len() { "," } else { "" };
        end.text([bold(page), roman(format!("({section}){comma}"))]);
    }
    end.to_writer(&mut text)?;
    Ok(text)
}
