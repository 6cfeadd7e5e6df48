//! A directory in Hugging Face layout, shards with an index or one file without, read as a checkpoint: index,
//! tables and lengths are held against each other. Containers differ in how a file says which tensors it has.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Checkpoint, Container, LeftOut, Shard, StoredTensor};
use crate::format::copies::{self, Held};
use crate::format::index::{Index, WeightMap};
use crate::jobs;
use crate::source::{AuxFiles, Blob, Class, Directory};
use crate::tensor::Name;

/// What a file says of its tensors.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order in which a checkpoint without an index has them.
    pub tensors: IndexMap<Name, StoredTensor>,
    /// What else is in the file, each with the reason why it is not shown.
    pub left_out: Vec<String>,
    /// What was made of it.
    pub notes: Vec<String>,
}

/// A file that was read.
struct Read {
    name: String,
    blob: Arc<dyn Blob>,
    table: Table,
}

/// Reads the checkpoint in `directory`, which has these `names`, as one in `container`.
///
/// Its weights are what the index names; without an index, the single file of the container; without that,
/// every shard at the top level.
///
/// # Errors
/// If index, tables and file lengths do not agree with each other; the error names the file
/// and the tensor.
pub(super) fn read(
    container: Container,
    directory: &dyn Directory,
    names: &[OsString],
) -> Result<Checkpoint> {
    let mut files = Files::new(container);
    let AuxFiles { entries, left_out } = directory.aux(names, &mut |name| files.class(name))?;
    let mut left_out: Vec<LeftOut> = left_out.into_iter().map(LeftOut::from).collect();
    let index = if files.has_index {
        Some(read_index(container, directory)?)
    } else {
        None
    };
    let shard_names = shard_names(container, directory, index.as_ref(), &files.shards)?;
    for name in &files.shards {
        if !shard_names.contains(name.as_str()) {
            let reason = if files.has_index {
                "the index does not name it".to_owned()
            } else {
                format!("{} is the whole checkpoint", container.single_file())
            };
            // The same weights in another format give nothing that is missing.
            let file =
                (!is_of_another_format(container, name)).then(|| directory.location().join(name));
            left_out.push(LeftOut {
                what: format!("{name}: {reason}"),
                file,
            });
        }
    }

    let shard_names: Vec<&str> = shard_names.into_iter().collect();
    let at_once = directory.opened_at_once().unwrap_or_else(jobs::processors);
    let mut files = jobs::map(&shard_names, at_once, |name| {
        let blob = open_shard(directory, name, index.as_ref())?;
        Ok(Read {
            name: (*name).to_owned(),
            table: container.table(&*blob)?,
            blob,
        })
    })?;
    let mut tensors = match index {
        Some(index) => tensors_by_index(directory, index, &files, &mut left_out)?,
        None => tensors_by_tables(&files, &mut left_out)?,
    };
    let mut notes = Vec::new();
    strip_wrappers(container, &mut tensors, &mut files, &mut notes);
    let checkpoint: Arc<Path> = directory.location().into();
    Ok(Checkpoint {
        path: directory.location().to_owned(),
        attributes: directory.attributes(),
        shards: shards(container, &checkpoint, files, &mut left_out, &mut notes),
        tensors,
        aux: entries,
        left_out,
        notes,
        gguf: None,
        training: None,
    })
}

/// Reads `file` as a checkpoint in `container` that is this file alone.
///
/// # Errors
/// If its table and its length do not agree; the error names the file and the tensor.
pub(super) fn read_file(container: Container, file: Arc<dyn Blob>) -> Result<Checkpoint> {
    let location = file.location().clone();
    // Those of a directory that holds it: who can read it can enter that.
    let mut attributes = file.attributes();
    attributes.mode |= (attributes.mode & 0o444) >> 2;
    let name = location.file_name().unwrap_or_default();
    let mut files = vec![Read {
        name: name.to_string_lossy().into_owned(),
        table: container.table(&*file)?,
        blob: file,
    }];
    let (mut left_out, mut notes) = (Vec::new(), Vec::new());
    let mut tensors = tensors_by_tables(&files, &mut left_out)?;
    strip_wrappers(container, &mut tensors, &mut files, &mut notes);
    Ok(Checkpoint {
        path: location.to_path_buf(),
        attributes,
        tensors,
        shards: shards(container, &location, files, &mut left_out, &mut notes),
        aux: Vec::new(),
        left_out,
        notes,
        gguf: None,
        training: None,
    })
}

