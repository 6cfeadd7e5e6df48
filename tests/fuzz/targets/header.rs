//! Any text as the header of a safetensors file. The first two bytes say how much longer the file
//! is, unless they are 0: then it is as long as the safetensors crate says it must be.
#![no_main]

use std::path::Path;

use ckptfs::format::safetensors::{data_start, parse_header};
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;
use safetensors::tensor::Metadata;

fuzz_target!(|input: &[u8]| {
    let Some((&[low, high], json)) = input.split_first_chunk::<2>() else {
        return;
    };
    let start = data_start(json.len() as u64);
    let metadata = serde_json::from_slice::<Metadata>(json).ok();
    let data_len = match (u16::from_le_bytes([low, high]), &metadata) {
        (0, Some(metadata)) => metadata.data_len() as u64,
        (len, _) => u64::from(len),
    };
    let Some(file_len) = start.checked_add(data_len) else {
        return;
    };
    let path = Path::new("model.safetensors");
    let parsed = bounded(json.len(), 16 << 10, 200, || {
        parse_header(json, file_len, path)
    });
    match parsed {
        Ok(tensors) => {
            let metadata = metadata.expect("what is accepted here is accepted there");
            assert_eq!(tensors.len(), metadata.offset_keys().len());
            let mut at = start;
            for (name, tensor) in &tensors {
                assert_eq!(tensor.offset, at, "no holes, no overlaps, in order");
                at += tensor.len;
                let theirs = metadata.info(name).expect("both have the same names");
                assert_eq!(theirs.dtype, tensor.dtype);
                assert!(
                    theirs
                        .shape
                        .iter()
                        .map(|&d| d as u64)
                        .eq(tensor.shape.iter().copied())
                );
            }
            assert_eq!(at, file_len);
        }
        Err(error) => assert!(error.to_string().contains("model.safetensors")),
    }
});
