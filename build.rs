//! Tells the program what it was built from, as `CKPTFS_BUILD`: its version, and in parentheses
//! the commit with its date (in release builds, where it is known), the target, and `debug`.
//!
//! Nothing of it depends on when or where the build is made.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).expect("cargo sets it");
    let mut facts = Vec::new();
    // A development build would be made again after each commit for the sake of this line.
    let release = variable("PROFILE") == "release";
    if release {
        facts.extend(commit(Path::new(&variable("CARGO_MANIFEST_DIR"))));
    }
    facts.push(variable("TARGET"));
    if !release {
        facts.push("debug".to_owned());
    }
    let version = variable("CARGO_PKG_VERSION");
    println!(
        "cargo::rustc-env=CKPTFS_BUILD={version} ({})",
        facts.join(", ")
    );
}

/// The commit and its date in a checkout, the commit alone in a package of the registry, or none.
fn commit(package: &Path) -> Option<String> {
    // What lies above the package may be another project's.
    match package.join(".git").exists() {
        true => commit_of_checkout(package),
        false => {
            let info = fs::read_to_string(package.join(".cargo_vcs_info.json")).ok()?;
            let (_, hash) = info.split_once("\"sha1\": \"")?;
            Some(short(hash.split('"').next()?).to_owned())
        }
    }
}

fn commit_of_checkout(package: &Path) -> Option<String> {
    /// What the program is made of.
    const SOURCES: [&str; 4] = ["build.rs", "src", "Cargo.toml", "Cargo.lock"];
    watch_head(package);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let head = git(package, &["log", "-1", "--format=%H %cs"])?;
    let (hash, date) = head.split_once(' ')?;
    let mut status = vec!["--no-optional-locks", "status", "--porcelain", "--"];
    status.extend(SOURCES);
    let dirty = match git(package, &status)?.is_empty() {
        true => "",
        false => "-dirty",
    };
    Some(format!("{}{dirty} {date}", short(hash)))
}

/// Has cargo look again when another commit is checked out, in a worktree too.
fn watch_head(package: &Path) {
    let path_of = |name: &str| git(package, &["rev-parse", "--git-path", name]);
    // A path that is not there would have cargo look again each time.
    let watch = |path: &Path| println!("cargo::rerun-if-changed={}", path.display());
    if let Some(head) = path_of("HEAD") {
        watch(Path::new(&head));
    }
    let branch = git(package, &["symbolic-ref", "--quiet", "HEAD"]);
    let Some(branch) = branch.and_then(|branch| path_of(&branch)) else {
        return;
    };
    let branch = package.join(branch);
    if branch.exists() {
        return watch(&branch);
    }
    // The branch is packed; its next commit is a file of its own.
    let packed = path_of("packed-refs").map(|packed| package.join(packed));
    let directory = branch.ancestors().skip(1).find(|path| path.exists());
    for path in packed.as_deref().into_iter().chain(directory) {
        watch(path);
    }
}

/// As many digits wherever it is built; git's own choice depends on the clone.
fn short(hash: &str) -> &str {
    hash.get(..9).unwrap_or(hash)
}

/// What git prints, if there is git and all is well.
fn git(package: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let output = git.current_dir(package).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
