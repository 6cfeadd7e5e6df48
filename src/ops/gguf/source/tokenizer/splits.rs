//! How tokenizers cut text before they merge bytes, by what `tokenizer.ggml.pre` calls them.
//!
//! The expressions are those of the tokenizers that models were published with; `llama-vocab.cpp` of llama.cpp
//! has the same by these names.

/// How text is cut.
#[derive(Debug)]
pub(super) struct Splits {
    names: &'static [&'static str],
    /// Each cuts what the one before it left; without any, the expression of GPT-2 does.
    pub patterns: &'static [&'static str],
    /// Whether every digit is cut off first.
    pub single_digits: bool,
    /// Whether text is composed (NFC) first.
    pub composes: bool,
    /// Whether what is a token as a whole is that token, however merges would make it.
    pub ignores_merges: bool,
    /// Whether a text begins with the token of beginnings, where metadata does not say.
    pub adds_bos: bool,
}

const PLAIN: Splits = Splits {
    names: &[],
    patterns: &[],
    single_digits: false,
    composes: false,
    ignores_merges: false,
    adds_bos: false,
};

static KNOWN: [Splits; 8] = [
    Splits {
        names: &["gpt-2"],
        ..PLAIN
    },
    Splits {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        single_digits: true,
        ..PLAIN
    },
    Splits {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Splits {
        names: &["qwen2", "deepseek-r1-qwen"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        composes: true,
        ..PLAIN
    },
    Splits {
        names: &["qwen35"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        composes: true,
        ..PLAIN
    },
    Splits {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Splits {
        names: &["gpt-4o"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    Splits {
        names: &["deepseek-v3"],
        patterns: &[
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
        ..PLAIN
    },
];

impl Splits {
    /// Those that `tokenizer.ggml.pre` calls `name`.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|splits| splits.names.contains(&name))
    }

    /// Every name that is known.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().flat_map(|splits| splits.names).copied()
    }
}