/// The shards that `files` of `checkpoint` are. What their tables have besides tensors goes to `left_out` and
/// `notes`.
fn shards(
    container: Container,
    checkpoint: &Arc<Path>,
    files: Vec<Read>,
    left_out: &mut Vec<LeftOut>,
    notes: &mut Vec<String>,
) -> Vec<Arc<Shard>> {
    let shards = files.into_iter().map(|Read { name, blob, table }| {
        let mut tensors = table.tensors;
        tensors.sort_by_key(|_, tensor| (tensor.offset, tensor.len));
        let of_file = |text: String| format!("{name}: {text}");
        left_out.extend(table.left_out.into_iter().map(of_file).map(LeftOut::from));
        let remarks = container.remarks(&tensors);
        notes.extend(table.notes.into_iter().chain(remarks).map(of_file));
        Arc::new(Shard {
            name,
            checkpoint: checkpoint.clone(),
            container,
            blob,
            tensors,
        })
    });
    shards.collect()
}

/// Takes off what wrappers of a model put before the names of all tensors, as far as `container` has such.
fn strip_wrappers(
    container: Container,
    tensors: &mut IndexMap<Name, usize>,
    files: &mut [Read],
    notes: &mut Vec<String>,
) {
    let prefix = container.wrapping(tensors.keys()).to_owned();
    if prefix.is_empty() {
        return;
    }
    fn stripped<V>(map: &mut IndexMap<Name, V>, prefix: &str) {
        let entries = std::mem::take(map).into_iter();
        *map = entries
            .map(|(name, value)| match name.strip_prefix(prefix) {
                Some(rest) => (rest.into(), value),
                None => (name, value),
            })
            .collect();
    }
    stripped(tensors, &prefix);
    for file in files {
        // Those that the index does not name may lack it.
        file.table
            .tensors
            .retain(|name, _| name.starts_with(&*prefix));
        stripped(&mut file.table.tensors, &prefix);
    }
    notes.push(format!(
        "all names began with {prefix}, which a wrapper of the model put there: it is taken off"
    ));
}

/// The names of the tensors of the checkpoint in `directory` if it has an index of `container`, in order. Its
/// shards need not exist.
pub(super) fn indexed_names(
    container: Container,
    directory: &dyn Directory,
) -> Result<Option<IndexSet<Name>>> {
    if !directory.has(container.index_file()) {
        return Ok(None);
    }
    let index = read_index(container, directory)?;
    let mut tensors = index.weight_map.tensors;
    strip_wrappers(container, &mut tensors, &mut [], &mut Vec::new());
    Ok(Some(tensors.into_keys().collect()))
}

/// The files of a directory that are weights.
#[derive(Debug)]
struct Files {
    container: Container,
    /// Names of all shards at the top level, sorted.
    shards: Vec<String>,
    has_index: bool,
}

impl Files {
    fn new(container: Container) -> Self {
        Files {
            container,
            shards: Vec::new(),
            has_index: false,
        }
    }

    /// Notes `name` if it is of weights.
    fn class(&mut self, name: &OsStr) -> Class {
        let text = name.to_string_lossy();
        if text == self.container.index_file() {
            self.has_index = true;
        } else if self.container.is_shard(name) {
            match name.to_str() {
                Some(name) => self.shards.push(name.to_owned()),
                None => return Class::LeftOut("its name is not valid UTF-8"),
            }
        } else if is_of_another_format(self.container, &text) {
            return Class::LeftOut("weights in another format");
        } else if text.ends_with(".safetensors.index.json") {
            return Class::LeftOut("an index of other weights");
        } else {
            return Class::Aux;
        }
        Class::Weights
    }
}

/// Whether `name` is of the weights, or of an index of them, that some repositories have besides those in
/// `container`.
pub(super) fn is_of_another_format(container: Container, name: &str) -> bool {
    const OTHER_FORMATS: [(&str, &str); 3] = [
        ("tf_model", ".h5"),
        ("flax_model", ".msgpack"),
        ("consolidated", ""),
    ];
    let weights = name.strip_suffix(".index.json").unwrap_or(name);
    let mut formats = OTHER_FORMATS.iter();
    container != Container::Torch && Container::Torch.is_shard(weights.as_ref())
        || formats.any(|(start, end)| weights.starts_with(start) && weights.ends_with(end))
}

