//! `ckptfs diff`: what is different between two checkpoints, mounts or views.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use ckptfs::diff::{self, Diff, FileDiff, Header, Row, Values, What};
use ckptfs::json;
use ckptfs::shown::Show;
use ckptfs::source::Location;

use crate::cli::args::{parse_model, parse_threads};
use crate::cli::check_values;
use crate::cli::messages::print_error;
#[cfg(feature = "remote")]
use crate::cli::network::NetworkArgs;
use crate::cli::plan::to_stdout;
use crate::cli::progress::{Bar, Stopped};
#[cfg(feature = "remote")]
use crate::cli::purpose::Purpose;
use crate::cli::waiting::note_silent_mount;

/// What to compare, and how.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Checkpoint directory or URL, mount or recipe file
    a: PathBuf,

    /// Checkpoint directory or URL, mount or recipe file to compare it with
    b: PathBuf,

    /// Directory of a model that a recipe names (repeatable)
    #[arg(long, value_name = "ID=DIR", value_parser = parse_model)]
    model: Vec<(String, Location)>,

    #[cfg(feature = "remote")]
    #[command(flatten)]
    network: NetworkArgs,

    /// Compare names, dtypes and shapes of tensors, not their values
    #[arg(long)]
    no_values: bool,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,

    /// Threads that read and compare [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    jobs: Option<NonZeroUsize>,
}

/// As diff(1) has them; other commands have no third answer.
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

/// Prints what is different. The exit code says whether anything is: 0, 1, or 2 for an error.
pub(crate) fn run(args: &DiffArgs, quiet: bool) -> anyhow::Result<ExitCode> {
    match compare(args, quiet) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(DIFFERENT)),
        Err(error) if error.is::<Stopped>() => Err(error),
        Err(error) => {
            print_error("ckptfs", &error);
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

fn compare(args: &DiffArgs, quiet: bool) -> anyhow::Result<bool> {
    #[cfg(feature = "remote")]
    args.network.choose(Purpose::Job)?;
    let [a, b] = [&args.a, &args.b].map(|path| {
        note_silent_mount(path);
        diff::request(path, &args.model)?.plan()
    });
    let (a, b) = (a?, b?);
    let jobs = args.jobs.map_or_else(check_values::jobs, NonZeroUsize::get);
    let bar = Bar::new(quiet)?;
    let diff = diff::diff([&a, &b], !args.no_values, jobs, &bar);
    let diff = bar.finish(diff, anyhow::Error::from)?;
    let rows = diff::rows(&diff.different);
    to_stdout(&if args.json {
        json::difference(&diff)
    } else {
        text(&diff, &rows)
    })?;
    Ok(diff.is_empty())
}

fn text(diff: &Diff, rows: &[Row]) -> String {
    /// As many kinds of tensors as a plan shows.
    const SHOWN: usize = 200;
    let mut text = String::new();
    for row in &rows[..rows.len().min(SHOWN)] {
        let name = row.name.to_string();
        let (name, what, header) = (name.shown(), word(row.what), headers(row));
        text += &format!("{what}  {name}  {} × {header}\n", row.tensors);
        if let Some(values) = &row.values {
            text += &format!("    {}\n", figures(values, ["A", "B"]));
        }
    }
    if rows.len() > SHOWN {
        let left_out = rows.len() - SHOWN;
        text += &format!("… and {left_out} kinds of tensors more; --json has all\n");
    }
    for FileDiff { path, what, keys } in &diff.files {
        let path = path.shown();
        text += &format!("{}  {path}\n", word(*what));
        for key in keys {
            let value = |value: &Option<Value>| value.as_ref().map_or("–".to_owned(), shortened);
            let name = key.key.shown();
            text += &format!("    {name}: {} → {}\n", value(&key.a), value(&key.b));
        }
    }
    let [a, b] = diff.tensors;
    let how = if diff.values_compared {
        ""
    } else {
        " by dtype and shape, values were not compared"
    };
    text += &format!(
        "{a} and {b} tensors: {} equal{how}, {} different; other files: {} equal, {} different\n",
        diff.equal,
        diff.different.len(),
        diff.files_equal,
        diff.files.len()
    );
    text
}

fn word(what: What) -> &'static str {
    match what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
    }
}

/// `BF16 [4, 4]`, or `BF16 [4, 4] → F8_E4M3 [4, 4]`.
pub(crate) fn headers(row: &Row) -> String {
    let one = |header: &Header| format!("{} {:?}", header.dtype, header.shape);
    match (&row.a, &row.b) {
        (Some(a), Some(b)) if a != b => format!("{} → {}", one(a), one(b)),
        (Some(header), _) | (None, Some(header)) => one(header),
        (None, None) => String::new(),
    }
}

/// The figures in a line; `sides` are what the two tensors are called in it.
pub(crate) fn figures(values: &Values, sides: [&str; 2]) -> String {
    if values.differing == 0 {
        return format!("the same {} numbers", values.elements);
    }
    let differing = format!(
        "{} of {} elements differ",
        values.differing, values.elements
    );
    let not_finite = not_finite(values, sides);
    if values.differing == values.not_finite {
        return format!("{differing}: {not_finite}");
    }
    let relative = match values.relative() {
        Some(relative) => format!("{relative:.4e} of the norm"),
        None => "from nothing but zeros".to_owned(),
    };
    let left_out = match values.not_finite {
        0 => String::new(),
        _ => format!("; {not_finite}, left out of these figures"),
    };
    format!(
        "{differing}, by {:.4e} at most; L2 {:.4e}, {relative}{left_out}",
        values.max_abs, values.l2
    )
}

/// "3 NaN in A, 1 infinity in B": where these are, and the other side has something else.
fn not_finite(values: &Values, sides: [&str; 2]) -> String {
    let mut parts = Vec::new();
    for (i, side) in sides.into_iter().enumerate() {
        match values.nan[i] {
            0 => {}
            count => parts.push(format!("{count} NaN in {side}")),
        }
        match values.infinite[i] {
            0 => {}
            1 => parts.push(format!("1 infinity in {side}")),
            count => parts.push(format!("{count} infinities in {side}")),
        }
    }
    parts.join(", ")
}

/// JSON of at most a line.
pub(crate) fn shortened(value: &Value) -> String {
    const LINE: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(LINE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
