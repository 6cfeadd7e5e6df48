//! What the page shows, as compact JSON: a column for each property of tensors, and lists of what
//! many of them share.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use serde::Serialize;

use ckptfs::catalog::{EditedConfig, MergeReport, SourceReport, Step};
use ckptfs::inspect::{Fidelity, Inspection, MeasuredGroup};
use ckptfs::json::SpelledWarning;
use ckptfs::layout::PlannedTensor;
use ckptfs::ops::lora::AdapterReport;
use ckptfs::ops::quantize::ReferenceReport;
use ckptfs::provenance::{Counts, Fate, Group, Lineage, groups_of_plan, lineages};
use ckptfs::recipe::Plan;

use crate::cli::messages::flag;
use crate::cli::provenance;
use crate::cli::report::difference::Difference;

/// The script's `data`.
#[derive(Serialize)]
pub(super) struct Data<'a> {
    program: &'static str,
    /// The name of the directory that the view starts from.
    title: String,
    /// The recipe of the view, or why there is none.
    recipe: String,
    counts: Counts,
    untied: usize,
    tied: usize,
    renamed: usize,
    dropped: usize,
    resized: usize,
    quantized: usize,
    merge: Option<&'a MergeReport>,
    sources: &'a [SourceReport],
    adapters: Vec<&'a AdapterReport>,
    references: Vec<&'a ReferenceReport>,
    edited_config: Option<&'a EditedConfig>,
    /// What was asked to be changed in other files, in words.
    edits: Vec<String>,
    warnings: Vec<SpelledWarning>,
    notes: &'a [String],
    shards: Vec<Shard<'a>>,
    files: Vec<File>,
    groups: Vec<Kind>,
    dtypes: Vec<String>,
    shapes: Vec<String>,
    /// Chains of steps, as text.
    ways: Vec<String>,
    /// Source files: the label of the source, and the path of the file.
    source_files: Vec<(String, PathBuf)>,
    tensors: Tensors,
    errors: Option<Errors<'a>>,
    diff: Option<Difference>,
}

#[derive(Serialize)]
struct Shard<'a> {
    name: &'a str,
    len: u64,
    whole_file: Option<&'a Path>,
}

#[derive(Serialize)]
struct File {
    path: String,
    len: u64,
    from: Option<PathBuf>,
}

/// A group of tensors that come about in the same way.
#[derive(Serialize)]
struct Kind {
    name: String,
    tensors: usize,
    bytes: u64,
    dtype: String,
    shape: String,
    way: String,
}

/// A list for each property, all of the same length. Numbers are positions in the lists of
/// [`Data`], but for bytes.
#[derive(Default, Serialize)]
struct Tensors {
    name: Vec<String>,
    /// Positions in the script's list of fates.
    fate: Vec<u8>,
    dtype: Vec<usize>,
    shape: Vec<usize>,
    offset: Vec<u64>,
    len: Vec<u64>,
    shard: Vec<usize>,
    way: Vec<usize>,
    from: Vec<Sources>,
}

/// The first [`Sources::SHOWN`] sources: file, name (0: the same), first byte, end; and how many
/// there are more.
#[derive(Serialize)]
struct Sources(Vec<(usize, SourceName, u64, u64)>, usize);

impl Sources {
    const SHOWN: usize = 4;
}

#[derive(Serialize)]
#[serde(untagged)]
enum SourceName {
    Same(u8),
    Other(String),
}

