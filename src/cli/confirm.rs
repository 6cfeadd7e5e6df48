//! The question before a view is written, asked where somebody can answer it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::BinaryBytes;

use ckptfs::error::{Code, Error};
use ckptfs::materialize::Outlook;
use ckptfs::shown::Show;
use ckptfs::text::counted;

/// Tells what would be written to `out`, and asks whether to. Only a `y` or `yes` goes on.
/// Where standard input or error is no terminal, nobody is asked.
///
/// # Errors
/// If the answer is anything else.
pub(crate) fn confirm(outlook: &Outlook, out: &Path) -> anyhow::Result<()> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{}", told(outlook))?;
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

fn told(outlook: &Outlook) -> String {
    let mut text = format!(
        "write  {}: {} to be written",
        counted(outlook.files, "file"),
        BinaryBytes(outlook.written_bytes)
    );
    if outlook.kept > 0 {
        let kept = BinaryBytes(outlook.kept_bytes);
        text += &format!(", {} complete already ({kept})", outlook.kept);
    }
    if outlook.linked > 0 {
        let linked = BinaryBytes(outlook.linked_bytes);
        text += &format!(", {} ({linked})", counted(outlook.linked, "hard link"));
    }
    if outlook.shared_bytes > 0 {
        let shared = BinaryBytes(outlook.shared_bytes);
        text += &format!(", {shared} that the filesystem may share with the sources");
    }
    text += &match outlook.available {
        Some(available) => format!("\nspace  {} available\n", BinaryBytes(available)),
        None => "\nspace  unknown: the filesystem does not tell\n".to_owned(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_not_written_is_told() {
        let outlook = Outlook {
            files: 9,
            bytes: 10 << 30,
            kept: 1,
            kept_bytes: 1 << 30,
            linked: 2,
            linked_bytes: 2 << 30,
            shared_bytes: 3 << 30,
            written_bytes: 4 << 30,
            needed: 4 << 30,
            available: Some(5 << 30),
        };
        assert_eq!(
            told(&outlook),
            "write  9 files: 4.00 GiB to be written, 1 complete already (1.00 GiB), 2 hard links (2.00 GiB), 3.00 GiB that the filesystem may share with the sources\nspace  5.00 GiB available\n"
        );
    }
}
