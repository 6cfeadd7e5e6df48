//! docs/TROUBLESHOOTING.md has an entry for every code, and none for anything else.

use std::collections::BTreeSet;
use std::fs;

use ckptfs::error::Code;
use ckptfs::named::Named;

/// The codes in the first cell of the rows of tables whose head says `code`.
fn entries(page: &str) -> Vec<&str> {
    let mut in_table = false;
    let mut found = Vec::new();
    for line in page.lines() {
        in_table = match line.strip_prefix("| ") {
            Some(row) if row.starts_with("code |") => true,
            Some(row) if in_table => {
                let cell = row.split(" | ").next().unwrap_or_default();
                found.push(cell.trim_matches('`'));
                true
            }
            _ => in_table && line.starts_with("|-"),
        };
    }
    found
}

#[test]
fn every_code_has_one_entry_and_every_entry_is_a_code() {
    let page = fs::read_to_string("docs/TROUBLESHOOTING.md").unwrap();
    let entries = entries(&page);
    let listed: BTreeSet<&str> = entries.iter().copied().collect();
    assert_eq!(listed.len(), entries.len(), "an entry is there twice");
    let codes: BTreeSet<&str> = Code::VALUES.iter().map(|code| code.name()).collect();
    let lacking: Vec<&&str> = codes.difference(&listed).collect();
    let unknown: Vec<&&str> = listed.difference(&codes).collect();
    assert!(lacking.is_empty(), "without an entry: {lacking:?}");
    assert!(unknown.is_empty(), "no codes: {unknown:?}");
}
