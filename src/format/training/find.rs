//! Which training checkpoint a directory has: in itself, or in one below that programs put it into.

use std::ffi::OsString;
use std::sync::Arc;

use crate::error::Result;
use crate::format::training::files::unfinished;
use crate::format::training::{dcp, deepspeed, meta, ranks};
use crate::source::{AuxEntry, AuxFiles, Class, Directory};

/// Where programs put the weights of a model: accelerate, Megatron-Core in verl, verl and SkyRL, torchtitan and NeMo, and
/// torch's writer of safetensors.
const BELOW: [&str; 8] = [
    "pytorch_model_fsdp_0",
    "pytorch_model_fsdp",
    "dist_ckpt",
    "actor",
    "policy",
    "model",
    "weights",
    "sharded",
];

/// Files that name the directory of the newest checkpoint beside them: DeepSpeed's and Megatron's.
const POINTERS: [(&str, &str); 2] = [
    ("latest", ""),
    ("latest_checkpointed_iteration.txt", "iter_"),
];

/// How many directories are gone down.
const MAX_DEPTH: usize = 4;

/// Where verl and others put config and tokenizer.
const HUGGING_FACE: &str = "huggingface";

const CONFIG: &str = "config.json";

/// How the files of a checkpoint are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Dcp,
    DcpSafetensors,
    Ranks,
    DeepSpeed,
    Meta,
}

/// A checkpoint that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) form: Form,
    /// The names in the directory that it is in.
    pub(super) names: Vec<OsString>,
    /// The directories from the one that was asked for down to that one, without the first.
    below: Vec<Arc<dyn Directory>>,
}

/// The checkpoint in `directory`, which has these `names`, if there is one.
///
/// # Errors
/// If a directory cannot be listed, or is named and missing.
pub(super) fn find(directory: &dyn Directory, names: &[OsString]) -> Result<Option<Found>> {
    let found = search(directory, names, MAX_DEPTH)?;
    Ok(found.map(|mut found| {
        found.below.reverse();
        found
    }))
}

fn search(directory: &dyn Directory, names: &[OsString], depth: usize) -> Result<Option<Found>> {
    if let Some(form) = form(names) {
        return Ok(Some(Found {
            form,
            names: names.to_vec(),
            below: Vec::new(),
        }));
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(None);
    };
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    for name in BELOW.into_iter().filter(|name| has(name)) {
        if let Some(below) = directory.below(name)?
            && let Some(found) = inside(below, depth)?
        {
            return Ok(Some(found));
        }
    }
    for (file, prefix) in POINTERS {
        if has(file)
            && let Some(name) = pointed(directory, file, prefix)?
        {
            let Some(below) = directory.below(&name)? else {
                let path = directory.location().join(file);
                let problem = format!("it names {name}, and there is no such directory");
                return Err(unfinished(&path, problem));
            };
            return inside(below, depth);
        }
    }
    Ok(None)
}

fn inside(below: Arc<dyn Directory>, depth: usize) -> Result<Option<Found>> {
    let mut found = search(&*below, &below.names()?, depth)?;
    if let Some(found) = &mut found {
        found.below.push(below);
    }
    Ok(found)
}

/// The directory that `file` names, if it is a plain name.
fn pointed(directory: &dyn Directory, file: &str, prefix: &str) -> Result<Option<String>> {
    const MAX_BYTES: u64 = 1024;
    let blob = directory.file(file)?;
    if blob.len() > MAX_BYTES {
        return Ok(None);
    }
    let text = blob.read_all(MAX_BYTES)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    let name = match (prefix, text.parse::<u64>()) {
        ("", _) => text.to_owned(),
        (prefix, Ok(number)) => format!("{prefix}{number:07}"),
        (_, Err(_)) => return Ok(None),
    };
    let is_plain = !matches!(&*name, "" | "." | "..") && !name.contains(['/', '\0']);
    Ok(is_plain.then_some(name))
}

/// What these names are of.
fn form(names: &[OsString]) -> Option<Form> {
    let any = |is: fn(&str) -> bool| names.iter().any(|name| name.to_str().is_some_and(is));
    if any(dcp::is_file) {
        Some(Form::Dcp)
    } else if any(ranks::is_file) {
        Some(Form::Ranks)
    } else if any(deepspeed::is_file) {
        Some(Form::DeepSpeed)
    } else if any(|name| dcp::is_shard_of_rank(name.as_ref())) {
        Some(Form::DcpSafetensors)
    } else if any(meta::is_file) {
        Some(Form::Meta)
    } else {
        None
    }
}

impl Found {
    /// The directory that it is in, where `top` is the one that was asked for.
    pub(super) fn place<'a>(&'a self, top: &'a dyn Directory) -> &'a dyn Directory {
        self.below.last().map_or(top, |below| &**below)
    }

    /// Config and tokenizer that are with it: those of a directory `huggingface`, or of the nearest one that has a
    /// config.json.
    ///
    /// # Errors
    /// If a directory cannot be listed.
    pub(super) fn aux(&self, top: &dyn Directory) -> Result<AuxFiles> {
        let below = self.below.iter().map(|below| &**below);
        let mut all: Vec<&dyn Directory> = std::iter::once(top).chain(below).collect();
        all.reverse();
        for directory in all {
            if let Some(beside) = directory.below(HUGGING_FACE)?
                && beside.has(CONFIG)
            {
                return files_of(&*beside);
            }
            if directory.has(CONFIG) {
                return files_of(directory);
            }
        }
        Ok(AuxFiles::default())
    }
}

/// The files of `directory` that are of the model, and neither weights nor state of a program.
fn files_of(directory: &dyn Directory) -> Result<AuxFiles> {
    const ENDS: [&str; 6] = [".json", ".jinja", ".model", ".txt", ".py", ".md"];
    const STATE: [&str; 3] = ["trainer_state.json", "zero_to_fp32.py", "metadata.json"];
    let mut aux = directory.aux(&directory.names()?, &mut |name| {
        let text = name.to_string_lossy();
        let is_text = ENDS.iter().any(|end| text.ends_with(end));
        let is_index = text.ends_with(".index.json");
        let is_state = text.starts_with("latest") || STATE.contains(&&*text);
        match is_text && !is_index && !is_state {
            true => Class::Aux,
            false => Class::Weights,
        }
    })?;
    aux.entries
        .retain(|entry| matches!(entry, AuxEntry::File { .. }));
    Ok(aux)
}
