//! Any bytes as a GGUF file. What is read is written, and read again as the same. The same bytes as an importance
//! matrix: what is read of it lies in the file.
#![no_main]

use std::sync::Arc;

use ckptfs::format::gguf::{NewTensor, pack, read_header};
use ckptfs::format::{Part, imatrix};
use ckptfs_fuzz::bytes::Bytes;
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;

/// Where padding would take more memory than the fuzzer has.
const MOST_ALIGNMENT: u64 = 1 << 16;

fuzz_target!(|input: &[u8]| {
    as_imatrix(input);
    let file = Bytes::new("model.gguf", input);
    let header = match bounded(input.len(), 16 << 10, 200, || read_header(&file)) {
        Ok(header) => header,
        Err(error) => {
            assert!(error.to_string().contains("model.gguf"));
            return;
        }
    };
    let mut at = header.data_start;
    for tensor in header.tensors.values() {
        assert_eq!(tensor.offset, at, "no holes, no overlaps, in order");
        assert!(at + tensor.len <= input.len() as u64);
        at = (at + tensor.len).next_multiple_of(header.alignment);
    }
    if header.alignment > MOST_ALIGNMENT {
        return;
    }
    let tensors = header.tensors.iter().map(|(name, tensor)| NewTensor {
        name,
        tensor_type: tensor.tensor_type,
        shape: &tensor.shape,
    });
    let tensors: Vec<NewTensor> = tensors.collect();
    let parts = pack("model.gguf", &header.keys, &tensors).expect("what is read can be written");
    let mut written = Vec::new();
    for part in parts {
        match part {
            Part::Made(bytes) => written.extend(bytes),
            Part::Tensor(position) => {
                let tensor = &header.tensors[position];
                let start = tensor.offset as usize;
                written.extend(&input[start..start + tensor.len as usize]);
            }
        }
    }
    let again = read_header(&Bytes::new("model.gguf", &written)).expect("it is valid");
    // Numbers that are NaN are not equal to themselves.
    let texts = [&again.keys, &header.keys].map(|keys| format!("{keys:?}"));
    assert_eq!(texts[0], texts[1]);
    assert_eq!(again.tensors.len(), header.tensors.len());
});

fn as_imatrix(input: &[u8]) {
    let file = Arc::new(Bytes::new("imatrix.dat", input));
    let matrix = match bounded(input.len(), 16 << 10, 200, || imatrix::read(file)) {
        Ok(matrix) => matrix,
        Err(error) => {
            assert!(error.to_string().contains("imatrix.dat"));
            return;
        }
    };
    assert!(!matrix.matrices.is_empty());
    for (name, columns) in &matrix.matrices {
        let sums = &matrix.shard.tensors[&columns.sums];
        assert!(
            sums.len > 0 && sums.offset + sums.len <= input.len() as u64,
            "{name}"
        );
        assert!(
            (sums.len / 4).is_multiple_of(columns.counts.len() as u64),
            "{name}"
        );
        assert!(columns.counts.iter().all(|count| *count >= 0.0), "{name}");
    }
}
