//! `ckptfs plan --pin`: what planning learned of sources at URLs, for mounts and other machines.

#[cfg(feature = "remote")]
use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "remote")]
use ckptfs::error::setting::PIN;
#[cfg(feature = "remote")]
use ckptfs::error::{Code, Error, Hint};
#[cfg(feature = "remote")]
use ckptfs::outputs::OutputCheck;
use ckptfs::recipe::{Plan, ViewRequest};
#[cfg(feature = "remote")]
use ckptfs::shown::Show;
#[cfg(feature = "remote")]
use ckptfs::source::remote::Network;

#[cfg(feature = "remote")]
use crate::cli::emit_recipe::OUTPUT_FILE;
#[cfg(feature = "remote")]
use crate::cli::output_file::OutputFile;
use crate::cli::purpose::Purpose;

/// Whether and where to write a pin file.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Write listings, pins and headers of the sources at URLs to FILE, for --pinned of other commands
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "FILE", group = OUTPUT_FILE)]
    pin: Option<PathBuf>,
}

#[cfg(feature = "remote")]
impl PinArgs {
    /// What the view is wanted for.
    pub(crate) fn purpose(&self) -> Purpose {
        match self.pin {
            Some(_) => Purpose::Pin,
            None => Purpose::Job,
        }
    }

    /// Writes the pin file of `request`, whose plan is `plan`, if that was asked for.
    pub(crate) fn write(
        &self,
        request: &ViewRequest,
        plan: &Plan,
        overwrite: bool,
    ) -> anyhow::Result<()> {
        let Some(path) = &self.pin else {
            return Ok(());
        };
        let check = OutputCheck::new(&request.inputs(), &plan.view)?;
        let output = OutputFile::new(path, overwrite, &check)?;
        let pins = Network::shared()?.recorded();
        if pins.is_empty() {
            let problem = "no source was read at a URL, so there is nothing to pin";
            let error = Error::new(Code::Conflict, problem).about(PIN);
            return Err(error.with_hint(Hint::leave_out(PIN)).into());
        }
        output.write("pin file", &pins.to_bytes())?;
        eprintln!("wrote the pin file {}", path.shown());
        Ok(())
    }
}

#[cfg(not(feature = "remote"))]
impl PinArgs {
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose::Job
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn write(&self, _: &ViewRequest, _: &Plan, _: bool) -> anyhow::Result<()> {
        Ok(())
    }
}