/// Figures of quantization errors.
#[derive(Serialize)]
struct Errors<'a> {
    total: Figures,
    layers: Vec<(Option<&'a str>, usize, Figures)>,
    modules: Vec<(Option<&'a str>, usize, Figures)>,
    /// By the position of the tensor.
    tensors: BTreeMap<usize, Figures>,
}

/// SQNR in dB (`null` if there is no noise), the largest error relative to the value, and relative to
/// its block's largest magnitude, shares of codes that are zeros of other numbers, and saturated; bits for each element.
#[derive(Serialize)]
struct Figures(Option<f32>, f32, f32, f32, f32, f32);

impl From<&Fidelity> for Figures {
    fn from(fidelity: &Fidelity) -> Self {
        Figures(
            fidelity.sqnr_db().map(|db| db as f32),
            fidelity.largest_relative_error as f32,
            fidelity.largest_block_error as f32,
            fidelity.flushed_share() as f32,
            fidelity.saturated_share() as f32,
            fidelity.bits_per_weight().unwrap_or(0.0) as f32,
        )
    }
}

impl<'a> Data<'a> {
    /// The data of the view of `plan`.
    pub(super) fn new(
        plan: &'a Plan,
        recipe: ckptfs::Result<String>,
        inspection: Option<&'a Inspection>,
        diff: Option<Difference>,
    ) -> Self {
        let lineages = lineages(plan);
        let (groups, _) = groups_of_plan(plan, &lineages);
        let mut lists = Lists::default();
        let mut tensors = Tensors::default();
        for (position, shard) in plan.shards.iter().enumerate() {
            for (tensor, lineage) in shard.tensors.iter().zip(&lineages[position]) {
                tensors.shard.push(position);
                tensors.push(plan, tensor, lineage, &mut lists);
            }
        }
        let report = &plan.report;
        Data {
            program: concat!("ckptfs ", env!("CARGO_PKG_VERSION")),
            title: title(plan),
            counts: Counts::new(plan, lineages.iter().flatten()),
            untied: report.count("untied"),
            tied: report.count("tied"),
            renamed: report.count("renamed"),
            dropped: report.count("dropped"),
            resized: report.count("resized"),
            quantized: report.count("quantized"),
            recipe: recipe.unwrap_or_else(|error| error.spelled(flag)),
            merge: report.merge.as_ref(),
            sources: &report.sources,
            adapters: report.reports().collect(),
            references: report.reports().collect(),
            edited_config: report.edited_config.as_ref(),
            edits: report.edits.iter().map(ToString::to_string).collect(),
            warnings: SpelledWarning::each(&report.warnings, flag),
            notes: &report.notes,
            shards: plan
                .shards
                .iter()
                .map(|shard| Shard {
                    name: &shard.name,
                    len: shard.len,
                    whole_file: shard.whole_file.as_deref(),
                })
                .collect(),
            files: plan
                .aux_files()
                .map(|(path, content)| File {
                    path: path.to_string_lossy().into_owned(),
                    len: content.len(),
                    from: content
                        .whole_file()
                        .map(|blob| blob.location().to_path_buf()),
                })
                .collect(),
            groups: groups.iter().map(|group| Kind::new(plan, group)).collect(),
            dtypes: lists.dtypes.into_iter().collect(),
            shapes: lists.shapes.into_iter().collect(),
            ways: lists.ways.into_iter().collect(),
            source_files: lists
                .source_files
                .into_iter()
                .map(|(checkpoint, file)| (provenance::label(plan, &checkpoint), file))
                .collect(),
            errors: inspection.map(|inspection| Errors::new(inspection, &tensors)),
            diff,
            tensors,
        }
    }
}

fn title(plan: &Plan) -> String {
    let first = plan.report.sources.first();
    let name = first.and_then(|source| source.path.file_name());
    match (&plan.report.merge, name) {
        (Some(merge), _) => format!("{} of {}", merge.method, merge.models.join(", ")),
        (None, Some(name)) => name.to_string_lossy().into_owned(),
        (None, None) => "a view".to_owned(),
    }
}

impl Kind {
    fn new(plan: &Plan, group: &Group) -> Self {
        Kind {
            name: group.name.to_string(),
            tensors: group.tensors,
            bytes: group.bytes,
            dtype: group.dtype.clone(),
            shape: format!("{:?}", group.shape),
            way: provenance::way(plan, group),
        }
    }
}

/// What many tensors share.
#[derive(Default)]
struct Lists {
    dtypes: IndexSet<String>,
    shapes: IndexSet<String>,
    ways: IndexSet<String>,
    source_files: IndexSet<(PathBuf, PathBuf)>,
}

impl Tensors {
    fn push(&mut self, plan: &Plan, tensor: &PlannedTensor, lineage: &Lineage, lists: &mut Lists) {
        self.name.push(tensor.name.to_string());
        self.fate.push(Fate::new(plan, tensor, lineage) as u8);
        let (dtype, _) = lists.dtypes.insert_full(tensor.type_name());
        self.dtype.push(dtype);
        let (shape, _) = lists.shapes.insert_full(format!("{:?}", tensor.elements()));
        self.shape.push(shape);
        self.offset.push(tensor.offset);
        self.len.push(tensor.len);
        let way: Vec<String> = lineage.steps.iter().map(Step::to_string).collect();
        self.way.push(lists.ways.insert_full(way.join(" → ")).0);
        let from = lineage.from.iter().take(Sources::SHOWN).map(|source| {
            let file = (source.checkpoint().to_owned(), source.path().to_owned());
            let name = if *source.name() == tensor.name {
                SourceName::Same(0)
            } else {
                SourceName::Other(source.name().to_string())
            };
            let (file, _) = lists.source_files.insert_full(file);
            (file, name, source.bytes.start, source.bytes.end)
        });
        let from = from.collect();
        let more = lineage.from.len().saturating_sub(Sources::SHOWN);
        self.from.push(Sources(from, more));
    }
}

impl<'a> Errors<'a> {
    fn new(inspection: &'a Inspection, tensors: &Tensors) -> Self {
        let names = tensors.name.iter().enumerate();
        let positions: HashMap<&str, usize> = names.map(|(at, name)| (&**name, at)).collect();
        let groups = |groups: &'a [MeasuredGroup]| {
            let figures = groups.iter().map(|group| {
                (
                    group.name.as_deref(),
                    group.tensors,
                    Figures::from(&group.fidelity),
                )
            });
            figures.collect()
        };
        let measured = inspection.tensors.iter().filter_map(|tensor| {
            let position = positions.get(&*tensor.name)?;
            Some((*position, Figures::from(&tensor.fidelity)))
        });
        Errors {
            total: Figures::from(&inspection.total),
            layers: groups(&inspection.layers),
            modules: groups(&inspection.groups),
            tensors: measured.collect(),
        }
    }
}
