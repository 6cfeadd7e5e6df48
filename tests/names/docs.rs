//! docs/NAMES.md has the table of the families, row for row.

use ckptfs::ops::names::{Conversion, Family, Rule, Step, families};

fn code(pattern: &str) -> String {
    format!("`{pattern}`")
}

fn list(patterns: &[&str]) -> String {
    let patterns: Vec<String> = patterns.iter().map(|pattern| code(pattern)).collect();
    patterns.join(", ")
}

fn conversion(conversion: &Conversion) -> String {
    let steps = conversion.steps.iter().map(|step| match step {
        Step::Concatenate => "concatenated".to_owned(),
        Step::Chunk => "divided".to_owned(),
        Step::Stack => "stacked".to_owned(),
        Step::PermuteForRope(count) => format!("rows of the first {count} permuted"),
        Step::TransposeExperts => "transposed".to_owned(),
    });
    format!(
        "{} → {} ({})",
        list(conversion.released),
        list(conversion.transformers),
        steps.collect::<Vec<_>>().join(", ")
    )
}

fn row(family: &Family) -> String {
    let rules = family
        .rules
        .iter()
        .copied()
        .flatten()
        .map(|rule| match rule {
            Rule::Renamed(released, transformers) => {
                format!("{} → {}", code(released), code(transformers))
            }
            Rule::Converted(converted) => conversion(converted),
        });
    let rules: Vec<String> = rules.collect();
    let rules = if rules.is_empty() {
        "the same".to_owned()
    } else {
        rules.join("<br>")
    };
    format!("| {} | {rules} |", list(family.model_types))
}

#[test]
fn the_page_has_the_table() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/NAMES.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let header = "| `model_type` | `released` → `transformers` |\n|---|---|\n";
    let (_, table) = page.split_once(header).expect("the table is there");
    let rows: Vec<&str> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = families().map(row).collect();
    assert_eq!(rows, expected, "expected:\n{}", expected.join("\n"));
}
