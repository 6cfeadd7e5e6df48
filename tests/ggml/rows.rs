//! Encodes or decodes rows from stdin to stdout, for tests of other languages.
//!
//!     ggml_rows encode|decode TYPE COLUMNS [WEIGHTS]
//!
//! f32 are little-endian. WEIGHTS is a file of one f32 for each column. `CKPTFS_DISABLE` switches CPU
//! paths off, as it does for the program.

use std::error::Error;
use std::io::{Read, Write};

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Type, decode_row, encode_row};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (arguments, weights) = match &arguments[..] {
        [first @ .., weights] if first.len() == 3 => (first, Some(f32s(&std::fs::read(weights)?))),
        all => (all, None),
    };
    let [direction, kind, columns] = arguments else {
        return Err("usage: ggml_rows encode|decode TYPE COLUMNS [WEIGHTS]".into());
    };
    let kind = Type::from_name(kind).ok_or("unknown type")?;
    let columns: usize = columns.parse()?;
    let row_bytes = kind
        .row_bytes(columns)
        .ok_or("not a whole number of blocks")?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let path = CpuPath::best();
    let mut output = Vec::new();
    if direction == "encode" {
        let mut blocks = vec![0; row_bytes];
        for (at, row) in f32s(&input).chunks_exact(columns).enumerate() {
            encode_row(kind, row, weights.as_deref(), &mut blocks, path)
                .map_err(|problem| format!("row {at}: {problem:?}"))?;
            output.extend_from_slice(&blocks);
        }
    } else {
        let mut row = vec![0.0; columns];
        for blocks in input.chunks_exact(row_bytes) {
            decode_row(kind, blocks, &mut row, path);
            output.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        }
    }
    std::io::stdout().write_all(&output)?;
    Ok(())
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.as_chunks().0.iter();
    elements.map(|x| f32::from_le_bytes(*x)).collect()
}
