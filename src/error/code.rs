//! The kinds of errors and warnings, by what somebody has to do about them.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::named::{Named, named};

/// Declares [`Code`] and the names of its values.
macro_rules! codes {
    ($($(#[$doc:meta])+ $code:ident = $name:literal,)+) => {
        /// The kind of an error or warning. Its name is stable, and docs/TROUBLESHOOTING.md has an
        /// entry for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])+ $code,)+
        }

        named!(Code { $($code: $name,)+ });
    };
}

codes! {
    // The operating system.
    /// The operating system refused something, for a reason that has no code of its own.
    Io = "io",
    /// There is no such file or directory.
    NotFound = "not-found",
    /// This user may not do that to the file.
    PermissionDenied = "permission-denied",
    /// The disk or the quota is full.
    NoSpace = "no-space",
    /// The filesystem is read-only.
    ReadOnly = "read-only",
    /// No more files can be opened.
    TooManyOpenFiles = "too-many-open-files",
    /// A file where a directory is wanted, the reverse, or neither.
    WrongFileKind = "wrong-file-kind",
    /// The path is in a mount whose process ended.
    DeadMount = "dead-mount",
    /// There is no memory for a buffer.
    NoMemory = "no-memory",

    // The request.
    /// The value of a setting is not understood or not possible.
    BadValue = "bad-value",
    /// A pattern is not a regular expression, or is too large.
    BadPattern = "bad-pattern",
    /// Settings exclude each other, or one lacks the setting that it is about.
    Conflict = "conflict",
    /// A setting has no effect.
    NoEffect = "no-effect",
    /// A pattern matches no tensor name.
    NoMatch = "no-match",
    /// Something is larger, or more, than ckptfs supports.
    OverLimit = "over-limit",
    /// The command was stopped.
    Interrupted = "interrupted",
    /// Bytes were asked for of an entry that is not a file.
    NotAFile = "not-a-file",
    /// The command needs a terminal.
    NoTerminal = "no-terminal",
    /// Something that must not be: a bug.
    Internal = "internal",

    // Sources.
    /// The directory has no checkpoint that can be read, or several.
    NoCheckpoint = "no-checkpoint",
    /// The source is in a place that this build cannot read.
    UnsupportedPlace = "unsupported-place",
    /// A source beyond this machine, or its network, does not answer.
    Unreachable = "unreachable",
    /// The certificate of a server is not trusted.
    UntrustedServer = "untrusted-server",
    /// A server refuses access.
    AccessDenied = "access-denied",
    /// The conditions of a repository of the Hub are not accepted.
    GatedRepository = "gated-repository",
    /// A repository of the Hub has no such revision.
    NoRevision = "no-revision",
    /// A server replied something else than it was asked for.
    BadReply = "bad-reply",
    /// A file is no pin file, or is damaged.
    BadPinFile = "bad-pin-file",
    /// Nothing says whether a source beyond this machine has changed.
    Unpinned = "unpinned",
    /// A link leads out of the source, and other users would see its target.
    LinkOutside = "link-outside",
    /// The index names a shard that does not exist.
    MissingShard = "missing-shard",
    /// Index and shards do not fit together.
    IndexMismatch = "index-mismatch",
    /// The index is not valid.
    BadIndex = "bad-index",
    /// A file is shorter than its header says.
    Truncated = "truncated",
    /// A file is a pointer that stands for one which was not downloaded.
    NotDownloaded = "not-downloaded",
    /// The header of a safetensors or GGUF file is not valid.
    BadHeader = "bad-header",
    /// A GGUF file that is no model, or of a kind that ckptfs does not know.
    UnknownGguf = "unknown-gguf",
    /// The metadata of a GGUF file lacks something, or contradicts itself.
    BadMetadata = "bad-metadata",
    /// A file is no importance matrix of llama.cpp, or a damaged one.
    BadImatrix = "bad-imatrix",
    /// An importance matrix is of another model.
    ImatrixMismatch = "imatrix-mismatch",
    /// A file of torch is damaged, or none that `torch.save` writes.
    BadTorchFile = "bad-torch-file",
    /// A file of torch holds something that is no state dict of plain tensors.
    UnsupportedTorch = "unsupported-torch",
    /// A training checkpoint is not complete.
    Unfinished = "unfinished",
    /// The files of a training checkpoint, or the pieces of a tensor in them, do not fit together.
    BadPieces = "bad-pieces",
    /// A training checkpoint has no config.json, and no directory was named that has one.
    NoLike = "no-like",
    /// The tensors of a training checkpoint are not those of the model that it should be.
    LikeMismatch = "like-mismatch",
    /// A source changed after the view was planned.
    SourceChanged = "source-changed",
    /// Loaders differ in which of the files they read.
    LoadersDiffer = "loaders-differ",

    // config.json.
    /// config.json, or something in it, is missing or not valid.
    BadConfig = "bad-config",
    /// The checkpoint is quantized in a way that does not go with the view.
    OtherQuantization = "other-quantization",
    /// config.json and the tensors contradict each other.
    ConfigMismatch = "config-mismatch",
    /// The view leaves something in config.json as it was.
    ConfigNotUpdated = "config-not-updated",
    /// config.json describes layers or parts that the view does not have.
    MissingLayers = "missing-layers",

    // Edits.
    /// A file that is to be edited is not there.
    MissingFile = "missing-file",
    /// A key or item that is to be edited is not there.
    MissingKey = "missing-key",
    /// A key is set that the view writes itself.
    EditConflict = "edit-conflict",

    // Extras.
    /// An extra is a quantization of the base.
    QuantizedExtra = "quantized-extra",
    /// An extra adds tensors of other dtypes.
    MixedDtypes = "mixed-dtypes",
    /// An extra is of another architecture, or adds layers that the base leaves no room for.
    OtherArchitecture = "other-architecture",

    // Grafts.
    /// A graft does not fit the tensors that it would replace.
    GraftMismatch = "graft-mismatch",

    // Names.
    /// Filters leave no tensor.
    NothingLeft = "nothing-left",
    /// Two tensors would have one name.
    NameTaken = "name-taken",
    /// A tensor cannot have this name.
    BadName = "bad-name",
    /// A weight and its scales would be separated.
    ScalesSeparated = "scales-separated",

    // Layouts of names.
    /// Some of the tensors are missing that together are others in another layout of names.
    NamesIncomplete = "names-incomplete",
    /// Tensors that are others in another layout of names, and whose shapes, dtypes or kinds do not allow it.
    NamesLayout = "names-layout",

    // Dtypes and scales.
    /// A tensor whose dtype or shape this step cannot work with.
    UnsupportedTensor = "unsupported-tensor",
    /// A quantized weight lacks its scales.
    MissingScales = "missing-scales",
    /// Scales lack their quantized weight.
    MissingWeight = "missing-weight",
    /// Scales are not what block FP8 demands.
    BadScales = "bad-scales",
    /// A weight and its scales are in different shards.
    ScalesApart = "scales-apart",

    // Experts.
    /// Experts that cannot change form: their layout, dtypes or parts do not allow it.
    ExpertsLayout = "experts-layout",
    /// The experts of a layer are not complete.
    ExpertsIncomplete = "experts-incomplete",

    // Linear attention.
    /// A projection of a layer's linear attention is missing.
    ProjectionMissing = "projection-missing",
    /// Projections of linear attention that cannot change form: rows, dtypes or blocks do not allow it.
    ProjectionLayout = "projection-layout",

    // Quantization.
    /// A tensor that is to be quantized holds NaN or infinity.
    NonFinite = "non-finite",
    /// Numbers of an FP4 weight that FP8 does not have.
    Inexact = "inexact",
    /// Engines load the tensor as one layer with others that are quantized differently.
    MixedLayer = "mixed-layer",
    /// Dimensions are not multiples of the block size.
    PartialBlocks = "partial-blocks",
    /// Some loaders load fused experts in FP8 wrongly.
    FusedFp8 = "fused-fp8",
    /// The list of unquantized modules does not fit the tensors, or is ambiguous.
    SkipList = "skip-list",
    /// Many weights are not quantized.
    Unquantized = "unquantized",
    /// What is asked for goes by the kind of model, and this kind is not known.
    UnknownModelType = "unknown-model-type",
    /// The reference has no block FP8, or not the tensors of the view.
    BadReference = "bad-reference",

    // LoRA.
    /// The directory has no adapter.
    NoAdapter = "no-adapter",
    /// An adapter is damaged, or its config and its tensors do not fit together.
    BadAdapter = "bad-adapter",
    /// No merge is known for this kind of adapter.
    UnsupportedAdapter = "unsupported-adapter",
    /// The adapter does not fit the base.
    AdapterMismatch = "adapter-mismatch",
    /// The adapter changes a tensor that is quantized.
    QuantizedBase = "quantized-base",
    /// The adapter changes an embedding that is tied to another.
    TiedEmbeddings = "tied-embeddings",
    /// The adapter changes the vocabulary.
    AdapterVocabulary = "adapter-vocabulary",
    /// The adapter does not say in which order it has factors of fused experts.
    ExpertOrder = "expert-order",

    // Vocabularies.
    /// Which tensor is the embedding cannot be told.
    UnknownEmbedding = "unknown-embedding",
    /// The head is not a copy of the embedding.
    UnequalHead = "unequal-head",
    /// Tokens would have no row.
    TokensCut = "tokens-cut",

    // Recipes.
    /// The recipe is not YAML, or not the part of YAML that recipes have.
    RecipeSyntax = "recipe-syntax",
    /// A key or parameter is unknown, missing or given twice.
    RecipeKey = "recipe-key",
    /// A value is of another kind than its key takes.
    RecipeValue = "recipe-value",
    /// Keys of a recipe exclude each other.
    RecipeConflict = "recipe-conflict",
    /// A key of mergekit that a view cannot carry out.
    RecipeUnsupported = "recipe-unsupported",
    /// No recipe can describe this view.
    NoRecipe = "no-recipe",
    /// A model is not on this machine.
    ModelMissing = "model-missing",

    // Merges.
    /// The method takes another number or kind of models.
    MergeModels = "merge-models",
    /// A parameter has no value.
    MissingParameter = "missing-parameter",
    /// The value of a parameter is not possible.
    BadParameter = "bad-parameter",
    /// The models have a tensor in different shapes, or a tensor that cannot be merged in different values.
    MergeUnlike = "merge-unlike",
    /// What a merge makes of the values of a tensor is not defined.
    MergeUndefined = "merge-undefined",
    /// Some models lack a tensor.
    MergeIncomplete = "merge-incomplete",
    /// The layers or modules of the recipe and the models do not fit together.
    MergeLayers = "merge-layers",
    /// A tokenizer is missing or not valid.
    BadTokenizer = "bad-tokenizer",
    /// Tokenizer and embedding do not fit together.
    TokenizerMismatch = "tokenizer-mismatch",
    /// A row of the embedding cannot be taken from any model.
    TokenRow = "token-row",

    // GGUF.
    /// No file of llama.cpp can be made of this architecture.
    UnknownArchitecture = "unknown-architecture",
    /// Files do not fit in the memory of this machine.
    LargerThanMemory = "larger-than-memory",
    /// How a tokenizer cuts text before it looks up tokens is not known to llama.cpp.
    PreTokenizer = "pre-tokenizer",

    // Shards.
    /// The view would have too many shards, or too large ones.
    ShardLimit = "shard-limit",

    // Serving.
    /// A server is open to others, and asks for no token.
    NoToken = "no-token",

    // Mounts.
    /// The kernel, the container or this build has no FUSE.
    NoFuse = "no-fuse",
    /// The helper fusermount3 is missing or cannot work.
    NoHelper = "no-helper",
    /// The mount was refused.
    MountRefused = "mount-refused",
    /// The view cannot be mounted at this place.
    BadMountpoint = "bad-mountpoint",
    /// The destination is not empty, or the file exists.
    NotEmpty = "not-empty",
    /// A view is mounted there already.
    AlreadyMounted = "already-mounted",
    /// The mount started and does not serve.
    NotServing = "not-serving",
    /// A mount does not answer.
    MountHangs = "mount-hangs",
    /// A mount serves, and does not show its figures.
    NoFigures = "no-figures",
    /// Nothing is mounted there, or something else.
    NotMounted = "not-mounted",
    /// The mount is in use.
    InUse = "in-use",

    // Files that are written.
    /// The output cannot be written to this place.
    BadDestination = "bad-destination",
    /// Another process writes the same.
    Locked = "locked",
    /// An earlier run wrote something else here, or its files are damaged.
    OtherRequest = "other-request",
    /// Not all parts are written, or not in the right order.
    PartsIncomplete = "parts-incomplete",
    /// The previous content could not be deleted.
    LeftBehind = "left-behind",
    /// The directory has other weights or another config than the view.
    OtherWeights = "other-weights",

    // Checks.
    /// A directory is not the view that it is compared with.
    ViewDiffers = "view-differs",
    /// A file is not what SHA256SUMS says, or SHA256SUMS is not valid.
    BadChecksum = "bad-checksum",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Code::named(&name).ok_or_else(|| D::Error::custom(format!("{name} is no code")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_short_distinct_and_in_kebab_case() {
        let names: HashSet<&str> = Code::VALUES.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::VALUES.len());
        for name in names {
            let is_kebab = name
                .chars()
                .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
            assert!(is_kebab && name.len() <= 20, "{name}");
        }
    }
}
