//! docs/TROUBLESHOOTING.md has every message of the program, and the program every message of the
//! page.
//!
//! A message is taken to be any string literal of `src` of three words or more, two of them of
//! letters: most messages pass through helpers before they end up with a user, so that where a literal
//! stands does not tell. Exceptions are tests, attributes other than `#[error]` (the texts of
//! `--help` are comments), what panics say (`expect`, `assert!` and the like), the demo, and what is
//! listed here as no message: results, identities of kernels, fragments. Whoever adds a literal decides.
//!
//! Shorter texts may stand on the page, but need not. What clap, serde and the operating system say is
//! not covered, nor whether cause and cure are true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

const PAGE: &str = "docs/TROUBLESHOOTING.md";

/// Files and directories without messages that a user could do something about.
const NO_MESSAGES_IN: &[&str] = &[
    "src/cli/demo",
    "src/cli/man.rs",
    "src/cli/plan",
    "src/cli/status/text.rs",
    "src/cli/top/draw.rs",
    "src/cli/top/tests.rs",
    "src/fuse/server/tests",
];

/// Literals that are no messages; one that ends in `*` stands for all that begin so.
const NO_MESSAGES: &[&str] = &[
    // Where a tensor has no file.
    "(made by the view)",
    // Results.
    "values checked in …:",
    "all can be quantized",
    "… cannot be quantized",
    "…: … NaN, … inf, … -inf",
    "… at row …, column …",
    "Columns (docs/FIDELITY.md defines them):*",
    "part … of … of",
    "wrote ……: …, … written (…)",
    "… were complete (…)",
    "… copied because they could not be linked",
    "the view takes its place once all parts are complete and --finish is run",
    "mounted a view of … on …",
    "passthrough: … files (… bytes) are whole source files",
    "the kernel lacks …",
    "… s, …/s",
    "…: … of … in …",
    "…: compared with the checksums of …, … (…)",
    "…: compared with … of the view, … (…)",
    "reading …: …",
    "the scales of …, to see whether all are powers of two as config.json declares",
    "…: computes the scales of … as powers of two; these were not read",
    "… named by SHA256SUMS, to compare checksums",
    "… of the same length as in the view, to compare every byte",
    "note: … is not in the view",
    "no problems found",
    "# A view of ckptfs …: ckptfs mount --recipe FILE DIR …",
    "wrote the recipe …",
    "lora: # merged in this order",
    "patch: # give the tensors that are not there yet, the first that has one",
    "REGEX=REPLACEMENT, in this order",
    "keeps the tensors of these names",
    "leaves out the tensors of these names",
    "models: # what the merge calls them, and where they are",
    "fp8: # what any of these selects is quantized",
    "references: # quantize what is quantized there",
    "quantize the tensors of these names",
    "planning the view",
    "unmounting; files that are open are served until they are closed",
    "Exit code: 0*",
    "… and … kinds of tensors more; --json has all",
    "… and … of tensors more; --json has all",
    "too many tensors for an extended attribute; `ckptfs plan --json --provenance` tells of each",
    "Write … to …? [y/N]",
    "write …: … to be written",
    "… complete already (…)",
    "… that the filesystem may share with the sources",
    "space … available",
    "space unknown: the filesystem does not tell",
    "by dtype and shape, values were not compared",
    "… and … tensors: … equal…, … different; other files: … equal, … different",
    "the same … numbers",
    "… of the norm",
    "from nothing but zeros",
    "… of … elements differ",
    "…, by … at most; L2 …, ……",
    "…, left out of these figures",
    "… NaN in …",
    "1 infinity in …",
    "… infinities in …",
    "a tiny view was mounted, read, and taken away",
    "… is used",
    "… h … min",
    "default-src 'none'*",
    "the kernel may read whole source files by itself",
    "Linux …, with FUSE",
    "can be opened",
    "this process may mount by itself (CAP_SYS_ADMIN)",
    "mounts go through …",
    "other users can be let in (--allow-other)",
    "the kernel can be told to read further ahead",
    "up to …",
    "before the layers",
    "behind the layers",
    // Identities and debugging.
    "… as …, … elements",
    "… times … as …, …",
    "block FP8 of …, …, scales …",
    "column squares of …, …",
    "low rank … by …, … … … …, …",
    "… of … in … as …, … of …",
    "Buffer of … bytes",
    "HugePages of … bytes",
    // Fragments, and what is no prose.
    "and … more",
    "…, and … more",
    "(?x)*",
];

