//! Any text as `model.safetensors.index.json`.
#![no_main]

use std::path::Path;

use ckptfs::format::{Index, WeightMap};
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let path = Path::new("model.safetensors.index.json");
    match bounded(text.len(), 16 << 10, 100, || Index::parse(text, path)) {
        Ok(index) => {
            // Another parser agrees that these are the names, all of them and in this order.
            let whole: Value = serde_json::from_slice(text).unwrap_or_default();
            let WeightMap { tensors, shards } = &index.weight_map;
            for shard in shards {
                assert!(Path::new(shard).file_name() == Some(shard.as_ref()));
            }
            if let Some(map) = whole.get("weight_map").and_then(Value::as_object) {
                let entries = map
                    .iter()
                    .map(|(tensor, shard)| (&**tensor, shard.as_str()));
                let named = tensors.iter();
                assert!(
                    entries.eq(named.map(|(tensor, &shard)| (&**tensor, Some(&*shards[shard]))))
                );
            }
        }
        Err(error) => assert!(error.to_string().contains("model.safetensors.index.json")),
    }
});
