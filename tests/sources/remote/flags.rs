//! Every flag that takes a source takes a URL, and the view is the one that it is on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{base, served};
use crate::common::Workspace;
use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::store_server::Kind;
use crate::common::web_server::WebServer;

/// Runs the program with the settings that stores and the Hub are reached by.
fn ckptfs(workspace: &Workspace, server: &WebServer, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(arguments)
        .current_dir(workspace.path())
        .envs(Kind::S3.settings(&server.url()))
        .envs(Kind::Google.settings(&server.url()))
        .env("HF_ENDPOINT", server.url())
        .env("HF_HUB_CACHE", workspace.path().join("no-cache"))
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file());
    files
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect()
}

/// What `arguments` write to the directory `out`, in which each `{}` is the place of a source.
fn written(
    workspace: &Workspace,
    server: &WebServer,
    arguments: &str,
    place: impl Fn(&str) -> String,
    out: &str,
) -> BTreeMap<PathBuf, Vec<u8>> {
    let words = arguments.split_whitespace().map(|word| {
        let Some((start, rest)) = word.split_once('{') else {
            return word.to_owned();
        };
        let (name, end) = rest.split_once('}').unwrap();
        format!("{start}{}{end}", place(name))
    });
    let words: Vec<String> = words.collect();
    let mut all = vec!["materialize", "--quiet", "--out", out];
    all.extend(words.iter().map(String::as_str));
    let output = ckptfs(workspace, server, &all);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}");
    files(&workspace.path().join(out))
}

#[test]
fn every_flag_that_takes_a_source_takes_a_url() {
    const MLP: &str = "model.layers.0.mlp.up_proj";
    let workspace = Workspace::new();
    let server = WebServer::start();
    let adapter = Adapter::new(4, 8.0).linear(MLP, [2048, 1024], 4);
    let other = [
        bf16("model.norm.weight", &[256]),
        bf16("mtp.w", &[256, 128]),
    ];
    let reference = [
        bf16(&format!("{MLP}.weight_scale_inv"), &[16, 8]),
        bf16(&format!("{MLP}.weight"), &[2048, 1024]),
    ];
    let directories = [
        ("base", workspace.write("base", &base())),
        ("adapter", adapter.write(&workspace, "adapter")),
        (
            "other",
            workspace.write(
                "other",
                &Checkpoint::single(other).aux("notes.md", "some notes"),
            ),
        ),
        (
            "reference",
            workspace.write("reference", &Checkpoint::single(reference)),
        ),
    ];
    let urls: BTreeMap<&str, [String; 4]> = directories
        .iter()
        .map(|(name, path)| (*name, super::put(&server, path, name)))
        .collect();
    let views = [
        "--base {base}",
        "--base {base} --extra {other}",
        "--base {base} --extra {other}/model.safetensors",
        "--base {base} --lora {adapter}:0.5",
        "--base {base} --graft {other}:model.*",
        "--base {base} --graft {other}/model.safetensors",
        "--base {base} --reference {reference}",
        "--base {base} --add-file NOTES={other}/notes.md",
        "--base {base} --add-file config.json={other}/config.json --set a=1",
    ];
    for (number, view) in views.into_iter().enumerate() {
        let local = |name: &str| name.to_owned();
        let expected = written(&workspace, &server, view, local, &format!("local-{number}"));
        for (way, base) in urls["base"].iter().enumerate() {
            let remote = |name: &str| urls[name][way].clone();
            let out = format!("remote-{number}-{way}");
            let found = written(&workspace, &server, view, remote, &out);
            assert!(found == expected, "{view} by {base}");
        }
    }
}

#[test]
fn the_models_of_a_recipe_may_be_at_urls() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let other = workspace.write("other", &base());
    let others = super::put(&server, &other, "other");
    let recipe = |name: &str, a: &str, b: &str| {
        let text = format!(
            "merge_method: linear\nmodels: [{{model: \"{a}\"}}, {{model: \"{b}\"}}]\nparameters: {{weight: 0.5}}\ndtype: bfloat16\n"
        );
        fs::write(workspace.path().join(name), text).unwrap();
        let arguments = format!("--recipe {name}");
        written(
            &workspace,
            &server,
            &arguments,
            str::to_owned,
            &format!("out-{name}"),
        )
    };
    let expected = recipe("local.yml", "base", "other");
    for (way, (url, other)) in urls.iter().zip(&others).enumerate() {
        let found = recipe(&format!("{way}.yml"), url, other);
        assert!(found == expected, "{url}");
    }
    // Named for a recipe that has other names.
    let text = "merge_method: linear\nmodels: [{model: org/a}, {model: org/b}]\nparameters: {weight: 0.5}\ndtype: bfloat16\n";
    fs::write(workspace.path().join("named.yml"), text).unwrap();
    let arguments = format!(
        "--recipe named.yml --model org/a={} --model org/b={}",
        urls[1], others[2]
    );
    let found = written(&workspace, &server, &arguments, str::to_owned, "out-named");
    assert!(found == expected);
}

