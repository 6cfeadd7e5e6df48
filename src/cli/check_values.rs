//! `ckptfs plan --check-values`: after the plan, every value that the view could not quantize.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;

use ckptfs::error::{Code, Error};
use ckptfs::inspect::{self, NonFiniteValues};
use ckptfs::json::Details;
use ckptfs::read::Reader;
use ckptfs::recipe::Plan;
use ckptfs::shown::Show;
use ckptfs::text::counted;

use crate::cli::plan;
use crate::cli::progress::Bar;

/// Bytes of computed tiles that checking and inspecting keep; they read everything once.
pub(super) const CACHE_BYTES: usize = 64 << 20;

/// Threads that read and compare.
pub(super) fn jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Prints what was found, in JSON with the plan. An error if anything was: the view cannot be read whole.
pub(crate) fn run(
    plan: &Plan,
    details: Details<'_>,
    json: bool,
    quiet: bool,
) -> anyhow::Result<ExitCode> {
    let reader = Reader::new(plan.view.clone(), CACHE_BYTES);
    let tensors = inspect::quantized_tensors(plan);
    let bar = Bar::new(quiet)?;
    let found = inspect::check_values(&reader, &tensors, jobs(), &bar);
    let found = bar.finish(found, anyhow::Error::from)?;
    if json {
        let non_finite = Some(&found[..]);
        plan::print_json(
            plan,
            &Details {
                non_finite,
                ..details
            },
        )?
    } else {
        plan::to_stdout(&report(&found, tensors.len())?)?
    }
    if !found.is_empty() {
        let problem = format!(
            "NaN or infinity in {} of {} to be quantized: this view cannot be read whole",
            found.len(),
            counted(tensors.len(), "tensor")
        );
        let error = Error::new(Code::NonFinite, problem);
        return Err(error
            .with_hint("repair the source or leave such tensors out of the selection")
            .into());
    }
    Ok(ExitCode::SUCCESS)
}

fn report(found: &[NonFiniteValues], checked: usize) -> Result<String, std::fmt::Error> {
    let mut text = format!("\nvalues checked in {}: ", counted(checked, "tensor"));
    if found.is_empty() {
        text += "all can be quantized\n";
        return Ok(text);
    }
    writeln!(text, "{} cannot be quantized", found.len())?;
    for tensor in found {
        writeln!(
            text,
            "{}: {} NaN, {} inf, {} -inf",
            tensor.tensor.shown(),
            tensor.nan,
            tensor.positive_infinity,
            tensor.negative_infinity
        )?;
        for place in &tensor.places {
            writeln!(
                text,
                "  {} at row {}, column {}",
                place.value, place.row, place.column
            )?;
        }
        let more = tensor.total() - tensor.places.len() as u64;
        if more > 0 {
            writeln!(text, "  and {more} more")?;
        }
    }
    Ok(text)
}
