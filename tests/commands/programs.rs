//! `scripts/setup` installs every program that a test or a documented session runs.
//!
//! They are found by reading: literals of `Command::new` and of Python's `subprocess`, and what begins
//! a command in a block of ```console. What scripts run, `scripts/fresh-root` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

/// In packages that every Debian has.
const OF_EVERY_DEBIAN: &str = "bash cat cp env find ls mkdir mount prlimit setpriv setsid sh sha256sum \
     sleep umount unshare ln sync tar rm tail";
/// What is tested, and what comes with Rust and with `scripts/python-env`.
const NOT_OF_DEBIAN: &str = "cargo ckptfs rustc vllm";
const OF_THE_SHELL: &str = "command do done echo kill time true until wait";

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

/// The programs in the table of `scripts/setup`.
fn installed(setup: &str) -> BTreeSet<&str> {
    let (_, table) = setup.split_once("cat <<'END'\n").expect("a table");
    let (table, _) = table.split_once("\nEND\n").expect("its end");
    table
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// Texts of the repository by path.
fn texts(below: &str, extension: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(texts(&name, extension));
        } else if Path::new(&name)
            .extension()
            .is_some_and(|found| found == extension)
        {
            found.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    found
}

fn first_groups<'a>(pattern: &str, text: &'a str) -> BTreeSet<&'a str> {
    let pattern = Regex::new(pattern).unwrap();
    let groups = pattern.captures_iter(text);
    groups
        .map(|groups| groups.get(1).unwrap().as_str())
        .collect()
}

/// The commands in a page's blocks of ```console, without what is quoted in them.
fn sessions(page: &str) -> String {
    let mut inside = false;
    let mut commands = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").or(line.strip_prefix("> "))
            && inside
        {
            commands += command;
            commands.push('\n');
        }
    }
    let quoted = Regex::new(r"'[^']*'").unwrap();
    quoted.replace_all(&commands, "''").into_owned()
}

#[test]
fn setup_installs_the_programs_that_tests_and_documented_sessions_run() {
    let setup = fs::read_to_string("scripts/setup").unwrap();
    let mut known = installed(&setup);
    known.extend(words(OF_EVERY_DEBIAN));
    known.extend(words(NOT_OF_DEBIAN));
    let mut run = BTreeMap::new();
    let rust = texts("tests", "rs");
    for (path, text) in &rust {
        run.insert(path, first_groups(r#"Command::new\("([^"/]+)"\)"#, text));
    }
    let python = texts("tests", "py");
    for (path, text) in &python {
        run.insert(
            path,
            first_groups(r#"subprocess\.\w+\(\s*\["([^"/]+)""#, text),
        );
    }
    let mut pages = texts("docs", "md");
    pages.insert(
        "README.md".to_owned(),
        fs::read_to_string("README.md").unwrap(),
    );
    let pages: BTreeMap<String, String> = pages
        .into_iter()
        .map(|(path, page)| (path, sessions(&page)))
        .collect();
    for (path, session) in &pages {
        let begins = r"(?m)(?:^|[;|&(]|\b(?:until|do)\s)\s*([a-z][\w.+-]*)(?:[\s;]|$)";
        let mut programs = first_groups(begins, session);
        programs.retain(|program| !words(OF_THE_SHELL).contains(program));
        run.insert(path, programs);
    }
    let all: BTreeSet<&str> = run.values().flatten().copied().collect();
    for found in ["pgrep", "unshare", "git", "curl", "getfattr"] {
        assert!(all.contains(found), "{found} is run, but was not found");
    }
    for (path, programs) in run {
        let missing: Vec<_> = programs.difference(&known).collect();
        assert!(
            missing.is_empty(),
            "{path} runs {missing:?}, which scripts/setup does not install"
        );
    }
}
