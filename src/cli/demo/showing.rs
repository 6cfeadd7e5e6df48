//! What the demo says, and what it shows of a directory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::BinaryBytes;

use crate::cli::demo::check;

/// Lists the directory, reads it twice, and checks every tensor.
pub(super) fn show(directory: &Path, base: &Path, extra: &Path) -> anyhow::Result<()> {
    say(&format!("$ ls view\n{}", list(directory)?))?;
    say(&format!("first read:   {}", read_all(directory)?))?;
    say(&format!("second read:  {}", read_all(directory)?))?;
    let checked = check::compare(directory, base, extra)?;
    say(&format!(
        "checked:      {} tensors equal to their source byte for byte; {} FP8 tensors within {:.1} % of their largest value\n",
        checked.equal,
        checked.quantized,
        100.0 * checked.largest_error
    ))
}

/// File names and sizes.
pub(super) fn list(directory: &Path) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let name = Path::new(directory.file_name().unwrap_or_default()).join(entry.file_name());
        let size = BinaryBytes(entry.metadata()?.len()).to_string();
        lines.push(format!("{size:>12}  {}\n", name.display()));
    }
    lines.sort_by(|a, b| a[12..].cmp(&b[12..]));
    Ok(lines.concat())
}

/// Reads every file from front to back; says how much that was and how fast.
fn read_all(directory: &Path) -> anyhow::Result<String> {
    let start = Instant::now();
    let mut buffer = vec![0; 4 << 20];
    let mut total = 0;
    for entry in directory.read_dir()? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => total += n as u64,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = BinaryBytes((total as f64 / seconds) as u64);
    Ok(format!(
        "{} in {:.0} ms, {rate}/s",
        BinaryBytes(total),
        1000.0 * seconds
    ))
}

pub(super) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
