//! Any text as `model.safetensors.index.json`.
#![no_main]

use std::path::Path;

use ckptfs::source::Index;
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let path = Path::new("model.safetensors.index.json");
    match bounded(text.len(), 16 << 10, 100, || Index::parse(text, path)) {
        Ok(index) => {
            // Another parser agrees that these are the names, all of them and in this order.
            let whole: Value = serde_json::from_slice(text).unwrap_or_default();
            for (tensor, shard) in &index.weight_map.0 {
                assert!(Path::new(shard).file_name() == Some(shard.as_ref()));
                if let Some(map) = whole.get("weight_map") {
                    assert_eq!(map[tensor], Value::from(shard.as_str()));
                }
            }
            if let Some(map) = whole.get("weight_map").and_then(Value::as_object) {
                assert!(map.keys().eq(index.weight_map.0.keys()));
            }
        }
        Err(error) => assert!(error.to_string().contains("model.safetensors.index.json")),
    }
});
