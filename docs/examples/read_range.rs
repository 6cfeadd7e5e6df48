//! Plans a view and reads a range of one of its files, without a mount and without writing anything.
//!
//!     cargo run --example read_range -- BASE FILE OFFSET LENGTH
//!
//! The view is BASE as it is in new shards of at most 1 GiB. Names, sizes and shards are known once it
//! is planned; only the bytes asked for are read.

use std::error::Error;
use std::path::Path;

use ckptfs::read::Reader;
use ckptfs::recipe::{Shards, ViewRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, file, offset, length] = &arguments[..] else {
        return Err("usage: read_range BASE FILE OFFSET LENGTH".into());
    };
    let bytes = read_range(
        base.as_ref(),
        file.as_ref(),
        offset.parse()?,
        length.parse()?,
    )?;
    println!("{bytes:02x?}");
    Ok(())
}

pub(crate) fn read_range(
    base: &Path,
    file: &Path,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let request = ViewRequest {
        shards: Some(Shards::Repack),
        shard_bytes: 1 << 30,
        ..ViewRequest::new(base)
    };
    let plan = request.plan()?;
    for shard in &plan.shards {
        println!(
            "{}: {} tensors, {} bytes",
            shard.name,
            shard.tensors.len(),
            shard.len
        );
    }

    let mut files = plan.view.files();
    let (entry, ..) = files
        .find(|(_, path, _)| path == file)
        .ok_or_else(|| format!("the view has no file {}", file.display()))?;
    // At most 64 MiB of computed tiles are kept; this view computes none.
    let reader = Reader::new(plan.view.clone(), 64 << 20);
    let mut bytes = vec![0; length];
    let count = reader.read_at(entry, offset, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}
