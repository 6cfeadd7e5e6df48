//! `ckptfs plan --emit-recipe`: what the flags say, as a recipe.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use ckptfs::error::{Code, Error};
use ckptfs::materialize::write_stub;
use ckptfs::outputs::OutputCheck;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::shown::Show;

use crate::cli::output_file::OutputFile;
use crate::cli::plan::to_stdout;

/// The group of flags that name a file to write.
pub(crate) const OUTPUT_FILE: &str = "output_file";

/// Whether and where to write the recipe.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new(OUTPUT_FILE).multiple(true)))]
pub(crate) struct EmitArgs {
    /// Write the recipe of this view to FILE, or to standard output instead of the plan
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", group = OUTPUT_FILE)]
    emit_recipe: Option<PathBuf>,

    /// Write all files but the weights, and the recipe as ckptfs.yml, to the new directory DIR, for
    /// programs that read the weights in process
    #[arg(long, value_name = "DIR")]
    emit_stub: Option<PathBuf>,

    /// Replace an existing FILE of --emit-recipe or --pin
    #[arg(long, alias = "force", requires = OUTPUT_FILE)]
    pub(crate) overwrite: bool,
}

impl EmitArgs {
    /// Writes the recipe of `request`, whose plan is `plan`, if that was asked for. Returns whether
    /// standard output was taken for it, which must not be if `more` is to be printed.
    pub(crate) fn run(
        &self,
        request: &ViewRequest,
        plan: &Plan,
        more: bool,
    ) -> anyhow::Result<bool> {
        if let Some(directory) = &self.emit_stub {
            write_stub(request, plan, directory)?;
            eprintln!("wrote the stub {}", directory.shown());
        }
        let Some(file) = &self.emit_recipe else {
            return Ok(false);
        };
        let is_stdout = file == Path::new("-");
        if is_stdout && more {
            let problem = "--emit-recipe needs a FILE where --json or --check-values is given too: both go to standard output";
            return Err(Error::new(Code::Conflict, problem).into());
        }
        let check = || OutputCheck::new(&request.inputs(), &plan.view);
        let file = if is_stdout {
            None
        } else {
            Some((file, OutputFile::new(file, self.overwrite, &check()?)?))
        };
        let text = format!(
            "# A view of ckptfs {}: ckptfs mount --recipe FILE DIR\n{}",
            env!("CARGO_PKG_VERSION"),
            request.to_recipe()?
        );
        let Some((file, output)) = file else {
            to_stdout(&text)?;
            return Ok(true);
        };
        output.write("recipe", text.as_bytes())?;
        eprintln!("wrote the recipe {}", file.shown());
        Ok(false)
    }
}
