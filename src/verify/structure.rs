//! Whether a directory is a checkpoint that every loader reads alike: index, headers and files
//! agree, and nothing lies beside them that a loader would take for weights.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::error::{Code, Error, Result, Warning};
use crate::findings::Faults;
use crate::format::safetensors::{INDEX_FILE, SINGLE_FILE, read_header};
use crate::format::{Index, StoredTensor, WeightMap};
use crate::jobs::Progress;
use crate::tensor::Name;
use crate::text::counted;
use crate::verify::known_scales::KnownScales;
use crate::verify::place::Place;
use crate::verify::shard_file::ShardFile;
use crate::verify::{described, quantization};

/// What is to be said about a directory.
#[derive(Debug, Clone, Default)]
pub struct StructureReport {
    /// Safetensors files that belong to the checkpoint.
    pub shards: usize,
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors whose scales are known to be powers of two and were not read.
    pub known_scales: usize,
    /// What some loader will fail on or read wrongly.
    pub problems: Vec<Warning>,
    /// What may be meant but is unusual.
    pub warnings: Vec<Warning>,
}

/// Checks the checkpoint in `directory`, which may be a URL: index, headers and lengths, the scales of block FP8
/// tensors, and what config.json says of them. Of tensors, only scales are read, on `jobs` threads,
/// and these only if config.json declares them to be powers of two and they are not `known` to be.
///
/// # Errors
/// If the directory cannot be read or has no weights. All else is in the report.
pub fn structure(
    directory: &Path,
    known: &KnownScales,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<StructureReport> {
    let mut inspection = Inspection::default();
    let place = &Place::open(directory)?;
    let files = safetensors_files(place)?;
    let index = match place.has(INDEX_FILE) {
        true => inspection.read_index(place),
        false if files.is_empty() => {
            return Err(Error::of_file(
                Code::NoCheckpoint,
                directory,
                format!("no checkpoint here: expected {INDEX_FILE} or *.safetensors files"),
            ));
        }
        false => None,
    };
    let names = inspection.shard_names(&files, index.as_ref());
    for name in &names {
        inspection.read_shard(place, name, index.as_ref());
    }
    if let Some(index) = &index {
        inspection.compare_with_index(&index.parsed);
        inspection.check_metadata(&index.metadata);
    }
    let (tensors, bytes) = (inspection.tensors().count(), inspection.tensor_bytes());
    let Inspection {
        shards,
        complete,
        mut faults,
    } = inspection;
    let mut known_scales = 0;
    if complete {
        known_scales = quantization::check(place, &shards, known, jobs, progress, &mut faults)?;
        described::check(place, &shards, &mut faults);
    }
    Ok(StructureReport {
        shards: names.len(),
        tensors,
        bytes,
        known_scales,
        problems: faults.problems.into_warnings(),
        warnings: faults.warnings.into_warnings(),
    })
}

/// What is known of a directory so far.
#[derive(Debug)]
struct Inspection {
    faults: Faults,
    /// Those that could be read.
    shards: Vec<ShardFile>,
    /// Whether all shards could be read, so that what is in none of them is missing.
    complete: bool,
}

struct IndexFile {
    parsed: Index,
    metadata: Value,
}

impl Default for Inspection {
    fn default() -> Self {
        Inspection {
            faults: Faults::default(),
            shards: Vec::new(),
            complete: true,
        }
    }
}

impl Inspection {
    /// Every tensor of every header.
    fn tensors(&self) -> impl Iterator<Item = (&Name, &StoredTensor)> {
        self.shards.iter().flat_map(|shard| &shard.header)
    }

    fn tensor_bytes(&self) -> u64 {
        self.tensors().map(|(_, tensor)| tensor.len).sum()
    }

    fn read_index(&mut self, place: &Place) -> Option<IndexFile> {
        let read = || {
            let file = place.blob(INDEX_FILE)?;
            let text = file.read_all(Index::MAX_BYTES)?;
            let parsed = Index::parse(&text, file.location())?;
            let whole: Value = serde_json::from_slice(&text)
                .map_err(|e| Error::of_file(Code::BadIndex, file.location(), e.to_string()))?;
            let metadata = whole.get("metadata").cloned().unwrap_or_default();
            Ok::<_, Error>(IndexFile { parsed, metadata })
        };
        read()
            .map_err(|e| self.faults.problems.add_warning(e.into()))
            .ok()
    }

    /// The files that make up the checkpoint; the others are told.
    fn shard_names(&mut self, files: &[String], index: Option<&IndexFile>) -> IndexSet<String> {
        let names: IndexSet<String> = match index {
            Some(index) => index.parsed.weight_map.shards.clone(),
            None if files.iter().any(|name| name == SINGLE_FILE) => [SINGLE_FILE.into()].into(),
            None => files.iter().cloned().collect(),
        };
        for name in files.iter().filter(|name| !names.contains(*name)) {
            if name == SINGLE_FILE {
                self.faults.problems.add(Code::LoadersDiffer, format!(
                    "{SINGLE_FILE} is not in the index, and some loaders read it instead of the index"
                ));
            } else {
                let whole = match index {
                    Some(_) => "not in the index",
                    None => "beside model.safetensors without an index",
                };
                self.faults.problems.add_item(
                    Code::LoadersDiffer,
                    format!("safetensors files {whole}; some loaders read every one"),
                    name,
                );
            }
        }
        if index.is_none() && names.len() > 1 {
            self.faults.warnings.add(
                Code::LoadersDiffer,
                format!(
                    "{} shards and no {INDEX_FILE}: some loaders find no weights here",
                    names.len()
                ),
            );
        }
        names
    }

    fn read_shard(&mut self, place: &Place, name: &str, index: Option<&IndexFile>) {
        let path = place.path_of(name);
        let result = if !place.has(name) {
            let count = index.map_or(0, |index| {
                let WeightMap { tensors, shards } = &index.parsed.weight_map;
                let shard = shards.get_index_of(name);
                tensors.values().filter(|s| Some(**s) == shard).count()
            });
            let problem = format!(
                "the index places {} in this file, which is missing",
                counted(count, "tensor")
            );
            Err(Error::of_file(Code::MissingShard, &path, problem))
        } else {
            place.weights(name).and_then(|file| {
                Ok(ShardFile {
                    name: name.to_owned(),
                    header: read_header(&*file)?,
                    file,
                })
            })
        };
        match result {
            Ok(shard) => self.shards.push(shard),
            Err(error) => {
                self.complete = false;
                self.faults.problems.add_warning(error.into());
            }
        }
    }

    fn compare_with_index(&mut self, index: &Index) {
        let WeightMap {
            tensors: listed,
            shards: names,
        } = &index.weight_map;
        let mut shard_of: IndexMap<&str, &str> = IndexMap::new();
        for shard in &self.shards {
            for tensor in shard.header.keys() {
                if !listed.contains_key(tensor) {
                    let fault = format!("{}: tensors that the index does not name", shard.name);
                    self.faults
                        .problems
                        .add_item(Code::IndexMismatch, fault, &**tensor);
                }
                if let Some(first) = shard_of.insert(tensor, &shard.name) {
                    let fault = format!("tensors that are in both {first} and {}", shard.name);
                    self.faults
                        .problems
                        .add_item(Code::IndexMismatch, fault, &**tensor);
                }
            }
        }
        let headers = self.shards.iter().map(|shard| (&shard.name, &shard.header));
        let headers: IndexMap<&String, &IndexMap<Name, StoredTensor>> = headers.collect();
        for (tensor, &named) in listed {
            let named = &names[named];
            let Some(header) = headers.get(named) else {
                continue; // A shard that could not be read is a problem already.
            };
            if !header.contains_key(tensor) {
                let elsewhere = match shard_of.get(&**tensor) {
                    Some(other) => format!("{tensor} (it is in {other})"),
                    None => tensor.to_string(),
                };
                let fault = format!("{named}: tensors that the index places here but are not");
                self.faults
                    .problems
                    .add_item(Code::IndexMismatch, fault, elsewhere);
            }
        }
    }

    fn check_metadata(&mut self, metadata: &Value) {
        if metadata.is_null() {
            self.faults.warnings.add(
                Code::LoadersDiffer,
                format!("{INDEX_FILE} has no metadata: some loaders expect it"),
            );
        }
        let Some(declared) = metadata.get("total_size") else {
            return;
        };
        let actual = self.tensor_bytes();
        // Some tools write a floating-point number.
        let equal = declared.as_u64() == Some(actual) || declared.as_f64() == Some(actual as f64);
        if self.complete && !equal {
            self.faults.problems.add(Code::IndexMismatch, format!(
                "{INDEX_FILE}: metadata.total_size is {declared}, but the tensors have {actual} bytes"
            ));
        }
    }
}

/// The names of all top-level `*.safetensors`, sorted.
fn safetensors_files(place: &Place) -> Result<Vec<String>> {
    let entries = place.entries(Path::new(""))?.into_iter();
    let names = entries.map(|(name, _)| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    names.sort();
    Ok(names)
}