/// What the texts given to these are is for whoever maintains the program.
const PANICS: [&str; 9] = [
    "expect",
    "panic",
    "unreachable",
    "todo",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
];

/// A literal, with a `…` for each part that is filled in.
#[derive(Debug)]
struct Literal {
    text: String,
    place: String,
}

/// The literals of one file.
struct Walk<'a> {
    file: &'a Path,
    /// Texts by the name of their constant: those of all files, then those of this one.
    constants: &'a BTreeMap<String, String>,
    found: Vec<Literal>,
}

impl Walk<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // Whether an item of tests has begun.
        let mut of_tests = false;
        for (i, token) in tokens.iter().enumerate() {
            let before = |n: usize| i.checked_sub(n).map(|i| tokens[i].to_string());
            match token {
                TokenTree::Group(group) if is_attribute(group, before(1), before(2)) => {
                    let text = group.stream().to_string();
                    of_tests |= text == "cfg (test)" || text == "cfg(test)";
                    if text.starts_with("error") {
                        self.tokens(group.stream());
                    }
                }
                TokenTree::Group(group) if of_tests => {
                    of_tests = group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Group(group) => {
                    let called = before(1).filter(|name| name != "!").or(before(2));
                    if !called.is_some_and(|name| PANICS.contains(&name.as_str())) {
                        self.tokens(group.stream());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => of_tests = false,
                TokenTree::Literal(literal) if !of_tests => {
                    let line = literal.span().start().line;
                    if let syn::Lit::Str(text) = syn::Lit::new(literal.clone()) {
                        self.found.push(Literal {
                            text: normalized(&text.value(), self.constants),
                            place: format!("{}:{line}", self.file.display()),
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// `#[…]` or `#![…]`.
fn is_attribute(group: &Group, before: Option<String>, second: Option<String>) -> bool {
    let hash = |text: Option<String>| text.as_deref() == Some("#");
    group.delimiter() == Delimiter::Bracket
        && (hash(before.clone()) || before.as_deref() == Some("!") && hash(second))
}

/// `text` in one line, with constants filled in and a `…` for what is not known before it is shown.
fn normalized(text: &str, constants: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out += &rest[..at];
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        let end = rest[at..].find('}').filter(|_| rest[at..].starts_with('{'));
        rest = match end {
            _ if doubled => {
                out += &rest[at..=at];
                &rest[at + 2..]
            }
            Some(end) => {
                let inside = &rest[at + 1..at + end];
                out += constants.get(inside).map_or("…", String::as_str);
                &rest[at + end + 1..]
            }
            None => {
                out += &rest[at..=at];
                &rest[at + 1..]
            }
        };
    }
    out += rest;
    let line = out.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_matches([' ', ';', ',']).to_owned()
}

/// `const NAME: &str = "text";` in `tokens`, at any depth; those that other files may name, or all.
fn constants(tokens: TokenStream, of_others: bool, found: &mut BTreeMap<String, String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (i, window) in tokens.windows(7).enumerate() {
        let before = i.checked_sub(1).map(|i| tokens[i].to_string());
        let is_public = before.is_some_and(|text| text == "pub" || text.starts_with('('));
        if of_others && !is_public {
            continue;
        }
        let texts: Vec<String> = window.iter().map(ToString::to_string).collect();
        let is_text = [&texts[0], &texts[2], &texts[3], &texts[4], &texts[5]];
        if let (["const", ":", "&", "str", "="], TokenTree::Literal(literal)) =
            (is_text.map(String::as_str), &window[6])
            && let syn::Lit::Str(text) = syn::Lit::new(literal.clone())
        {
            found.insert(texts[1].clone(), text.value());
        }
    }
    for token in tokens {
        if let TokenTree::Group(group) = token {
            constants(group.stream(), of_others, found);
        }
    }
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => rust_files(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

fn literals() -> Vec<Literal> {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    let parsed: Vec<(&Path, TokenStream)> = files
        .iter()
        .filter(|file| !NO_MESSAGES_IN.iter().any(|none| file.starts_with(none)))
        .map(|file| (&**file, fs::read_to_string(file).unwrap().parse().unwrap()))
        .collect();
    let mut of_all = BTreeMap::new();
    for (_, tokens) in &parsed {
        constants(tokens.clone(), true, &mut of_all);
    }
    let mut literals = Vec::new();
    for (file, tokens) in parsed {
        let mut known = of_all.clone();
        constants(tokens.clone(), false, &mut known);
        let mut walk = Walk {
            file,
            constants: &known,
            found: Vec::new(),
        };
        walk.tokens(tokens);
        literals.extend(walk.found);
    }
    literals
}

/// Three words or more, where a part that is filled in may be one of them.
fn is_message(text: &str) -> bool {
    if NO_MESSAGES.iter().any(|none| is_of(none, text)) {
        return false;
    }
    let has_letters = |word: &&str| word.chars().any(char::is_alphabetic);
    let words = text.split(' ').filter(has_letters).count();
    let filled = text
        .split(' ')
        .filter(|word| !has_letters(word) && word.contains('…'));
    words >= 2 && words + filled.count() >= 3
}

/// Whether `text` is an entry of [`NO_MESSAGES`].
fn is_of(entry: &str, text: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == entry,
    }
}

/// The spans of code in the first cell of every row of a table whose head says `message`.
fn messages_of_page() -> BTreeSet<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut in_table = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        in_table = match line.strip_prefix('|') {
            Some(_) if line.starts_with("| message |") => true,
            Some(_) => in_table,
            None => false,
        };
        if in_table {
            let cell = line.split(" | ").next().unwrap();
            found.extend(spans(cell));
        }
    }
    found
}

/// The spans of code in `text`, each between two runs of equally many backticks.
fn spans(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].chars().take_while(|c| *c == '`').count();
        let inside = &rest[start + ticks..];
        let end = inside.find(&"`".repeat(ticks)).expect("a span that ends");
        found.push(inside[..end].trim().to_owned());
        rest = &inside[end + ticks..];
    }
    found
}

#[test]
fn the_page_has_every_message_and_no_other() {
    let literals = literals();
    let texts: BTreeSet<&str> = literals.iter().map(|literal| &*literal.text).collect();
    let page = messages_of_page();
    let mut faults = String::new();
    for Literal { text, place } in &literals {
        if is_message(text) && !page.contains(text) {
            let ticks = if text.contains('`') { "``" } else { "`" };
            faults +=
                &format!("{place} lacks a row:\n| {ticks}{text}{ticks} | why | what to do |\n");
        }
    }
    for text in &page {
        if !texts.contains(text.as_str()) {
            faults += &format!("{PAGE} has a message that the program does not have: `{text}`\n");
        }
        if NO_MESSAGES.iter().any(|none| is_of(none, text)) {
            faults += &format!("both on the page and listed as no message: `{text}`\n");
        }
    }
    for &text in NO_MESSAGES {
        if !texts.iter().any(|literal| is_of(text, literal)) {
            faults += &format!("listed as no message, but not in the program: {text:?}\n");
        }
    }
    assert!(
        faults.is_empty(),
        "\n{faults}What is no message belongs into NO_MESSAGES of {}.",
        file!()
    );
}

#[test]
fn literals_are_found_where_they_are_messages() {
    let source = r#"
        const FILE: &str = "config.json";
        #[doc = "not this one here"]
        #[error("{}: cannot {action}: {cause}")]
        fn f() -> Result<()> {
            Err(Error::tensor(path, format!("{FILE} has {n} of {{}};
                mend it")))?;
            x.expect("this is no message");
            unreachable!("nor is this one");
            bail!("nested in a macro {n}")
        }
        #[cfg(test)]
        mod tests { fn g() { f("of a test {x}") } }
        fn h() { warn!("after the {x} tests") }
    "#;
    let tokens: TokenStream = source.parse().unwrap();
    let mut known = BTreeMap::new();
    constants(tokens.clone(), false, &mut known);
    let mut walk = Walk {
        file: Path::new("x.rs"),
        constants: &known,
        found: Vec::new(),
    };
    walk.tokens(tokens);
    let found: Vec<&str> = walk.found.iter().map(|literal| &*literal.text).collect();
    let expected = [
        "config.json",
        "…: cannot …: …",
        "config.json has … of {}; mend it",
        "nested in a macro …",
        "after the … tests",
    ];
    assert_eq!(found, expected);
    assert_eq!(walk.found[3].place, "x.rs:10");
    assert_eq!(spans("| `a` <br> ``b `c` d`` "), ["a", "b `c` d"]);
    for (text, expected) in [
        ("… is empty", true),
        ("a list", false),
        ("… needs …", false),
    ] {
        assert_eq!(is_message(text), expected, "{text}");
    }
}