fn read_index(container: Container, directory: &dyn Directory) -> Result<Index> {
    let file = directory.file(container.index_file())?;
    Index::parse(&file.read_all(Index::MAX_BYTES)?, file.location())
}

fn shard_names<'a>(
    container: Container,
    directory: &dyn Directory,
    index: Option<&'a Index>,
    found: &'a [String],
) -> Result<IndexSet<&'a str>> {
    if let Some(index) = index {
        return Ok(index.weight_map.shards.iter().map(String::as_str).collect());
    }
    let single = container.single_file();
    if found.iter().any(|name| name == single) {
        return Ok(IndexSet::from([single]));
    }
    if found.is_empty() {
        let safetensors = Container::Safetensors.index_file();
        let torch = Container::Torch.single_file();
        return Err(Error::of_file(
            Code::NoCheckpoint,
            directory.location(),
            format!(
                "no checkpoint here: expected {safetensors}, *.safetensors files or {torch} (weights in other formats must be converted first)"
            ),
        ).with_hint("a file of torch.save with another name is named itself, in place of its directory"));
    }
    Ok(found.iter().map(String::as_str).collect())
}

fn open_shard(
    directory: &dyn Directory,
    name: &str,
    index: Option<&Index>,
) -> Result<Arc<dyn Blob>> {
    if let Some(index) = index
        && !directory.has(name)
        && let WeightMap { tensors, shards } = &index.weight_map
        && let Some((tensor, _)) = tensors.iter().find(|(_, shard)| shards[**shard] == name)
    {
        return Err(Error::of_tensor(
            Code::MissingShard,
            directory.location().join(name),
            tensor,
            "the index says it is in this shard, but there is no such file",
        )
        .with_hint("is the download complete?"));
    }
    directory.weights(name)
}

/// The tensors of `index`, if each is in the shard that it names. Copies in other shards are left out.
fn tensors_by_index(
    directory: &dyn Directory,
    index: Index,
    files: &[Read],
    left_out: &mut Vec<LeftOut>,
) -> Result<IndexMap<Name, usize>> {
    let tensors = index.weight_map.tensors;
    let mut found: Vec<Option<usize>> = vec![None; tensors.len()];
    let mut copies = Vec::new();
    for (position, file) in files.iter().enumerate() {
        for name in file.table.tensors.keys() {
            let Some(tensor) = tensors.get_index_of(name) else {
                let what = format!("tensor {name} in {}: the index does not name it", file.name);
                left_out.push(what.into());
                continue;
            };
            let mut copy = Some(position);
            if found[tensor].is_none() || tensors[tensor] == position {
                copy = found[tensor].replace(position);
            }
            copies.extend(copy.map(|copy| (tensor, copy)));
        }
    }
    for ((name, &named), found) in tensors.iter().zip(&found) {
        let problem = match found {
            Some(position) if *position == named => continue,
            Some(position) => format!("but it is in {}", files[*position].name),
            None => "but the shard does not have it".to_owned(),
        };
        return Err(Error::of_tensor(
            Code::IndexMismatch,
            directory.location().join(&files[named].name),
            name,
            format!("the index says it is in this shard, {problem}"),
        ));
    }
    for (tensor, copy) in copies {
        let (name, &named) = tensors.get_index(tensor).expect("a position in it");
        leave_out_copy(name, &files[named], &files[copy], left_out)?;
    }
    Ok(tensors)
}

/// The tensors of `files`, each in the first that holds it. Copies in other shards are left out.
fn tensors_by_tables(files: &[Read], left_out: &mut Vec<LeftOut>) -> Result<IndexMap<Name, usize>> {
    let mut tensors = IndexMap::new();
    for (position, file) in files.iter().enumerate() {
        for name in file.table.tensors.keys() {
            let &mut first = tensors.entry(name.clone()).or_insert(position);
            if first != position {
                leave_out_copy(name, &files[first], file, left_out)?;
            }
        }
    }
    Ok(tensors)
}

fn leave_out_copy(
    name: &Name,
    used: &Read,
    other: &Read,
    left_out: &mut Vec<LeftOut>,
) -> Result<()> {
    fn held<'a>(name: &Name, file: &'a Read) -> Held<'a> {
        Held {
            file: &file.name,
            blob: &*file.blob,
            tensor: &file.table.tensors[name],
        }
    }
    copies::leave_out(name, held(name, used), held(name, other), left_out)
}
