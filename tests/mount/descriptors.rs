//! Mounts of more sources than there are descriptors.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::common::limited::{self, checkpoint, open_below, other};
use crate::fixture::{Fixture, assert_same, read_tree, stderr};

const LIMIT: usize = 64;
/// The part of it that sources may have.
const SHARE: usize = LIMIT / 2;
const OTHERS: usize = 3 * LIMIT;

/// Mounts a view of so many files, with so few descriptors; gives the base.
fn mount(fixture: &Fixture, more: &[&str]) -> PathBuf {
    let base = fixture.path("many");
    checkpoint(3 * LIMIT, OTHERS).write(&base);
    let mut command = limited::ckptfs(LIMIT, "mount");
    command.args(["--threads", "2", "--no-repack"]).args(more);
    command.arg("--base").arg(&base).arg(&fixture.mountpoint);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    base
}

#[test]
fn every_file_reads_and_no_more_than_a_share_of_the_limit_stays_open() {
    for more in [
        &[][..],
        &["--no-passthrough"],
        &["--direct-sources", "--direct-io"],
    ] {
        let fixture = Fixture::new();
        let base = mount(&fixture, more);
        let mut expected = read_tree(&base);
        // It is made.
        expected.remove(Path::new("model.safetensors.index.json"));
        let server = fixture.serving_process().as_raw_nonzero().get() as u32;
        for _ in 0..2 {
            let mut found = read_tree(&fixture.mountpoint);
            found.remove(Path::new("model.safetensors.index.json"));
            assert_same(&found, &expected);
            let open = open_below(server, &base);
            assert!(open <= SHARE, "{open} of {SHARE} with {more:?}");
        }
    }
}

/// All of the file, from the process that serves it.
fn read_direct(path: &Path) -> io::Result<String> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_DIRECT);
    let mut bytes = [0; 100];
    let count = options.open(path)?.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes[..count].to_vec()).unwrap())
}

#[test]
fn a_file_that_was_replaced_is_read_while_it_is_open_and_is_an_error_once_it_was_closed() {
    let fixture = Fixture::new();
    let base = mount(&fixture, &["--no-passthrough"]);
    let read = |number| read_direct(&fixture.mountpoint.join(other(number)));
    for number in 0..OTHERS {
        assert_eq!(read(number).unwrap(), format!("text {number}\n"));
    }
    let last = OTHERS - 1;
    for number in [0, 1, last] {
        let path = base.join(other(number));
        let new = path.with_extension("new");
        fs::write(&new, format!("TEXT {number}\n")).unwrap();
        fs::rename(new, path).unwrap();
    }
    assert_eq!(read(last).unwrap(), format!("text {last}\n"));
    for number in [0, 1] {
        let error = read(number).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    assert_eq!(read(2).unwrap(), "text 2\n");
}