#[test]
fn a_view_is_made_from_a_pin_file_without_listings_or_headers() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    for (way, url) in urls.iter().enumerate() {
        let pin = format!("pin-{way}");
        let expected = written(
            &workspace,
            &server,
            &format!("--base {url}"),
            str::to_owned,
            &format!("live-{way}"),
        );
        let output = ckptfs(&workspace, &server, &["plan", "--base", url, "--pin", &pin]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&pin), "{text}");
        server.requests();
        let arguments = format!("--base {url} --pinned {pin}");
        let found = written(
            &workspace,
            &server,
            &arguments,
            str::to_owned,
            &format!("pinned-{way}"),
        );
        assert!(found == expected, "{url}");
        let output = ckptfs(&workspace, &server, &["plan", "--base", url, "--pin", &pin]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains("--overwrite"),
            "{text}"
        );
    }
    let local = ["plan", "--base", "base", "--pin", "none"];
    let output = ckptfs(&workspace, &server, &local);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("nothing to pin"),
        "{text}"
    );
    let output = ckptfs(
        &workspace,
        &server,
        &["plan", "--base", &urls[0], "--pinned", "base/config.json"],
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("bad-pin-file"),
        "{text}"
    );
}

#[test]
#[cfg(feature = "fuse")]
fn a_mount_without_a_server_may_work_later_in_the_background_too() {
    let workspace = Workspace::new();
    let mountpoint = workspace.path().join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let server = WebServer::start();
    let mount = |url: &str, more: &[&str]| {
        let words = ["mount", url, "mnt", "--network-timeout", "1"];
        let output = ckptfs(&workspace, &server, &[&words, more].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    // Nobody listens there.
    let gone = WebServer::start().url() + "/m";
    for more in [&[][..], &["--foreground"]] {
        let (code, text) = mount(&gone, more);
        assert!(text.contains("error[unreachable]"), "{text}");
        assert_eq!(code, Some(75), "{more:?}");
        let (code, text) = mount("s3://bucket/none", more);
        assert!(text.contains("error[not-found]"), "{text}");
        assert_eq!(code, Some(1), "{more:?}");
    }
}

#[test]
fn a_file_at_a_url_is_added_as_it_was_pinned_or_not_at_all() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    fs::write(directory.join("notes.md"), "some notes").unwrap();
    let (server, urls) = served(&directory, "base");
    let run = |words: &[&str]| {
        let output = ckptfs(&workspace, &server, words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    };
    for (url, place) in urls.iter().zip(["plain", "bucket/models", "hub/org"]) {
        let add = format!("more.md={url}/notes.md");
        let view = ["--base", "base", "--add-file", &add];
        let plan = [&["plan", "--pin", "pins", "--overwrite"], &view[..]].concat();
        let (done, text) = run(&plan);
        assert!(done, "{text}");
        server.put(&format!("{place}/base/notes.md"), "other text");
        let write = [
            &["materialize", "--out", "out", "--pinned", "pins"],
            &view[..],
        ]
        .concat();
        let (done, text) = run(&write);
        // The pin file has files as short as this one whole.
        assert!(done || text.contains("source-changed"), "{text}");
        if done {
            let written = workspace.path().join("out/more.md");
            assert_eq!(fs::read(written).unwrap(), b"some notes");
        }
        let _ = fs::remove_dir_all(workspace.path().join("out"));
        let none = format!("more.md={url}/none.md");
        let (done, text) = run(&["plan", "--base", "base", "--add-file", &none]);
        assert!(!done && text.contains("error[not-found]"), "{text}");
        assert!(text.contains("--add-file more.md"), "{text}");
    }
}

#[test]
fn what_must_be_on_this_machine_says_so() {
    let workspace = Workspace::new();
    workspace.write("base", &base());
    let server = WebServer::start();
    for words in [
        &["plan", "--recipe", "s3://bucket/view.yml"][..],
        &["plan", "base", "--pinned", "s3://bucket/pins"],
    ] {
        let output = ckptfs(&workspace, &server, words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("error[unsupported-place]"), "{text}");
        assert!(text.contains("from this machine only"), "{text}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn commands_on_what_is_no_view_have_the_flags_of_the_network_too() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let gone = WebServer::start().url() + "/m";
    let report = "report --base base --out report.html --diff";
    for (way, url) in urls.iter().enumerate() {
        for (command, code) in [
            (format!("diff base {url}"), 0),
            (format!("diff {url} base --no-values --json"), 0),
            (format!("inspect --base {url} --fp8"), 0),
            (format!("{report} {url} --overwrite"), 0),
            (format!("diff base {gone} --network-timeout 1"), 2),
            (format!("verify {gone} --network-timeout 1"), 75),
            (
                format!("{report} {gone} --overwrite --network-timeout 1"),
                75,
            ),
        ] {
            // The others are of no URL that is there.
            if way > 0 && code != 0 {
                continue;
            }
            let words: Vec<&str> = command.split_whitespace().collect();
            let output = ckptfs(&workspace, &server, &words);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command}: {text}");
            assert!(code == 0 || text.contains("nothing came for 1 s"), "{text}");
        }
    }
}
