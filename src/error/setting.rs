//! The names of settings, as hints and warnings call them.
//!
//! Those of operators are their keys in a recipe ([`Setting::key`](crate::ops::Setting::key)); the
//! others are called as the fields of their options, or as keys of a recipe.

macro_rules! settings {
    ($($constant:ident = $name:literal,)+) => {
        $(pub const $constant: &str = $name;)+

        /// All of them.
        pub const ALL: &[&str] = &[$($constant),+];
    };
}

settings! {
    // The request.
    BASE = "base",
    RECIPE = "recipe",
    MODEL = "model",
    SHARDS = "shards",
    SHARD_SIZE = "shard_size",
    SINGLE_FILE = "single_file",

    // Operators.
    LIKE = "like",
    SET = "edits.set",
    UNSET = "edits.unset",
    PROMOTE = "edits.promote",
    KEEP = "edits.keep",
    ADD_FILE = "edits.add_file",
    DROP_FILE = "edits.drop_file",
    UNTIE = "untie",
    TIE = "tie",
    LORA = "lora",
    LORA_EXPERTS = "lora_experts",
    PATCH = "patch",
    GRAFT = "graft",
    NAMES = "names",
    RENAME = "rename",
    ONLY = "only",
    DROP = "drop",
    CAST = "cast",
    DTYPE = "dtype",
    VOCAB_SIZE = "vocab_size",
    VOCAB_MULTIPLE = "vocab_multiple",
    VOCAB_PAD = "vocab_pad",
    EXPERTS = "experts",
    LINEAR_ATTENTION = "linear_attention",
    SCHEME = "quantize.scheme",
    DIALECT = "quantize.dialect",
    RULES = "quantize.rules",
    REFERENCES = "quantize.references",
    PATTERNS = "quantize.patterns",
    SCALE_FORMAT = "quantize.scale_fmt",
    PARTIAL_BLOCKS = "quantize.partial_blocks",
    ALLOW_ROUNDING = "quantize.allow_rounding",
    GGUF = "gguf",
    GGUF_TYPE = "gguf_type",
    GGUF_SPLIT = "gguf_split",
    GGUF_PRE = "gguf_pre",
    IMATRIX = "imatrix",

    // Sources beyond this machine.
    ALLOW_HTTP = "allow_http",
    ALLOW_UNPINNED = "allow_unpinned",
    PIN = "pin",
    PINNED = "pinned",

    // Mounts.
    ALLOW_OTHER = "allow_other",
    DIRECT_IO = "direct_io",
    FOLLOW_SYMLINKS = "follow_symlinks",
    LAZY = "lazy",
    NONEMPTY = "nonempty",
    THREADS = "threads",

    // Writing.
    CHECK_SPACE = "check_space",
    FINISH = "finish",
    HARDLINK = "hardlink",
    OVERWRITE = "overwrite",
    PART = "part",
    SHA256 = "sha256",
    WEIGHTS_ONLY = "weights_only",
}
