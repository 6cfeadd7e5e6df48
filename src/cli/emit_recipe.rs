//! `ckptfs plan --emit-recipe`: what the flags say, as a recipe.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use ckptfs::recipe::ViewRequest;

use crate::cli::plan::to_stdout;

/// Whether and where to write the recipe.
#[derive(Debug, Args)]
pub(crate) struct EmitArgs {
    /// Write the recipe of this view, to FILE or instead of the plan to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    emit_recipe: Option<PathBuf>,

    /// Replace the FILE of --emit-recipe
    #[arg(long, requires = "emit_recipe")]
    overwrite: bool,
}

impl EmitArgs {
    /// Writes the recipe of `request`, which was planned, if that was asked for. Returns whether
    /// standard output was taken for it, which must not be if `more` is to be printed.
    pub(crate) fn run(&self, request: &ViewRequest, more: bool) -> anyhow::Result<bool> {
        let Some(file) = &self.emit_recipe else {
            return Ok(false);
        };
        let is_stdout = file == Path::new("-");
        if is_stdout && more {
            bail!("--emit-recipe needs a FILE where --json or --check-values is given besides");
        }
        let text = format!(
            "# A view of ckptfs {}: ckptfs mount --recipe FILE DIR\n{}",
            env!("CARGO_PKG_VERSION"),
            request.to_recipe()?
        );
        if is_stdout {
            to_stdout(&text)?;
            return Ok(true);
        }
        self.write(file, &text)?;
        eprintln!("wrote the recipe {}", file.display());
        Ok(false)
    }

    /// Writes `file` as a whole or not at all.
    fn write(&self, file: &Path, text: &str) -> anyhow::Result<()> {
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let write_error = || format!("{}: cannot write the recipe", file.display());
        let mut new = tempfile::Builder::new()
            .prefix(".ckptfs-recipe")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .with_context(write_error)?;
        new.write_all(text.as_bytes()).with_context(write_error)?;
        let named = match self.overwrite {
            true => new.persist(file),
            false => new.persist_noclobber(file),
        };
        match named {
            Err(e) if e.error.kind() == ErrorKind::AlreadyExists => bail!(
                "{}: there is such a file already; have it replaced with --overwrite",
                file.display()
            ),
            named => named
                .map(drop)
                .map_err(|e| e.error)
                .with_context(write_error),
        }
    }
}
