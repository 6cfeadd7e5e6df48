//! The question before a view is written, asked where somebody can answer it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::BinaryBytes;

use ckptfs::error::{Code, Error};
use ckptfs::materialize::Outlook;
use ckptfs::shown::Show;

use crate::cli::plan::writing_lines;

/// Shows what would be written to `out`, and asks whether to write it. Only `y` or `yes` continues.
/// Does not ask if standard input or error is no terminal.
///
/// # Errors
/// If the answer is anything else.
pub(crate) fn confirm(outlook: &Outlook, out: &Path) -> anyhow::Result<()> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{}", writing_lines(outlook))?;
    let written = BinaryBytes(outlook.written_bytes);
    write!(stderr, "Write {written} to {}? [y/N] ", out.shown())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => {
            let problem = "nothing was written (--yes does not ask)";
            Err(Error::new(Code::Interrupted, problem).into())
        }
    }
}
