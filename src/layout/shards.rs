//! Shards with an index, or one file without, in Hugging Face layout.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;

use crate::catalog::{CONFIG_FILE, Catalog, EditedConfig, Extents, Tensor};
use crate::error::setting::{REPACK, SHARD_SIZE, SINGLE_FILE};
use crate::error::{Hint, Result};
use crate::format::OUTPUT;
use crate::jobs;
use crate::layout::plan::{Plan, PlannedShard};
use crate::layout::shard_file::{self, ShardFile};
use crate::quant::weight_of;
use crate::source::{Attributes, Blob};
use crate::tensor::Name;
use crate::view::{TopFile, View};

/// Which tensors share a file, and what the files are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// The base's shards under the base's names. Where one of these is not a name of [`OUTPUT`], because
    /// the base is in another container, they have standard names.
    Keep,
    /// The base's shards, then the added tensors packed; standard names.
    Renumber,
    /// Everything packed anew; standard names.
    Repack,
    /// Everything in one file, which has no index.
    Single,
}

impl Partition {
    /// What helps where a shard would have too many tensors.
    fn advice(self) -> Hint {
        match self {
            Partition::Keep => {
                Hint::give_value(REPACK, "true").to("pack the tensors into more shards")
            }
            Partition::Renumber | Partition::Repack => {
                Hint::give(SHARD_SIZE).to("choose smaller shards")
            }
            Partition::Single => Hint::leave_out(SINGLE_FILE),
        }
    }
}

/// Tensors that share a shard, or will.
type Tensors<'a> = Vec<(&'a Name, &'a Tensor)>;

/// Lays `catalog` out in shards of at most `shard_bytes` tensor bytes, where they are packed.
///
/// # Errors
/// If a file cannot be made, for example because its header would be too long.
pub fn shards(mut catalog: Catalog, partition: Partition, shard_bytes: u64) -> Result<Plan> {
    let named = partition_tensors(&catalog, partition, shard_bytes)?;
    let newest = newest_source(&catalog);
    let built = jobs::map(&named, jobs::processors(), |(name, tensors)| {
        shard_file::build(name, tensors, &catalog.sources, &partition.advice())
    })?;
    let mut files = Vec::with_capacity(named.len() + 2);
    let mut planned = Vec::with_capacity(named.len());
    for ((name, _), ShardFile { content, tensors }) in named.into_iter().zip(built) {
        planned.push(PlannedShard {
            name: name.clone(),
            entry: View::ROOT, // set once the view is built
            len: content.len(),
            whole_file: content
                .whole_file()
                .map(|blob| blob.location().to_path_buf()),
            tensors,
        });
        files.push(TopFile {
            name: name.into(),
            attributes: attributes(&content, catalog.attributes, newest),
            content,
        });
    }
    if partition != Partition::Single {
        let name = OUTPUT.index_file();
        files.push(synthesized(name, index(&planned), &catalog, newest));
    }
    if let Some(config) = &catalog.config
        && !config.edits().is_empty()
    {
        if let Some(text) = config.edited_text() {
            let mut file = synthesized(CONFIG_FILE, text.into_bytes(), &catalog, newest);
            file.attributes.mode &= mode_for(catalog.attributes, config.file().attributes());
            files.push(file);
        }
        catalog.report.edited_config = Some(EditedConfig {
            from: config.path().to_owned(),
            edits: config.edits().clone(),
        });
    }
    let view = View::new(catalog.attributes, files, &catalog.aux);
    let index = match partition {
        Partition::Single => None,
        _ => view.lookup(View::ROOT, OUTPUT.index_file().as_ref()),
    };
    for shard in &mut planned {
        shard.entry = view
            .lookup(View::ROOT, shard.name.as_ref())
            .expect("the view was built with this file");
    }
    Ok(Plan {
        view: Arc::new(view),
        shards: planned,
        index,
        sources: catalog.sources,
        report: catalog.report,
    })
}

/// Shard names with their tensors, in shard order.
fn partition_tensors(
    catalog: &Catalog,
    partition: Partition,
    shard_bytes: u64,
) -> Result<Vec<(String, Tensors<'_>)>> {
    let mut kept: Vec<Tensors> = vec![Vec::new(); catalog.homes.len()];
    let mut units = in_units(&catalog.tensors);
    if partition == Partition::Single {
        let all = units.into_iter().map(|(_, name, tensor)| (name, tensor));
        return Ok(vec![(OUTPUT.single_file().to_owned(), all.collect())]);
    }
    if partition != Partition::Repack {
        units.retain(|&(_, name, tensor)| match tensor.home {
            Some(home) => {
                kept[home].push((name, tensor));
                false
            }
            None => true,
        });
    }
    let packed = pack(&units, shard_bytes);
    let kept = kept
        .into_iter()
        .zip(&catalog.homes)
        .filter(|(tensors, _)| !tensors.is_empty());
    let keeps_name = |name: &str| OUTPUT.is_shard(name.as_ref());
    if partition == Partition::Keep && catalog.homes.iter().all(|home| keeps_name(&home.name)) {
        return Ok(kept
            .map(|(tensors, home)| (home.name.clone(), tensors))
            .collect());
    }
    let all: Vec<Tensors> = kept.map(|(tensors, _)| tensors).chain(packed).collect();
    let names = OUTPUT.standard_names(all.len())?;
    Ok(names.zip(all).collect())
}

