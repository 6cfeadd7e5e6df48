//! Flags as typed, and the request they make. Nothing past this file sees a flag.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[cfg(feature = "fuse")]
use clap::error::ErrorKind;
use clap::{ArgGroup, Args};

use ckptfs::error::setting;
use ckptfs::jobs::MAX_THREADS;
use ckptfs::ops::Group;
use ckptfs::recipe::{Shards, ViewRequest, Wanted, parse_shard_size};
use ckptfs::source::Location;

#[cfg(feature = "remote")]
use crate::cli::network::NetworkArgs;
use crate::cli::operations::{OperationArgs, heading};
use crate::cli::purpose::Purpose;
use crate::cli::waiting::note_silent_mount;

const SOURCES: &str = heading(Group::Sources);
const SHARDS: &str = heading(Group::Shards);

/// The group of the flags of [`ViewArgs`], but for those of operators.
pub(crate) const VIEW_FLAGS: &str = "view";

/// Which view: the flags that every command on a view has.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new(VIEW_FLAGS).multiple(true).args([
    "base", "recipe", "model", "repack", "no_repack", "single_file", "shard_size",
])))]
pub(crate) struct ViewArgs {
    /// Base checkpoint directory, or .bin, .pt, .pth or .gguf file
    #[arg(
        long,
        visible_alias = "source",
        value_name = "DIR",
        required_unless_present = "recipe",
        conflicts_with = "recipe",
        help_heading = SOURCES
    )]
    pub(crate) base: Option<PathBuf>,

    /// Recipe instead of a base: a mergekit configuration, or what the flags below say as YAML.
    /// Flags override it and add to its lists
    #[arg(long, help_heading = SOURCES, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,

    /// Directory of a model that the recipe names (repeatable). Others are searched next to the
    /// recipe and in the local Hugging Face cache
    #[arg(long, help_heading = SOURCES, value_name = "ID=DIR", value_parser = parse_model, conflicts_with = "base")]
    pub(crate) model: Vec<(String, Location)>,

    #[command(flatten)]
    pub(crate) operations: OperationArgs,

    #[cfg(feature = "remote")]
    #[command(flatten)]
    network: NetworkArgs,

    /// Pack all tensors into new shards with standard names, like --shards repack
    #[arg(long, help_heading = SHARDS, conflicts_with_all = ["no_repack", setting::SHARDS])]
    pub(crate) repack: bool,

    /// Keep the base's shards even if their names are not standard, like --shards keep
    #[arg(long, help_heading = SHARDS, conflicts_with = setting::SHARDS)]
    pub(crate) no_repack: bool,

    /// Pack all tensors into one model.safetensors without an index, like --shards single
    #[arg(long, help_heading = SHARDS, conflicts_with_all = ["no_repack", "shard_size", setting::SHARDS])]
    pub(crate) single_file: bool,

    /// Maximum tensor bytes in a new shard; GiB if there is no unit [default: 4GiB]
    #[arg(long, help_heading = SHARDS, alias = "shard-size-gb", value_name = "SIZE", value_parser = parse_shard_size)]
    pub(crate) shard_size: Option<u64>,
}

/// The same, where the base or recipe may also be the first argument.
#[derive(Debug, Args)]
#[command(mut_arg("base", |base| base.required_unless_present_any(["start", "recipe"])))]
pub(crate) struct ViewOrDir {
    /// Base checkpoint directory or GGUF file (like --base) or recipe file (like --recipe)
    #[arg(value_name = "DIR", conflicts_with_all = ["base", "recipe"])]
    start: Option<PathBuf>,

    #[command(flatten)]
    view: ViewArgs,
}

/// The same, and where to mount it.
#[cfg(feature = "fuse")]
#[derive(Debug, Args)]
#[command(mut_arg("base", |base| base.required_unless_present_any(["recipe", PLACES])))]
pub(crate) struct ViewAndMountpoint {
    /// Empty directory to mount the view on; before it, the base (a checkpoint directory or a
    /// GGUF file) or the recipe file, unless --base or --recipe names it
    #[arg(id = PLACES, value_name = "MOUNTPOINT", num_args = 1..=2, required = true)]
    places: Vec<PathBuf>,

