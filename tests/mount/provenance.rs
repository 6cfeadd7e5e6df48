//! The extended attribute that tells where the bytes of a file come from.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use std::sync::Arc;

use ckptfs::fuse::PROVENANCE_ATTRIBUTE;
use ckptfs::provenance::Files;
use rustix::io::Errno;
use serde_json::Value;

use crate::fixture::{Fixture, Kind};

fn get(path: &Path, name: &str, size: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; size];
    let len = rustix::fs::getxattr(path, name, &mut buffer[..])?;
    buffer.truncate(len);
    Ok(buffer)
}

/// How long the kernel says that the value is.
fn length(path: &Path) -> isize {
    let [path, name] = [path.as_os_str(), PROVENANCE_ATTRIBUTE.as_ref()]
        .map(|text| CString::new(text.as_bytes()).unwrap());
    // SAFETY: both strings end with a zero, and nothing is written to a buffer of no bytes.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) }
}

#[test]
fn every_file_has_its_provenance_as_an_extended_attribute() {
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        let plan = Arc::new(fixture.plan(kind));
        let files = Files::new(plan.clone());
        let mut kinds = Vec::new();
        for (entry, path, _) in plan.view.files() {
            let expected = files.json(entry).unwrap();
            let path = fixture.mountpoint.join(path);
            // Twice: once for the length, as programs do, and once whole.
            assert_eq!(length(&path), expected.len() as isize);
            let found = get(&path, PROVENANCE_ATTRIBUTE, 64 << 10).unwrap();
            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(
                get(&path, PROVENANCE_ATTRIBUTE, found.len() - 1),
                Err(Errno::RANGE)
            );
            let json: Value = serde_json::from_slice(&found).unwrap();
            kinds.push(json["kind"].as_str().unwrap().to_owned());
        }
        for expected in ["source_file", "made_by_the_plan"] {
            assert!(kinds.iter().any(|kind| kind == expected), "{kinds:?}");
        }
        let is_edited = kinds.iter().any(|kind| kind == "edited_config");
        assert_eq!(is_edited, matches!(kind, Kind::PatchedFp8));
    }
}

#[test]
fn there_are_no_other_extended_attributes_and_none_is_listed() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let path = fixture.mountpoint.join("README.md");
    for name in ["user.a", "user.ckptfs.provenance2", "security.capability"] {
        assert_eq!(get(&path, name, 100), Err(Errno::OPNOTSUPP), "{name}");
    }
    let directory = get(&fixture.mountpoint, PROVENANCE_ATTRIBUTE, 100);
    assert_eq!(directory, Err(Errno::NODATA));
    for _ in 0..2 {
        let listed = rustix::fs::listxattr(&path, &mut [0; 100][..]);
        assert_eq!(listed, Err(Errno::OPNOTSUPP));
    }
    // It is also there after a program was told that another is not.
    assert!(get(&path, PROVENANCE_ATTRIBUTE, 64 << 10).is_ok());
}

#[test]
fn a_copy_with_all_attributes_has_no_extended_ones() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let copy = fixture.path("copy");
    let mut cp = std::process::Command::new("cp");
    let output = cp.arg("-a").arg(&fixture.mountpoint).arg(&copy).output();
    assert!(output.unwrap().status.success());
    let listed = rustix::fs::listxattr(copy.join("README.md"), &mut [0; 100][..]);
    assert_eq!(listed, Ok(0));
}

#[test]
fn who_may_not_read_a_file_may_not_see_its_provenance() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    let mode = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap()
    };
    mode(&fixture.path(""), 0o755);
    mode(&fixture.base.join("README.md"), 0o600);
    fixture.mount(Kind::Patched, &["--allow-other"]);
    let sees = |name: &str| {
        let path = fixture.mountpoint.join(name);
        let as_nobody = std::thread::spawn(move || {
            // SAFETY: it changes nothing but whose permissions this thread has.
            unsafe { libc::setfsuid(65534) };
            get(&path, PROVENANCE_ATTRIBUTE, 64 << 10)
        });
        as_nobody.join().unwrap().map(|_| ())
    };
    assert_eq!(sees("config.json"), Ok(()));
    assert_eq!(sees("README.md"), Err(Errno::ACCESS));
}
