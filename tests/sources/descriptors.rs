//! More sources than there are descriptors.

use std::fs;

use crate::common::command::text;
use crate::common::limited::{checkpoint, ckptfs, other};
use crate::common::{Workspace, assert_names};

const LIMIT: usize = 40;

#[test]
fn a_view_of_more_shards_than_descriptors_is_planned_and_written() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint(3 * LIMIT, 0));
    let mut plan = ckptfs(LIMIT, "plan");
    let output = plan.arg("--base").arg(&base).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let out = workspace.path().join("out");
    let mut materialize = ckptfs(LIMIT, "materialize");
    materialize.arg("--repack").arg("--base").arg(&base);
    let output = materialize.arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut verify = ckptfs(LIMIT, "verify");
    let output = verify.arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_directory_of_more_files_than_descriptors_is_written_and_verified() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint(1, 3 * LIMIT));
    let out = workspace.path().join("out");
    let mut materialize = ckptfs(LIMIT, "materialize");
    materialize.arg("--sha256").arg("--base").arg(&base);
    let output = materialize.arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    for number in 0..3 * LIMIT {
        let written = fs::read_to_string(out.join(other(number))).unwrap();
        assert_eq!(written, format!("text {number}\n"));
    }
    let mut verify = ckptfs(LIMIT, "verify");
    let output = verify
        .arg("--base")
        .arg(&base)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn with_too_few_descriptors_for_anything_the_limit_is_named() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint(8, 8));
    let out = workspace.path().join("out");
    // What a run needs at once, the tests need not know.
    let mut failures = 0;
    for limit in 5..LIMIT {
        let mut materialize = ckptfs(limit, "materialize");
        materialize.args(["--jobs", "4", "--base"]).arg(&base);
        let output = materialize.arg("--out").arg(&out).output().unwrap();
        if output.status.success() {
            fs::remove_dir_all(&out).unwrap();
            continue;
        }
        failures += 1;
        let limit = format!("this process may have {limit} files open at once");
        assert_names(text(&output.stderr), &[&limit, "ulimit -n"]);
    }
    assert!(failures > 0);
}
