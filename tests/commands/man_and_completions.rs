//! `ckptfs man` and `ckptfs completions`, held against what `--help` says.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn ckptfs(arguments: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    let output = program.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `ckptfs --help` lists, less `help`.
fn commands() -> Vec<String> {
    let help = ckptfs(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let names = rest.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

/// The long flags at the beginnings of the lines of a `--help`.
fn flags(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    let lines = lines.filter(|line| line.starts_with('-'));
    // What it does, and its aliases, stand behind two spaces.
    let names = lines.filter_map(|line| line.split("  ").next());
    let words = names.flat_map(|names| names.split([' ', ',', '=', '[']));
    let flags = words.filter(|word| word.starts_with("--") && !word.ends_with(']'));
    flags.map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_and_every_flag_is_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("new/man");
    ckptfs(&["man", pages.to_str().unwrap()]);
    let commands = commands();
    assert!(commands.iter().any(|command| command == "mount"));

    let mut expected = BTreeSet::from(["ckptfs.1".to_owned()]);
    expected.extend(commands.iter().map(|command| format!("ckptfs-{command}.1")));
    let names = |section: &str| -> BTreeSet<_> {
        let files = fs::read_dir(pages.join(section)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    assert_eq!(names("man1"), expected);
    assert_eq!(names("man8"), BTreeSet::from(["mount.ckptfs.8".to_owned()]));

    for command in &commands {
        let page = fs::read_to_string(pages.join(format!("man1/ckptfs-{command}.1"))).unwrap();
        // As roff writes a hyphen that is none.
        let page = page.replace("\\-", "-");
        let flags = flags(&ckptfs(&[command, "--help"]));
        assert!(flags.contains("--help"), "{command}");
        for flag in flags {
            assert!(page.contains(&flag), "{command} {flag}");
        }
    }
    let helper = fs::read_to_string(pages.join("man8/mount.ckptfs.8")).unwrap();
    for text in [".TH mount.ckptfs 8 ", "\\fB32\\fR"] {
        assert!(helper.contains(text), "{text}\n{helper}");
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("ckptfs");
    fs::write(&script, ckptfs(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let code = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _ckptfs ckptfs "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[*]}""#;
        let mut bash = Command::new("bash");
        bash.args(["-c", code, "bash"]).arg(&script).args(words);
        let output = bash.output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["ckptfs", "mate"]), "materialize");
    assert_eq!(complete(&["ckptfs", "mount", "--unf"]), "--unfuse-experts");
    assert_eq!(
        complete(&["ckptfs", "mount", "--dtype", ""]),
        "bf16 f16 f32"
    );
    let all = complete(&["ckptfs", ""]);
    for command in commands() {
        assert!(
            all.split(' ').any(|word| word == command),
            "{command}: {all}"
        );
    }
}

#[test]
fn each_shell_gets_its_own_script() {
    assert!(ckptfs(&["completions", "zsh"]).starts_with("#compdef ckptfs\n"));
    let fish = ckptfs(&["completions", "fish"]);
    let unmount = fish
        .lines()
        .find(|line| line.contains("-a \"unmount\"") && line.starts_with("complete -c ckptfs"));
    assert!(unmount.is_some(), "{fish}");
}
