//! A mount made in one container and read in another, as docs/kubernetes has it: a sidecar that
//! shares its mounts with the node, readers that get those of the node.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, Kind, assert_same, read_tree, stderr};

/// A mount namespace for the node; in it, one for the sidecar (Bidirectional), one for a reader
/// that is there before it, and one for a reader that comes later (HostToContainer).
const SCRIPT: &str = r#"
    set -eu
    work=$1 ckptfs=$2 copies=$3; shift 3
    mount -t tmpfs none "$work"
    mkdir "$work/volume" "$work/sidecar" "$work/reader"
    mount --bind "$work/volume" "$work/volume"
    mount --make-shared "$work/volume"
    trap 'kill -KILL $sidecar $early $late 2>/dev/null || true' EXIT
    sidecar= early= late=

    start_sidecar() {
        unshare --mount --propagation unchanged sh -c '
            work=$1; shift
            mount --rbind "$work/volume" "$work/sidecar"
            mkdir -p "$work/sidecar/model"
            exec "$@" "$work/sidecar/model"
        ' sh "$work" "$ckptfs" mount --foreground --allow-other "$@" 2>>"$copies/log" &
        sidecar=$!
    }
    start_reader() {
        unshare --mount --propagation slave sh -c '
            mount --rbind "$1/volume" "$1/reader"
            exec sleep infinity
        ' sh "$work" &
        reader=$!
        until in_reader mountpoint -q "$work/reader"; do kill -0 $reader; done
    }
    in_reader() { nsenter --mount --target $reader "$@"; }
    until_served() {
        until in_reader cp "$work/reader/model/config.json" /dev/null 2>/dev/null; do
            kill -0 $sidecar
            sleep 0.02
        done
    }

    start_reader; early=$reader
    start_sidecar "$@"
    until_served
    in_reader cp -r "$work/reader/model" "$copies/early"
    start_reader; late=$reader
    in_reader cp -r "$work/reader/model" "$copies/late"

    # Killed and started again: readers see the new mount.
    kill -KILL $sidecar
    wait $sidecar || true
    if in_reader cp "$work/reader/model/config.json" /dev/null 2>/dev/null; then exit 3; fi
    start_sidecar "$@"
    until_served
    in_reader cp -r "$work/reader/model" "$copies/again"

    # preStop: gone everywhere, and the node can remove the volume.
    nsenter --mount --target $sidecar "$ckptfs" unmount --lazy "$work/sidecar/model"
    wait $sidecar
    for reader in $early $late; do
        if in_reader mountpoint -q "$work/reader/model"; then exit 4; fi
    done
    rmdir "$work/volume/model"
"#;

#[test]
fn readers_in_other_containers_see_what_a_sidecar_mounts() {
    let fixture = Fixture::new();
    let (work, copies) = (fixture.path("work"), fixture.path("copies"));
    fs::create_dir(&work).unwrap();
    fs::create_dir(&copies).unwrap();
    let mut node = Command::new("unshare");
    node.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
    node.arg(work)
        .arg(env!("CARGO_BIN_EXE_ckptfs"))
        .arg(&copies);
    let output = node.args(fixture.flags(Kind::PatchedFp8)).output().unwrap();
    let log = fs::read_to_string(copies.join("log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", stderr(&output));
    let expected = fixture.expected(Kind::PatchedFp8);
    for copy in ["early", "late", "again"] {
        assert_same(&read_tree(&copies.join(copy)), &expected);
    }
}
