//! The older form, which most people call `imatrix.dat`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::matrix::{Columns, Imatrix, bad, shard};
use crate::error::Result;
use crate::format::StoredTensor;
use crate::format::gguf::{Cursor, MAX_NAME_BYTES};
use crate::source::Blob;
use crate::tensor::{Dtype, Name};

/// Bytes that a matrix takes at least: three numbers, and the sum of one column.
const MIN_MATRIX_BYTES: u64 = 16;

pub(super) fn read(file: Arc<dyn Blob>) -> Result<Imatrix> {
    let mut cursor = Cursor::of_any_length(&*file);
    let count = number(&mut cursor, "the number of matrices")?;
    let fits = |count: &u64| {
        let least = count.saturating_mul(MIN_MATRIX_BYTES);
        *count > 0 && least <= cursor.remaining()
    };
    let Some(count) = u64::try_from(count).ok().filter(fits) else {
        let problem = "it is neither GGUF nor in the older form of such files";
        return Err(bad(&*file, problem));
    };
    let mut tensors: IndexMap<Name, StoredTensor> = IndexMap::new();
    let mut matrices = IndexMap::new();
    for _ in 0..count {
        let len = number(&mut cursor, "the length of a name")?;
        let len = u64::try_from(len).ok();
        let Some(len) = len.filter(|len| (1..=MAX_NAME_BYTES as u64).contains(len)) else {
            let problem = format!("a name has 1 to {MAX_NAME_BYTES} bytes, and one has not");
            return Err(bad(&*file, problem));
        };
        let name = until_zero(cursor.take(len, "a name")?);
        let Ok(name) = std::str::from_utf8(name).map(Name::from) else {
            return Err(bad(&*file, "a name is not UTF-8"));
        };
        let calls = number(&mut cursor, "a number of calls")?;
        let columns = number(&mut cursor, "a number of columns")?;
        let Some(columns) = u64::try_from(columns).ok().filter(|columns| *columns > 0) else {
            let problem = format!("it has {columns} columns");
            return Err(bad(&*file, problem).about_tensor(&name));
        };
        let offset = cursor.position();
        cursor.skip(4 * columns, "sums of columns")?;
        // Of a name that is there twice, the last counts. Its place is moved, as tensors are in the order of
        // their offsets.
        tensors.shift_remove(&name);
        let stored = StoredTensor::contiguous(Dtype::F32, [columns], offset, 4 * columns);
        tensors.insert(name.clone(), stored);
        let counts = Arc::from([if calls > 0 { calls as f32 } else { 1.0 }]);
        let sums = name.clone();
        matrices.insert(name, Columns { sums, counts });
    }
    let (dataset, chunks) = data(&mut cursor)?;
    Ok(Imatrix {
        shard: shard(file.clone(), tensors),
        matrices,
        dataset,
        chunks,
    })
}

/// What follows the matrices, as far as it is there.
fn data(cursor: &mut Cursor) -> Result<(Option<String>, Option<u32>)> {
    if cursor.remaining() < 4 {
        return Ok((None, None));
    }
    let chunks = u32::try_from(number(cursor, "the number of chunks")?).ok();
    if cursor.remaining() < 4 {
        return Ok((None, chunks));
    }
    let len = number(cursor, "the length of the data's name")?;
    let len = u64::try_from(len).unwrap_or_default();
    if len == 0 || len > cursor.remaining() {
        return Ok((None, chunks));
    }
    let name = until_zero(cursor.take(len, "the data's name")?);
    Ok((Some(String::from_utf8_lossy(name).into_owned()), chunks))
}

fn number(cursor: &mut Cursor, what: &str) -> Result<i32> {
    Ok(cursor.u32(what)?.cast_signed())
}

/// C ends a text so.
fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}
