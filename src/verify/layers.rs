//! Whether the layers are there that config.json describes.

use std::path::Path;

use crate::catalog::{CONFIG_FILE, Config, Parts};
use crate::error::Result;
use crate::source::SourceFile;
use crate::verify::findings::Faults;
use crate::verify::structure::ShardFile;

/// Warns of layers that config.json in `directory` describes and no tensor of `shards` belongs to. A
/// config.json that cannot be read is none here.
pub(super) fn check(directory: &Path, shards: &[ShardFile], faults: &mut Faults) {
    let read = || -> Result<Config> {
        let file = SourceFile::new(directory.join(CONFIG_FILE))?;
        let text = file.read_all(Config::MAX_BYTES)?;
        Config::parse(&text, file.into())
    };
    let names = shards.iter().flat_map(|shard| shard.header.keys());
    let missing = read().map(|config| Parts::of(names.map(|name| &**name)).missing_layers(&config));
    if let Ok(Some(missing)) = missing {
        faults.warnings.add(missing);
    }
}
