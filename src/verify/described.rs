//! Whether the parts of the model that config.json describes are there.

use crate::catalog::{CONFIG_FILE, Config, Parts};
use crate::error::Result;
use crate::findings::Faults;
use crate::verify::place::Place;
use crate::verify::shard_file::ShardFile;

/// Warns of layers and modalities that config.json in `place` describes and no tensor of `shards`
/// belongs to. A config.json that cannot be read is none here.
pub(super) fn check(place: &Place, shards: &[ShardFile], faults: &mut Faults) {
    let read = || -> Result<Config> {
        let file = place.blob(CONFIG_FILE)?;
        let text = file.read_all(Config::MAX_BYTES)?;
        Config::parse(&text, file)
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
