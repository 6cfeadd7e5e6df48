//! `ckptfs inspect`: what quantization costs, as tables or JSON.

use std::iter::once;

use clap::Args;

use ckptfs::inspect::{self, Fidelity, Inspection, MeasuredGroup};
use ckptfs::json;
use ckptfs::quant::SchemeRequest;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::shown::Show;

use crate::cli::check_values::{CACHE_BYTES, jobs};
use crate::cli::plan::to_stdout;
use crate::cli::progress::Bar;

/// What to print.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Also print a table of all tensors
    #[arg(long)]
    tensors: bool,

    /// Print everything as JSON
    #[arg(long, conflicts_with = "tensors")]
    json: bool,

    /// Measure several schemes, in one pass over the sources (fp8-block,int4:group=32,nvfp4)
    #[arg(
        long,
        value_name = "SCHEME,...",
        value_delimiter = ',',
        conflicts_with = "tensors"
    )]
    compare: Vec<SchemeRequest>,
}

impl InspectArgs {
    /// Whether several schemes are asked for.
    pub(crate) fn compares(&self) -> bool {
        !self.compare.is_empty()
    }
}

/// Measures `request` in each of the schemes that are asked for.
pub(crate) fn compare(
    request: &ViewRequest,
    args: &InspectArgs,
    quiet: bool,
) -> anyhow::Result<()> {
    let candidates = inspect::candidates(request, &args.compare, CACHE_BYTES)?;
    let bar = Bar::new(quiet)?;
    let compared = inspect::compare(&candidates, jobs(), &bar);
    let compared = bar.finish(compared, anyhow::Error::from)?;
    let schemes = args.compare.iter().map(ToString::to_string).zip(&compared);
    to_stdout(&if args.json {
        json::schemes(schemes)
    } else {
        let rows = schemes.map(|(name, of)| row(&name, of.tensors.len(), &of.total));
        table("scheme", rows.collect())
    })
}

/// Measures the quantized tensors of the view of `plan` and prints the figures.
pub(crate) fn run(plan: &Plan, args: &InspectArgs, quiet: bool) -> anyhow::Result<()> {
    let tensors = inspect::quantized_tensors(plan);
    if tensors.is_empty() && !args.json {
        return to_stdout(
            "this view quantizes no tensor; select some with --quantize, --fp8, --reference or --quantize-pattern\n",
        );
    }
    let reader = Reader::new(plan.view.clone(), CACHE_BYTES);
    let bar = Bar::new(quiet)?;
    let inspection = inspect::inspect(&reader, &tensors, jobs(), &bar);
    let inspection = bar.finish(inspection, anyhow::Error::from)?;
    to_stdout(&if args.json {
        json::inspection(&inspection)
    } else {
        text(&inspection, args.tensors)
    })
}

fn text(inspection: &Inspection, with_tensors: bool) -> String {
    let total = || once(row("total", inspection.tensors.len(), &inspection.total));
    let groups = |first: &str, groups: &[MeasuredGroup]| {
        let named = |group: &MeasuredGroup| group.name.clone().unwrap_or("(none)".to_owned());
        let rows = groups
            .iter()
            .map(|group| row(&named(group), group.tensors, &group.fidelity));
        table(first, rows.chain(total()).collect())
    };
    let mut tables = Vec::new();
    if with_tensors {
        let tensors = inspection.tensors.iter();
        let rows = tensors.map(|tensor| row(&tensor.name, 1, &tensor.fidelity));
        tables.push(table("tensor", rows.chain(total()).collect()));
    }
    tables.push(groups("layer", &inspection.layers));
    tables.push(groups("group", &inspection.groups));
    tables.join("\n")
}

const COLUMNS: [&str; 12] = [
    "tensors", "elements", "bits", "SQNR dB", "rel err", "err/amax", "sat %", "zero %", "flush %",
    "0 blocks", "amax min", "amax max",
];

/// What the columns mean, for `--help`.
pub(crate) const COLUMNS_HELP: &str = "\
Columns (docs/FIDELITY.md defines them):
  bits      bits of codes, scales and zero points for each element
  SQNR dB   signal-to-quantization-noise ratio; \"exact\" if there is no noise
  rel err   largest error relative to the value, among values with a normal code (integers: not zero)
  err/amax  largest error relative to the largest magnitude of its block
  sat %     share of codes at an end of the range
  zero %    share of codes of zero
  flush %   share of codes of zero for values that are not zero
  0 blocks  blocks that are all zeros
  amax      smallest and largest block maximum, zero blocks excluded";

type Row = [String; 1 + COLUMNS.len()];

fn row(name: &str, tensors: usize, fidelity: &Fidelity) -> Row {
    let amax = |bound: fn(_) -> f32| fidelity.amax.map_or("-".to_owned(), |a| short(bound(a)));
    [
        name.shown().to_string(),
        tensors.to_string(),
        fidelity.elements.to_string(),
        fidelity
            .bits_per_weight()
            .map_or("-".to_owned(), |bits| format!("{bits:.3}")),
        fidelity
            .sqnr_db()
            .map_or("exact".to_owned(), |db| format!("{db:.2}")),
        format!("{:.5}", fidelity.largest_relative_error),
        format!("{:.5}", fidelity.largest_block_error),
        percent(fidelity.saturated_share()),
        percent(fidelity.zero_share()),
        percent(fidelity.flushed_share()),
        fidelity.zero_blocks.to_string(),
        amax(|amax| amax.smallest),
        amax(|amax| amax.largest),
    ]
}

/// Four digits after the point; what would then look like 0, but is not, as a bound.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".to_owned(),
        percent if percent < 0.0001 => "<0.0001".to_owned(),
        percent => format!("{percent:.4}"),
    }
}

/// Four significant digits, with an exponent only for numbers that need one.
fn short(number: f32) -> String {
    match number {
        0.001..1000.0 => {
            let before_point = number.log10().floor() as i32 + 1;
            format!("{number:.*}", (4 - before_point).max(0) as usize)
        }
        _ => format!("{number:.3e}"),
    }
}

/// The first column to the left, numbers to the right.
fn table(first: &str, rows: Vec<Row>) -> String {
    let mut header: Row = std::array::from_fn(|_| first.to_owned());
    for (cell, title) in header[1..].iter_mut().zip(COLUMNS) {
        *cell = title.to_owned();
    }
    let lines: Vec<&Row> = once(&header).chain(&rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    lines
        .iter()
        .map(|line| {
            let mut text = format!("{:<width$}", line[0], width = widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                text += &format!("  {cell:>width$}");
            }
            text + "\n"
        })
        .collect()
}