/// A tensor with the number of its unit: a weight and its companions, the smallest thing that is put into
/// a shard.
type InUnit<'a> = (usize, &'a Name, &'a Tensor);

/// The tensors in order, companions and weights drawn to whichever of them comes first.
fn in_units(tensors: &IndexMap<Name, Tensor>) -> Vec<InUnit<'_>> {
    let mut units: Vec<usize> = (0..tensors.len()).collect();
    for (scale, name) in tensors.keys().enumerate() {
        if let Some(weight) = weight_of(name).and_then(|weight| tensors.get_index_of(weight)) {
            let unit = scale.min(weight);
            (units[scale], units[weight]) = (unit, unit);
        }
    }
    let mut ordered: Vec<InUnit> = units
        .into_iter()
        .zip(tensors)
        .map(|(unit, (name, tensor))| (unit, name, tensor))
        .collect();
    ordered.sort_by_key(|(unit, ..)| *unit);
    ordered
}

/// Fills shards one after the other; a unit that does not fit starts the next shard.
fn pack<'a>(tensors: &[InUnit<'a>], shard_bytes: u64) -> Vec<Tensors<'a>> {
    let mut shards: Vec<Tensors> = Vec::new();
    let mut filled = 0u64;
    for unit in tensors.chunk_by(|(a, ..), (b, ..)| a == b) {
        let len: u64 = unit.iter().map(|(.., tensor)| tensor.len()).sum();
        let unit = unit.iter().map(|&(_, name, tensor)| (name, tensor));
        match shards.last_mut() {
            Some(shard) if filled.saturating_add(len) <= shard_bytes => {
                filled += len;
                shard.extend(unit);
            }
            _ => {
                filled = len;
                shards.push(unit.collect());
            }
        }
    }
    shards
}

/// The text of the index of `shards`.
fn index(shards: &[PlannedShard]) -> Vec<u8> {
    OUTPUT.index(shards.iter().flat_map(|shard| {
        let tensors = shard.tensors.iter();
        tensors.map(|tensor| (&tensor.name, &*shard.name, tensor.len))
    }))
}

fn synthesized(name: &str, text: Vec<u8>, catalog: &Catalog, mtime: SystemTime) -> TopFile {
    TopFile {
        name: name.into(),
        attributes: Attributes {
            mode: SYNTHESIZED_MODE,
            mtime,
            ..catalog.attributes
        },
        content: Extents::made(text),
    }
}

const SYNTHESIZED_MODE: u32 = 0o444;

/// Who may read a file: only those who may read every source file in it. A whole source file
/// keeps its owner and time.
fn attributes(content: &Extents, directory: Attributes, newest: SystemTime) -> Attributes {
    if let Some(blob) = content.whole_file() {
        return blob.attributes();
    }
    let mut attributes = Attributes {
        mode: SYNTHESIZED_MODE,
        mtime: newest,
        ..directory
    };
    for segment in content.segments() {
        let mut restrict = |blob: &Arc<dyn Blob>| {
            attributes.mode &= mode_for(directory, blob.attributes());
        };
        segment.place.for_each_source(&mut restrict);
    }
    attributes
}

/// The mode of `source` for a file that has the owner and group of `directory`: where those are
/// not the source's own, they may do what everyone may.
fn mode_for(directory: Attributes, source: Attributes) -> u32 {
    let everyone = source.mode & 0o7;
    let class = |own: bool, shift: u32| {
        if own {
            source.mode & (0o7 << shift)
        } else {
            everyone << shift
        }
    };
    class(source.uid == directory.uid, 6) | class(source.gid == directory.gid, 3) | everyone
}

/// The time of the youngest source file: what is synthesized is as old as what it is made from.
fn newest_source(catalog: &Catalog) -> SystemTime {
    let mut newest = UNIX_EPOCH;
    let mut visit = |blob: &Arc<dyn Blob>| newest = newest.max(blob.attributes().mtime);
    for tensor in catalog.tensors.values() {
        tensor.for_each_source(&mut visit);
    }
    if let Some(config) = &catalog.config {
        visit(config.file());
    }
    newest
}
