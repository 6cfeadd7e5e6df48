//! No more memory, no more threads: errors, and no mount that nobody serves.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::recipe::ViewRequest;
use memmap2::{Advice, Mmap};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

use crate::common::checkpoint::CONFIG;
use crate::common::safetensors_file::with_length;
use crate::fixture::{
    Fixture, Kind, assert_refused, assert_same, ckptfs, eventually, read_tree, stderr,
};

const LARGE: &str = "model.layers.0.self_attn.q_proj.weight";
const SMALL: &str = "model.layers.0.self_attn.k_proj.weight";

/// A checkpoint of zeros, in which the only tile of one tensor is made of 128 MiB.
fn write_large(fixture: &Fixture) -> PathBuf {
    let directory = fixture.path("large");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    let large = 4 * 128 * (256 << 10);
    let all = large + 4 * 128 * 128;
    let entry = |columns: u32, span: [u64; 2]| json!({"dtype": "F32", "shape": [128, columns], "data_offsets": span});
    let header = json!({LARGE: entry(256 << 10, [0, large]), SMALL: entry(128, [large, all])});
    let header = with_length(&header.to_string());
    let shard = directory.join("model.safetensors");
    fs::write(&shard, &header).unwrap();
    let file = File::options().write(true).open(shard).unwrap();
    file.set_len(header.len() as u64 + all).unwrap();
    directory
}

/// The bytes of address space that a process has now.
fn address_space(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

fn limit_address_space(process: Pid, most: Option<u64>) {
    let limit = Rlimit {
        current: most,
        maximum: None,
    };
    rustix::process::prlimit(Some(process), Resource::As, limit).unwrap();
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_tile_that_there_is_no_memory_for_gives_eio_until_there_is_and_all_else_is_served() {
    let fixture = Fixture::new();
    let base = write_large(&fixture);
    let log = fixture.path("log");
    let mut command = ckptfs("mount");
    command.arg("--fp8").arg("--base").arg(&base);
    command.arg("--log-file").arg(&log).arg(&fixture.mountpoint);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));

    let request = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let plan = request.plan().unwrap();
    let shard = &plan.shards[0];
    let offset = |name: &str| {
        let tensor = shard.tensors.iter().find(|t| *t.name == *name);
        tensor.unwrap().offset
    };
    let file = File::open(fixture.mountpoint.join(&shard.name)).unwrap();
    let mut bytes = [0xAA; 4096];

    let server = fixture.serving_process();
    limit_address_space(server, Some(address_space(server) + (8 << 20)));
    let large = offset(LARGE).next_multiple_of(4096);
    for _ in 0..3 {
        assert_eq!(errno(file.read_at(&mut bytes, large)), Some(libc::EIO));
    }
    // SAFETY: nothing writes to a view.
    let mapping = unsafe { Mmap::map(&file) }.unwrap();
    // EFAULT stands for SIGBUS. An ENOMEM would have the kernel ask for ever.
    let populated = mapping.advise_range(Advice::PopulateRead, large as usize, 4096);
    assert_eq!(errno(populated), Some(libc::EFAULT));
    file.read_exact_at(&mut bytes, offset(SMALL)).unwrap();
    assert_eq!(bytes, [0; 4096]);
    eventually("the log tells of the lack", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("no memory for a buffer of 134217728 bytes")
    });

    limit_address_space(server, None);
    bytes.fill(0xAA);
    file.read_exact_at(&mut bytes, large).unwrap();
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn a_mount_that_there_is_no_memory_for_is_refused_and_any_other_gives_all_bytes() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::PatchedFp8);
    let mut mounted = Vec::new();
    for most in (160_000_000..=600_000_000_u64).step_by(20_000_000) {
        let output = Command::new("prlimit")
            .arg(format!("--as={most}"))
            .args([env!("CARGO_BIN_EXE_ckptfs"), "mount", "--threads", "4"])
            .args(fixture.flags(Kind::PatchedFp8))
            .arg(&fixture.mountpoint)
            .output()
            .unwrap();
        mounted.push(output.status.success());
        if output.status.success() {
            assert_same(&read_tree(&fixture.mountpoint), &expected);
            let output = fixture.unmount(&[]);
            assert!(output.status.success(), "{}", stderr(&output));
        } else {
            assert_refused(&output, &["cannot start the 4 threads", "--threads"]);
            assert!(!fixture.is_mounted());
        }
    }
    // What suffices, suffices with more.
    assert!(mounted.is_sorted(), "{mounted:?}");
    assert!(!mounted[0] && mounted.ends_with(&[true]), "{mounted:?}");
}

#[test]
fn a_mount_that_there_are_no_threads_for_is_refused_and_none_is_left() {
    /// In a mount namespace of its own, where everybody may open the FUSE device, as users of
    /// whom there are no other processes. The limit counts the processes and threads of a user.
    const SCRIPT: &str = r#"
        set -eu
        mountpoint=$1 device=$2 ckptfs=$3 user=$4; shift 4
        mount -t tmpfs none "$device"
        mknod "$device/fuse" c 10 229
        chmod 666 "$device/fuse"
        mount --bind "$device/fuse" /dev/fuse
        cp /etc/passwd "$device/passwd"
        mount --bind "$device/passwd" /etc/passwd
        trap 'umount --lazy "$mountpoint" 2>/dev/null || true' EXIT
        for limit in $(seq 1 14); do
            user=$((user + 1))
            echo "user$limit:x:$user:$user::/:/bin/sh" >>"$device/passwd"
            chown "$user" "$mountpoint"
            as_user="setpriv --reuid $user --regid $user --clear-groups"
            if timeout 60 $as_user prlimit --nproc="$limit" \
                "$ckptfs" mount --threads 2 "$@" "$mountpoint" >"$device/said" 2>&1
            then
                $as_user cat "$mountpoint/config.json" >"$device/read"
                umount "$mountpoint"
                echo "$limit: mounted"
            else
                if mountpoint -q "$mountpoint"; then echo "$limit: still mounted" >&2; exit 1; fi
                grep -q '^ckptfs: ' "$device/said" || { cat "$device/said" >&2; exit 1; }
                echo "$limit: refused: $(tail -n 1 "$device/said")"
            fi
        done
    "#;
    let fixture = Fixture::new();
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(fixture.path(""), everybody).unwrap();
    let [device, program] = ["device", "ckptfs"].map(|name| fixture.path(name));
    fs::create_dir(&device).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_ckptfs"), &program).unwrap();
    let user = 1_000_000 + 100 * std::process::id();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args([&fixture.mountpoint, &device, &program])
        .arg(user.to_string())
        .args(fixture.flags(Kind::PatchedFp8))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", stderr(&output));
    assert!(said.starts_with("1: refused: "), "{said}");
    assert!(said.ends_with("14: mounted\n"), "{said}");
}
