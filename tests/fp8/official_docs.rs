//! docs/FP8_RULES.md has the table of the official rules, row for row.

use std::fs;

use ckptfs::ops::quantize::FAMILIES;

/// What is quoted in a cell.
fn quoted(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

#[test]
fn page_and_table_have_the_same_families_with_the_same_names_in_the_same_order() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FP8_RULES.md");
    let page = fs::read_to_string(page).unwrap();
    let table = page.split("| `model_type` | before |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let rows: Vec<[Vec<String>; 3]> = table
        .lines()
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 4, "{line}");
            assert!(
                !cells[3].trim().is_empty(),
                "every row has a source: {line}"
            );
            [0, 1, 2].map(|cell| quoted(cells[cell]))
        })
        .collect();
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let families: Vec<[Vec<String>; 3]> = FAMILIES
        .iter()
        .map(|family| [family.model_types, family.before, family.tensors].map(owned))
        .collect();
    assert_eq!(rows, families);
}

#[test]
fn no_model_type_is_in_two_rows() {
    let types = FAMILIES.iter().flat_map(|family| family.model_types);
    let mut types: Vec<&&str> = types.collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
}
