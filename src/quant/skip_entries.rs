//! Entries of lists that name modules, and what becomes of them when tensors get other names, go, or
//! become parts of others.
//!
//! | entry | names |
//! |---|---|
//! | `re:…` (compressed-tensors) | modules whose path the expression matches from its start |
//! | with `*` or `?` (ModelOpt) | modules whose whole path fits |
//! | a class, such as `Linear` | no module by its name |
//! | other text | the module and those inside of it; if there is none, modules whose path has it as a part |

use std::collections::{BTreeSet, HashSet};

use indexmap::IndexSet;
use regex::{Regex, RegexBuilder};

use crate::tensor::Name;

const HEAD: &str = "lm_head";

/// An entry of a list.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Path(&'a str),
    Pattern(Regex),
    /// An expression that cannot be used here.
    Unreadable,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        const SIZE_LIMIT: usize = 1 << 20;
        let regex = if let Some(regex) = text.strip_prefix("re:") {
            format!("^(?:{regex})")
        } else if text.contains(['*', '?']) {
            let escaped = regex::escape(text);
            format!("^{}$", escaped.replace(r"\*", ".*").replace(r"\?", "."))
        } else {
            return Entry::Path(text);
        };
        let regex = RegexBuilder::new(&regex).size_limit(SIZE_LIMIT).build();
        regex.map_or(Entry::Unreadable, Entry::Pattern)
    }

    /// Whether the entry names `module`, or one that it is inside of.
    pub(crate) fn names(&self, module: &str) -> bool {
        match self {
            Entry::Path(path) => is_inside(module, path),
            Entry::Pattern(regex) => regex.is_match(module),
            Entry::Unreadable => false,
        }
    }
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It names the same tensors as before, if any.
    Same,
    /// These name them.
    To(Vec<String>),
    /// All that it named is gone.
    Gone,
    /// What it named is in modules now that others are in too.
    Parted,
    /// It names nothing that there is.
    Unknown,
}

/// What becomes of tensors: the old name of each, and the new ones.
#[derive(Debug)]
pub(crate) struct Moves {
    /// By old name.
    moves: Vec<(Name, Vec<Name>)>,
}

impl Moves {
    pub(crate) fn new(moves: impl IntoIterator<Item = (Name, Vec<Name>)>) -> Self {
        let mut moves: Vec<(Name, Vec<Name>)> = moves.into_iter().collect();
        moves.sort_unstable();
        Moves { moves }
    }

    /// The old names that have others now, or none.
    pub(super) fn changed(&self) -> impl Iterator<Item = &str> {
        let is_changed = |(old, new): &&(Name, Vec<Name>)| new.len() != 1 || new[0] != *old;
        self.moves.iter().filter(is_changed).map(|(old, _)| &**old)
    }

    /// What becomes of each of `entries`, which are one list.
    pub(super) fn fates(&self, entries: &[&str]) -> Vec<Fate> {
        let parsed: Vec<Entry> = entries.iter().map(|text| Entry::new(text)).collect();
        let mut listed: HashSet<usize> = HashSet::new();
        for entry in &parsed {
            listed.extend(self.named(entry));
        }
        let strangers = Strangers::new(&self.moves, &listed);
        let fates = parsed.iter().map(|entry| self.fate(entry, &strangers));
        fates.collect()
    }

    /// The positions of the tensors that `entry` names.
    fn named(&self, entry: &Entry) -> Vec<usize> {
        match entry {
            Entry::Path(path) => {
                let itself = self.moves.binary_search_by(|(old, _)| (**old).cmp(path));
                let inside = format!("{path}.");
                let first = self.moves.partition_point(|(old, _)| **old < *inside);
                let tensors = self.moves[first..].iter();
                let count = tensors
                    .take_while(|(old, _)| old.starts_with(&inside))
                    .count();
                itself
                    .ok()
                    .into_iter()
                    .chain(first..first + count)
                    .collect()
            }
            _ => {
                let tensors = self.moves.iter().enumerate();
                let named = tensors.filter(|(_, (old, _))| entry.names(module_of(old)));
                named.map(|(position, _)| position).collect()
            }
        }
    }

