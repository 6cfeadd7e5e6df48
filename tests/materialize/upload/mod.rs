//! Views that are written to an object store: the same bytes as on disk, complete or not to be loaded,
//! whatever the store does.

mod destination;
mod faults;
mod resume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::store_server::{Kind, StoreServer, Trouble};
use crate::directory::files;

const FIRST: &str = "model-00001-of-00003.safetensors";
const SECOND: &str = "model-00002-of-00003.safetensors";
const THIRD: &str = "model-00003-of-00003.safetensors";

/// Where tests of S3 alone write to.
const OUT: &str = "s3://bucket/models/m";
/// Where all write to, as the server knows it.
const PREFIX: &str = "bucket/models/m/";

/// Shards of three parts, of two and of one, and other files.
fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(FIRST, [bf16("model.embed_tokens.weight", &[2560, 4096])])
        .shard(
            SECOND,
            [
                bf16("model.norm.weight", &[1024]),
                bf16("model.layers.0.mlp.up_proj.weight", &[4608, 1024]),
            ],
        )
        .shard(
            THIRD,
            [bf16("model.layers.0.mlp.down_proj.weight", &[1024, 512])],
        )
        .config(r#"{"num_hidden_layers": 1, "torch_dtype": "bfloat16"}"#)
        .aux("tokenizer.json", "{}")
        .aux("deep/er/notes ~1.txt", "some text")
        .aux("empty.txt", "")
}

/// A base on disk, and a store.
struct Job {
    workspace: Workspace,
    server: StoreServer,
    /// Where to write to.
    out: String,
}

impl Job {
    fn new() -> Self {
        Job::at(Kind::S3)
    }

    fn at(kind: Kind) -> Self {
        let workspace = Workspace::new();
        workspace.write("base", &base());
        Job {
            workspace,
            server: StoreServer::start(kind),
            out: format!("{}://{}", kind.scheme(), PREFIX.trim_end_matches('/')),
        }
    }

    /// The program, which reaches the store.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.workspace.path())
            .envs(self.server.settings());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a run that must succeed prints.
    fn succeed(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {error}");
        String::from_utf8(output.stdout).unwrap() + &error
    }