    #[command(flatten)]
    view: ViewArgs,
}

#[cfg(feature = "fuse")]
const PLACES: &str = "places";

#[cfg(feature = "fuse")]
impl ViewAndMountpoint {
    /// The flags that say the same, and the mountpoint.
    ///
    /// # Errors
    /// If there is no base and no recipe, or more than one of them.
    pub(crate) fn into_view(mut self) -> Result<(ViewArgs, PathBuf), (ErrorKind, &'static str)> {
        let mountpoint = self.places.pop().expect("one is required");
        let start = self.places.pop();
        let by_flag = self.view.base.is_some() || self.view.recipe.is_some();
        let error = match (&start, by_flag) {
            (Some(_), true) => {
                "a base or recipe before the mountpoint cannot be used with --base or --recipe"
            }
            (None, false) => {
                "a base directory or a recipe is missing before the mountpoint, or --base or --recipe"
            }
            _ => {
                let view = self.view;
                return Ok((ViewOrDir { start, view }.into_view(), mountpoint));
            }
        };
        let kind = match start {
            Some(_) => ErrorKind::ArgumentConflict,
            None => ErrorKind::MissingRequiredArgument,
        };
        Err((kind, error))
    }
}

impl ViewOrDir {
    /// The flags that say the same.
    pub(crate) fn into_view(self) -> ViewArgs {
        let mut view = self.view;
        // A shard or a config.json is no recipe: as a base, the error says what it is.
        let is_recipe = |path: &Path| {
            let extension = path.extension().unwrap_or_default();
            let is_other = matches!(extension.to_str(), Some("safetensors" | "gguf" | "json"));
            path.exists() && !path.is_dir() && !is_other
        };
        match self.start {
            Some(file) if is_recipe(&file) => view.recipe = Some(file),
            Some(directory) => view.base = Some(directory),
            None => {}
        }
        view
    }
}

impl ViewArgs {
    /// Makes the network flags how URLs are read, for a command that makes no request of the others.
    pub(crate) fn choose_network(&self, purpose: Purpose) -> ckptfs::Result<()> {
        #[cfg(feature = "remote")]
        self.network.choose(purpose)?;
        #[cfg(not(feature = "remote"))]
        let _ = purpose;
        Ok(())
    }

    /// The request that these flags make, on top of the recipe if one is given: what is one thing
    /// replaces the recipe's, lists go on.
    pub(crate) fn request(&self) -> ckptfs::Result<ViewRequest> {
        self.request_for(Purpose::Job)
    }

    /// The same for a `purpose`.
    pub(crate) fn request_for(&self, purpose: Purpose) -> ckptfs::Result<ViewRequest> {
        self.choose_network(purpose)?;
        let named = [&self.base, &self.recipe].into_iter().flatten();
        named.for_each(note_silent_mount);
        self.operations.sources().for_each(note_silent_mount);
        let other_words = [
            (self.no_repack, Shards::Keep),
            (self.repack, Shards::Repack),
            (self.single_file, Shards::Single),
        ];
        let shards = other_words.iter().find(|(given, _)| *given);
        Wanted {
            base: self.base.clone(),
            recipe: self.recipe.clone(),
            models: self.model.clone(),
            asked: self.operations.asked().to_vec(),
            shards: shards.map(|(_, shards)| *shards),
            shard_bytes: self.shard_size,
        }
        .request()
    }
}

/// A view outlives the working directory of the command that made it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// `ID=DIR`
pub(crate) fn parse_model(text: &str) -> Result<(String, Location), String> {
    match text.split_once('=') {
        Some((id, directory)) if !id.is_empty() && !directory.is_empty() => {
            let location = match Location::from(directory) {
                Location::Local(path) => Location::Local(absolute(&path)),
                other => other,
            };
            Ok((id.to_owned(), location))
        }
        _ => Err(format!(
            "{text:?} is not ID=DIR, such as org/model=/models/model"
        )),
    }
}

/// A number of threads.
pub(crate) fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(count) if count.get() <= MAX_THREADS => Ok(count),
        _ => Err(format!("{text:?} is not a number from 1 to {MAX_THREADS}")),
    }
}