    fn fate(&self, entry: &Entry, strangers: &Strangers) -> Fate {
        let named = self.named(entry);
        match entry {
            Entry::Unreadable => Fate::Parted,
            Entry::Path(path) if named.is_empty() && is_class(path) => Fate::Same,
            Entry::Path(path) if named.is_empty() => self.fate_of_part(path),
            Entry::Path(path) => self.fate_of_path(path, &named, strangers),
            Entry::Pattern(_) => {
                let images = self.images(&named);
                let all = self.moves.iter().flat_map(|(_, new)| new);
                let now = all.map(|name| module_of(name));
                let now: BTreeSet<&str> = now.filter(|module| entry.names(module)).collect();
                if now == images.iter().copied().collect() {
                    let is_gone = images.is_empty() && !named.is_empty();
                    return if is_gone { Fate::Gone } else { Fate::Same };
                }
                strangers.fate(&images)
            }
        }
    }

    fn fate_of_path(&self, path: &str, named: &[usize], strangers: &Strangers) -> Fate {
        let moves = || named.iter().map(|&position| &self.moves[position]);
        let mut all = moves().flat_map(|(_, new)| new).peekable();
        if all.peek().is_none() {
            let is_head = path == HEAD || path.ends_with(".lm_head");
            return if is_head { Fate::Same } else { Fate::Gone };
        }
        if all.all(|new| is_inside(new, path)) && strangers.avoid(path) {
            return Fate::Same;
        }
        let one_each = moves().filter(|(_, new)| !new.is_empty());
        let renamed = one_each.map(|(old, new)| match &new[..] {
            [new] => new.strip_suffix(&old[path.len()..]),
            _ => None,
        });
        let renamed: IndexSet<Option<&str>> = renamed.collect();
        if let (1, Some(Some(name))) = (renamed.len(), renamed.first())
            && !name.is_empty()
            && strangers.avoid(name)
        {
            return Fate::To(vec![(*name).to_owned()]);
        }
        strangers.fate(&self.images(named))
    }

    /// A part of names, as older loaders search for it.
    fn fate_of_part(&self, part: &str) -> Fate {
        let with = |name: &&str| module_of(name).contains(part);
        let mut old = self.moves.iter().map(|(old, _)| &**old);
        if !old.any(|old| with(&old)) {
            return Fate::Unknown;
        }
        let stays = |(old, new): &(Name, Vec<Name>)| {
            let has = with(&&**old);
            let mut new = new.iter();
            new.all(|new| with(&&**new) == has && !is_inside(new, part))
        };
        if self.moves.iter().all(stays) {
            Fate::Same
        } else {
            Fate::Parted
        }
    }

    /// The modules that the tensors at `named` are in now.
    fn images(&self, named: &[usize]) -> IndexSet<&str> {
        let new = named.iter().flat_map(|&position| &self.moves[position].1);
        new.map(|name| module_of(name)).collect()
    }
}

/// Where the tensors are now that no entry of a list names.
struct Strangers<'a> {
    /// Sorted.
    names: Vec<&'a str>,
    modules: HashSet<&'a str>,
}

impl<'a> Strangers<'a> {
    fn new(moves: &'a [(Name, Vec<Name>)], listed: &HashSet<usize>) -> Self {
        let strangers = moves.iter().enumerate();
        let strangers = strangers.filter(|(position, _)| !listed.contains(position));
        let names = strangers.flat_map(|(_, (_, new))| new);
        let mut names: Vec<&str> = names.map(|name| &**name).collect();
        names.sort_unstable();
        let modules = names.iter().map(|name| module_of(name)).collect();
        Strangers { names, modules }
    }

    /// Whether none of them is inside of the module `path`.
    fn avoid(&self, path: &str) -> bool {
        let inside = format!("{path}.");
        let first = self.names.partition_point(|name| *name < &*inside);
        let next = self.names.get(first);
        self.names.binary_search(&path).is_err()
            && next.is_none_or(|name| !name.starts_with(&inside))
    }

    /// The modules by name, if none of them is there.
    fn fate(&self, modules: &IndexSet<&str>) -> Fate {
        if modules.iter().any(|module| self.modules.contains(module)) {
            return Fate::Parted;
        }
        Fate::To(modules.iter().map(|&module| module.to_owned()).collect())
    }
}

/// Whether `text` looks like a class of modules, such as `Linear`.
pub(crate) fn is_class(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(is_word)
}

/// The module that a tensor belongs to: its name without the last part.
pub(super) fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// Whether `name` is `outer` or something inside of it.
fn is_inside(name: &str, outer: &str) -> bool {
    let rest = name.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
