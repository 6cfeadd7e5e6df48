//! What `--version` says of the build: `build.rs`, in a small package of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of what the build was made for, such as x86_64-unknown-linux-gnu.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
        .args(arguments)
        .env("GIT_COMMITTER_DATE", "2021-02-03T23:30:00+0100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A package that prints what `build.rs` tells it.
fn package(directory: &Path) {
    let manifest =
        "[package]\nname = \"p\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\n[workspace]\n";
    fs::create_dir_all(directory.join("src")).unwrap();
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    let main = "fn main() { println!(\"{}\", env!(\"CKPTFS_BUILD\")) }\n";
    fs::write(directory.join("src/main.rs"), main).unwrap();
    fs::write(directory.join(".gitignore"), "target\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    fs::copy(script, directory.join("build.rs")).unwrap();
    cargo(directory, &["generate-lockfile", "--offline"]);
}

fn cargo(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(directory)
        .args(arguments)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned() + &error
}

fn commit(directory: &Path, text: &str) -> String {
    fs::write(directory.join("text"), text).unwrap();
    git(directory, &["add", "."]);
    git(directory, &["commit", "-q", "-m", text]);
    git(directory, &["rev-parse", "HEAD"])[..9].to_owned()
}

/// Builds for release; gives what the program prints, and whether anything had to be compiled.
fn build(directory: &Path) -> (String, bool) {
    let said = cargo(directory, &["build", "--release", "--offline"]);
    let output = Command::new(directory.join("target/release/p")).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    (printed.trim().to_owned(), said.contains("Compiling"))
}

fn repository(directory: &Path) -> PathBuf {
    let path = directory.join("repository");
    package(&path);
    git(&path, &["init", "-q", "-b", "a/b"]);
    path
}

#[test]
fn a_release_names_the_commit_and_its_date_and_is_built_anew_only_after_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = repository(directory.path());
    let host = host();
    let line = |hash: &str| format!("1.2.3 ({hash} 2021-02-03, {host})");
    let first = commit(&path, "first");
    assert_eq!(build(&path), (line(&first), true));
    assert_eq!(build(&path), (line(&first), false));
    let second = commit(&path, "second");
    assert_eq!(build(&path), (line(&second), true));
    // The branch is no file of its own now.
    git(&path, &["pack-refs", "--all"]);
    assert_eq!(build(&path).0, line(&second));
    assert_eq!(build(&path), (line(&second), false));
    let third = commit(&path, "third");
    assert_eq!(build(&path), (line(&third), true));
    git(&path, &["checkout", "-q", "--detach", "HEAD~"]);
    assert_eq!(build(&path), (line(&second), true));
    // A text is no part of the program; the manifest is.
    fs::write(path.join("text"), "other").unwrap();
    assert_eq!(build(&path), (line(&second), false));
    fs::write(path.join("src/more.rs"), "").unwrap();
    assert_eq!(build(&path), (line(&format!("{second}-dirty")), true));
}

#[test]
fn a_worktree_has_a_commit_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = repository(directory.path());
    let host = host();
    let line = |hash: &str| format!("1.2.3 ({hash} 2021-02-03, {host})");
    let first = commit(&path, "first");
    let worktree = directory.path().join("worktree");
    git(
        &path,
        &[
            "worktree",
            "add",
            "-q",
            "-b",
            "c",
            worktree.to_str().unwrap(),
        ],
    );
    assert_eq!(build(&worktree), (line(&first), true));
    commit(&path, "of the other");
    assert_eq!(build(&worktree), (line(&first), false));
    let second = commit(&worktree, "second");
    assert_eq!(build(&worktree), (line(&second), true));
}

#[test]
fn without_git_there_is_the_commit_of_the_registry_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let host = host();
    // In another project's checkout.
    git(directory.path(), &["init", "-q"]);
    commit(directory.path(), "another's");
    let path = directory.path().join("p");
    package(&path);
    assert_eq!(build(&path).0, format!("1.2.3 ({host})"));
    assert!(!build(&path).1);

    let path = directory.path().join("q");
    package(&path);
    let info = "{\n  \"git\": {\n    \"sha1\": \"0123456789abcdef0123456789abcdef01234567\"\n  },\n  \"path_in_vcs\": \"\"\n}";
    fs::write(path.join(".cargo_vcs_info.json"), info).unwrap();
    assert_eq!(build(&path).0, format!("1.2.3 (012345678, {host})"));
}

#[test]
fn the_program_tells_its_version_in_short_and_in_full() {
    let version = |flag| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        String::from_utf8(program.arg(flag).output().unwrap().stdout).unwrap()
    };
    let short = concat!("ckptfs ", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("-V"), format!("{short}\n"));
    let full = version("--version");
    assert!(full.starts_with(&format!("{short} (")), "{full}");
    assert!(full.contains("-linux-"), "{full}");
}
