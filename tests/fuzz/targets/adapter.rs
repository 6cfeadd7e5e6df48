//! Any text as adapter_config.json, beside factors of every kind: what is wrong is told with the file
//! or the tensor, and what can be merged has the same bytes however it is read.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use ckptfs::ops::{LoraParams, LoraRequest, Operations};
use ckptfs::recipe::ViewRequest;
use ckptfs_fuzz::DIRECTORY;
use ckptfs_fuzz::memory::bounded;
use ckptfs_fuzz::models::{ADAPTERS, MODELS};
use ckptfs_fuzz::reading::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    static BASE: LazyLock<&Path> = LazyLock::new(|| &MODELS[0].1);
    for adapter in ADAPTERS.iter() {
        fs::write(adapter.join("adapter_config.json"), text).expect("the config can be written");
        let request = ViewRequest {
            operations: Operations {
                lora: LoraParams {
                    adapters: vec![LoraRequest {
                        adapter: adapter.into(),
                        weight: 1.0,
                    }],
                    ..LoraParams::default()
                },
                ..Operations::default()
            },
            ..ViewRequest::new(*BASE)
        };
        // Patterns for ranks are compiled, and tried on every layer.
        bounded(text.len(), 64 << 20, 16 << 10, || match request.plan() {
            Ok(plan) => read(&plan),
            Err(error) => {
                let error = error.to_string();
                let path = DIRECTORY.path().display().to_string();
                assert!(error.contains(&path), "{error}");
            }
        });
    }
});
