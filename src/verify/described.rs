//! Whether the parts of the model that config.json describes are there.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::{CONFIG_FILE, Config, Parts};
use crate::error::Result;
use crate::findings::Faults;
use crate::source::{Blob, LocalFile};
use crate::verify::shard_file::ShardFile;

/// Warns of layers and modalities that config.json in `directory` describes and no tensor of `shards`
/// belongs to. A config.json that cannot be read is none here.
pub(super) fn check(directory: &Path, shards: &[ShardFile], faults: &mut Faults) {
    let read = || -> Result<Config> {
        let file = LocalFile::new(directory.join(CONFIG_FILE))?;
        let text = file.read_all(Config::MAX_BYTES)?;
        Config::parse(&text, Arc::new(file))
    };
    let names = shards.iter().flat_map(|shard| shard.header.keys());
    if let Ok(config) = read() {
        let parts = Parts::from_names(names.map(|name| &**name));
        let missing = parts.missing_layers(&config).into_iter();
        for missing in missing.chain(parts.missing_modalities(&config)) {
            faults.warnings.add_warning(missing);
        }
    }
}
