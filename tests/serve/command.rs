//! The command.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::common::Workspace;
use crate::fixture::checkpoint;

/// A server that runs, and is killed if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(workspace: &Workspace, arguments: &str) -> (Running, SocketAddr, String) {
    workspace.write("base", &checkpoint());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(["serve", "base", "--fp8", "--quiet"])
        .args(arguments.split_whitespace())
        .current_dir(workspace.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let child = Running(child);
    let serves = lines.next().expect("it starts").unwrap();
    let with_address = lines.next().unwrap().unwrap();
    let (_, address) = with_address.split_once("http://").unwrap();
    let address = address.split(' ').next().unwrap();
    let port = address.rsplit(':').next().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    (child, address, serves)
}

fn end(mut server: Running, signal: Signal) -> String {
    let pid = Pid::from_raw(server.0.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
    let mut log = String::new();
    server
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert_eq!(server.0.wait().unwrap().code(), Some(0), "{log}");
    log
}

#[test]
fn it_says_what_to_connect_to_and_ends_well_at_each_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let workspace = Workspace::new();
        let (server, address, serves) = start(&workspace, "--listen 127.0.0.1:0");
        assert!(serves.contains("ckptfs/base at commit "), "{serves}");
        let mut client = Client::connect(address);
        let response = client.get("GET /ckptfs/base/resolve/main/README.md", &[]);
        assert_eq!((response.status, response.text()), (200, "# A model\n"));
        let log = end(server, signal);
        assert!(
            log.contains("asked to stop") && log.contains("stopped"),
            "{log}"
        );
        assert!(!log.contains("no-token"), "{log}");
    }
}

#[test]
fn others_are_only_let_in_with_a_warning_or_a_token() {
    let workspace = Workspace::new();
    let (server, ..) = start(&workspace, "--listen 0.0.0.0:0 --name org/model");
    let log = end(server, Signal::TERM);
    assert!(log.contains("warning[no-token]: "), "{log}");

    let workspace = Workspace::new();
    std::fs::write(workspace.path().join("token"), "hf_secret\n").unwrap();
    let (server, address, _) = start(&workspace, "--listen 0.0.0.0:0 --token-file token");
    let mut client = Client::connect(address);
    assert_eq!(client.get("GET /README.md", &[]).status, 401);
    let response = client.get("GET /README.md", &["authorization: bearer hf_secret"]);
    assert_eq!(response.status, 200);
    assert!(!end(server, Signal::TERM).contains("no-token"));
}

#[test]
fn failures_are_in_the_log_with_their_code_and_file() {
    let workspace = Workspace::new();
    let (server, address, _) = start(&workspace, "--listen 127.0.0.1:0");
    std::fs::remove_file(workspace.path().join("base/README.md")).unwrap();
    assert_eq!(
        Client::connect(address).get("GET /README.md", &[]).status,
        500
    );
    let log = end(server, Signal::TERM);
    assert!(log.contains("ERROR /README.md: cannot send it: "), "{log}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let workspace = Workspace::new();
    workspace.write("base", &checkpoint());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    std::fs::write(workspace.path().join("empty"), "\n").unwrap();
    for (arguments, code, parts) in [
        (
            format!("--listen {taken}"),
            1,
            &["127.0.0.1:", "listen"][..],
        ),
        ("--listen nonsense".to_owned(), 1, &["nonsense", "listen"]),
        ("--name a/b/c".to_owned(), 2, &["--name", "a/b/c"]),
        ("--token-file empty".to_owned(), 1, &["bad-value", "empty"]),
        ("--token-file none".to_owned(), 1, &["not-found", "none"]),
        ("--connections 0".to_owned(), 2, &["--connections"]),
    ] {
        let output = crate::common::command::ckptfs(&workspace, &format!("serve base {arguments}"));
        let said = crate::common::command::text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        crate::common::assert_names(said, parts);
    }
}
