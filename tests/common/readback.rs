//! Reading a view's files whole, and what must be true of every file that is a shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ckptfs::read::Reader;
use ckptfs::recipe::Plan;
use safetensors::SafeTensors;
use serde_json::Value;

use super::checkpoint::TensorData;
use super::values::bits;

/// Enough for every view of these tests.
const CACHE_BYTES: usize = 16 << 20;

/// A reader of the plan's view.
pub(crate) fn reader(plan: &Plan) -> Reader {
    Reader::new(plan.view.clone(), CACHE_BYTES)
}

/// Every file of the view, read in one call each.
pub(crate) fn read_all(plan: &Plan) -> BTreeMap<PathBuf, Vec<u8>> {
    let reader = reader(plan);
    let files = plan.view.files();
    files
        .map(|(id, path, content)| {
            let bytes =
                read_file(&reader, id).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(bytes.len() as u64, content.len());
            (path, bytes)
        })
        .collect()
}

/// The whole of one file.
pub(crate) fn read_file(reader: &Reader, id: usize) -> ckptfs::Result<Vec<u8>> {
    let len = reader.view().file(id).expect("a file").len() as usize;
    let mut bytes = vec![0xAA; len];
    let count = reader.read_at(id, 0, &mut bytes)?;
    assert_eq!(count, len, "a whole read gives the whole file");
    Ok(bytes)
}

/// The file at `path`, read whole.
pub(crate) fn read_path(plan: &Plan, path: impl AsRef<Path>) -> Option<Vec<u8>> {
    let mut files = plan.view.files();
    let (id, _, _) = files.find(|(_, at, _)| at == path.as_ref())?;
    Some(read_file(&reader(plan), id).unwrap())
}

/// Every tensor of the view's shards, read through the files.
pub(crate) fn tensors(plan: &Plan) -> BTreeMap<String, TensorData> {
    let reader = reader(plan);
    let shards = plan.shards.iter();
    shards
        .flat_map(|shard| parse(&read_file(&reader, shard.entry).unwrap()))
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect()
}

/// The tensors of a safetensors file.
pub(crate) fn parse(file: &[u8]) -> Vec<TensorData> {
    let parsed = SafeTensors::deserialize(file).expect("a valid safetensors file");
    let tensors = parsed.iter();
    tensors
        .map(|(name, t)| TensorData::new(name, t.dtype(), t.shape(), t.data().to_vec()))
        .collect()
}

/// The bytes of the tensor `name`, read alone.
pub(crate) fn read_tensor(plan: &Plan, reader: &Reader, name: &str) -> ckptfs::Result<Vec<u8>> {
    let (entry, tensor) = plan
        .shards
        .iter()
        .flat_map(|shard| shard.tensors.iter().map(|tensor| (shard.entry, tensor)))
        .find(|(_, tensor)| *tensor.name == *name)
        .unwrap_or_else(|| panic!("the view has no {name}"));
    let mut bytes = vec![0xAA; tensor.len as usize];
    let count = reader.read_at(entry, tensor.offset, &mut bytes)?;
    assert_eq!(count, bytes.len());
    Ok(bytes)
}

/// Asserts the layout of a shard that the view makes.
pub(crate) fn assert_new_shard(name: &str, file: &[u8]) {
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let data_start = 8 + header_len;
    assert_eq!(data_start % 4096, 0, "{name}: data starts at {data_start}");
    let header = std::str::from_utf8(&file[8..data_start]).unwrap();
    assert!(header.starts_with('{'), "{name}: the header is JSON");
    let json: Value = serde_json::from_str(header.trim_end_matches(' ')).unwrap();
    let mut json = json.as_object().unwrap().clone();
    let metadata = json.shift_remove("__metadata__");
    assert_eq!(
        metadata,
        Some(serde_json::json!({"format": "pt"})),
        "{name}"
    );

    let mut end = 0;
    for (tensor, entry) in &json {
        let [start, stop] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
        assert_eq!(
            start, end,
            "{name}: {tensor} starts where the one before ends"
        );
        end = stop;
    }
    assert_eq!(
        data_start + end,
        file.len(),
        "{name}: the last JSON entry ends the file"
    );

    let tensors = SafeTensors::deserialize(file).unwrap();
    let data = tensors
        .iter()
        .map(|(name, t)| (name, t.data().len()))
        .collect::<BTreeMap<_, _>>();
    let order: Vec<&str> = json.keys().map(String::as_str).collect();
    let ragged_from = order.iter().position(|tensor| data[tensor] % 8 != 0);
    let (even, ragged) = order.split_at(ragged_from.unwrap_or(order.len()));
    assert!(even.is_sorted(), "{name}: not in name order: {even:?}");
    assert!(
        ragged.iter().all(|tensor| data[tensor] % 8 != 0),
        "{name}: not last: {ragged:?}"
    );
    for (tensor, entry) in &json {
        let start = entry["data_offsets"][0].as_u64().unwrap() as usize;
        let dtype = tensors.tensor(tensor).unwrap().dtype();
        let align = (bits(dtype) / 8).max(1);
        assert_eq!(start % align, 0, "{name}: {tensor} is not aligned");
    }
}
