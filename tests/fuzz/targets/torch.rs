//! Files of torch. The first byte says what the rest is: any file as pytorch_model.bin, or any pickle, in an archive
//! that is right, as what a legacy file has saved, or as the `.metadata` of a training checkpoint. What can be planned has
//! the same bytes however it is read.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use ckptfs::recipe::ViewRequest;
use ckptfs_fuzz::DIRECTORY;
use ckptfs_fuzz::memory::bounded;
use ckptfs_fuzz::reading::read;
use ckptfs_fuzz::torch_file::{TENSOR, archive, legacy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let base = DIRECTORY.path().join("torch");
        fs::create_dir(&base).expect("the directory can be made");
        base
    });
    static TRAINING: LazyLock<PathBuf> = LazyLock::new(|| {
        let base = DIRECTORY.path().join("training");
        fs::create_dir(&base).expect("the directory can be made");
        fs::write(base.join("__0_0.distcp"), archive(TENSOR)).expect("the file can be written");
        fs::write(base.join("config.json"), "{}").expect("the file can be written");
        base
    });
    let Some((&form, rest)) = input.split_first() else {
        return;
    };
    if form == b'm' {
        fs::write(TRAINING.join(".metadata"), rest).expect("the file can be written");
        bounded(rest.len(), 32 << 20, 400, || {
            if let Ok(plan) = ViewRequest::new(&*TRAINING).plan() {
                read(&plan);
            }
        });
        return;
    }
    let bytes = match form {
        b'p' => archive(rest),
        b'l' => legacy(rest),
        _ => rest.to_vec(),
    };
    fs::write(BASE.join("pytorch_model.bin"), &bytes).expect("the file can be written");
    // A pickle is read in pieces of 64 KiB, and so is the end of an archive; what is planned and read takes more.
    bounded(bytes.len(), 32 << 20, 400, || match ViewRequest::new(&*BASE).plan() {
        Ok(plan) => read(&plan),
        Err(error) => assert!(error.to_string().contains("torch"), "{error}"),
    });
});
