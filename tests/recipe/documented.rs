//! The tables of the documentation against what operators say of their settings.

use std::collections::BTreeSet;
use std::fs;

use ckptfs::ops::Takes;
use ckptfs::recipe::ViewRequest;

/// Rows of the table of `view` in docs/RECIPES.md: keys and flags.
fn rows() -> BTreeSet<(String, String)> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RECIPES.md")).unwrap();
    let table = page.split("| key | value | flag |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let quoted = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let mut rows = BTreeSet::new();
    for line in table.lines().skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let (keys, flags) = (quoted(cells[0]), quoted(cells[cells.len() - 1]));
        if keys.len() == flags.len() {
            rows.extend(keys.into_iter().zip(flags));
        } else {
            // Several flags of one key.
            rows.extend(flags.into_iter().map(|flag| (keys[0].clone(), flag)));
        }
    }
    rows
}

#[test]
fn every_setting_of_a_view_stands_in_the_table_of_recipes_with_its_flag() {
    let rows = rows();
    for setting in ViewRequest::settings() {
        let flags = match setting.takes {
            Takes::ScopedFlags(flags) => flags.iter().map(|(_, flag, _)| *flag).collect(),
            Takes::SwitchOrChoice { flag, .. } => vec![setting.flag, flag],
            _ => vec![setting.flag],
        };
        for flag in flags {
            let row = (setting.key.to_owned(), format!("--{flag}"));
            assert!(rows.contains(&row), "no row has {row:?}");
        }
    }
}
