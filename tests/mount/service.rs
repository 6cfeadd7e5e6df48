//! What a service manager is told.

use std::fs::File;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::fixture::{Fixture, Kind, ckptfs, stderr};

/// The next message, which must come.
fn next(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let len = socket.recv(&mut message).unwrap();
    String::from_utf8(message[..len].to_vec()).unwrap()
}

fn listen(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    socket
}

#[test]
fn a_service_manager_is_told_when_the_mount_is_ready_and_when_it_ends() {
    let fixture = Fixture::new();
    let path = fixture.path("socket");
    let name = format!("ckptfs-test-{}", std::process::id());
    let sockets = [
        (
            path.to_str().unwrap().to_owned(),
            SocketAddr::from_pathname(&path).unwrap(),
        ),
        (
            format!("@{name}"),
            SocketAddr::from_abstract_name(&name).unwrap(),
        ),
    ];
    for (variable, address) in sockets {
        let socket = listen(&address);
        let variable = format!("NOTIFY_SOCKET={variable}");
        let mut server = fixture.serve_under(Kind::PatchedFp8, &["env", &variable]);
        assert_eq!(next(&socket), "STATUS=planning the view");
        let ready = format!("READY=1\nSTATUS=serving {}", fixture.mountpoint.display());
        assert_eq!(next(&socket), ready);

        let open = File::open(fixture.shard()).unwrap();
        server.signal(Signal::TERM);
        let stopping = next(&socket);
        assert!(stopping.starts_with("STOPPING=1\nSTATUS=unmounting"));
        assert!(server.is_running());
        drop(open);
        assert_eq!(next(&socket), "STOPPING=1\nSTATUS=unmounted");
        assert!(server.status().success());
    }
}

#[test]
fn a_service_that_cannot_begin_says_why_and_is_never_ready() {
    let fixture = Fixture::new();
    let path = fixture.path("socket");
    let socket = listen(&SocketAddr::from_pathname(&path).unwrap());
    let missing = fixture.path("missing");
    let mut command = ckptfs("mount");
    command.env("NOTIFY_SOCKET", &path).arg("--foreground");
    command.arg("--base").arg(missing).arg(&fixture.mountpoint);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    assert_eq!(next(&socket), "STATUS=planning the view");
    let status = next(&socket);
    assert!(status.starts_with("STATUS=") && status.contains("missing"));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0]).is_err());
}

#[test]
fn only_the_foreground_tells_and_nobody_need_listen() {
    let fixture = Fixture::new();
    let path = fixture.path("socket");
    let socket = listen(&SocketAddr::from_pathname(&path).unwrap());
    let mount = |variable: &Path, more: &[&str]| -> Command {
        let mut command = ckptfs("mount");
        command.env("NOTIFY_SOCKET", variable).args(more);
        command.args(fixture.flags(Kind::Patched));
        command.arg(&fixture.mountpoint);
        command
    };
    let output = mount(&path, &[]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0]).is_err());
    assert!(fixture.unmount(&[]).status.success());

    let nowhere = format!("NOTIFY_SOCKET={}", fixture.path("nowhere").display());
    let mut server = fixture.serve_under(Kind::Patched, &["env", &nowhere]);
    assert!(server.is_running());
}