    /// What a run that must fail prints on standard error.
    fn fail(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The files that the view of these `flags` has on disk.
    fn expected(&self, flags: &str) -> BTreeMap<String, Vec<u8>> {
        let out = self.workspace.path().join("expected");
        if out.exists() {
            std::fs::remove_dir_all(&out).unwrap();
        }
        self.succeed(&format!("materialize --base base {flags} --out expected"));
        named(files(&out))
    }

    /// Checks that the store has the view of these `flags`, and nothing else.
    fn check(&self, flags: &str) {
        let found = self.server.objects(PREFIX);
        let expected = self.expected(flags);
        let names: Vec<&String> = found.keys().collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{flags}");
        assert!(found == expected, "{flags}");
        assert_eq!(self.server.open_uploads(), 0);
    }
}

/// Files by the texts of their paths.
fn named(files: BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let files = files.into_iter();
    files
        .map(|(path, content)| (path.to_str().unwrap().to_owned(), content))
        .collect()
}

/// How often `requests` have a line that holds all of `texts`.
fn count(requests: &[String], texts: &[&str]) -> usize {
    let has = |line: &&String| texts.iter().all(|text| line.contains(text));
    requests.iter().filter(has).count()
}

#[test]
fn views_in_a_store_have_the_bytes_that_they_have_on_disk() {
    let of_all = Kind::ALL.map(|kind| (kind, "--sha256"));
    let of_one = [
        "",
        "--fp8",
        "--single-file --sha256",
        "--dtype f32 --jobs 1",
    ];
    let of_one = of_one.map(|flags| (Kind::S3, flags));
    for (kind, flags) in of_all.into_iter().chain(of_one) {
        let job = Job::at(kind);
        let out = &job.out;
        let text = job.succeed(&format!("materialize --base base {flags} --out {out}"));
        assert!(text.contains(&format!("wrote  {out}: ")), "{text}");
        job.check(flags);
        let view: Vec<&str> = flags.split_whitespace().collect();
        let view = view
            .into_iter()
            .filter(|flag| *flag != "--sha256" && *flag != "--jobs");
        let view: Vec<&str> = view.filter(|flag| *flag != "1").collect();
        let text = job.succeed(&format!(
            "verify --base base {} --out {out}",
            view.join(" ")
        ));
        assert!(text.contains("no problems found"), "{text}");
        let text = job.succeed(&format!("verify {out}"));
        assert!(text.contains("no problems found"), "{text}");
        let summed = text.contains("compared with the checksums");
        assert_eq!(summed, flags.contains("--sha256"), "{text}");
    }
}

#[test]
fn a_view_in_a_store_is_the_base_of_others() {
    for kind in Kind::ALL {
        let job = Job::at(kind);
        let out = &job.out;
        job.succeed(&format!("materialize --base base --out {out}"));
        job.succeed(&format!("materialize --base {out} --dtype f16 --out back"));
        let back = files(&job.workspace.path().join("back"));
        assert!(named(back) == job.expected("--dtype f16"), "{kind:?}");
    }
}

#[test]
fn an_object_that_was_replaced_since_it_was_planned_is_not_read() {
    for kind in Kind::ALL {
        let job = Job::at(kind);
        let out = &job.out;
        job.succeed(&format!("materialize --base base --out {out}"));
        job.succeed(&format!("plan --base {out} --pin pins"));
        let mut content = job.server.objects(PREFIX).remove(THIRD).unwrap();
        *content.last_mut().unwrap() ^= 1;
        job.server.put(&format!("{PREFIX}{THIRD}"), content);
        let read = "--pinned pins --out back";
        let error = job.fail(&format!("materialize --base {out} {read}"));
        assert!(error.contains("source-changed"), "{kind:?}: {error}");
        assert!(error.contains(THIRD), "{kind:?}: {error}");
    }
}

#[test]
fn config_and_index_are_the_last_that_become_visible() {
    Kind::ALL.into_iter().for_each(check_order);
}

fn check_order(kind: Kind) {
    let job = Job::at(kind);
    let out = &job.out;
    job.succeed(&format!("materialize --base base --out {out}"));
    let requests = job.server.requests();
    let position = |texts: &[&str]| {
        let has = |line: &String| texts.iter().all(|text| line.contains(text));
        requests.iter().rposition(has).unwrap()
    };
    let config = position(&["PUT ", "config.json"]);
    let index = position(&["PUT ", "m/model.safetensors.index.json"]);
    let shards = [FIRST, SECOND].map(|name| position(&["POST ", name, "uploadId"]));
    let third = position(&["PUT ", "m/model-00003"]);
    let tokenizer = position(&["PUT ", "tokenizer.json"]);
    let all_shards = shards.into_iter().chain([third]).max().unwrap();
    assert!(all_shards < tokenizer && tokenizer < index && index < config);
    let request = position(&["DELETE ", "request.json"]);
    assert!(config < request);
    assert_eq!(count(&requests, &["PUT ", FIRST, "partNumber"]), 3);
    assert_eq!(count(&requests, &["PUT ", SECOND, "partNumber"]), 2);
}

#[test]
fn what_differs_in_a_store_is_found() {
    let job = Job::new();
    job.succeed(&format!("materialize --base base --sha256 --out {OUT}"));
    let mut objects = job.server.objects(PREFIX);
    let third = objects.get_mut(THIRD).unwrap();
    *third.last_mut().unwrap() ^= 1;
    job.server.put(&format!("{PREFIX}{THIRD}"), third.clone());
    job.server.put(&format!("{PREFIX}tokenizer.json"), "{ }");
    job.server.put(&format!("{PREFIX}other.safetensors"), "x");
    job.server.put(&format!("{PREFIX}more.txt"), "x");
    job.server.remove(&format!("{PREFIX}deep/er/notes ~1.txt"));
    let output = job.run(&format!("verify --base base --out {OUT}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for line in [
        "model-00003-of-00003.safetensors: differs from byte",
        "in tensor model.layers.0.mlp.down_proj.weight",
        "tokenizer.json: 3 bytes long, in the view 2",
        "deep/er/notes ~1.txt: missing",
        "other.safetensors: weights that the view does not have",
        "more.txt is not in the view",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let output = job.run(&format!("verify {OUT}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for line in [
        "model-00003-of-00003.safetensors: its SHA-256 is",
        "files that SHA256SUMS names and are missing",
        "weights that SHA256SUMS does not name",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn plan_says_what_would_be_sent() {
    let job = Job::new();
    let text = job.succeed(&format!("plan --base base --out {OUT}"));
    assert!(text.contains("write  8 files: 30.0"), "{text}");
    assert!(!text.contains("space  "), "{text}");
    job.server
        .trouble(&["PUT ", "tokenizer.json"], Trouble::Status(403), 1);
    let error = job.fail(&format!("materialize --base base --out {OUT}"));
    assert!(error.contains("access-denied"), "{error}");
    let text = job.succeed(&format!("plan --base base --out {OUT}"));
    assert!(text.contains("3 complete already"), "{text}");
}
