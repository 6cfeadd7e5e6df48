//! Shards with an index, or one file without, in Hugging Face layout.

use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::{CONFIG_FILE, Catalog, EditedConfig, Extents};
use crate::error::Result;
use crate::format::OUTPUT;
use crate::jobs;
use crate::layout::attributes::{SYNTHESIZED_MODE, attributes, mode_for, newest_source};
use crate::layout::costs::costs;
use crate::layout::partition::{Shards, groups, in_units, names};
use crate::layout::plan::{Plan, PlannedShard};
use crate::layout::shard_file::{self, ShardFile};
use crate::source::Attributes;
use crate::view::{TopFile, View};

/// Lays `catalog` out in shards of at most `shard_bytes` tensor bytes, where they are packed.
///
/// # Errors
/// If a file cannot be made, for example because its header would be too long.
pub fn shards(mut catalog: Catalog, shards: Shards, shard_bytes: u64) -> Result<Plan> {
    let units = in_units(&catalog.tensors);
    let groups = groups(&catalog, &units, shards, shard_bytes);
    let named: Vec<_> = names(&groups, shards)?.into_iter().zip(&groups).collect();
    let newest = newest_source(&catalog);
    let built = jobs::map(&named, jobs::processors(), |(name, group)| {
        shard_file::build(name, &group.tensors, &catalog.sources, &shards.advice())
    })?;
    let costs = costs(&catalog, &units, (shards, &groups), shard_bytes);
    let mut files = Vec::with_capacity(named.len() + 2);
    let mut planned = Vec::with_capacity(named.len());
    for ((name, _), ShardFile { content, tensors }) in named.into_iter().zip(built) {
        planned.push(PlannedShard {
            name: name.clone(),
            entry: View::ROOT, // set once the view is built
            len: content.len(),
            whole_file: content
                .whole_file()
                .map(|blob| blob.location().to_path_buf()),
            tensors,
        });
        files.push(TopFile {
            name: name.into(),
            attributes: attributes(&content, catalog.attributes, newest),
            content,
        });
    }
    if shards != Shards::Single {
        let name = OUTPUT.index_file();
        files.push(synthesized(name, index(&planned), &catalog, newest));
    }
    if let Some(config) = &catalog.config
        && !config.edits().is_empty()
    {
        if let Some(text) = config.edited_text() {
            let mut file = synthesized(CONFIG_FILE, text.into_bytes(), &catalog, newest);
            file.attributes.mode &= mode_for(catalog.attributes, config.file().attributes());
            files.push(file);
        }
        catalog.report.edited_config = Some(EditedConfig {
            from: config.path().to_owned(),
            edits: config.edits().clone(),
        });
    }
    let view = View::new(catalog.attributes, files, &catalog.aux);
    let index = match shards {
        Shards::Single => None,
        _ => view.lookup(View::ROOT, OUTPUT.index_file().as_ref()),
    };
    for shard in &mut planned {
        shard.entry = view
            .lookup(View::ROOT, shard.name.as_ref())
            .expect("the view was built with this file");
    }
    Ok(Plan {
        view: Arc::new(view),
        shards: planned,
        index,
        costs,
        sources: catalog.sources,
        report: catalog.report,
    })
}

/// The positions of the tensors of `catalog` in the order in which readers of the same view meet them who read
/// shards by their names, and the tensors of each by theirs.
///
/// # Errors
/// If there would be more shards than names can number.
pub fn in_order(catalog: &Catalog, shards: Shards, shard_bytes: u64) -> Result<Vec<usize>> {
    let units = in_units(&catalog.tensors);
    let groups = groups(catalog, &units, shards, shard_bytes);
    let files = names(&groups, shards)?;
    let mut named: Vec<(&str, &str)> = Vec::with_capacity(catalog.tensors.len());
    for (file, group) in files.iter().zip(&groups) {
        named.extend(group.tensors.iter().map(|(name, _)| (&**file, &***name)));
    }
    named.sort_unstable();
    let position = |(_, name): (&str, &str)| catalog.tensors.get_index_of(name);
    Ok(named.into_iter().filter_map(position).collect())
}

/// The text of the index of `shards`.
fn index(shards: &[PlannedShard]) -> Vec<u8> {
    OUTPUT.index(shards.iter().flat_map(|shard| {
        let tensors = shard.tensors.iter();
        tensors.map(|tensor| (&tensor.name, &*shard.name, tensor.len))
    }))
}

fn synthesized(name: &str, text: Vec<u8>, catalog: &Catalog, mtime: SystemTime) -> TopFile {
    TopFile {
        name: name.into(),
        attributes: Attributes {
            mode: SYNTHESIZED_MODE,
            mtime,
            ..catalog.attributes
        },
        content: Extents::made(text),
    }
}
