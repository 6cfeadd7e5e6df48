//! `ckptfs top` on a terminal.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};

use crate::fixture::{Fixture, Kind, assert_refused, ckptfs, eventually};

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";

/// A pseudoterminal with `ckptfs top` on it.
struct Top {
    process: Child,
    terminal: File,
    keyboard: File,
    printed: String,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Top {
    fn start(fixture: &Fixture) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&keyboard).unwrap();
        rustix::pty::unlockpt(&keyboard).unwrap();
        rustix::termios::tcsetwinsize(&keyboard, size(40, 120)).unwrap();
        rustix::fs::fcntl_setfl(&keyboard, OFlags::NONBLOCK).unwrap();
        let name = rustix::pty::ptsname(&keyboard, Vec::new()).unwrap();
        let name = OsStr::from_bytes(name.as_bytes());
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let end = || OwnedFd::try_clone(&terminal).unwrap();
        // A session of its own, so that the terminal tells it of a change of size.
        let mut command = Command::new("setsid");
        command.args([
            "--ctty",
            env!("CARGO_BIN_EXE_ckptfs"),
            "top",
            "--interval",
            "0.05",
        ]);
        command.arg(&fixture.mountpoint);
        command.stdin(end()).stdout(end()).stderr(end());
        Top {
            process: command.env("TERM", "xterm").spawn().unwrap(),
            terminal: terminal.into(),
            keyboard: keyboard.into(),
            printed: String::new(),
        }
    }

    /// Waits until `text` is printed, and forgets what was printed until then.
    fn expect(&mut self, text: &str) {
        eventually(text, || {
            let mut bytes = [0; 1 << 16];
            while let Ok(count @ 1..) = self.keyboard.read(&mut bytes) {
                self.printed += &String::from_utf8_lossy(&bytes[..count]);
            }
            self.printed.contains(text)
        });
        let end = self.printed.find(text).unwrap() + text.len();
        self.printed.drain(..end);
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal is as a shell wants it.
    fn is_plain(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.terminal).unwrap();
        let wanted = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        modes.local_modes.contains(wanted)
    }

    /// Waits for its end, and for the terminal as it was.
    fn end(mut self) -> ExitStatus {
        self.expect(LEAVE_SCREEN);
        let status = self.process.wait().unwrap();
        assert!(self.is_plain());
        status
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn figures_are_shown_and_change_until_a_key_ends_it() {
    let fixture = Fixture::new();
    let server = fixture.serve_with(Kind::PatchedFp8, &["--no-passthrough"]);
    for key in ["q", "\x1b", "\x03"] {
        let mut top = Top::start(&fixture);
        top.expect(ENTER_SCREEN);
        top.expect(&server.id().to_string());
        assert!(!top.is_plain());
        top.press(key);
        assert_eq!(top.end().code(), Some(0), "{key:?}");
    }
    let mut top = Top::start(&fixture);
    top.expect("unknown");
    fs::read(fixture.shard()).unwrap();
    top.expect("model-00001-of-00003.safetensors");
    top.press("s");
    // "by rate" becomes "by bytes read"; what stays is not printed again.
    top.expect("read)");
    top.press("q");
    assert!(top.end().success());
}

#[test]
fn a_terminal_that_changes_its_size_is_drawn_anew() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let mut top = Top::start(&fixture);
    top.expect("quit");
    rustix::termios::tcsetwinsize(&top.keyboard, size(20, 60)).unwrap();
    // The last line, where it is now.
    top.expect("\x1b[20;1H");
    top.expect("quit");
    top.press("q");
    assert!(top.end().success());
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut top = Top::start(&fixture);
        top.expect("quit");
        let process = Pid::from_child(&top.process);
        rustix::process::kill_process(process, signal).unwrap();
        assert_eq!(top.end().code(), Some(128 + signal.as_raw()));
    }
}

#[test]
fn a_mount_that_dies_is_told_and_does_not_end_it() {
    let fixture = Fixture::new();
    let server = fixture.serve(Kind::PatchedFp8);
    let mut top = Top::start(&fixture);
    top.expect(&server.id().to_string());
    server.signal(Signal::KILL);
    top.expect("gone;");
    top.press("q");
    assert!(top.end().success());
}

#[test]
fn without_a_terminal_it_points_to_what_programs_can_read() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let output = ckptfs("top").arg(&fixture.mountpoint).output().unwrap();
    assert_refused(&output, &["terminal", "ckptfs status --json"]);
    let output = ckptfs("top").arg(fixture.path("")).output().unwrap();
    assert_refused(&output, &["nothing is mounted there"]);
}
